/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ring/producer.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "ring/end.h"
#include "ring/mutation.h"

void ring_producer_init(struct ring_producer *producer, struct layout_channel_page *page,
                        unsigned ring, const struct ring_memory *memory, uint64_t features,
                        uint64_t floor)
{
    *producer = (struct ring_producer){
        .shared = &page->ring[ring],
        .channel = &page->channel,
        .memory = memory,
        .gone_bit = ring == LAYOUT_SERVER_SENDS ? LAYOUT_GONE_CLIENT : LAYOUT_GONE_SERVER,
        .fence_mark = features & LAYOUT_FEATURE_MARK_FENCE,
        .fence_sleep = order_load_plain(&page->channel.fence_sleep) != 0,
        .floor = floor,
    };
}

void ring_producer_deinit(struct ring_producer *producer)
{
    end_unmap(&producer->view);
    end_unmap(&producer->next);
}

static int broken(struct ring_producer *producer)
{
    producer->broken = -EPROTO;
    return -EPROTO;
}

/*
 * An operation is a read-side critical section of the ring's geometry: marked, then the generation
 * is loaded. Pairs with the broker's grace period between publishing and looking at the mark.
 */
static inline void operation_begin(struct ring_producer *producer)
{
    order_store_plain(&producer->shared->producer_status.mark, producer->mark + 1);
    order_mark(producer->fence_mark);
}

/* Release: everything done in the operation is before its end. */
static inline void operation_end(struct ring_producer *producer)
{
    producer->mark += 2;
    order_store_release(&producer->shared->producer_status.mark, producer->mark);
}

/* Ends an operation that came to nothing; it does not count. */
static void operation_cancel(struct ring_producer *producer)
{
    producer->entering = false;
    order_store_release(&producer->shared->producer_status.mark, producer->mark);
}

static inline bool consumer_is_gone(const struct ring_producer *producer)
{
    return end_is_gone(producer->channel, producer->gone_bit) ||
           order_load_acquire(&producer->shared->consumer_sleep.closed);
}

/*
 * Bytes free in the extent in use, as of head_seen. Those before the base lie in the extent that we
 * left.
 */
static inline uint64_t space_known(const struct ring_producer *producer)
{
    const struct ring_view *view = &producer->view;
    uint64_t from = producer->head_seen > view->base ? producer->head_seen : view->base;

    return view->size - (producer->tail - from);
}

/* Acquire: the consumer has read the bytes before head; their space may be written again. */
static int refresh_head(struct ring_producer *producer)
{
    uint64_t head_untrusted = order_load_acquire(&producer->shared->consumer.head);

    if (head_untrusted < producer->head_seen || head_untrusted > producer->tail)
        return broken(producer);
    producer->head_seen = head_untrusted;
    return 0;
}

/*
 * Is the consumer in the extent that we are in? Only then may we leave it: two extents are all
 * there are.
 */
static int consumer_is_level(struct ring_producer *producer)
{
    uint64_t followed_untrusted = order_load_acquire(&producer->shared->consumer.followed);

    if (followed_untrusted < producer->followed_seen ||
        followed_untrusted > producer->switch_count ||
        producer->switch_count - followed_untrusted > 1)
        return broken(producer);
    producer->followed_seen = followed_untrusted;
    return followed_untrusted == producer->switch_count;
}

/* The view in use is generation 1's from the start: nobody switches to it. */
static int enter_first(struct ring_producer *producer)
{
    producer->view = (struct ring_view){.generation = 1};
    int r = end_map(producer->shared, producer->memory, &producer->view);
    if (r < 0)
        producer->view = (struct ring_view){0};
    return r == -EPROTO ? broken(producer) : r;
}

static int map_next(struct ring_producer *producer, const struct ring_view *target)
{
    if (producer->next.generation == target->generation)
        return producer->next.size == target->size ? 0 : broken(producer);
    end_unmap(&producer->next);
    producer->next = *target;
    int r = end_map(producer->shared, producer->memory, &producer->next);
    if (r < 0)
        producer->next = (struct ring_view){0};
    return r == -EPROTO ? broken(producer) : r;
}

