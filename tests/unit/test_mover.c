/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mover with a real region, allocator and rebalancer. The ends are played by writing what they
 * would write to the page.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include <cmocka.h>

#include "broker/mover.h"
#include "ring/order.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define REGION_BYTES (4 * MIB)
#define CHANNELS 64u
#define WAIT_MS 5000u

struct fixture {
    struct log log;
    sd_event *event;
    struct zone *zone;
    struct channels channels;
    struct domains domains;
    struct policy_config config;
    struct rebalancer *rebalancer;
    struct history *history;
    struct mover *mover;
    struct proto_decision last; /* the newest in the history */
    /* Of mover_rebalance. */
    bool answered;
    int error;
    size_t count;
    struct proto_decision decision;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct domain_set everybody;

    memset(&everybody, 0xff, sizeof(everybody));
    log_init(&f->log, LOG_ERR);
    policy_config_init(&f->config);
    f->config.grow_dwell_ms = 0;
    f->config.period_ms = 60000; /* rounds come when a case asks for them */
    assert_true(sd_event_new(&f->event) >= 0);
    assert_int_equal(zone_new("test", 0, 0, &everybody, REGION_BYTES, CHANNELS,
                              order_grace_period_works() ? 0 : LAYOUT_FEATURE_MARK_FENCE, &f->zone),
                     0);
    assert_int_equal(domains_init(&f->domains), 0);
    assert_int_equal(channels_init(&f->channels, CHANNELS), 0);
    assert_int_equal(history_new(&f->history), 0);
    const struct rebalancer_setup looks = {
        .channels = &f->channels,
        .domains = &f->domains,
        .zones = &f->zone,
        .zone_count = 1,
        .channels_max = CHANNELS,
        .policy = policy_find("default"),
        .config = &f->config,
    };
    assert_int_equal(rebalancer_new(&looks, &f->rebalancer), 0);
    const struct mover_setup moves = {.event = f->event,
                                      .channels = &f->channels,
                                      .history = f->history,
                                      .rebalancer = f->rebalancer,
                                      .log = &f->log};
    assert_int_equal(mover_new(&moves, &f->mover), 0);
    assert_int_equal(rebalancer_start(f->rebalancer, mover_mailbox(f->mover)), 0);
    *state = f;
    return 0;
}

static struct channel *open_channel(struct fixture *f, uint32_t port, uint64_t min_bytes)
{
    const struct channel_key key = {.server_domain = 1, .client_domain = 2, .port = port};
    const struct channel_wishes wishes = {
        .min_bytes = {min_bytes, 4 * KIB}, .max_bytes = {64 * MIB, 64 * MIB}, .weight = 100};
    struct channel *channel;
    unsigned ring;

    assert_int_equal(channel_new(&f->channels, f->zone, &key, &wishes, now_ns(), &channel, &ring),
                     0);
    /* Nobody looks into these; they only must be there. */
    channel_attach(channel, CHANNEL_SERVER, (struct connection *)f, 10);
    channel_attach(channel, CHANNEL_CLIENT, (struct connection *)f, 20);
    return channel;
}

static void close_channel(struct fixture *f, struct channel *channel)
{
    mover_forget(f->mover, channel);
    channel_free(channel);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct cds_lfht_iter iterator;
    struct allocator_figures figures;
    const char *why;

    rebalancer_stop(f->rebalancer);
    mover_free(f->mover);
    rebalancer_free(f->rebalancer);
    rcu_enter();
    for (struct channel *channel = channels_first(&f->channels, &iterator); channel;
         channel = channels_next(&f->channels, &iterator))
        channel_free(channel);
    rcu_leave();
    rcu_finish();
    assert_int_equal(allocator_check(f->zone->allocator, &why), 0);
    allocator_figures(f->zone->allocator, &figures);
    assert_int_equal(figures.used_blocks, 0);
    channels_deinit(&f->channels);
    domains_deinit(&f->domains);
    history_free(f->history);
    zone_free(f->zone);
    sd_event_unref(f->event);
    rcu_finish();
    free(f);
    return 0;
}

