/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * netmap-traffic: finds the program that the first word names; the programs themselves are in
 * gen.c, sink.c, reflect.c.
 */
#include "programs.h"

#include <stdio.h>
#include <string.h>

static const struct program *const programs[] = {&gen_program, &sink_program, &reflect_program};
#define PROGRAM_COUNT (sizeof(programs) / sizeof(programs[0]))

static void print_programs(FILE *to) {
    fprintf(to, "usage: netmap-traffic PROGRAM PORT [options]\n\n");
    for (size_t i = 0; i < PROGRAM_COUNT; i++)
        fprintf(to, "  %-8s %s\n", programs[i]->name, programs[i]->summary);
    fprintf(to, "\nnetmap-traffic PROGRAM -h lists the options.\n");
}

int main(int argc, char **argv) {
    if (argc > 1) {
        for (size_t i = 0; i < PROGRAM_COUNT; i++)
            if (strcmp(argv[1], programs[i]->name) == 0)
                return program_main(programs[i], argc - 1, argv + 1);
        if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0) {
            print_programs(stdout);
            return EXIT_OK;
        }
    }
    print_programs(stderr);
    return EXIT_USAGE;
}
