/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the traffic programs share: options from tables, opening a port, waiting, stopping and
 * counting; the frames are in frame.h, what each program does in its own file.
 */
#ifndef NETMAP_TRAFFIC_COMMON_H
#define NETMAP_TRAFFIC_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The device that nm_open() opens: /dev/netmap, or what --device names. */
extern char device_path[64];
#define NETMAP_DEVICE_NAME device_path
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

enum exit_status { EXIT_OK = 0, EXIT_RUNTIME = 1, EXIT_USAGE = 2 };

/* ---- options --------------------------------------------------------------------------------- */

/* Reads text into *value; returns NULL, or what the text should have been. */
typedef const char *option_reader(const char *text, void *value);

option_reader read_count;   /* uint64_t */
option_reader read_seconds; /* double */

struct option_entry {
    char letter;          /* 0: long name only */
    const char *name;     /* long name */
    const char *argument; /* what the usage text calls it, NULL: a flag, *value is a bool */
    option_reader *read;
    void *value;
    const char *help;
};

struct program {
    const char *name;
    const char *summary;
    const struct option_entry *options; /* ends with an entry without a name */
    int (*run)(struct nm_desc *port);   /* returns an exit_status */
};

/* Values of the options that every program has. */
struct common_options {
    double wait_seconds;
    bool quiet;
};
extern struct common_options common;

/* Reads the words after the program's name; opens the port, waits, runs. Returns an exit_status. */
int program_main(const struct program *program, int argc, char **argv);

/* One line on stderr, after the name of the port. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- waiting and stopping -------------------------------------------------------------------- */

/* How often ctrl-C or SIGTERM has come since catch_stops(). Nothing here blocks for longer than
 * WAIT_MAX_MS without looking: a signal just before poll() would not end it. */
void catch_stops(void);
int stop_requests(void);
#define WAIT_MAX_MS 250

double now_seconds(void); /* monotonic */
void sleep_until(double when);

/* poll() for these events, no longer than WAIT_MAX_MS or until the time given. Returns false after
 * complaining when the port has failed. */
bool wait_for(struct nm_desc *port, short events, double until);

/* ---- rings ----------------------------------------------------------------------------------- */

/* Every TX or RX ring that the port has bound: for (i = first; (ring = tx_ring(port, &i)); i++). */
struct netmap_ring *tx_ring(struct nm_desc *port, uint32_t *i);
struct netmap_ring *rx_ring(struct nm_desc *port, uint32_t *i);

/* Frames in TX rings that have not left, after the latest sync. */
uint64_t tx_pending(struct nm_desc *port);

/* Syncs until all frames have left, or ctrl-C, or the time given (0: none). Returns false if the
 * port has failed. */
bool drain(struct nm_desc *port, double until);

/* ---- counting -------------------------------------------------------------------------------- */

struct traffic {
    uint64_t packets;
    uint64_t bytes;
    double first; /* when the first frames were seen, 0 none */
    double last;
    uint64_t first_packets; /* those seen at that moment: they say nothing about the rate */

    double reported; /* of the latest line on stderr */
    uint64_t reported_packets;
    uint64_t reported_bytes;
};

/* Adds frames that were seen at this moment. */
void traffic_add(struct traffic *traffic, uint64_t packets, uint64_t bytes, double now);

/* Prints the rates of the latest second to stderr once it is over, unless told to be quiet. */
void traffic_report(struct traffic *traffic, double now);

/* The totals, on stdout: "VERB 10 packets, 600 bytes, 0.5 seconds, 20 pps" and what the caller
 * adds; no newline. */
void traffic_total(const struct traffic *traffic, const char *verb);

#endif /* NETMAP_TRAFFIC_COMMON_H */