static bool promise_fits(const struct ring_producer *producer, uint64_t size)
{
    return producer->promised <= producer->tail || producer->promised - producer->tail <= size;
}

/*
 * There is another generation than the one in use. 1: the operation goes on in producer->next,
 * which is empty and holds at least min; 0: it stays in the extent in use; -errno.
 *
 * The broker has the latest generation and at most the one before it; those before that are free,
 * ours too if we slept that long. So staying is allowed in two cases: the consumer is not level
 * (then ours is one of those two), or a promise is out that the latest cannot hold (then the broker
 * keeps the one before it) and ours is the one before; if ours is older still, that one is where we
 * go.
 */
static int consider_switch(struct ring_producer *producer, uint64_t generation, size_t min)
{
    struct ring_view target;
    uint64_t offset;
    int level = consumer_is_level(producer);

    if (level < 0)
        return level;
    if (level == 0 && !MUTATED(SWITCH_WITHOUT_FOLLOWED)) {
        /* Ours is the latest or the one before it, or was freed: then somebody lies. */
        if (generation - producer->view.generation > 1)
            return broken(producer);
        /*
         * More than ours holds, but not more than the one that we enter when the consumer has
         * followed.
         */
        if (min > producer->view.size && generation != producer->view.generation &&
            end_look_up(producer->shared, producer->memory, generation, 0, &target, &offset) == 0 &&
            min <= target.size)
            return -EAGAIN;
        return 0;
    }
    if (producer->view.generation == 0 && generation == 1)
        return enter_first(producer);
    if (generation < producer->view.generation ||
        end_look_up(producer->shared, producer->memory, generation, 0, &target, &offset) < 0)
        return broken(producer);
    if (!promise_fits(producer, target.size) && !MUTATED(PRODUCER_IGNORES_PROMISE)) {
        if (producer->view.generation + 1 == generation || MUTATED(DECLINE_STAYS))
            return 0;
        if (end_look_up(producer->shared, producer->memory, --generation, 0, &target, &offset) < 0)
            return broken(producer);
    }
    if (min > target.size)
        return -EMSGSIZE;
    int r = map_next(producer, &target);
    return r < 0 ? r : 1;
}

static int find_space(struct ring_producer *producer, size_t min, size_t max,
                      struct ring_span *span)
{
    uint64_t space = space_known(producer);

    if (space < max) {
        int r = refresh_head(producer);
        if (r < 0)
            return r;
        space = space_known(producer);
    }
    if (space < min) {
        if (min > producer->view.size)
            return -EMSGSIZE;
        return -EAGAIN;
    }
    span->data = producer->view.address + producer->cursor;
    span->size = space < max ? (size_t)space : max;
    return 0;
}

int ring_producer_reserve(struct ring_producer *producer, size_t min, size_t max,
                          struct ring_span *span)
{
    int r = 0;

    if (producer->broken)
        return producer->broken;
    operation_begin(producer);
    if (consumer_is_gone(producer)) {
        operation_cancel(producer);
        return -EPIPE;
    }
    /* Acquire: pairs with publish() in ring/geometry.c. */
    uint64_t generation_untrusted = order_load_acquire(&producer->shared->geometry.generation);
    if (__builtin_expect(generation_untrusted != producer->view.generation, 0))
        r = consider_switch(producer, generation_untrusted, min);
    if (r == 1) {
        producer->entering = true;
        span->data = producer->next.address;
        span->size = max < producer->next.size ? max : producer->next.size;
    } else if (r == 0) {
        r = find_space(producer, min, max, span);
    }
    if (r < 0) {
        operation_cancel(producer);
        return r;
    }
    producer->reserved = span->size;
    if (MUTATED(MARK_CLEARED_EARLY))
        order_store_release(&producer->shared->producer_status.mark, producer->mark);
    if (MUTATED(TAIL_BEFORE_BYTES) && !producer->entering)
        order_store_release(&producer->shared->producer.tail, producer->tail + span->size);
    return 0;
}

