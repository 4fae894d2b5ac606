/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ring/consumer.h"

#include <errno.h>
#include <unistd.h>

#include "ring/end.h"
#include "ring/mutation.h"

void ring_consumer_init(struct ring_consumer *consumer, struct layout_channel_page *page,
                        unsigned ring, const struct ring_memory *memory, uint64_t features)
{
    *consumer = (struct ring_consumer){
        .shared = &page->ring[ring],
        .channel = &page->channel,
        .memory = memory,
        .gone_bit = ring == LAYOUT_SERVER_SENDS ? LAYOUT_GONE_SERVER : LAYOUT_GONE_CLIENT,
        .fence_mark = features & LAYOUT_FEATURE_MARK_FENCE,
        .fence_sleep = order_load_plain(&page->channel.fence_sleep) != 0,
        /* Bytes lie in generation 1 until a switch says otherwise. */
        .view = {.generation = 1},
    };
}

void ring_consumer_deinit(struct ring_consumer *consumer)
{
    end_unmap(&consumer->view);
}

static int broken(struct ring_consumer *consumer)
{
    consumer->broken = -EPROTO;
    return -EPROTO;
}

/*
 * Head has reached the switch: nothing of ours is left in the old extent, the broker may have it.
 */
static void follow(struct ring_consumer *consumer)
{
    end_unmap(&consumer->view);
    consumer->view = consumer->next; /* mapped when there is something to read in it */
    consumer->cursor = 0;
    consumer->switch_pending = false;
    consumer->switch_count++;
    /*
     * Release: our reads of the old extent are before it. Pairs with ring_geometry_followed() and
     * consider_switch().
     */
    order_store_release(&consumer->shared->consumer.followed, consumer->switch_count);
}

/*
 * Looks for the producer's next switch. At most one is ahead of us: it waits until we have
 * followed.
 */
static int take_switch(struct ring_consumer *consumer)
{
    const struct layout_producer *producer = &consumer->shared->producer;
    uint64_t count_untrusted = order_load_acquire(&producer->switch_count);
    uint64_t offset;

    if (count_untrusted == consumer->switch_count + (consumer->switch_pending ? 1 : 0))
        return 0;
    if (consumer->switch_pending || count_untrusted != consumer->switch_count + 1)
        return broken(consumer);
    const struct layout_switch *record = &producer->switches[count_untrusted & 1];
    uint64_t generation_untrusted = order_load_plain(&record->generation);
    uint64_t position_untrusted = order_load_plain(&record->position);
    if (generation_untrusted <= consumer->view.generation ||
        position_untrusted < consumer->tail_seen ||
        end_look_up(consumer->shared, consumer->memory, generation_untrusted, position_untrusted,
                    &consumer->next, &offset) < 0)
        return broken(consumer);
    consumer->switch_pending = true;
    return 0;
}

/*
 * Can this many bytes be there? Those up to a pending switch lie in the view, those after it in the
 * next one.
 */
static int check_held(struct ring_consumer *consumer, uint64_t tail_untrusted)
{
    uint64_t held_in_view = tail_untrusted - consumer->head;
    uint64_t offset;

    if (consumer->switch_pending) {
        uint64_t to_switch = consumer->next.base - consumer->head;
        if (held_in_view > to_switch && held_in_view - to_switch > consumer->next.size)
            return broken(consumer);
        held_in_view = to_switch;
    }
    if (held_in_view == 0)
        return 0;
    if (consumer->view.size == 0 &&
        end_look_up(consumer->shared, consumer->memory, consumer->view.generation,
                    consumer->view.base, &consumer->view, &offset) < 0)
        return broken(consumer);
    return held_in_view > consumer->view.size ? broken(consumer) : 0;
}

