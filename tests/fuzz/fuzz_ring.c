/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hostile neighbour: the input writes any word of the channel page at any time between the
 * operations of two ends and the broker's side. Whatever it writes, no end touches memory outside
 * of the data section's mappings (the sanitizer and the guard around the region would show it),
 * hangs, or hands out a span larger than an extent.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ring/consumer.h"
#include "ring/geometry.h"
#include "ring/producer.h"

#define DATA_OFFSET 8192u
#define BLOCKS 16u
#define REGION_BYTES (DATA_OFFSET + BLOCKS * LAYOUT_BLOCK_BYTES)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *at, *end;
};

static uint64_t take(struct input *input, size_t bytes)
{
    uint64_t value = 0;

    for (; bytes > 0 && input->at < input->end; bytes--)
        value = value << 8 | *input->at++;
    return value;
}

static void check(int holds)
{
    if (!holds)
        abort();
}

static void produce(struct ring_producer *p, struct input *input)
{
    size_t min = 1 + take(input, 2) % 20000, max = min + take(input, 2) % 20000;
    struct ring_span span;
    int r = ring_producer_reserve(p, min, max, &span);

    if (r < 0) {
        check(r == -EAGAIN || r == -EMSGSIZE || r == -EPIPE || r == -EPROTO || r == -ENOMEM);
        return;
    }
    check(span.size >= min && span.size <= max);
    check(span.size <= (p->entering ? p->next.size : p->view.size));
    memset(span.data, 0x5a, span.size);
    ring_producer_commit(p, take(input, 2));
}

static void consume(struct ring_consumer *c, struct input *input)
{
    size_t min = 1 + take(input, 2) % 20000;
    struct ring_span span;
    uint8_t sum = 0;

    int r = ring_consumer_peek(c, min, &span);
    if (r < 0) {
        check(r == -EAGAIN || r == -EMSGSIZE || r == -EPIPE || r == -EPROTO || r == -ENOMEM);
        return;
    }
    check(span.size >= min && span.size <= c->view.size);
    check(span.data >= c->view.address &&
          span.data + span.size <= c->view.address + 2 * c->view.size);
    for (size_t i = 0; i < span.size; i++)
        sum = (uint8_t)(sum + span.data[i]);
    ring_consumer_release(c, take(input, 2) + (sum & 1));
}

/* Small values and those near real ones reach further than random ones. */
static void scribble(struct layout_channel_page *page, struct input *input)
{
    size_t word = take(input, 2) % (sizeof(*page) / 8);
    uint64_t *words = (uint64_t *)(void *)page;

    switch (take(input, 1) % 4) {
    case 0:
        words[word] = take(input, 1);
        break;
    case 1:
        words[word] += (uint64_t)(int8_t)take(input, 1);
        break;
    case 2:
        words[word] = take(input, 8);
        break;
    default:
        words[word] = words[take(input, 2) % (sizeof(*page) / 8)];
        break;
    }
}

static void broker(struct ring_geometry *geometry, struct input *input)
{
    struct ring_extent old;
    struct ring_sample sample;
    uint64_t blocks = 1 + take(input, 1) % 8;

    ring_geometry_publish(
        geometry,
        (struct ring_extent){DATA_OFFSET + take(input, 1) % (BLOCKS - 8) * LAYOUT_BLOCK_BYTES,
                             blocks * LAYOUT_BLOCK_BYTES});
    if (!ring_geometry_followed(geometry, &old) && ring_reclaim_begin(geometry, 0))
        ring_reclaim_finish(geometry, (unsigned)take(input, 1) & 3, &old);
    ring_sample_take(geometry->shared, 65536, take(input, 1), &sample);
    check(sample.held_bytes <= 65536 && sample.high_water_bytes <= 65536);
    check(sample.received_bytes <= sample.sent_bytes);
    check(ring_geometry_promised(geometry) <= 65536);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, data + size};
    struct ring_memory memory = {.descriptor = memfd_create("fuzz", MFD_CLOEXEC),
                                 .size_bytes = REGION_BYTES,
                                 .data_offset = DATA_OFFSET};
    struct layout_channel_page *page;
    struct ring_geometry geometry;
    struct ring_producer p;
    struct ring_consumer c;

    check(memory.descriptor >= 0 && ftruncate(memory.descriptor, REGION_BYTES) == 0);
    check(ring_memory_map_page(&memory, LAYOUT_CHANNEL_PAGE_BYTES, &page) == 0);
    page->channel.state = LAYOUT_CHANNEL_CONNECTED;
    page->channel.fence_sleep = 1;
    ring_geometry_init(
        &geometry, &page->ring[0],
        (struct ring_extent){DATA_OFFSET, LAYOUT_BLOCK_BYTES * (1 + take(&input, 1) % 4)});
    ring_producer_init(&p, page, LAYOUT_SERVER_SENDS, &memory, 0, LAYOUT_BLOCK_BYTES);
    ring_consumer_init(&c, page, LAYOUT_SERVER_SENDS, &memory, 0);
    for (int steps = 0; input.at < input.end && steps < 400; steps++) {
        switch (take(&input, 1) % 8) {
        case 0:
        case 1:
            produce(&p, &input);
            break;
        case 2:
        case 3:
            consume(&c, &input);
            break;
        case 4:
            broker(&geometry, &input);
            break;
        case 5:
            ring_producer_promise(&p, take(&input, 2));
            break;
        case 6:
            if (ring_consumer_available(&c, 1) == 0 && ring_consumer_arm(&c, 1))
                ring_consumer_disarm(&c);
            if (ring_producer_arm(&p, 1 + take(&input, 2)))
                ring_producer_disarm(&p);
            break;
        default:
            scribble(page, &input);
            break;
        }
    }
    ring_producer_deinit(&p);
    ring_consumer_deinit(&c);
    ring_memory_unmap_page(page);
    close(memory.descriptor);
    return 0;
}
