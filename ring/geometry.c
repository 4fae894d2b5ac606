/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ring/geometry.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

#include "ring/mutation.h"
#include "ring/order.h"

static void publish(struct ring_geometry *geometry, uint64_t generation, struct ring_extent extent)
{
    struct layout_geometry *shared = &geometry->shared->geometry;
    struct layout_extent *slot = &shared->extent[generation & 1];

    order_store_plain(&slot->generation, generation);
    order_store_plain(&slot->offset, extent.offset);
    order_store_plain(&slot->size, extent.size);
    /*
     * Pairs with the acquire in the ends' next operation: who sees the generation sees its extent.
     */
    order_store_release(&shared->generation, generation);
    geometry->generation = generation;
    geometry->current = extent;
}

void ring_geometry_init(struct ring_geometry *geometry, struct layout_ring *shared,
                        struct ring_extent extent)
{
    *geometry = (struct ring_geometry){.shared = shared};
    publish(geometry, 1, extent);
}

int ring_geometry_publish(struct ring_geometry *geometry, struct ring_extent extent)
{
    if (geometry->old.size)
        return -EBUSY;
    geometry->old = geometry->current;
    publish(geometry, geometry->generation + 1, extent);
    /*
     * The producer arms, passes order_sleep(), loads the generation; we publish, fence, look at the
     * arming.
     */
    order_fence();
    return order_load_acquire(&geometry->shared->producer_sleep.armed) != 0;
}

static void settle(struct ring_geometry *geometry, struct ring_extent *old)
{
    *old = geometry->old;
    geometry->old = (struct ring_extent){0};
    geometry->reclaiming = false;
}

bool ring_geometry_followed(struct ring_geometry *geometry, struct ring_extent *old)
{
    struct layout_ring *shared = geometry->shared;

    if (!geometry->old.size)
        return false;
    /*
     * Acquire: the consumer's reads of the old extent are before its "followed", the producer's
     * writes before its switch.
     */
    uint64_t followed = order_load_acquire(&shared->consumer.followed);
    uint64_t switches = order_load_acquire(&shared->producer.switch_count);
    if (followed != switches || switches == 0)
        return false;
    if (order_load_acquire(&shared->producer.switches[switches & 1].generation) !=
        geometry->generation)
        return false;
    /*
     * Once more: had it gone on meanwhile, the record could be that of the switch after the next,
     * in the same slot.
     */
    if (order_load_acquire(&shared->consumer.followed) != followed)
        return false;
    settle(geometry, old);
    return true;
}

bool ring_reclaim_begin(struct ring_geometry *geometry, unsigned dead)
{
    if (!geometry->old.size)
        return false;
    /*
     * That the consumer is level is seen before the grace period, not after: a producer whose
     * consumer lags declines to switch, and may begin one more write into the old extent when the
     * grace period is over.
     */
    geometry->switch_count = order_load_acquire(&geometry->shared->producer.switch_count);
    geometry->consumer_was_dead = dead & RING_CONSUMER_DEAD;
    geometry->reclaiming =
        geometry->consumer_was_dead ||
        order_load_acquire(&geometry->shared->consumer.followed) == geometry->switch_count;
    return geometry->reclaiming;
}

enum ring_pin ring_reclaim_finish(struct ring_geometry *geometry, unsigned dead,
                                  struct ring_extent *old)
{
    struct layout_ring *shared = geometry->shared;

