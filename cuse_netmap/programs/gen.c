/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * gen: sends UDP frames with sequence numbers, on all TX rings of a port, and ends when the last
 * one has left; how a frame looks is in frame.c.
 */
#include "frame.h"
#include "programs.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* At a given rate, frames go out at least this often; and a delay is made up for, but not one
 * longer than that. */
#define RATE_STEPS_PER_SECOND 1000
#define RATE_CATCH_UP_SECONDS 0.1

/* After ctrl-C, how long frames already in the rings may take. */
#define STOP_DRAIN_SECONDS 1.0

static option_reader read_length, read_batch, read_mac, read_endpoint;

static uint64_t count, length = FRAME_MIN, batch = 512, rate;

/* Addresses of RFC 2544's benchmark network, discard port; a locally administered MAC, broadcast.
 */
static struct frame_addresses addresses = {
    .source_mac = {0x02, 0, 0, 0, 0, 0x01},
    .destination_mac = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
    .source = {{198, 18, 0, 1}, 9},
    .destination = {{198, 18, 0, 2}, 9},
};

static const struct option_entry options[] = {
    {'n', "count", "COUNT", read_count, &count, "frames to send, 0 until ctrl-C (0)"},
    {'l', "length", "LENGTH", read_length, &length, "bytes of a frame, FCS not counted (60)"},
    {'b', "batch", "COUNT", read_batch, &batch, "most frames to hand over at a time (512)"},
    {'r', "rate", "PPS", read_count, &rate, "frames a second, 0 as fast as possible (0)"},
    {'s', "source-mac", "MAC", read_mac, addresses.source_mac, "(02:00:00:00:00:01)"},
    {'d', "destination-mac", "MAC", read_mac, addresses.destination_mac, "(ff:ff:ff:ff:ff:ff)"},
    {'S', "source", "IP:PORT", read_endpoint, &addresses.source, "(198.18.0.1:9)"},
    {'D', "destination", "IP:PORT", read_endpoint, &addresses.destination, "(198.18.0.2:9)"},
    {0},
};

static const char *read_length(const char *text, void *value) {
    const char *expected = read_count(text, value);
    uint64_t number = *(uint64_t *)value;
    return expected || number < FRAME_MIN || number > FRAME_MAX ? "bytes, 60 to 65535" : NULL;
}

static const char *read_batch(const char *text, void *value) {
    const char *expected = read_count(text, value);
    return expected || *(uint64_t *)value == 0 ? "a whole number, 1 or more" : NULL;
}

static const char *read_mac(const char *text, void *value) {
    unsigned int octet[6];
    int used = 0;
    if (strspn(text, "0123456789abcdefABCDEF:") != strlen(text) ||
        sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &octet[0], &octet[1], &octet[2], &octet[3],
               &octet[4], &octet[5], &used) != 6 ||
        text[used])
        return "six octets like 02:00:00:00:00:01";
    for (int i = 0; i < 6; i++)
        ((uint8_t *)value)[i] = (uint8_t)octet[i];
    return NULL;
}

static const char *read_endpoint(const char *text, void *value) {
    struct endpoint *endpoint = value;
    unsigned int octet[4], port;
    int used = 0;
    if (strspn(text, "0123456789.:") != strlen(text) ||
        sscanf(text, "%3u.%3u.%3u.%3u:%5u%n", &octet[0], &octet[1], &octet[2], &octet[3], &port,
               &used) != 5 ||
        text[used] || port > UINT16_MAX)
        return "an address and a port like 198.18.0.1:9";
    for (int i = 0; i < 4; i++) {
        if (octet[i] > UINT8_MAX) return "an address and a port like 198.18.0.1:9";
        endpoint->address[i] = (uint8_t)octet[i];
    }
    endpoint->port = (uint16_t)port;
    return NULL;
}

