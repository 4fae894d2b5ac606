/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/sim_memory.h"

#include <errno.h>
#include <stdlib.h>

#include "allocator/plan.h"

#define BLOCK_BYTES 4096u
#define NOBODY UINT32_MAX
/* As the mover: for memory that others give, and when they are moved for it. */
#define WAIT_NS 1000000000u
#define WAIT_COMPACTION_NS 5000000000u
#define COMPACTION_BLOCKS ((64u << 20) / BLOCK_BYTES)
#define COMPACTION_MOVES 64u

int sim_memory_init(struct sim_memory *memory, uint64_t region_bytes, struct sim_ring *rings,
                    size_t ring_count)
{
    *memory = (struct sim_memory){
        .region_bytes = region_bytes,
        .rings = rings,
        .waiting = calloc(ring_count, sizeof(*memory->waiting)),
        .moving = calloc(ring_count, sizeof(*memory->moving)),
        .served = NOBODY,
    };
    if (!memory->waiting || !memory->moving)
        return -ENOMEM;
    return allocator_new(region_bytes / BLOCK_BYTES, &memory->allocator);
}

void sim_memory_deinit(struct sim_memory *memory)
{
    allocator_free(memory->allocator);
    free(memory->waiting);
    free(memory->moving);
}

static struct allocator_figures figures_of(const struct sim_memory *memory)
{
    struct allocator_figures figures;

    allocator_figures(memory->allocator, &figures);
    return figures;
}

uint64_t sim_memory_used(const struct sim_memory *memory)
{
    return figures_of(memory).used_blocks * BLOCK_BYTES;
}

uint64_t sim_memory_used_most(const struct sim_memory *memory)
{
    return figures_of(memory).used_high_water_blocks * BLOCK_BYTES;
}

uint64_t sim_memory_free(const struct sim_memory *memory)
{
    return figures_of(memory).free_blocks * BLOCK_BYTES;
}

uint64_t sim_memory_largest(const struct sim_memory *memory)
{
    return figures_of(memory).largest_free_blocks * BLOCK_BYTES;
}

bool sim_memory_moves(const struct sim_ring *ring)
{
    return ring->old_block != ALLOCATOR_NOWHERE || ring->wanted_bytes > 0;
}

uint64_t sim_memory_min(const struct sim_demand *demand)
{
    return demand->min_bytes > BLOCK_BYTES ? demand->min_bytes / BLOCK_BYTES * BLOCK_BYTES
                                           : BLOCK_BYTES;
}

int sim_memory_open(struct sim_memory *memory, uint32_t number)
{
    struct sim_ring *ring = &memory->rings[number];

    ring->size_bytes = sim_memory_min(ring->demand);
    ring->old_block = ALLOCATOR_NOWHERE;
    return allocator_allocate(memory->allocator, 0, ring->size_bytes / BLOCK_BYTES, number,
                              &ring->block);
}

void sim_memory_want(struct sim_memory *memory, uint32_t number, uint64_t bytes, uint64_t now_ns)
{
    struct sim_ring *ring = &memory->rings[number];

    if (sim_memory_moves(ring) || bytes == ring->size_bytes)
        return;
    ring->wanted_bytes = bytes;
    ring->wanted_ns = now_ns;
    ring->compacting = false;
    memory->waiting[memory->waiting_count++] = number;
}

/* It has its next extent. */
static void moved(struct sim_memory *memory, uint32_t number, uint64_t block, uint64_t bytes,
                  uint64_t now_ns)
{
    struct sim_ring *ring = &memory->rings[number];

    ring->old_block = ring->block;
    ring->block = block;
    ring->size_bytes = bytes;
    ring->drain_bytes = ring->held_bytes;
    ring->moved_ns = now_ns;
    memory->moving[memory->moving_count++] = number;
    memory->moves++;
}

static bool is_movable(const struct allocator_span *extent, void *data)
{
    const struct sim_memory *memory = data;

    return !sim_memory_moves(&memory->rings[extent->cookie]);
}

/* Moves others together so that it fits. */
static bool compact(struct sim_memory *memory, uint32_t number, uint64_t now_ns)
{
    struct sim_ring *ring = &memory->rings[number];
    struct allocator_move steps[COMPACTION_MOVES];
    struct allocator_plan plan;
    const struct allocator_limits limits = {.budget_blocks = COMPACTION_BLOCKS,
                                            .max_moves = COMPACTION_MOVES,
                                            .movable = is_movable,
                                            .data = memory};

    if (ring->compacting || memory->served != NOBODY ||
        allocator_room(memory->allocator, ring->wanted_bytes / BLOCK_BYTES) != ALLOCATOR_FRAGMENTED)
        return false;
    ring->compacting = true;
    if (allocator_plan_moves(memory->allocator, ring->wanted_bytes / BLOCK_BYTES, &limits, steps,
                             &plan) < 0)
        return false;
    for (size_t i = 0; i < plan.moves; i++) {
        struct allocator_span span;
        if (allocator_find(memory->allocator, steps[i].from_block, &span) < 0 ||
            allocator_replace_at(memory->allocator, steps[i].from_block, steps[i].to_block,
                                 steps[i].blocks) < 0)
            continue;
        moved(memory, (uint32_t)span.cookie, steps[i].to_block, steps[i].blocks * BLOCK_BYTES,
              now_ns);
        memory->compaction_moves++;
    }
    memory->served = number;
    return true;
}

/* True: it waits no longer. */
static bool try_take(struct sim_memory *memory, uint32_t number, uint64_t now_ns)
{
    struct sim_ring *ring = &memory->rings[number];
    uint64_t wait_ns = ring->compacting ? WAIT_COMPACTION_NS : WAIT_NS, block;
    bool behind = memory->served != NOBODY && memory->served != number;
    int r = behind ? -ENOSPC
                   : allocator_replace(memory->allocator, ring->block,
                                       ring->wanted_bytes / BLOCK_BYTES, &block);

    if (r == 0) {
        uint64_t bytes = ring->wanted_bytes;
        ring->wanted_bytes = 0;
        moved(memory, number, block, bytes, now_ns);
    } else if ((memory->moving_count > 0 && now_ns - ring->wanted_ns < wait_ns) ||
               compact(memory, number, now_ns)) {
        return false;
    } else {
        memory->refused++;
        ring->wanted_bytes = 0;
    }
    if (memory->served == number)
        memory->served = NOBODY;
    return true;
}

static bool try_free(struct sim_memory *memory, uint32_t number, uint64_t now_ns)
{
    struct sim_ring *ring = &memory->rings[number];
    bool followed = ring->drain_bytes <= 0 && !ring->asleep && now_ns > ring->moved_ns;
    bool idle = ring->held_bytes <= 0 && now_ns - ring->moved_ns >= SIM_GRACE_NS;

    if (!followed && !idle)
        return false;
    allocator_release(memory->allocator, ring->old_block);
    ring->old_block = ALLOCATOR_NOWHERE;
    return true;
}

void sim_memory_step(struct sim_memory *memory, uint64_t now_ns)
{
    size_t kept = 0, waiting = memory->waiting_count;

    for (size_t i = 0; i < memory->moving_count; i++)
        if (!try_free(memory, memory->moving[i], now_ns))
            memory->moving[kept++] = memory->moving[i];
    memory->moving_count = kept;
    kept = 0;
    for (size_t i = 0; i < waiting; i++)
        if (!try_take(memory, memory->waiting[i], now_ns))
            memory->waiting[kept++] = memory->waiting[i];
    memory->waiting_count = kept;
}
