/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A region filled with channels, fragmented on purpose, and filled again with longer rings, while
 * known bytes flow through all of them: rings are moved together under the traffic, none stops and
 * no byte is lost, and nearly all of the region is used in the end.
 */
#include "tests/system/broker_fixture.h"

#include <pthread.h>
#include <vchan.h>

#define KIB ((size_t)1 << 10)
#define FLOWS 600u
#define SMALL_BYTES (32 * KIB)
#define LARGE_BYTES (512 * KIB)
#define LEAST_BYTES (128 * KIB) /* of those that fill it again: a hundredth of the region */
#define PIECE_BYTES 3000u
#define STOPPED_MS 3000u /* a channel without progress for so long has been stopped */
#define USED_PERMILLE_MIN 950u
#define CONFIG "[broker]\nregion-size = 16M\nchannels = 640\n"

enum flow_state { FLOW_NONE, FLOW_RUNS, FLOW_ENDS, FLOW_DRAINS, FLOW_OVER };

/* A channel from domain 0, which serves, to domain 1. */
struct flow {
    struct vchan *server, *client;
    size_t bytes;
    uint32_t state; /* atomic: enum flow_state; each step has one who takes it */
    uint64_t sent, received;
    uint64_t moved_ns; /* the reader's: when it last got bytes */
};

struct traffic {
    struct flow flows[FLOWS];
    uint32_t stop;
    uint64_t longest_gap_ns; /* the reader's */
    uint64_t received;       /* the reader's */
};

static struct broker_process broker;
static struct traffic traffic;
static uint32_t next_port;

static uint64_t clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint8_t pattern(uint64_t position)
{
    return (uint8_t)((position * 0x9e3779b97f4a7c15ull) >> 56);
}

static _Noreturn void die(const char *what, const struct flow *flow, long r)
{
    fprintf(stderr, "channel %u: %s: %s (%ld), at byte %llu\n", (unsigned)(flow - traffic.flows),
            what, r < 0 ? strerror((int)-r) : "", r, (unsigned long long)flow->received);
    abort();
}

static void write_some(struct flow *flow)
{
    uint8_t piece[PIECE_BYTES];

    if (order_load_acquire(&flow->state) == FLOW_ENDS)
        order_store_release(&flow->state, FLOW_DRAINS);
    if (order_load_acquire(&flow->state) != FLOW_RUNS)
        return;
    for (size_t i = 0; i < PIECE_BYTES; i++)
        piece[i] = pattern(flow->sent + i);
    ssize_t n = vchan_write(flow->server, piece, PIECE_BYTES, 0);
    if (n < 0 && n != -EAGAIN)
        die("write", flow, n);
    if (n > 0)
        __atomic_store_n(&flow->sent, flow->sent + (uint64_t)n, __ATOMIC_RELEASE);
}

static void read_some(struct flow *flow)
{
    uint8_t piece[2 * PIECE_BYTES];
    uint32_t state = order_load_acquire(&flow->state);

    if (state == FLOW_NONE || state == FLOW_OVER)
        return;
    ssize_t n = vchan_read(flow->client, piece, sizeof(piece), 0);
    if (n == 0 || (n < 0 && n != -EAGAIN))
        die("read", flow, n);
    for (ssize_t i = 0; i < n; i++)
        if (piece[i] != pattern(flow->received + (uint64_t)i))
            die("a byte differs", flow, i);
    uint64_t now_ns = clock_ns();
    if (now_ns - flow->moved_ns > traffic.longest_gap_ns)
        order_store_plain(&traffic.longest_gap_ns, now_ns - flow->moved_ns);
    if (n > 0) {
        flow->received += (uint64_t)n;
        flow->moved_ns = now_ns;
        order_store_plain(&traffic.received, traffic.received + (uint64_t)n);
    }
    if (state == FLOW_DRAINS && flow->received == __atomic_load_n(&flow->sent, __ATOMIC_ACQUIRE))
        order_store_release(&flow->state, FLOW_OVER);
}

static void *write_all(void *context)
{
    (void)context;
    while (!order_load_acquire(&traffic.stop)) {
        for (unsigned i = 0; i < FLOWS; i++)
            write_some(&traffic.flows[i]);
        pause_ms(1);
    }
    return NULL;
}

