/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/move.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_MS 1000000u

/* Looks after whether the consumer has followed. */
#define LOOK_FIRST_NS (1u * NS_PER_MS)
#define LOOK_LAST_NS (250u * NS_PER_MS)
/*
 * A ring in use follows within microseconds. One that has not done so for this long is idle, or
 * slow.
 */
#define RECLAIM_AFTER_NS (5u * NS_PER_MS)
#define PINNED_AFTER_NS (200u * NS_PER_MS)

static struct channel_ring *ring_of(const struct mover_move *move)
{
    return &move->channel->ring[move->ring];
}

struct mover_move *move_new(struct channel *channel, unsigned ring, uint64_t to_bytes,
                            const char *trigger, const char *reason, uint64_t now_ns)
{
    struct mover_move *move = calloc(1, sizeof(*move));

    if (!move)
        return NULL;
    CDS_INIT_LIST_HEAD(&move->link);
    move->channel = channel;
    move->ring = ring;
    move->state = MOVE_WAITING;
    move->to_bytes = to_bytes;
    move->trigger = trigger;
    move->began_ns = now_ns;
    snprintf(move->reason, sizeof(move->reason), "%s", reason);
    channel->ring[ring].move = move;
    return move;
}

void move_describe(const struct channel *channel, unsigned ring, struct proto_decision *decision)
{
    const struct channel_ring *it = &channel->ring[ring];

    *decision = (struct proto_decision){
        .channel = channel->number,
        .ring = ring,
        .sender_domain = it->sender_domain,
        .receiver_domain = it->receiver_domain,
        .port = channel->key.port,
        .generation = it->geometry.generation,
        .from_offset = it->geometry.current.offset - channel->zone->region.data_offset,
        .from_bytes = it->geometry.current.size,
    };
}

static int taken(struct mover_move *move, int r)
{
    if (r == 0) {
        move->state = MOVE_FILLING;
        move->handled_bytes = 0;
    }
    return r;
}

int move_take(struct mover_move *move)
{
    return taken(move, zone_extent_replace(move->channel->zone, &ring_of(move)->geometry.current,
                                           move->to_bytes, &move->next));
}

int move_take_at(struct mover_move *move, uint64_t offset)
{
    return taken(move, zone_extent_replace_at(move->channel->zone, &ring_of(move)->geometry.current,
                                              offset, move->to_bytes, &move->next));
}

/* The next piece of an extent that the budget allows. */
static uint64_t piece(const struct mover_move *move, const struct ring_extent *extent,
                      const uint64_t *budget_bytes)
{
    uint64_t left = extent->size - move->handled_bytes;

    return left < *budget_bytes ? left : *budget_bytes;
}

int move_fill(struct mover_move *move, uint64_t *budget_bytes)
{
    struct zone *zone = move->channel->zone;
    uint64_t bytes = piece(move, &move->next, budget_bytes);

    if (bytes > 0) {
        int r = region_make_present(&zone->region, move->next.offset + move->handled_bytes, bytes);
        if (r < 0) {
            zone_extent_give(zone, &move->next);
            move->next = (struct ring_extent){0};
            move->state = MOVE_WAITING;
            return r;
        }
    }
    move->handled_bytes += bytes;
    *budget_bytes -= bytes;
    return move->handled_bytes == move->next.size;
}

void move_publish(struct mover_move *move, struct history *history, uint64_t now_ns)
{
    struct channel_ring *ring = ring_of(move);
    struct proto_decision decision;

    move_describe(move->channel, move->ring, &decision);
    decision.outcome = PROTO_OUTCOME_PUBLISHED;
    decision.generation = ring->geometry.generation + 1;
    decision.to_offset = move->next.offset - move->channel->zone->region.data_offset;
    decision.to_bytes = move->next.size;
    snprintf(decision.trigger, sizeof(decision.trigger), "%s", move->trigger);
    memcpy(decision.reason, move->reason, sizeof(decision.reason));
    if (ring_geometry_publish(&ring->geometry, move->next) == 1)
        channel_wake(move->channel, move->ring); /* a ring's sender is the end of the same index */
    move->next = (struct ring_extent){0};
    move->state = MOVE_PUBLISHED;
    move->published_ns = now_ns;
    move->distance_ns = LOOK_FIRST_NS;
    move->look_ns = now_ns + LOOK_FIRST_NS;
    move->number = history_add(history, &decision);
    ring->resizes++;
    channel_ring_publish(move->channel, move->ring);
}

