/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From the command line to an open port: option tables, usage texts, errors as sentences; what
 * happens on the port then is each program's own file.
 */
#include "common.h"
#include "programs.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTIONS_MAX 32
#define LONG_ONLY 256 /* codes of options without a letter begin here */

struct common_options common;
char device_path[64] = "/dev/netmap";

static const char *subject = "netmap-traffic"; /* the port, once it is known */
static char port_name[128];

/* Into device_path. */
static const char *read_device(const char *text, void *value) {
    if (!*text || strchr(text, '/') || strlen(text) > sizeof(device_path) - sizeof("/dev/"))
        return "the NAME of /dev/NAME";
    snprintf(value, sizeof(device_path), "/dev/%s", text);
    return NULL;
}

static const struct option_entry common_entries[] = {
    {0, "device", "NAME", read_device, device_path, "open /dev/NAME (netmap)"},
    {'q', "quiet", NULL, NULL, &common.quiet, "no rates on stderr"},
    {0, "wait", "SECONDS", read_seconds, &common.wait_seconds,
     "between opening the port and starting (0)"},
    {'h', "help", NULL, NULL, NULL, "this text"},
    {0},
};

/* What an errno of nm_open() means to whoever runs the program; %s is the device. Which of several
 * reasons it was the daemon alone knows, and has written to its log. */
#define LOG_SAYS "; the daemon's log says which"
static const struct {
    int number;
    const char *sentence;
} open_errors[] = {
    {ENOENT, "there is no %s; start the daemon (cuse-netmap serve)"},
    {ENOTTY, "%s is a file that no daemon serves here; start one (cuse-netmap serve)"},
    {ENODEV, "%s cannot be mapped as it is; start this program by cuse-netmap run"},
    {ENOTCONN, "the daemon behind %s has ended; start it again"},
    {ECONNABORTED, "the daemon behind %s has ended; start it again"},
    {EACCES, "%s may not be opened; join the group netmap or become root"},
    {EPERM, "%s may not be opened; join the group netmap or become root"},
    {ENXIO, "no such port; `ip link` lists the interfaces of this network namespace"},
    {EBUSY, "somebody has the port or these rings in a way that leaves no room for this program: "
            "another program, a switch, a bridge, another daemon" LOG_SAYS},
    {ENOMEM, "netmap's memory is used up, or the places on its switches; close other ports or ask "
             "for fewer rings and slots" LOG_SAYS},
    {EINVAL, "the port refuses to be opened so: its ring numbers, host rings, memory id, or an MTU "
             "that does not fit a buffer" LOG_SAYS},
    {EIO, "frames of this port have virtio-net headers, which this program does not know; set "
          "their length to 0"},
};

void complain(const char *format, ...) {
    va_list arguments;
    fprintf(stderr, "%s: ", subject);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

const char *read_count(const char *text, void *value) {
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno || end == text || *end || *text == '-') return "a whole number, 0 or more";
    *(uint64_t *)value = number;
    return NULL;
}

const char *read_seconds(const char *text, void *value) {
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end || !(number >= 0 && number <= 1e9)) return "seconds, 0 or more";
    *(double *)value = number;
    return NULL;
}

static void print_options(const struct option_entry *entry) {
    for (; entry->name; entry++) {
        char left[40], letter[] = {'-', entry->letter, ',', ' ', 0};
        snprintf(left, sizeof(left), "%s--%s %s", entry->letter ? letter : "    ", entry->name,
                 entry->argument ? entry->argument : "");
        printf("  %-26s %s\n", left, entry->help);
    }
}

static void print_usage(const struct program *program) {
    printf("usage: netmap-traffic %s PORT [options]\n%s\n\n", program->name, program->summary);
    printf("PORT is netmap:NAME or valeSWITCH:NAME, or NAME alone for netmap:NAME.\n\n");
    print_options(program->options);
    print_options(common_entries);
}

/* The tables in the form that getopt_long() reads; entries[i] belongs to code LONG_ONLY + i or to
 * its letter. */
struct option_set {
    const struct option_entry *entries[OPTIONS_MAX];
    struct option longs[OPTIONS_MAX + 1];
    char letters[2 * OPTIONS_MAX + 3];
    int count;
};

