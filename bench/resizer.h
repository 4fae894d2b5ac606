/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/resizer.h - a ring whose memory never rests: the broker's part of it, in a process of its
 * own.
 *
 * It does to one ring what the broker does to many: allocates an extent, makes it present,
 * publishes it, and, when the consumer has followed, frees the old one and punches its memory out.
 * Sizes are random, so that it grows, shrinks and moves.
 */
#ifndef VCHAN_BENCH_RESIZER_H
#define VCHAN_BENCH_RESIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "ring/geometry.h"
#include "ring/layout.h"
#include "ring/memory.h"

#define RESIZER_BLOCKS_MIN 8u
#define RESIZER_BLOCKS_MAX 64u

/* Shared with the resizer: one writer each. */
struct resizer_control {
    uint32_t publishing; /* ours: 0 rests: it wakes as often, and does nothing */
    uint32_t stop;       /* ours */
    uint8_t pad[120];
    uint64_t cycles; /* the resizer's: generations published */
    uint32_t ready; /* the resizer's: it runs, and outranks whoever spins on its CPU */
    uint64_t grows, shrinks, moves;
};

struct resizer {
    struct ring_memory memory;
    struct layout_channel_page *page;
    struct resizer_control *control;
    unsigned pause_us;
};

/*
 * Makes the region and the ring (LAYOUT_SERVER_SENDS) with its first generation. Before the fork of
 * its ends.
 */
void resizer_init(struct resizer *resizer, unsigned pause_us);
void resizer_deinit(struct resizer *resizer);

/*
 * The body of its process, until control->stop. The ring must be busy: a generation is followed,
 * never reclaimed.
 */
void resizer_run(struct resizer *resizer);

#endif
