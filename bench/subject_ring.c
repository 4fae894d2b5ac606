/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bench/subject_ring.c - our ring and the ideal one, both with a spinning caller that copies. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/ideal.h"
#include "bench/loops.h"
#include "ring/consumer.h"
#include "ring/geometry.h"
#include "ring/producer.h"

/* A larger message goes in pieces, so that both ends copy at the same time. */
#define PIECE_BYTES 32768u

#define DIRECTIONS 2u
#define DATA_OFFSET (2u * LAYOUT_CHANNEL_PAGE_BYTES)

/* Shared at the fork: a memfd with a header page, a channel page and two extents. */
struct ring_state {
    struct ring_memory memory;
    struct layout_channel_page *page;
    struct ring_producer producer __attribute__((aligned(128)));
    struct ring_consumer consumer __attribute__((aligned(128)));
};

static void *state_new(size_t bytes)
{
    void *state = aligned_alloc(128, (bytes + 127) & ~(size_t)127);

    if (!state)
        children_fail("out of memory");
    memset(state, 0, bytes);
    return state;
}

static int memory_new(const char *name, size_t bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        children_fail("%s: %s", name, strerror(errno));
    return fd;
}

static void ring_prepare(struct subject *subject)
{
    struct ring_state *state = state_new(sizeof(*state));
    size_t region = DATA_OFFSET + DIRECTIONS * subject->ring_bytes;
    struct ring_geometry geometry;

    subject->state = state;
    state->memory = (struct ring_memory){
        .descriptor = memory_new("ring", region), .size_bytes = region, .data_offset = DATA_OFFSET};
    if (ring_memory_map_page(&state->memory, LAYOUT_CHANNEL_PAGE_BYTES, &state->page) < 0)
        children_fail("%s: cannot map the channel page", subject->name);
    state->page->channel.state = LAYOUT_CHANNEL_CONNECTED;
    state->page->channel.fence_sleep = !order_register();
    for (unsigned i = 0; i < DIRECTIONS; i++)
        ring_geometry_init(
            &geometry, &state->page->ring[i],
            (struct ring_extent){DATA_OFFSET + i * subject->ring_bytes, subject->ring_bytes});
}

static void ring_open(struct subject *subject, enum subject_side side)
{
    struct ring_state *state = subject->state;
    unsigned out = side == SUBJECT_LEADER ? LAYOUT_SERVER_SENDS : LAYOUT_CLIENT_SENDS;

    ring_producer_init(&state->producer, state->page, out, &state->memory, 0, LAYOUT_BLOCK_BYTES);
    ring_consumer_init(&state->consumer, state->page, !out, &state->memory, 0);
}

static void ring_close(struct subject *subject)
{
    struct ring_state *state = subject->state;

    ring_producer_deinit(&state->producer);
    ring_consumer_deinit(&state->consumer);
    ring_memory_unmap_page(state->page);
    close(state->memory.descriptor);
    free(state);
}

LOOPS_INLINE void ring_send(struct subject *subject, const void *data, size_t n)
{
    struct ring_producer *producer = &((struct ring_state *)subject->state)->producer;
    const uint8_t *from = data;
    struct ring_span span;

    while (n > 0) {
        size_t piece = n < PIECE_BYTES ? n : PIECE_BYTES;
        int r = ring_producer_reserve(producer, piece, piece, &span);
        while (__builtin_expect(r < 0, 0)) {
            if (r != -EAGAIN)
                children_fail("%s: reserve: %s", subject->name, strerror(-r));
            while (ring_producer_space(producer) < piece)
                order_relax();
            r = ring_producer_reserve(producer, piece, piece, &span);
        }
        memcpy(span.data, from, piece);
        ring_producer_commit(producer, piece); /* nobody sleeps, so nobody is to be woken */
        from += piece;
        n -= piece;
    }
}

