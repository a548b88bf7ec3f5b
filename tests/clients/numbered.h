/* SPDX-License-Identifier: BSD-2-Clause */
/* Frames with numbers on them, and what a receiver makes of them: what streams of every age have in
 * common. */
#ifndef NUMBERED_H
#define NUMBERED_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define HEADER 24 /* Ethernet, two bytes of nothing, the number */
#define LONGEST 65536

static struct {
    uint32_t length; /* bytes of each frame */
    unsigned char to[6], from[6];
} shape = {.length = 60, .to = {255, 255, 255, 255, 255, 255}, .from = {2, 0, 0, 0, 0, 1}};

static uint64_t frames, first, last, gaps, repeats, bad;
static uint64_t state = 88172645463325252u;

static uint64_t next(void) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static char filling(uint64_t number, uint32_t at) { return (char)(number * 7 + at); }

static inline void fill(char *frame, uint64_t number) {
    memcpy(frame, shape.to, 6);
    memcpy(frame + 6, shape.from, 6);
    memcpy(frame + 12, "\x88\xb5\0\0", 4);
    memcpy(frame + 16, &number, sizeof(number));
    for (uint32_t i = HEADER; i < shape.length; i++)
        frame[i] = filling(number, i);
}

static inline bool right(const char *frame, uint32_t length, uint64_t number) {
    if (length != shape.length || memcmp(frame + 12, "\x88\xb5", 2)) return false;
    for (uint32_t i = HEADER; i < length; i++)
        if (frame[i] != filling(number, i)) return false;
    return true;
}

/* A frame has come. */
static inline void note(const char *frame, uint32_t length) {
    uint64_t number = UINT64_MAX;
    if (length >= HEADER) memcpy(&number, frame + 16, sizeof(number));
    if (!right(frame, length, number)) {
        bad++;
        return;
    }
    if (!frames++)
        first = last = number;
    else if (number <= last)
        repeats++;
    else
        gaps += number - last - 1;
    if (number > last) last = number;
}

static inline void report(bool sends) {
    printf("frames %lu\nfirst %lu\nlast %lu\n", frames, first, last);
    if (!sends) printf("gaps %lu\nrepeats %lu\nbad %lu\n", gaps, repeats, bad);
}

#endif