static void add_options(struct option_set *set, const struct option_entry *entry) {
    for (; entry->name && set->count < OPTIONS_MAX; entry++) {
        char *letters = set->letters + strlen(set->letters);
        set->longs[set->count] =
            (struct option){entry->name, entry->argument ? required_argument : no_argument, NULL,
                            LONG_ONLY + set->count};
        if (entry->letter) *letters++ = entry->letter;
        if (entry->letter && entry->argument) *letters = ':';
        set->entries[set->count++] = entry;
    }
}

static const struct option_entry *find_option(const struct option_set *set, int code) {
    if (code >= LONG_ONLY) return set->entries[code - LONG_ONLY];
    for (int i = 0; i < set->count; i++)
        if (set->entries[i]->letter == code) return set->entries[i];
    return NULL;
}

static int usage_error(const struct program *program) {
    fprintf(stderr, "netmap-traffic %s -h explains the options.\n", program->name);
    return EXIT_USAGE;
}

static bool take_port(const char *word) {
    if (port_name[0]) {
        complain("one port at a time, \"%s\" is one too many", word);
        return false;
    }
    snprintf(port_name, sizeof(port_name), "%s%s", strchr(word, ':') ? "" : "netmap:", word);
    return true;
}

/* Returns -1 to go on, or the exit status to end with. */
static int read_options(const struct program *program, int argc, char **argv) {
    /* "-": words that are no options come as code 1, wherever they stand; ":": we word the errors.
     */
    struct option_set set = {.letters = "-:"};
    int code;
    add_options(&set, program->options);
    add_options(&set, common_entries);
    opterr = 0;
    while ((code = getopt_long(argc, argv, set.letters, set.longs, NULL)) != -1) {
        const struct option_entry *entry;
        const char *expected = NULL;
        if (code == 1) {
            if (!take_port(optarg)) return usage_error(program);
            continue;
        }
        if (code == '?' || code == ':') {
            complain(code == '?' ? "there is no option %s" : "%s needs a value", argv[optind - 1]);
            return usage_error(program);
        }
        entry = find_option(&set, code);
        if (!entry->value) {
            print_usage(program);
            return EXIT_OK;
        }
        if (entry->argument)
            expected = entry->read(optarg, entry->value);
        else
            *(bool *)entry->value = true;
        if (expected) {
            complain("--%s takes %s, not \"%s\"", entry->name, expected, optarg);
            return usage_error(program);
        }
    }
    for (; optind < argc; optind++) /* behind "--" */
        if (!take_port(argv[optind])) return usage_error(program);
    if (!port_name[0]) {
        complain("which port? %s", "netmap:NAME or valeSWITCH:NAME is missing");
        return usage_error(program);
    }
    return -1;
}

int program_main(const struct program *program, int argc, char **argv) {
    char reason[MAXERRMSG];
    struct nm_desc name_only, *port;
    int status = read_options(program, argc, argv);
    if (status >= 0) return status;
    subject = port_name;
    memset(&name_only, 0, sizeof(name_only));
    if (nm_parse(port_name, &name_only, reason)) {
        complain("%s", reason);
        return usage_error(program);
    }
    if (strncmp(name_only.req.nr_name, "val", 3) == 0 && !strchr(name_only.req.nr_name, ':')) {
        complain("netmap takes what begins with \"val\" for a port of a switch, which is written "
                 "valeSWITCH:PORT");
        return usage_error(program);
    }
    port = nm_open(port_name, NULL, 0, NULL);
    if (!port) {
        for (size_t i = 0; i < sizeof(open_errors) / sizeof(open_errors[0]); i++)
            if (open_errors[i].number == errno) {
                complain(open_errors[i].sentence, device_path);
                return EXIT_RUNTIME;
            }
        complain("the port cannot be opened on %s: %s", device_path, strerror(errno));
        return EXIT_RUNTIME;
    }
    catch_stops();
    sleep_until(now_seconds() + common.wait_seconds);
    status = program->run(port);
    nm_close(port);
    if (fflush(stdout) != 0) {
        complain("the totals could not be written: %s", strerror(errno));
        return EXIT_RUNTIME;
    }
    return status;
}
