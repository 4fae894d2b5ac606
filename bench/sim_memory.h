/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/sim_memory.h - the region of the simulation: the broker's allocator, and what the mover
 * does with it. A move is wanted, taken (or waits, while others give or are moved for it), and its
 * old extent is free when it has drained.
 */
#ifndef VCHAN_BENCH_SIM_MEMORY_H
#define VCHAN_BENCH_SIM_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "allocator/allocator.h"
#include "bench/sim_ring.h"

#define SIM_MAX_BYTES (16u << 20)

struct sim_memory {
    struct allocator *allocator;
    uint64_t region_bytes;
    struct sim_ring *rings;
    /* Rings that wait for room, then rings whose old extent is not free yet. */
    uint32_t *waiting, *moving;
    size_t waiting_count, moving_count;
    uint32_t served; /* others are moved for it, and nobody else is served; UINT32_MAX: nobody */
    uint64_t moves, moves_before_late, compaction_moves, refused;
};

int sim_memory_init(struct sim_memory *memory, uint64_t region_bytes, struct sim_ring *rings,
                    size_t ring_count);
void sim_memory_deinit(struct sim_memory *memory);

/* The ring's first extent. 0, -ENOSPC, -ENOMEM. */
int sim_memory_open(struct sim_memory *memory, uint32_t number);
/* It is to have so much. */
void sim_memory_want(struct sim_memory *memory, uint32_t number, uint64_t bytes, uint64_t now_ns);
/* What can be done now. */
void sim_memory_step(struct sim_memory *memory, uint64_t now_ns);

bool sim_memory_moves(const struct sim_ring *ring);
uint64_t sim_memory_min(const struct sim_demand *demand);
uint64_t sim_memory_used(const struct sim_memory *memory);
uint64_t sim_memory_used_most(const struct sim_memory *memory);
uint64_t sim_memory_free(const struct sim_memory *memory);
uint64_t sim_memory_largest(const struct sim_memory *memory);

#endif