/* Fills free slots of all rings, at most budget frames. Returns how many. */
static uint64_t fill(struct nm_desc *port, const struct frame_template *frame, uint64_t sequence,
                     uint64_t budget) {
    struct netmap_ring *ring;
    uint64_t filled = 0;
    for (uint32_t i = port->first_tx_ring; (ring = tx_ring(port, &i)); i++) {
        uint32_t slot = ring->head, room = nm_ring_space(ring);
        for (; room > 0 && filled < budget; room--, filled++) {
            frame_write(frame, sequence + filled,
                        (uint8_t *)NETMAP_BUF(ring, ring->slot[slot].buf_idx));
            ring->slot[slot].len = frame->length;
            ring->slot[slot].flags &= NS_BUF_CHANGED;
            slot = nm_ring_next(ring, slot);
        }
        ring->head = ring->cur = slot;
    }
    return filled;
}

/* How many frames are due by now at the rate asked for; moves the start if there is too much to
 * catch up with. */
static uint64_t due(double *start, double now, uint64_t sent) {
    double behind = (now - *start) - (double)sent / (double)rate;
    if (behind > RATE_CATCH_UP_SECONDS) {
        *start += behind - RATE_CATCH_UP_SECONDS;
        behind = RATE_CATCH_UP_SECONDS;
    }
    return behind < 0 ? 0 : (uint64_t)(behind * (double)rate) + 1;
}

/* Frames of one step at the rate asked for: when that many are due, they go. */
static uint64_t step_frames(void) {
    uint64_t frames = rate / RATE_STEPS_PER_SECOND;
    return frames < 1 ? 1 : frames < batch ? frames : batch;
}

static bool send_frames(struct nm_desc *port, const struct frame_template *frame,
                        struct traffic *traffic) {
    double start = now_seconds();
    while (!stop_requests() && (count == 0 || traffic->packets < count)) {
        double now = now_seconds();
        uint64_t budget = batch, sent;
        if (rate > 0) {
            uint64_t frames = due(&start, now, traffic->packets);
            if (frames == 0) {
                sleep_until(start + (double)(traffic->packets + step_frames() - 1) / (double)rate);
                traffic_report(traffic, now_seconds());
                continue;
            }
            if (frames < budget) budget = frames;
        }
        if (count > 0 && count - traffic->packets < budget) budget = count - traffic->packets;
        sent = fill(port, frame, traffic->packets, budget);
        traffic_add(traffic, sent, sent * frame->length, now);
        traffic_report(traffic, now);
        if (rate > 0 && sent > 0) {
            if (ioctl(port->fd, NIOCTXSYNC) < 0) {
                complain("sending failed: %s; is the daemon still running?", strerror(errno));
                return false;
            }
        } else if (!wait_for(port, POLLOUT, now + 1)) { /* sends what is there, waits for room */
            return false;
        }
    }
    return true;
}

static int run(struct nm_desc *port) {
    static struct frame_template frame;
    struct traffic traffic = {0};
    uint32_t first = port->first_tx_ring;
    struct netmap_ring *ring = tx_ring(port, &first);
    struct timespec now;
    uint64_t left;
    bool well;

    if (!ring) {
        complain("no TX ring is open; leave out /R");
        return EXIT_USAGE;
    }
    if (length > ring->nr_buf_size) {
        complain("--length is at most %u here, the size of a buffer", ring->nr_buf_size);
        return EXIT_USAGE;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    frame_prepare(&frame, &addresses, (uint16_t)length,
                  (uint32_t)now.tv_sec ^ (uint32_t)now.tv_nsec ^ (uint32_t)getpid() << 16);

    well = send_frames(port, &frame, &traffic);
    if (well) well = drain(port, stop_requests() ? now_seconds() + STOP_DRAIN_SECONDS : 0);
    left = tx_pending(port);
    traffic.packets -= left < traffic.packets ? left : traffic.packets;
    traffic.bytes = traffic.packets * length;
    if (traffic.packets > 0) traffic.last = now_seconds();
    traffic.first_packets =
        0; /* they left after the first moment, unlike frames that are received */
    traffic_total(&traffic, "sent");
    putchar('\n');
    if (left > 0) complain("%llu frames were still in the rings", (unsigned long long)left);
    return well ? EXIT_OK : EXIT_RUNTIME;
}

const struct program gen_program = {
    .name = "gen",
    .summary = "sends UDP frames with sequence numbers",
    .options = options,
    .run = run,
};
