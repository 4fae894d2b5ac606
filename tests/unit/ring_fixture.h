/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A small region with one channel, in this process: both ends and the broker's side, for tests of
 * ring/.
 */
#ifndef VCHAN_TESTS_RING_FIXTURE_H
#define VCHAN_TESTS_RING_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "ring/consumer.h"
#include "ring/geometry.h"
#include "ring/order.h"
#include "ring/producer.h"

#define FIXTURE_DATA 8192u
#define FIXTURE_BYTES (FIXTURE_DATA + 64u * LAYOUT_BLOCK_BYTES)

struct ring_fixture {
    struct ring_memory memory;
    struct layout_channel_page *page;
    struct ring_geometry geometry;
    struct ring_producer producer;
    struct ring_consumer consumer;
};

/* An extent by its first block and its number of blocks. */
static inline struct ring_extent fixture_blocks(uint64_t first, uint64_t count)
{
    return (struct ring_extent){FIXTURE_DATA + first * LAYOUT_BLOCK_BYTES,
                                count * LAYOUT_BLOCK_BYTES};
}

static inline void fixture_open(struct ring_fixture *f, uint64_t first_block, uint64_t blocks)
{
    int fd = memfd_create("ring-test", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, FIXTURE_BYTES), 0);
    f->memory = (struct ring_memory){
        .descriptor = fd, .size_bytes = FIXTURE_BYTES, .data_offset = FIXTURE_DATA};
    assert_int_equal(ring_memory_map_page(&f->memory, LAYOUT_CHANNEL_PAGE_BYTES, &f->page), 0);
    f->page->channel.state = LAYOUT_CHANNEL_CONNECTED;
    f->page->channel.fence_sleep = !order_register();
    ring_geometry_init(&f->geometry, &f->page->ring[LAYOUT_SERVER_SENDS],
                       fixture_blocks(first_block, blocks));
    ring_producer_init(&f->producer, f->page, LAYOUT_SERVER_SENDS, &f->memory, 0,
                       LAYOUT_BLOCK_BYTES);
    ring_consumer_init(&f->consumer, f->page, LAYOUT_SERVER_SENDS, &f->memory, 0);
}

static inline void fixture_close(struct ring_fixture *f)
{
    ring_producer_deinit(&f->producer);
    ring_consumer_deinit(&f->consumer);
    ring_memory_unmap_page(f->page);
    close(f->memory.descriptor);
}

/* The stream of test bytes: each position has its own. */
static inline uint8_t fixture_byte(uint64_t position)
{
    uint64_t x = position * 0x9e3779b97f4a7c15ull;
    return (uint8_t)(x >> 56);
}

/* Writes up to n bytes of the stream; what reserve said when it gave nothing. */
static inline int fixture_write(struct ring_fixture *f, size_t n)
{
    struct ring_span span;
    int r = ring_producer_reserve(&f->producer, n, n, &span);

    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        span.data[i] = fixture_byte(f->producer.tail + i);
    ring_producer_commit(&f->producer, n);
    return (int)n;
}

/* Reads up to n bytes, checking each; the number, or peek's error. */
static inline int fixture_read(struct ring_fixture *f, size_t n)
{
    size_t done = 0;

    while (done < n) {
        struct ring_span span;
        int r = ring_consumer_peek(&f->consumer, 1, &span);
        if (r < 0)
            return done ? (int)done : r;
        size_t part = span.size < n - done ? span.size : n - done;
        for (size_t i = 0; i < part; i++)
            assert_int_equal(span.data[i], fixture_byte(f->consumer.head + i));
        ring_consumer_release(&f->consumer, part);
        done += part;
    }
    return (int)done;
}

/* A whole reclaim round for this ring. */
static inline enum ring_pin fixture_reclaim(struct ring_fixture *f, unsigned dead,
                                            struct ring_extent *old)
{
    if (!ring_reclaim_begin(&f->geometry, dead))
        return RING_PIN_FOLLOWING;
    assert_int_equal(order_grace_period(), 0);
    return ring_reclaim_finish(&f->geometry, dead, old);
}

#endif