static void *read_all(void *context)
{
    (void)context;
    while (!order_load_acquire(&traffic.stop)) {
        for (unsigned i = 0; i < FLOWS; i++)
            read_some(&traffic.flows[i]);
        pause_ms(1);
    }
    return NULL;
}

/* Fixed sizes: what is measured is compaction, not the policy. */
static int open_flow(struct flow *flow, size_t bytes)
{
    char path[128];
    struct vchan_options options = {.local_domain = 0,
                                    .send_min = bytes,
                                    .send_max = bytes,
                                    .receive_max = 4 * KIB,
                                    .socket_path = path};
    const int port = (int)++next_port;

    path_in(&broker, "vchand.sock", path);
    int r = vchan_open(1, port, VCHAN_OPEN_SERVER, &options, &flow->server);
    if (r < 0)
        return r;
    options = (struct vchan_options){.local_domain = 1, .socket_path = path};
    assert_int_equal(vchan_open(0, port, VCHAN_OPEN_CLIENT, &options, &flow->client), 0);
    flow->bytes = bytes;
    flow->sent = flow->received = 0;
    flow->moved_ns = clock_ns();
    order_store_release(&flow->state, FLOW_RUNS);
    return 0;
}

/* After all that was sent has arrived. */
static void close_flow(struct flow *flow)
{
    int waited_ms = 0;

    order_store_release(&flow->state, FLOW_ENDS);
    for (; order_load_acquire(&flow->state) != FLOW_OVER; pause_ms(1))
        assert_true(waited_ms++ < PATIENCE_MS);
    assert_true(flow->received > 0);
    vchan_close(flow->server);
    vchan_close(flow->client);
    order_store_release(&flow->state, FLOW_NONE);
}

static struct flow *free_flow(void)
{
    for (unsigned i = 0; i < FLOWS; i++)
        if (order_load_acquire(&traffic.flows[i].state) == FLOW_NONE)
            return &traffic.flows[i];
    fail_msg("more channels than there is room for");
    return NULL;
}

/* Opens channels until there is no room for another one. */
static unsigned fill(size_t bytes, uint64_t *longest_ns)
{
    for (unsigned count = 0;; count++) {
        uint64_t begin_ns = clock_ns();
        int r = open_flow(free_flow(), bytes);
        if (r < 0) {
            assert_int_equal(r, -ENOSPC);
            return count;
        }
        if (clock_ns() - begin_ns > *longest_ns)
            *longest_ns = clock_ns() - begin_ns;
    }
}

static uint32_t used_permille(struct proto_broker_info *info)
{
    broker_figures(&broker, info);
    return (uint32_t)(1000 - 1000 * info->free_bytes / info->data_bytes);
}

static void report(const char *when, unsigned opened, uint64_t longest_ns)
{
    struct proto_broker_info info;
    uint32_t permille = used_permille(&info);

    print_message("%-32s %4u opened, slowest %3u ms; %u.%u%% used, %u%% of the free in one run, "
                  "%llu moves\n",
                  when, opened, (unsigned)(longest_ns / 1000000), permille / 10, permille % 10,
                  info.free_bytes ? (unsigned)(100 * info.largest_free_bytes / info.free_bytes)
                                  : 100,
                  (unsigned long long)info.moves);
}

static void assert_filled(void)
{
    struct proto_broker_info info;

    /* Moves that are under way hold two extents. */
    for (int waited_ms = 0; waited_ms < 200; waited_ms++, pause_ms(1))
        if (used_permille(&info) < USED_PERMILLE_MIN)
            fail_msg("only %u per mille of the region are used", used_permille(&info));
}

/* All channels of a size, or each second or so of them. */
static unsigned close_some(size_t bytes, unsigned *seed)
{
    unsigned closed = 0, met = 0;

    for (unsigned i = 0; i < FLOWS; i++) {
        struct flow *flow = &traffic.flows[i];
        if (flow->state != FLOW_RUNS || (bytes && flow->bytes != bytes) ||
            (seed ? (unsigned)rand_r(seed) % 2 : met++ % 2))
            continue;
        close_flow(flow);
        closed++;
    }
    return closed;
}