LOOPS_INLINE void ring_receive(struct subject *subject, void *data, size_t n)
{
    struct ring_consumer *consumer = &((struct ring_state *)subject->state)->consumer;
    uint8_t *to = data;
    struct ring_span span;

    while (n > 0) {
        size_t piece = n < PIECE_BYTES ? n : PIECE_BYTES;
        int r = ring_consumer_peek(consumer, piece, &span);
        while (__builtin_expect(r < 0, 0)) {
            if (r != -EAGAIN)
                children_fail("%s: peek: %s", subject->name, strerror(-r));
            while (ring_consumer_available(consumer, piece) < piece)
                order_relax();
            r = ring_consumer_peek(consumer, piece, &span);
        }
        memcpy(to, span.data, piece);
        ring_consumer_release(consumer, piece);
        to += piece;
        n -= piece;
    }
}

struct ideal_state {
    struct ring_memory memory;
    struct ideal_shared *shared; /* [DIRECTIONS] */
    struct ideal_ring out, in;
};

static void ideal_prepare(struct subject *subject)
{
    struct ideal_state *state = state_new(sizeof(*state));
    size_t region = DATA_OFFSET + DIRECTIONS * subject->ring_bytes;

    subject->state = state;
    state->memory = (struct ring_memory){.descriptor = memory_new("ideal", region),
                                         .size_bytes = region,
                                         .data_offset = DATA_OFFSET};
    state->shared = mmap(NULL, DIRECTIONS * sizeof(*state->shared), PROT_READ | PROT_WRITE,
                         MAP_SHARED, state->memory.descriptor, 0);
    if (state->shared == MAP_FAILED)
        children_fail("%s: mmap: %s", subject->name, strerror(errno));
}

static void ideal_open_direction(struct subject *subject, struct ideal_ring *ring,
                                 unsigned direction)
{
    struct ideal_state *state = subject->state;
    uint8_t *data;
    int r = ring_memory_map(&state->memory, DATA_OFFSET + direction * subject->ring_bytes,
                            subject->ring_bytes, &data);

    if (r < 0)
        children_fail("%s: mmap: %s", subject->name, strerror(-r));
    ideal_init(ring, &state->shared[direction], data, subject->ring_bytes);
}

static void ideal_open(struct subject *subject, enum subject_side side)
{
    struct ideal_state *state = subject->state;

    ideal_open_direction(subject, &state->out, side == SUBJECT_LEADER ? 0 : 1);
    ideal_open_direction(subject, &state->in, side == SUBJECT_LEADER ? 1 : 0);
}

static void ideal_close(struct subject *subject)
{
    struct ideal_state *state = subject->state;

    ring_memory_unmap(state->out.data, subject->ring_bytes);
    ring_memory_unmap(state->in.data, subject->ring_bytes);
    munmap(state->shared, DIRECTIONS * sizeof(*state->shared));
    close(state->memory.descriptor);
    free(state);
}

LOOPS_INLINE void ideal_send(struct subject *subject, const void *data, size_t n)
{
    struct ideal_ring *ring = &((struct ideal_state *)subject->state)->out;
    const uint8_t *from = data;

    while (n > 0) {
        size_t piece = n < PIECE_BYTES ? n : PIECE_BYTES;
        while (!ideal_has_space(ring, piece))
            order_relax();
        memcpy(ideal_at(ring), from, piece);
        ideal_publish(ring, piece);
        from += piece;
        n -= piece;
    }
}

LOOPS_INLINE void ideal_receive(struct subject *subject, void *data, size_t n)
{
    struct ideal_ring *ring = &((struct ideal_state *)subject->state)->in;
    uint8_t *to = data;

    while (n > 0) {
        size_t piece = n < PIECE_BYTES ? n : PIECE_BYTES;
        while (!ideal_has_data(ring, piece))
            order_relax();
        memcpy(to, ideal_at(ring), piece);
        ideal_take(ring, piece);
        to += piece;
        n -= piece;
    }
}

SUBJECT_LOOPS(ring, ring_send, ring_receive)
SUBJECT_LOOPS(ideal, ideal_send, ideal_receive)

const struct subject_calls subject_ring = {
    .prepare = ring_prepare, .open = ring_open, .close = ring_close, SUBJECT_LOOP_CALLS(ring)};
const struct subject_calls subject_ideal = {
    .prepare = ideal_prepare, .open = ideal_open, .close = ideal_close, SUBJECT_LOOP_CALLS(ideal)};