/* Leaves the extent in use at tail. What follows lies in producer->next. */
static void make_switch(struct ring_producer *producer)
{
    uint64_t number = producer->switch_count + 1;
    struct layout_switch *record = &producer->shared->producer.switches[number & 1];

    order_store_plain(&record->position, producer->tail);
    /*
     * Release: who sees this record has seen that the consumer followed the last one; see
     * ring_geometry_followed().
     */
    order_store_release(&record->generation, producer->next.generation);
    /*
     * Release: pairs with the acquire in the consumer's take_switch(), and is before the tail that
     * lies beyond it.
     */
    order_store_release(&producer->shared->producer.switch_count, number);
    producer->switch_count = number;
    end_unmap(&producer->view);
    producer->view = producer->next;
    producer->view.base = producer->tail;
    producer->next = (struct ring_view){0};
    producer->cursor = 0;
    producer->entering = false;
}

bool ring_producer_commit(struct ring_producer *producer, size_t n)
{
    struct layout_ring *shared = producer->shared;

    if (n > producer->reserved)
        n = producer->reserved;
    producer->reserved = 0;
    if (n == 0) {
        operation_cancel(producer);
        return false;
    }
    bool switched = producer->entering;
    if (MUTATED(TAIL_BEFORE_SWITCH) && switched) {
        order_store_release(&shared->producer.tail, producer->tail + n);
        usleep(1); /* widens the window */
    }
    if (__builtin_expect(switched, 0))
        make_switch(producer);
    producer->tail += n;
    producer->cursor += n;
    if (producer->cursor >= producer->view.size)
        producer->cursor -= producer->view.size;
    /*
     * Release: pairs with the acquire in the consumer's refresh(): who sees the tail sees the
     * bytes.
     */
    order_store_release(&shared->producer.tail, producer->tail);
    operation_end(producer);
    const bool whatever_wanted = switched && !MUTATED(NO_RING_AFTER_SWITCH);
    if (!end_must_ring(&shared->consumer_sleep,
                       whatever_wanted ? END_WHATEVER_WANTED : producer->tail, &producer->rung,
                       producer->fence_sleep))
        return false;
    order_store_plain(&shared->producer_status.doorbells, ++producer->doorbells);
    return true;
}

size_t ring_producer_space(struct ring_producer *producer)
{
    const struct layout_ring *shared = producer->shared;
    uint64_t generation = order_load_acquire(&shared->geometry.generation);

    if (producer->broken || consumer_is_gone(producer))
        return SIZE_MAX;
    if (generation != producer->view.generation) {
        /* Most likely the next operation switches, and finds the new extent empty. */
        uint64_t size = order_load_plain(&shared->geometry.extent[generation & 1].size);
        if (order_load_acquire(&shared->consumer.followed) == producer->switch_count &&
            promise_fits(producer, size))
            return size;
    }
    return refresh_head(producer) < 0 ? SIZE_MAX : (size_t)space_known(producer);
}

static void set_promise(struct ring_producer *producer, uint64_t position)
{
    producer->promised = position;
    order_store_plain(&producer->shared->producer_status.promised, position);
}

/* See hold(). */
static void release_hold(struct ring_producer *producer)
{
    if (!producer->holding)
        return;
    producer->holding = false;
    set_promise(producer, producer->promised_before);
}

/*
 * Within an operation. Where the next operation is free to switch, it may be to this generation or,
 * when that is freed before we come to it, to a later one: only the floor is common to all.
 */