static void note_high_water(struct ring_consumer *consumer)
{
    struct layout_consumer_status *status = &consumer->shared->consumer_status;
    uint64_t epoch = order_load_plain(&consumer->shared->geometry.sample_epoch);
    uint64_t held = consumer->tail_seen - consumer->head;

    if (epoch == consumer->high_water_epoch && held <= consumer->high_water)
        return;
    consumer->high_water = held;
    order_store_plain(&status->high_water_bytes, held);
    if (epoch != consumer->high_water_epoch) {
        consumer->high_water_epoch = epoch;
        order_store_plain(&status->high_water_epoch, epoch);
    }
}

/*
 * Loads what the producer has published. tail first, switch_count after it: the other way round, a
 * tail beyond a switch could come with the count from before it, and bytes of the new extent would
 * be looked for in the old one.
 */
static int refresh(struct ring_consumer *consumer)
{
    int r = MUTATED(CONSUMER_LOADS_SWITCH_FIRST) ? take_switch(consumer) : 0;
    if (MUTATED(CONSUMER_LOADS_SWITCH_FIRST))
        usleep(1); /* widens the window */
    uint64_t tail_untrusted = order_load_acquire(&consumer->shared->producer.tail);

    if (consumer->broken)
        return consumer->broken;
    if (tail_untrusted < consumer->tail_seen)
        return broken(consumer);
    if (!MUTATED(CONSUMER_LOADS_SWITCH_FIRST))
        r = take_switch(consumer);
    if (r == 0 && consumer->switch_pending && consumer->next.base == consumer->head) {
        follow(consumer);
        consumer->doorbell_owed |=
            end_must_ring(&consumer->shared->producer_sleep, END_WHATEVER_WANTED, &consumer->rung,
                          consumer->fence_sleep);
    }
    if (r == 0)
        r = check_held(consumer, tail_untrusted);
    if (r == 0 && tail_untrusted != consumer->tail_seen) {
        consumer->tail_seen = tail_untrusted;
        note_high_water(consumer);
    }
    return r;
}

size_t ring_consumer_available(struct ring_consumer *consumer, size_t want)
{
    if (consumer->tail_seen - consumer->head < want)
        refresh(consumer);
    return consumer->broken ? 0 : (size_t)(consumer->tail_seen - consumer->head);
}

bool ring_consumer_owes_doorbell(struct ring_consumer *consumer)
{
    bool owed = consumer->doorbell_owed;

    consumer->doorbell_owed = false;
    return owed;
}

bool ring_consumer_ended(struct ring_consumer *consumer)
{
    /* Acquire: who sees the end sees the last tail at the next refresh. */
    return end_is_gone(consumer->channel, consumer->gone_bit) ||
           order_load_acquire(&consumer->shared->producer_sleep.closed);
}

/*
 * The most that can lie in one piece: of the extent in use, or of the one that the producer goes to
 * next.
 */
static uint64_t capacity(const struct ring_consumer *consumer)
{
    const struct layout_geometry *geometry = &consumer->shared->geometry;
    uint64_t generation_untrusted = order_load_acquire(&geometry->generation);
    uint64_t size_untrusted = order_load_plain(&geometry->extent[generation_untrusted & 1].size);

    return consumer->view.size > size_untrusted ? consumer->view.size : size_untrusted;
}

/* Fewer bytes than wanted: for now or for good? */
static int shortage(struct ring_consumer *consumer, size_t min)
{
    if (MUTATED(ENDED_READ_AFTER_TAIL))
        usleep(300); /* widens the window */
    if (ring_consumer_ended(consumer)) {
        if (!MUTATED(ENDED_READ_AFTER_TAIL) &&
            ring_consumer_available(consumer, min) >= min)
            return 0;
        return consumer->broken ? consumer->broken : -EPIPE;
    }
    return min > capacity(consumer) ? -EMSGSIZE : -EAGAIN;
}