static uint32_t outcome_of(struct fixture *f, uint64_t number)
{
    uint64_t next;

    if (history_read(f->history, number - 1, &f->last, 1, &next) == 0)
        return 0;
    return f->last.outcome;
}

/* Runs the event loop until the condition holds; false after WAIT_MS. */
#define RUN_UNTIL(f, condition) \
    ({ \
        uint64_t run_end_ns = now_ns() + WAIT_MS * 1000000ull; \
        while (!(condition) && now_ns() < run_end_ns) \
            assert_true(sd_event_run((f)->event, 1000) >= 0); \
        (condition); \
    })

static void run_for_ms(struct fixture *f, unsigned ms)
{
    uint64_t end_ns = now_ns() + ms * 1000000ull;

    while (now_ns() < end_ns)
        sd_event_run(f->event, 1000);
}

static int ring_set(struct fixture *f, struct channel *channel, unsigned ring,
                    const struct proto_ring_set *set)
{
    return mover_ring_set(f->mover, channel, ring, set, &(uint64_t){0});
}

static int set_size(struct fixture *f, struct channel *channel, unsigned ring, uint64_t bytes)
{
    const struct proto_ring_set set = {.fields = PROTO_SET_SIZE, .size_bytes = bytes};
    return ring_set(f, channel, ring, &set);
}

static uint64_t used_bytes(const struct fixture *f)
{
    struct allocator_figures figures;

    allocator_figures(f->zone->allocator, &figures);
    return figures.used_blocks * LAYOUT_BLOCK_BYTES;
}

/* The sender has written, or the receiver read, so much. */
static void play_sent(struct channel *channel, unsigned ring, uint64_t bytes)
{
    struct layout_producer *producer = &channel->page->ring[ring].producer;
    order_store_release(&producer->tail, producer->tail + bytes);
}

static void play_received(struct channel *channel, unsigned ring, uint64_t bytes)
{
    struct layout_consumer *consumer = &channel->page->ring[ring].consumer;
    order_store_release(&consumer->head, consumer->head + bytes);
}

static void idle_ring_gets_its_new_size_and_the_old_extent_is_freed(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 1, 4 * KIB);

    assert_int_equal(set_size(f, channel, 0, 64 * KIB), 0);
    assert_true(RUN_UNTIL(f, outcome_of(f, 1) == PROTO_OUTCOME_DONE));
    assert_int_equal(channel->ring[0].geometry.current.size, 64 * KIB);
    assert_int_equal(channel->ring[0].geometry.old.size, 0);
    assert_null(channel->ring[0].move);
    assert_int_equal(used_bytes(f), 68 * KIB);
    assert_int_equal(f->last.from_bytes, 4 * KIB);
    assert_int_equal(f->last.to_bytes, 64 * KIB);
    assert_int_equal(f->last.generation, 2);
    assert_string_equal(f->last.trigger, "command");
    assert_true(rebalancer_counts(f->rebalancer).grace_periods > 0);
    /* And back: what it had is the host's again. */
    uint64_t resident = region_resident_bytes(&f->zone->region);
    assert_int_equal(set_size(f, channel, 0, 4 * KIB), 0);
    assert_true(RUN_UNTIL(f, outcome_of(f, 2) == PROTO_OUTCOME_DONE));
    assert_int_equal(region_resident_bytes(&f->zone->region), resident - 60 * KIB);
    assert_int_equal(mover_counts(f->mover).moves, 2);
}