static uint64_t space_to_promise(struct ring_producer *producer)
{
    const struct layout_geometry *geometry = &producer->shared->geometry;
    uint64_t generation = order_load_acquire(&geometry->generation);

    if (generation != producer->view.generation && consumer_is_level(producer) == 1) {
        uint64_t size_untrusted = order_load_plain(&geometry->extent[generation & 1].size);
        if (producer->view.generation + 1 != generation || promise_fits(producer, size_untrusted))
            return producer->floor;
    }
    return refresh_head(producer) == 0 ? space_known(producer) : 0;
}

size_t ring_producer_promise(struct ring_producer *producer, size_t limit)
{
    uint64_t space = 0;

    if (producer->broken)
        return 0;
    operation_begin(producer);
    release_hold(producer);
    uint64_t outstanding =
        producer->promised > producer->tail ? producer->promised - producer->tail : 0;
    if (!consumer_is_gone(producer)) {
        space = space_to_promise(producer);
        if (space < outstanding)
            space = outstanding;
    }
    /* What was promised before stays so, though it be more than is asked for now. */
    if (space > limit && limit > outstanding)
        space = limit;
    else if (space > limit)
        space = outstanding;
    set_promise(producer, producer->tail + space);
    operation_cancel(producer);
    return space < limit ? (size_t)space : limit;
}

/*
 * Who sleeps for more than the floor in one piece is kept from losing the room for it meanwhile, as
 * if it had been promised. A promise grows only in an operation that finds its own extent to be the
 * latest.
 */
static void hold(struct ring_producer *producer, size_t bytes)
{
    if (bytes <= producer->floor || bytes > producer->view.size ||
        producer->promised >= producer->tail + bytes)
        return;
    operation_begin(producer);
    if (order_load_acquire(&producer->shared->geometry.generation) == producer->view.generation) {
        producer->promised_before = producer->promised;
        producer->holding = true;
        set_promise(producer, producer->tail + bytes);
    }
    operation_cancel(producer);
}

bool ring_producer_arm(struct ring_producer *producer, size_t bytes)
{
    struct layout_ring *shared = producer->shared;
    hold(producer, bytes);
    uint64_t filled = producer->tail + bytes;
    /*
     * The head at which `bytes` are free in the extent in use. A new generation wakes us whatever
     * it says.
     */
    uint64_t wanted = filled > producer->view.size ? filled - producer->view.size : 0;

    producer->armed = end_next_arming(producer->armed);
    end_arm(&shared->producer_sleep, producer->armed, wanted, producer->fence_sleep);
    if (!MUTATED(NO_RECHECK_AFTER_ARM) && ring_producer_space(producer) >= bytes)
        return false;
    order_store_plain(&shared->producer_status.sleeps, ++producer->sleeps);
    return true;
}

void ring_producer_disarm(struct ring_producer *producer)
{
    order_store_release(&producer->shared->producer_sleep.armed, 0u);
    release_hold(producer);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

bool ring_producer_stall_begin(struct ring_producer *producer)
{
    struct layout_producer_status *status = &producer->shared->producer_status;

    if (producer->stall_start_ns)
        return false;
    producer->stall_start_ns = now_ns();
    order_store_plain(&status->stalls, ++producer->stalls);
    order_store_plain(&status->stalled, 1u);
    return true;
}

void ring_producer_stall_end(struct ring_producer *producer)
{
    struct layout_producer_status *status = &producer->shared->producer_status;

    if (!producer->stall_start_ns)
        return;
    producer->stall_ns += now_ns() - producer->stall_start_ns;
    producer->stall_start_ns = 0;
    order_store_plain(&status->stall_ns, producer->stall_ns);
    order_store_plain(&status->stalled, 0u);
}

bool ring_producer_close(struct ring_producer *producer)
{
    set_promise(producer, 0); /* to somebody who writes nothing more pins nothing */
    order_store_release(&producer->shared->producer_sleep.closed, 1u);
    order_fence(); /* whatever the mode: pairs with order_sleep() in end_arm() */
    return order_load_acquire(&producer->shared->consumer_sleep.armed) != 0;
}