int ring_consumer_peek(struct ring_consumer *consumer, size_t min, struct ring_span *span)
{
    int r;

    if (consumer->broken)
        return consumer->broken;
    if (ring_consumer_available(consumer, min) < min) {
        r = consumer->broken ? consumer->broken : shortage(consumer, min);
        if (r < 0)
            return r;
    }
    uint64_t end = consumer->switch_pending && consumer->next.base < consumer->tail_seen
                       ? consumer->next.base
                       : consumer->tail_seen;
    if (end - consumer->head < min)
        return -EMSGSIZE;
    /*
     * The mark keeps the extent from being freed while we are in it; so does head < tail, which the
     * broker checks first. That the bytes were seen before the mark is no matter: no one but us
     * moves head.
     */
    order_store_plain(&consumer->shared->consumer_status.mark, consumer->mark + 1);
    order_mark(consumer->fence_mark);
    if (__builtin_expect(!consumer->view.address, 0)) {
        r = end_map(consumer->shared, consumer->memory, &consumer->view);
        if (r < 0) {
            order_store_release(&consumer->shared->consumer_status.mark, consumer->mark);
            return r == -EPROTO ? broken(consumer) : r;
        }
    }
    span->data = consumer->view.address + consumer->cursor;
    span->size = (size_t)(end - consumer->head);
    consumer->peeked = span->size;
    return 0;
}

bool ring_consumer_release(struct ring_consumer *consumer, size_t n)
{
    struct layout_ring *shared = consumer->shared;

    if (n > consumer->peeked)
        n = consumer->peeked;
    consumer->peeked = 0;
    if (n == 0) {
        order_store_release(&shared->consumer_status.mark, consumer->mark);
        return false;
    }
    consumer->head += n;
    consumer->cursor += n;
    if (consumer->cursor >= consumer->view.size)
        consumer->cursor -= consumer->view.size;
    /*
     * Release: our reads are before it. Pairs with refresh_head() of the producer, which writes
     * there again.
     */
    order_store_release(&shared->consumer.head, consumer->head);
    bool followed = consumer->switch_pending && consumer->next.base == consumer->head;
    if (__builtin_expect(followed, 0))
        follow(consumer);
    consumer->mark += 2;
    order_store_release(&shared->consumer_status.mark, consumer->mark);
    bool owed = ring_consumer_owes_doorbell(consumer);
    if (!end_must_ring(&shared->producer_sleep, followed ? END_WHATEVER_WANTED : consumer->head,
                       &consumer->rung, consumer->fence_sleep) &&
        !owed)
        return false;
    order_store_plain(&shared->consumer_status.doorbells, ++consumer->doorbells);
    return true;
}

/* Those followed and the one that is ahead. */
static uint64_t switches_seen(const struct ring_consumer *consumer)
{
    return consumer->switch_count + (consumer->switch_pending ? 1 : 0);
}

bool ring_consumer_arm(struct ring_consumer *consumer, size_t bytes)
{
    struct layout_ring *shared = consumer->shared;
    const uint64_t switches_known = switches_seen(consumer);

    consumer->armed = end_next_arming(consumer->armed);
    end_arm(&shared->consumer_sleep, consumer->armed, consumer->head + bytes,
            consumer->fence_sleep);
    if (!MUTATED(NO_RECHECK_AFTER_ARM) &&
        (ring_consumer_available(consumer, bytes) >= bytes || consumer->broken ||
         ring_consumer_ended(consumer)))
        return false;
    /*
     * The producer rings for a switch, fewer bytes than wanted though there be; this one came
     * before the arming. Who waits for more than one byte must get to the switch, for the producer
     * may not make the next one before.
     */
    if (!MUTATED(NO_RECHECK_AFTER_ARM) && !MUTATED(RECHECK_TAIL_ONLY) &&
        switches_seen(consumer) != switches_known)
        return false;
    order_store_plain(&shared->consumer_status.sleeps, ++consumer->sleeps);
    return true;
}

void ring_consumer_disarm(struct ring_consumer *consumer)
{
    order_store_release(&consumer->shared->consumer_sleep.armed, 0u);
}

bool ring_consumer_close(struct ring_consumer *consumer)
{
    order_store_release(&consumer->shared->consumer_sleep.closed, 1u);
    order_fence(); /* pairs with order_sleep() in end_arm() */
    return order_load_acquire(&consumer->shared->producer_sleep.armed) != 0;
}