static void ring_in_use_is_followed_without_a_grace_period(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 1, 4 * KIB);
    struct layout_ring *shared = &channel->page->ring[0];

    assert_int_equal(set_size(f, channel, 0, 64 * KIB), 0);
    assert_true(RUN_UNTIL(f, outcome_of(f, 1) == PROTO_OUTCOME_PUBLISHED));
    shared->producer.switches[1] = (struct layout_switch){.generation = 2};
    order_store_release(&shared->producer.switch_count, 1);
    order_store_release(&shared->consumer.followed, 1);
    assert_true(RUN_UNTIL(f, outcome_of(f, 1) == PROTO_OUTCOME_DONE));
    assert_int_equal(rebalancer_counts(f->rebalancer).grace_periods, 0);
}

static void sender_that_sleeps_for_space_is_woken(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 1, 4 * KIB);
    eventfd_t count;

    eventfd_read(channel->end[CHANNEL_SERVER].event_fd, &count); /* the client came */
    order_store_release(&channel->page->ring[0].producer_sleep.armed, 1);
    assert_int_equal(set_size(f, channel, 0, 64 * KIB), 0);
    assert_true(RUN_UNTIL(f, outcome_of(f, 1) == PROTO_OUTCOME_PUBLISHED));
    assert_int_equal(eventfd_read(channel->end[CHANNEL_SERVER].event_fd, &count), 0);
}

static void unread_bytes_pin_the_old_extent_and_it_is_said(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 1, 4 * KIB);

    play_sent(channel, 0, 100);
    assert_int_equal(set_size(f, channel, 0, 64 * KIB), 0);
    assert_true(RUN_UNTIL(f, mover_counts(f->mover).pinned == 1));
    assert_int_equal(outcome_of(f, 1), PROTO_OUTCOME_PUBLISHED);
    assert_non_null(strstr(f->last.reason, "bytes are left in it"));
    assert_int_equal(rebalancer_counts(f->rebalancer).grace_periods, 0);
    play_received(channel, 0, 100);
    assert_true(RUN_UNTIL(f, outcome_of(f, 1) == PROTO_OUTCOME_DONE));
    assert_string_equal(f->last.reason, "set by an administrator");
    assert_int_equal(mover_counts(f->mover).pinned, 0);
}

static void end_in_an_operation_pins_the_old_extent_until_it_is_out(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 1, 4 * KIB);
    uint64_t *mark = &channel->page->ring[0].producer_status.mark;

    order_store_release(mark, 1);
    assert_int_equal(set_size(f, channel, 0, 64 * KIB), 0);
    assert_true(RUN_UNTIL(f, mover_counts(f->mover).pinned == 1));
    assert_int_equal(channel->ring[0].pin, RING_PIN_PRODUCER);
    order_store_release(mark, 2);
    assert_true(RUN_UNTIL(f, outcome_of(f, 1) == PROTO_OUTCOME_DONE));
}

static void dead_end_in_an_operation_pins_nothing(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 1, 4 * KIB);

    order_store_release(&channel->page->ring[0].producer_status.mark, 1);
    assert_false(channel_detach(channel, CHANNEL_SERVER));
    assert_int_equal(set_size(f, channel, 0, 64 * KIB), 0);
    assert_true(RUN_UNTIL(f, outcome_of(f, 1) == PROTO_OUTCOME_DONE));
}

static void channel_that_closes_while_it_moves_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct channel *pinned = open_channel(f, 1, 4 * KIB);
    struct channel *filling = open_channel(f, 2, 4 * KIB);

    play_sent(pinned, 0, 100);
    assert_int_equal(set_size(f, pinned, 0, 64 * KIB), 0);
    run_for_ms(f, 20);
    assert_int_equal(outcome_of(f, 1), PROTO_OUTCOME_PUBLISHED);
    assert_int_equal(set_size(f, filling, 0, 64 * KIB), 0);
    close_channel(f, filling);
    close_channel(f, pinned);
    assert_int_equal(used_bytes(f), 0);
    run_for_ms(f, 20);
    assert_int_equal(outcome_of(f, 1), PROTO_OUTCOME_DONE);
}