static void checkerboard_is_filled_again_with_rings_sixteen_times_as_long(void **state)
{
    struct proto_broker_info before, after;
    uint64_t longest_ns = 0;

    (void)state;
    unsigned opened = fill(SMALL_BYTES, &longest_ns);
    report("filled with 32 KiB", opened, longest_ns);
    opened = close_some(SMALL_BYTES, NULL);
    report("each second one closed", 0, 0);
    broker_figures(&broker, &before);
    assert_true(before.free_bytes > 4 * LARGE_BYTES);
    assert_true(before.largest_free_bytes < LARGE_BYTES);
    longest_ns = 0;
    opened = fill(LARGE_BYTES, &longest_ns);
    report("filled again with 512 KiB", opened, longest_ns);
    assert_filled();
    broker_figures(&broker, &after);
    assert_true(opened >= before.free_bytes / LARGE_BYTES - 1);
    assert_true(after.moves > before.moves);
}

static void random_sizes_are_filled_again_and_again(void **state)
{
    unsigned seed = 5;

    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        uint64_t longest_ns = 0;
        unsigned opened = 0;
        close_some(0, &seed);
        report("some closed at random", 0, 0);
        for (size_t bytes = LARGE_BYTES; bytes >= LEAST_BYTES; bytes /= 2)
            opened += fill(bytes, &longest_ns);
        report("filled again, longest first", opened, longest_ns);
        assert_filled();
    }
}

static void several_that_wait_for_room_all_get_it(void **state)
{
    struct client asker[4];
    unsigned seed = 9;

    (void)state;
    close_some(SMALL_BYTES, NULL);
    close_some(0, &seed);
    for (uint32_t i = 0; i < 4; i++) {
        struct proto_channel_open request = open_request(1, 5000 + i, PROTO_OPEN_SERVER);
        request.send_min = 1 << 20;
        client_join(&asker[i], &broker, 2);
        client_send(&asker[i], PROTO_CHANNEL_OPEN, &request, sizeof(request));
    }
    for (unsigned i = 0; i < 4; i++) {
        struct proto_message message;
        struct opened opened;
        assert_int_equal(client_receive(&asker[i], &message), 1);
        assert_int_equal(reply_error(&message), 0);
        opened_take(&opened, &message);
        opened_drop(&opened);
    }
    report("four of 1 MiB at once", 4, 0);
    for (unsigned i = 0; i < 4; i++)
        client_leave(&asker[i]);
}

static void who_goes_while_it_waits_for_room_leaves_nothing_behind(void **state)
{
    struct proto_channel_open request = open_request(1, 6000, PROTO_OPEN_SERVER);
    struct client asker;
    unsigned seed = 3;

    (void)state;
    close_some(0, &seed);
    for (unsigned i = 0; i < 20; i++) {
        request.send_min = 2 << 20;
        client_join(&asker, &broker, 2);
        client_send(&asker, PROTO_CHANNEL_OPEN, &request, sizeof(request));
        pause_ms(i % 5);
        client_leave(&asker);
    }
    fill(SMALL_BYTES, &(uint64_t){0});
    assert_filled();
}

static void no_channel_has_stopped(void **state)
{
    (void)state;
    const uint64_t received = order_load_plain(&traffic.received);
    const uint64_t longest_ns = order_load_plain(&traffic.longest_gap_ns);

    print_message("%llu MB in all, each byte compared; longest time without a byte for a channel: "
                  "%llu ms\n",
                  (unsigned long long)received / 1000000, (unsigned long long)longest_ns / 1000000);
    assert_true(longest_ns < STOPPED_MS * 1000000ull);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checkerboard_is_filled_again_with_rings_sixteen_times_as_long),
        cmocka_unit_test(random_sizes_are_filled_again_and_again),
        cmocka_unit_test(several_that_wait_for_room_all_get_it),
        cmocka_unit_test(who_goes_while_it_waits_for_room_leaves_nothing_behind),
        cmocka_unit_test(no_channel_has_stopped),
    };
    pthread_t writer, reader;

    signal(SIGPIPE, SIG_IGN);
    broker_start(&broker, CONFIG);
    pthread_create(&writer, NULL, write_all, NULL);
    pthread_create(&reader, NULL, read_all, NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (unsigned i = 0; failed == 0 && i < FLOWS; i++)
        if (traffic.flows[i].state == FLOW_RUNS)
            close_flow(&traffic.flows[i]);
    order_store_release(&traffic.stop, 1);
    pthread_join(writer, NULL);
    pthread_join(reader, NULL);
    broker_stop(&broker);
    return failed;
}
