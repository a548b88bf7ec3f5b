/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Opening a port, waiting, stopping and counting for the traffic programs; their options are read
 * in options.c.
 */
#include "common.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

/* Between two looks at rings that are being emptied by somebody else. */
#define DRAIN_PAUSE 0.0005

static volatile sig_atomic_t stops;

int stop_requests(void) { return stops; }

static void on_stop(int signal_number) {
    (void)signal_number;
    if (stops < 2) stops++;
}

void catch_stops(void) {
    struct sigaction action = {.sa_handler = on_stop}; /* no SA_RESTART: poll() has to return */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* In steps: a signal just before the sleep would not end it. */
void sleep_until(double when) {
    double left;
    while (!stops && (left = when - now_seconds()) > 0) {
        double step = left < WAIT_MAX_MS / 1e3 ? left : WAIT_MAX_MS / 1e3;
        struct timespec pause = {.tv_nsec = (long)(step * 1e9)};
        nanosleep(&pause, NULL);
    }
}

bool wait_for(struct nm_desc *port, short events, double until) {
    struct pollfd file = {.fd = port->fd, .events = events};
    double left = (until - now_seconds()) * 1e3;
    int timeout = left < 0 ? 0 : left < WAIT_MAX_MS ? (int)left + 1 : WAIT_MAX_MS;
    if (poll(&file, 1, timeout) < 0) {
        if (errno == EINTR) return true;
        complain("waiting failed: %s; is the daemon still running?", strerror(errno));
        return false;
    }
    if (file.revents & (POLLERR | POLLNVAL)) {
        complain("the port reports an error; was its interface removed, or does another program "
                 "write to the same rings?");
        return false;
    }
    return true;
}

struct netmap_ring *tx_ring(struct nm_desc *port, uint32_t *i) {
    for (; *i <= port->last_tx_ring; ++*i)
        if (port->nifp->ring_ofs[*i] != 0) return NETMAP_TXRING(port->nifp, *i);
    return NULL;
}

struct netmap_ring *rx_ring(struct nm_desc *port, uint32_t *i) {
    uint32_t tx_rings = port->nifp->ni_tx_rings + port->nifp->ni_host_tx_rings;
    for (; *i <= port->last_rx_ring; ++*i)
        if (port->nifp->ring_ofs[tx_rings + *i] != 0) return NETMAP_RXRING(port->nifp, *i);
    return NULL;
}

uint64_t tx_pending(struct nm_desc *port) {
    struct netmap_ring *ring;
    uint64_t pending = 0;
    for (uint32_t i = port->first_tx_ring; (ring = tx_ring(port, &i)); i++)
        pending += ring->num_slots - 1 - nm_ring_space(ring);
    return pending;
}

bool drain(struct nm_desc *port, double until) {
    int stops_before = stops;
    for (;;) {
        if (ioctl(port->fd, NIOCTXSYNC) < 0) {
            complain("sending failed: %s; is the daemon still running?", strerror(errno));
            return false;
        }
        double now = now_seconds();
        if (tx_pending(port) == 0 || stops != stops_before || (until > 0 && now >= until))
            return true;
        struct timespec pause = {.tv_nsec = (long)(DRAIN_PAUSE * 1e9)};
        nanosleep(&pause, NULL);
    }
}

void traffic_add(struct traffic *traffic, uint64_t packets, uint64_t bytes, double now) {
    if (packets == 0) return;
    if (traffic->packets == 0) {
        traffic->first = now;
        traffic->first_packets = packets;
    }
    traffic->packets += packets;
    traffic->bytes += bytes;
    traffic->last = now;
}

void traffic_report(struct traffic *traffic, double now) {
    if (traffic->reported == 0) traffic->reported = now;
    double seconds = now - traffic->reported;
    if (seconds < 1) return;
    if (!common.quiet)
        fprintf(stderr, "%.0f pps, %.0f bit/s\n",
                (double)(traffic->packets - traffic->reported_packets) / seconds,
                (double)(traffic->bytes - traffic->reported_bytes) * 8 / seconds);
    traffic->reported = now;
    traffic->reported_packets = traffic->packets;
    traffic->reported_bytes = traffic->bytes;
}

void traffic_total(const struct traffic *traffic, const char *verb) {
    double seconds = traffic->last - traffic->first;
    double rate = seconds > 0 ? (double)(traffic->packets - traffic->first_packets) / seconds : 0;
    printf("%s %llu packets, %llu bytes, %.6f seconds, %.0f pps", verb,
           (unsigned long long)traffic->packets, (unsigned long long)traffic->bytes, seconds, rate);
}