static void channel_that_closes_in_a_grace_period_leaves_nothing(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 20; i++) {
        struct channel *channel = open_channel(f, i, 4 * KIB);
        assert_int_equal(set_size(f, channel, 0, 64 * KIB), 0);
        run_for_ms(f, 1 + i);
        close_channel(f, channel);
        assert_int_equal(used_bytes(f), 0);
    }
}

static void large_extent_does_not_hold_the_loop_up(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 1, 4 * KIB);

    assert_int_equal(set_size(f, channel, 0, 3 * MIB), 0);
    assert_true(RUN_UNTIL(f, outcome_of(f, 1) == PROTO_OUTCOME_DONE));
    assert_true(region_resident_bytes(&f->zone->region) >= 3 * MIB);
}

static void limits_are_checked(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 1, 16 * KIB);
    const struct proto_ring_set below_floor = {.fields = PROTO_SET_MIN, .min_bytes = 4 * KIB};
    const struct proto_ring_set crossed = {
        .fields = PROTO_SET_MIN | PROTO_SET_MAX, .min_bytes = 64 * KIB, .max_bytes = 32 * KIB};

    assert_int_equal(ring_set(f, channel, 0, &below_floor), -EINVAL);
    assert_int_equal(ring_set(f, channel, 0, &crossed), -EINVAL);
    assert_int_equal(set_size(f, channel, 0, 8 * KIB), -EINVAL);
    assert_int_equal(set_size(f, channel, 0, 128 * MIB), -EINVAL);
    assert_int_equal(channel->ring[0].geometry.current.size, 16 * KIB);
    assert_int_equal(channel->ring[0].min_bytes, 16 * KIB);
}

static void new_minimum_raises_the_ring_to_it(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 1, 4 * KIB);
    const struct proto_ring_set set = {
        .fields = PROTO_SET_MIN | PROTO_SET_WEIGHT, .min_bytes = 30000, .weight = 7};

    assert_int_equal(ring_set(f, channel, 1, &set), 0);
    assert_true(RUN_UNTIL(f, outcome_of(f, 1) == PROTO_OUTCOME_DONE));
    assert_int_equal(channel->ring[1].geometry.current.size, 32 * KIB);
    assert_int_equal(channel->ring[1].weight, 7);
}

static void new_maximum_lowers_the_ring_to_whole_blocks(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 1, 4 * KIB);
    struct proto_ring_set set = {.fields = PROTO_SET_MAX, .max_bytes = 24 * KIB - 1};

    assert_int_equal(set_size(f, channel, 0, 64 * KIB), 0);
    /* While it grows. */
    assert_int_equal(ring_set(f, channel, 0, &set), 0);
    assert_true(RUN_UNTIL(f, outcome_of(f, 2) == PROTO_OUTCOME_DONE));
    assert_int_equal(channel->ring[0].geometry.current.size, 20 * KIB);
    assert_int_equal(set_size(f, channel, 0, 20 * KIB + 1), -EINVAL);
    set.max_bytes = 4 * KIB - 1; /* no block */
    assert_int_equal(ring_set(f, channel, 0, &set), -EINVAL);
}

static void promise_holds_against_a_command(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 1, 4 * KIB);

    assert_int_equal(set_size(f, channel, 0, 64 * KIB), 0);
    assert_true(RUN_UNTIL(f, outcome_of(f, 1) == PROTO_OUTCOME_DONE));
    order_store_release(&channel->page->ring[0].producer_status.promised, 20000);
    assert_int_equal(set_size(f, channel, 0, 4 * KIB), 0);
    assert_true(RUN_UNTIL(f, outcome_of(f, 2) == PROTO_OUTCOME_DONE));
    assert_int_equal(channel->ring[0].geometry.current.size, 20 * KIB);
}

static void size_set_while_it_moves_comes_after(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 1, 4 * KIB);

    assert_int_equal(set_size(f, channel, 0, 64 * KIB), 0);
    assert_int_equal(set_size(f, channel, 0, 128 * KIB), 0);
    assert_int_equal(set_size(f, channel, 0, 256 * KIB), 0);
    assert_true(RUN_UNTIL(f, outcome_of(f, 2) == PROTO_OUTCOME_DONE));
    assert_int_equal(channel->ring[0].geometry.current.size, 256 * KIB);
    assert_int_equal(used_bytes(f), 260 * KIB);
}