    if (!geometry->reclaiming)
        return RING_PIN_FOLLOWING;
    geometry->reclaiming = false;
    /*
     * The order of these loads is that of tests/model. An operation that began before the grace
     * period shows in the mark until its stores are visible. One that began after it sees the new
     * generation and switches, unless a promise is out that the new extent cannot hold: then it
     * goes on in the old one, or switches to it. So the promise is asked for after tail, the switch
     * number after the promise, and the mark once more at the end: unchanged, no operation has
     * moved tail in between (that also covers promises that are lowered or withdrawn, which the
     * model has not).
     */
    const bool producer_dead = dead & RING_PRODUCER_DEAD && !MUTATED(DEAD_NOT_CLEAR);
    uint64_t mark = order_load_acquire(&shared->producer_status.mark);
    if (!producer_dead && !MUTATED(IGNORE_PRODUCER_MARK) && (mark & 1))
        return RING_PIN_PRODUCER;
    if (geometry->consumer_was_dead) {
        /*
         * Gone before the grace period: the producer has seen it, it writes nowhere again, and
         * nobody reads.
         */
        settle(geometry, old);
        return RING_NOT_PINNED;
    }
    uint64_t tail = order_load_acquire(&shared->producer.tail);
    if (order_load_acquire(&shared->consumer.head) != tail && !MUTATED(IGNORE_HEAD))
        return RING_PIN_DATA;
    uint64_t promised = order_load_acquire(&shared->producer_status.promised);
    if (order_load_acquire(&shared->producer.switch_count) != geometry->switch_count)
        return RING_PIN_FOLLOWING;
    if (order_load_acquire(&shared->consumer_status.mark) & 1)
        return RING_PIN_CONSUMER;
    if (!producer_dead) {
        if (promised > tail && promised - tail > geometry->current.size &&
            !MUTATED(BROKER_IGNORES_PROMISE))
            return RING_PIN_PROMISE;
        if (order_load_acquire(&shared->producer_status.mark) != mark &&
            !MUTATED(IGNORE_PRODUCER_MARK))
            return RING_PIN_PRODUCER;
    }
    settle(geometry, old);
    return RING_NOT_PINNED;
}

uint64_t ring_geometry_promised(const struct ring_geometry *geometry)
{
    const struct layout_ring *shared = geometry->shared;
    uint64_t largest =
        geometry->old.size > geometry->current.size ? geometry->old.size : geometry->current.size;
    /* tail first: a promise made between the two loads must not look spent. */
    uint64_t tail = order_load_acquire(&shared->producer.tail);
    uint64_t promised = order_load_acquire(&shared->producer_status.promised);

    if (promised <= tail)
        return 0;
    return promised - tail < largest ? promised - tail : largest;
}

const char *ring_pin_text(enum ring_pin pin)
{
    static const char *const texts[] = {
        [RING_NOT_PINNED] = "free",
        [RING_PIN_FOLLOWING] = "the receiver has not followed yet",
        [RING_PIN_DATA] = "bytes are left in it",
        [RING_PIN_PRODUCER] = "the sender is in an operation",
        [RING_PIN_CONSUMER] = "the receiver is in an operation",
        [RING_PIN_PROMISE] = "the sender was promised more space than the new size",
    };
    static_assert(sizeof(texts) / sizeof(texts[0]) == RING_PIN_PROMISE + 1, "a text for each pin");
    return texts[pin];
}

void ring_sample_take(const struct layout_ring *shared, uint64_t capacity_bytes, uint64_t epoch,
                      struct ring_sample *sample)
{
    /* head before tail: then head <= tail for honest ends, whatever happens between the loads. */
    uint64_t head = order_load_acquire(&shared->consumer.head);
    uint64_t tail = order_load_acquire(&shared->producer.tail);
    const struct layout_producer_status *sender = &shared->producer_status;
    const struct layout_consumer_status *receiver = &shared->consumer_status;

    if (head > tail)
        head = tail;
    uint64_t held = tail - head < capacity_bytes ? tail - head : capacity_bytes;
    uint64_t high = order_load_plain(&receiver->high_water_bytes);
    if (order_load_plain(&receiver->high_water_epoch) != epoch || high < held)
        high = held;
    *sample = (struct ring_sample){
        .sent_bytes = tail,
        .received_bytes = head,
        .held_bytes = held,
        .high_water_bytes = high < capacity_bytes ? high : capacity_bytes,
        .sent_operations = order_load_plain(&sender->mark) / 2,
        .received_operations = order_load_plain(&receiver->mark) / 2,
        .stalls = order_load_plain(&sender->stalls),
        .stall_ns = order_load_plain(&sender->stall_ns),
        .producer_doorbells = order_load_plain(&sender->doorbells),
        .consumer_doorbells = order_load_plain(&receiver->doorbells),
        .producer_sleeps = order_load_plain(&sender->sleeps),
        .consumer_sleeps = order_load_plain(&receiver->sleeps),
        .stalled = order_load_plain(&sender->stalled) != 0,
        .consumer_armed = order_load_plain(&shared->consumer_sleep.armed) != 0,
        .producer_armed = order_load_plain(&shared->producer_sleep.armed) != 0,
    };
}

void ring_sample_epoch(struct layout_ring *shared, uint64_t epoch)
{
    order_store_plain(&shared->geometry.sample_epoch, epoch);
}
