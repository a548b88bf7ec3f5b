/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How port names are read, header only: from "netmap:eth0-2/x" to the fields of a request; opening
 * what the name stands for is in <net/netmap_user.h>.
 *
 * Names:  ("netmap:" NAME | "vale" [SWITCH] ":" NAME) [ring] ["/" flags] ["@" memory id]
 *
 *   ring   nothing  all NIC rings      -N  NIC ring N            {N  pipe N of the port, master end
 *          ^        all host rings     ^N  host ring N           }N  pipe N of the port, slave end
 *          *        NIC and host rings
 *   flags  x exclusive   t monitor TX   r monitor RX   z zero-copy monitor
 *          R RX rings only   T TX rings only
 */
#ifndef _NET_NETMAP_NAME_H_
#define _NET_NETMAP_NAME_H_

#include <errno.h>
#include <net/netmap.h>
#include <stdio.h>
#include <string.h>

/* Room that the reason why a name cannot be read needs. */
#define NM_NAME_ERROR_SIZE 80

static inline int nm_parse_failed(char *error, const char *why) {
    if (error) snprintf(error, NM_NAME_ERROR_SIZE, "%s", why);
    errno = EINVAL;
    return -1;
}

/* Digits at *text, at most limit, into *number; *text moves past them. */
static inline int nm_parse_number(const char **text, unsigned long limit, uint16_t *number) {
    unsigned long value = 0;
    const char *digit = *text;
    for (; *digit >= '0' && *digit <= '9' && value <= limit; digit++)
        value = value * 10 + (unsigned long)(*digit - '0');
    if (digit == *text || value > limit) return -1;
    *text = digit;
    *number = (uint16_t)value;
    return 0;
}

static inline uint32_t nm_parse_flag(char letter) {
    static const struct {
        char letter;
        uint32_t flag;
    } flags[] = {
        {'x', NR_EXCLUSIVE}, {'t', NR_MONITOR_TX},    {'r', NR_MONITOR_RX},
        {'z', NR_ZCOPY_MON}, {'R', NR_RX_RINGS_ONLY}, {'T', NR_TX_RINGS_ONLY},
    };
    size_t i;
    for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        if (flags[i].letter == letter) return flags[i].flag;
    return 0;
}

/*
 * Puts what a name says into a request: nr_name, nr_ringid, nr_arg2 if the name has a memory id,
 * and nr_flags, where flags above the mode that are set already stay. Returns 0, or -1 with errno
 * EINVAL and the reason in error (NULL, or room for NM_NAME_ERROR_SIZE characters); req is then
 * unchanged.
 */
static inline int nm_parse_name(const char *name, struct nmreq *req, char *error) {
    const char *start = name, *text;
    uint32_t mode = NR_REG_ALL_NIC, flags = 0, flag;
    uint16_t ring = 0, memory = req->nr_arg2;
    int seen_flags = 0, seen_memory = 0;
    size_t length;

    if (strncmp(name, "netmap:", 7) == 0) {
        start = text = name + 7;
    } else if (strncmp(name, NM_BDG_NAME, 4) == 0) {
        for (text = name + 4; *text && *text != ':'; text++)
            if (!((*text >= '0' && *text <= '9') || (*text >= 'a' && *text <= 'z') ||
                  (*text >= 'A' && *text <= 'Z') || *text == '_'))
                return nm_parse_failed(error, "switch names hold letters, digits and _");
        if (*text++ != ':')
            return nm_parse_failed(error, "a port of a switch is written valeSWITCH:PORT");
    } else {
        return nm_parse_failed(error, "port names begin with netmap: or vale");
    }
    length = strcspn(text, "+-*^{}/@");
    if (length == 0) return nm_parse_failed(error, "the name of the port is empty");
    text += length;
    length = (size_t)(text - start);
    if (length >= sizeof(req->nr_name))
        return nm_parse_failed(error, "the name of the port is longer than 15 characters");

    switch (*text) {
    case '*':
        mode = NR_REG_NIC_SW;
        text++;
        break;
    case '^':
        mode = NR_REG_SW;
        text++;
        if (*text >= '0' && *text <= '9') {
            mode = NR_REG_ONE_SW;
            if (nm_parse_number(&text, NETMAP_RING_MASK - 1, &ring))
                return nm_parse_failed(error, "the number of the host ring is too large");
        }
        break;
    case '-':
    case '{':
    case '}':
        mode = *text == '-'   ? NR_REG_ONE_NIC
               : *text == '{' ? NR_REG_PIPE_MASTER
                              : NR_REG_PIPE_SLAVE;
        text++;
        if (nm_parse_number(&text, NETMAP_RING_MASK - 1, &ring))
            return nm_parse_failed(error, "a number from 0 to 4094 must follow - { or }");
        break;
    default:
        break;
    }
    while (*text) {
        if (*text == '/' && !seen_flags) {
            seen_flags = 1;
            for (text++; (flag = nm_parse_flag(*text)) != 0; text++)
                flags |= flag;
            if (!flags) return nm_parse_failed(error, "one or more of x t r z R T must follow /");
        } else if (*text == '@' && !seen_memory) {
            seen_memory = 1;
            text++;
            if (nm_parse_number(&text, UINT16_MAX, &memory) || memory == 0)
                return nm_parse_failed(error, "a memory id from 1 to 65535 must follow @");
        } else {
            return nm_parse_failed(error, "the name goes on in a way that has no meaning");
        }
    }
    memset(req->nr_name, 0, sizeof(req->nr_name));
    memcpy(req->nr_name, start, length);
    req->nr_ringid = ring;
    req->nr_arg2 = memory;
    req->nr_flags = (req->nr_flags & ~(uint32_t)NR_REG_MASK) | mode | flags;
    return 0;
}

#endif /* _NET_NETMAP_NAME_H_ */