static void no_room_is_said_and_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 1, 4 * KIB);

    assert_int_equal(set_size(f, channel, 0, REGION_BYTES), -ENOSPC);
    assert_null(channel->ring[0].move);
    assert_int_equal(allocator_quota_set(f->zone->allocator, 1, 16), 0);
    assert_int_equal(set_size(f, channel, 0, 128 * KIB), -EDQUOT);
    assert_int_equal(set_size(f, channel, 0, 64 * KIB), 0);
}

static void fragmented_region_is_compacted_under_live_rings(void **state)
{
    struct fixture *f = *state;
    struct channel *channels[CHANNELS];
    unsigned count = 0, gaps = 0;

    /* Fill all but a little, then punch holes: enough is free, nowhere in one run. */
    while (count < CHANNELS && used_bytes(f) + 200 * KIB < f->zone->region.data_bytes) {
        channels[count] = open_channel(f, count, 64 * KIB);
        count++;
    }
    for (unsigned i = 0; i < count; i += 4, gaps++)
        close_channel(f, channels[i]);
    struct allocator_figures figures;
    allocator_figures(f->zone->allocator, &figures);
    uint64_t wanted = figures.largest_free_blocks * LAYOUT_BLOCK_BYTES * 2;
    assert_true(wanted < figures.free_blocks * LAYOUT_BLOCK_BYTES / 2);
    assert_int_equal(set_size(f, channels[1], 0, wanted), 0);
    assert_true(RUN_UNTIL(f, channels[1]->ring[0].geometry.current.size == wanted));
    outcome_of(f, 1);
    assert_string_equal(f->last.trigger, "compact");
}

static void on_answer(void *data, int error, const struct proto_decision *decisions, size_t count)
{
    struct fixture *f = data;

    f->answered = true;
    f->error = error;
    f->count = count;
    if (count > 0)
        f->decision = decisions[0];
}

/* Its sender lacks space, and its receiver reads. */
static void play_hungry(struct channel *channel)
{
    struct layout_ring *ring = &channel->page->ring[0];

    play_sent(channel, 0, 65536);
    play_received(channel, 0, 65536 - 4096);
    order_store_release(&ring->producer_status.stalled, 1);
    order_store_release(&ring->producer_status.stalls, 1);
}

static void dry_run_says_what_would_be_and_does_nothing(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 7, 4 * KIB);

    play_hungry(channel);
    assert_int_equal(mover_rebalance(f->mover, true, on_answer, f), 0);
    assert_false(f->answered);
    assert_true(RUN_UNTIL(f, f->answered));
    assert_int_equal(f->error, 0);
    assert_int_equal(f->count, 1);
    assert_int_equal(f->decision.outcome, PROTO_OUTCOME_PLANNED);
    assert_int_equal(f->decision.port, 7);
    assert_true(f->decision.time_ns > 0);
    assert_true(f->decision.to_bytes > 4 * KIB);
    run_for_ms(f, 30);
    assert_int_equal(history_newest(f->history), 0);
    assert_int_equal(channel->ring[0].geometry.current.size, 4 * KIB);
}

static void rebalance_carries_out_what_it_says(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 7, 4 * KIB);

    play_hungry(channel);
    assert_int_equal(mover_rebalance(f->mover, false, on_answer, f), 0);
    assert_true(RUN_UNTIL(f, outcome_of(f, 1) == PROTO_OUTCOME_PUBLISHED));
    assert_int_equal(channel->ring[0].geometry.current.size, f->decision.to_bytes);
    assert_string_equal(f->last.trigger, "command");
}