static void settled(struct mover_move *move)
{
    struct channel_ring *ring = ring_of(move);

    move->state = MOVE_EMPTYING;
    move->handled_bytes = 0;
    ring->pin = RING_NOT_PINNED;
    channel_ring_publish(move->channel, move->ring);
}

static void keeps(struct mover_move *move, enum ring_pin pin, struct history *history,
                  uint64_t now_ns)
{
    struct channel_ring *ring = ring_of(move);

    move->state = MOVE_PUBLISHED;
    move->distance_ns = move->distance_ns * 2 < LOOK_LAST_NS ? move->distance_ns * 2 : LOOK_LAST_NS;
    move->look_ns = now_ns + move->distance_ns;
    if (ring->pin == pin || now_ns - move->published_ns < PINNED_AFTER_NS)
        return;
    char text[sizeof(move->reason)];
    snprintf(text, sizeof(text), "the old extent stays: %s", ring_pin_text(pin));
    history_explain(history, move->number, text);
    move->explained = true;
    ring->pin = pin;
    channel_ring_publish(move->channel, move->ring);
}

void move_look(struct mover_move *move, bool may_reclaim, struct history *history, uint64_t now_ns)
{
    struct channel_ring *ring = ring_of(move);
    unsigned dead = channel_ring_dead(move->channel, move->ring);
    struct ring_sample sample;

    if (ring_geometry_followed(&ring->geometry, &move->old)) {
        settled(move);
        return;
    }
    if (now_ns - move->published_ns < RECLAIM_AFTER_NS) {
        keeps(move, RING_PIN_FOLLOWING, history, now_ns);
        return;
    }
    /* Not worth a grace period as long as somebody has yet to read what is there. */
    ring_sample_take(ring->geometry.shared, UINT64_MAX, 0, &sample);
    if (sample.held_bytes > 0 && !(dead & RING_CONSUMER_DEAD))
        keeps(move, RING_PIN_DATA, history, now_ns);
    else if (!may_reclaim)
        move->look_ns = now_ns + LOOK_FIRST_NS; /* one is running: join the next */
    else if (ring_reclaim_begin(&ring->geometry, dead))
        move->state = MOVE_RECLAIMING;
    else
        keeps(move, RING_PIN_FOLLOWING, history, now_ns);
}

void move_reclaim(struct mover_move *move, struct history *history, uint64_t now_ns)
{
    unsigned dead = channel_ring_dead(move->channel, move->ring);
    enum ring_pin pin = ring_reclaim_finish(&ring_of(move)->geometry, dead, &move->old);

    if (pin == RING_NOT_PINNED)
        settled(move);
    else
        keeps(move, pin, history, now_ns);
}

bool move_empty(struct mover_move *move, uint64_t *budget_bytes)
{
    struct zone *zone = move->channel->zone;
    uint64_t bytes = piece(move, &move->old, budget_bytes);

    if (bytes > 0)
        region_punch(&zone->region, move->old.offset + move->handled_bytes, bytes);
    move->handled_bytes += bytes;
    *budget_bytes -= bytes;
    if (move->handled_bytes < move->old.size)
        return false;
    zone_extent_give(zone, &move->old);
    move->old = (struct ring_extent){0};
    return true;
}

void move_record_done(const struct mover_move *move, struct history *history, uint64_t now_ns)
{
    if (move->number == 0)
        return;
    if (move->explained)
        history_explain(history, move->number, move->reason);
    history_finish(history, move->number, PROTO_OUTCOME_DONE, now_ns - move->published_ns);
}

bool move_is_pinned(const struct mover_move *move)
{
    return ring_of(move)->pin != RING_NOT_PINNED;
}

void move_free(struct mover_move *move)
{
    struct channel *channel = move->channel;

    if (move->state == MOVE_FILLING)
        zone_extent_give(channel->zone, &move->next);
    if (move->state == MOVE_EMPTYING && move->old.size > 0)
        zone_extent_give(channel->zone, &move->old);
    ring_of(move)->move = NULL;
    cds_list_del(&move->link);
    free(move);
}
