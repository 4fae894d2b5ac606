/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/resizer.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "allocator/allocator.h"
#include "bench/children.h"
#include "ring/order.h"

#define REGION_BYTES (64u << 20)
#define DATA_OFFSET (2u * LAYOUT_CHANNEL_PAGE_BYTES)
#define NEIGHBOURS 64u

struct books {
    struct allocator *allocator;
    struct ring_geometry geometry;
    uint64_t current_block;
    uint64_t random;
};

static struct ring_extent extent_of(uint64_t start_block, uint64_t blocks)
{
    return (struct ring_extent){DATA_OFFSET + start_block * LAYOUT_BLOCK_BYTES,
                                blocks * LAYOUT_BLOCK_BYTES};
}

void resizer_init(struct resizer *resizer, unsigned pause_us)
{
    int fd = memfd_create("resize", MFD_CLOEXEC);

    *resizer = (struct resizer){
        .memory = {.descriptor = fd, .size_bytes = REGION_BYTES, .data_offset = DATA_OFFSET},
        .pause_us = pause_us,
    };
    if (fd < 0 || ftruncate(fd, REGION_BYTES) < 0)
        children_fail("memfd: %s", strerror(errno));
    if (ring_memory_map_page(&resizer->memory, LAYOUT_CHANNEL_PAGE_BYTES, &resizer->page) < 0)
        children_fail("cannot map the channel page");
    resizer->control = mmap(NULL, sizeof(*resizer->control), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (resizer->control == MAP_FAILED)
        children_fail("out of memory");
    resizer->page->channel.state = LAYOUT_CHANNEL_CONNECTED;
    resizer->page->channel.fence_sleep = !order_register();
    struct ring_geometry first;
    ring_geometry_init(&first, &resizer->page->ring[LAYOUT_SERVER_SENDS],
                       extent_of(0, RESIZER_BLOCKS_MIN));
}

void resizer_deinit(struct resizer *resizer)
{
    ring_memory_unmap_page(resizer->page);
    munmap(resizer->control, sizeof(*resizer->control));
    close(resizer->memory.descriptor);
}

/* xorshift64: G. Marsaglia, "Xorshift RNGs", 2003. */
static uint64_t draw(struct books *books, uint64_t below)
{
    books->random ^= books->random << 13;
    books->random ^= books->random >> 7;
    books->random ^= books->random << 17;
    return (books->random >> 11) % below;
}

/*
 * Takes over the ring where resizer_init left it, between neighbours that leave holes of all sizes.
 */
static void books_init(struct books *books, const struct resizer *resizer)
{
    uint64_t blocks = (REGION_BYTES - DATA_OFFSET) / LAYOUT_BLOCK_BYTES;
    uint64_t starts[NEIGHBOURS];
    int r;

    *books = (struct books){
        .random = 0x9e3779b97f4a7c15u,
        .geometry = {.shared = &resizer->page->ring[LAYOUT_SERVER_SENDS],
                     .generation = 1,
                     .current = extent_of(0, RESIZER_BLOCKS_MIN)},
    };
    r = allocator_new(blocks, &books->allocator);
    if (r == 0)
        r = allocator_allocate_at(books->allocator, 0, 0, RESIZER_BLOCKS_MIN, 0);
    for (unsigned i = 0; i < NEIGHBOURS && r == 0; i++)
        r = allocator_allocate(books->allocator, 1, 1 + draw(books, RESIZER_BLOCKS_MAX), i,
                               &starts[i]);
    for (unsigned i = 0; i < NEIGHBOURS && r == 0; i += 2)
        r = allocator_release(books->allocator, starts[i]);
    if (r < 0)
        children_fail("the resizer's allocator: %s", strerror(-r));
}

/* Gives the old extent back, its memory to the host, if the consumer has left it. */
static void take_back(struct books *books, const struct resizer *resizer)
{
    struct ring_extent old;

    if (!books->geometry.old.size || !ring_geometry_followed(&books->geometry, &old))
        return;
    if (fallocate(resizer->memory.descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)old.offset, (off_t)old.size) < 0)
        children_fail("punching a hole: %s", strerror(errno));
    allocator_release(books->allocator, (old.offset - DATA_OFFSET) / LAYOUT_BLOCK_BYTES);
}

static void publish_next(struct books *books, const struct resizer *resizer)
{
    struct resizer_control *control = resizer->control;
    uint64_t now = books->geometry.current.size / LAYOUT_BLOCK_BYTES, blocks = now, start_block;

    if (draw(books, 4)) /* each fourth moves and keeps its size */
        blocks = RESIZER_BLOCKS_MIN + draw(books, RESIZER_BLOCKS_MAX - RESIZER_BLOCKS_MIN + 1);
    int r = allocator_replace(books->allocator, books->current_block, blocks, &start_block);
    struct ring_extent extent = extent_of(r == 0 ? start_block : 0, blocks);
    if (r == 0 &&
        fallocate(resizer->memory.descriptor, 0, (off_t)extent.offset, (off_t)extent.size) < 0)
        r = -errno;
    if (r == 0)
        r = ring_geometry_publish(&books->geometry, extent);
    if (r < 0)
        children_fail("the resizer cannot publish: %s", strerror(-r));
    books->current_block = start_block;
    uint64_t *kind = blocks > now   ? &control->grows
                     : blocks < now ? &control->shrinks
                                    : &control->moves;
    order_store_plain(kind, *kind + 1);
    order_store_release(&control->cycles, control->cycles + 1);
}

/* The reader on our CPU spins: under a real-time policy (chrt) we would never run beside it. */
static void outrank_reader(void)
{
    struct sched_param parameters;
    int policy = sched_getscheduler(0);

    if ((policy == SCHED_FIFO || policy == SCHED_RR) && sched_getparam(0, &parameters) == 0) {
        parameters.sched_priority++;
        (void)sched_setscheduler(0, policy, &parameters);
    }
}

void resizer_run(struct resizer *resizer)
{
    struct books books;

    outrank_reader();
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    books_init(&books, resizer);
    order_store_release(&resizer->control->ready, 1);
    while (!order_load_acquire(&resizer->control->stop)) {
        usleep(resizer->pause_us / 2 + (unsigned)draw(&books, resizer->pause_us));
        take_back(&books, resizer);
        if (order_load_acquire(&resizer->control->publishing) && !books.geometry.old.size)
            publish_next(&books, resizer);
    }
    allocator_free(books.allocator);
}