static void pressure_is_answered_at_once(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 7, 4 * KIB);

    play_hungry(channel);
    uint64_t before_ns = now_ns();
    rebalancer_pressure(f->rebalancer, channel->number, 0);
    assert_true(RUN_UNTIL(f, outcome_of(f, 1) == PROTO_OUTCOME_PUBLISHED));
    print_message("from pressure to publication: %llu us\n",
                  (unsigned long long)(now_ns() - before_ns) / 1000);
    assert_true(channel->ring[0].geometry.current.size > 4 * KIB);
    assert_string_equal(f->last.trigger, "pressure");
}

static void ends_are_told_how_often_to_report_their_doorbells(void **state)
{
    struct fixture *f = *state;
    struct channel *channel = open_channel(f, 7, 4 * KIB);
    uint32_t *report_every = &channel->page->ring[1].geometry.report_every;

    rebalancer_doorbells(f->rebalancer, channel->number, 1);
    assert_true(RUN_UNTIL(f, order_load_plain(report_every) == 100));
    f->config.notifications = 7;
    assert_int_equal(rebalancer_configure(f->rebalancer, policy_find("default"), &f->config), 0);
    rebalancer_doorbells(f->rebalancer, channel->number, 1);
    assert_true(RUN_UNTIL(f, order_load_plain(report_every) == 7));
}

static void idle_broker_falls_quiet(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < CHANNELS; i++)
        open_channel(f, i, 4 * KIB);
    f->config.period_ms = 10;
    assert_int_equal(rebalancer_configure(f->rebalancer, policy_find("default"), &f->config), 0);
    run_for_ms(f, 1000);
    /* 10 + 20 + 40 + ... 640 */
    assert_in_range(rebalancer_counts(f->rebalancer).rounds, 1, 10);
}

static void asker_is_told_when_the_broker_stops(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mover_rebalance(f->mover, true, on_answer, f), 0);
    rebalancer_stop(f->rebalancer);
    mover_free(f->mover);
    f->mover = NULL;
    assert_true(f->answered);
    assert_int_equal(f->error, -ECANCELED);
}

static void mover_that_ends_amid_moves_gives_all_back(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 8; i++) {
        struct channel *channel = open_channel(f, i, 4 * KIB);
        if (i & 1)
            play_sent(channel, 0, 10);
        assert_int_equal(set_size(f, channel, 0, 64 * KIB), 0);
        if (i & 2)
            run_for_ms(f, 3);
    }
    /* The teardown counts. */
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(idle_ring_gets_its_new_size_and_the_old_extent_is_freed),
        CASE(ring_in_use_is_followed_without_a_grace_period),
        CASE(sender_that_sleeps_for_space_is_woken),
        CASE(unread_bytes_pin_the_old_extent_and_it_is_said),
        CASE(end_in_an_operation_pins_the_old_extent_until_it_is_out),
        CASE(dead_end_in_an_operation_pins_nothing),
        CASE(channel_that_closes_while_it_moves_leaves_nothing),
        CASE(channel_that_closes_in_a_grace_period_leaves_nothing),
        CASE(large_extent_does_not_hold_the_loop_up),
        CASE(limits_are_checked),
        CASE(new_minimum_raises_the_ring_to_it),
        CASE(new_maximum_lowers_the_ring_to_whole_blocks),
        CASE(promise_holds_against_a_command),
        CASE(size_set_while_it_moves_comes_after),
        CASE(no_room_is_said_and_changes_nothing),
        CASE(fragmented_region_is_compacted_under_live_rings),
        CASE(dry_run_says_what_would_be_and_does_nothing),
        CASE(rebalance_carries_out_what_it_says),
        CASE(pressure_is_answered_at_once),
        CASE(ends_are_told_how_often_to_report_their_doorbells),
        CASE(idle_broker_falls_quiet),
        CASE(asker_is_told_when_the_broker_stops),
        CASE(mover_that_ends_amid_moves_gives_all_back),
    };

    rcu_register_thread();
    order_register();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rcu_unregister_thread();
    return failed;
}
