/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An end that breaks the rules: a raw client, which holds the descriptors and writes rubbish into
 * the shared words. The other end gets EPROTO or EPIPE, or goes on if the rubbish means nothing to
 * it; it never crashes or hangs; the broker lives; other channels notice nothing.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

#include "proto/proto.h"
#include "ring/layout.h"
#include "tests/system/pair.h"

/* Speaks the protocol by hand, and maps all that it is given. */
struct villain {
    int socket;
    int memory, own_event, peer_event;
    struct proto_channel_open_reply reply;
    struct layout_channel_page *page;
};

static void command(struct villain *villain, uint16_t id, uint32_t seq, const void *body,
                    size_t size, struct proto_message *message)
{
    assert_int_equal(proto_send(villain->socket, id, seq, body, size, NULL, 0, NULL, 0), 0);
    assert_int_equal(proto_receive(villain->socket, message, 0), 1);
    assert_int_equal(((const struct proto_error *)(const void *)message->body)->err, 0);
}

static struct villain villain_open(int port)
{
    const struct proto_get_version version = {PROTO_VERSION, PROTO_BYTE_ORDER};
    /* The library in this process has registered for the barrier: victims are opened first. */
    const struct proto_hello hello = {
        .domain = 1, .pid = (uint32_t)getpid(), .flags = PROTO_HELLO_BARRIER};
    const struct proto_channel_open open = {.port = (uint32_t)port, .mode = PROTO_OPEN_CLIENT};
    struct villain villain = {.socket = proto_socket_connect(NULL)};
    struct proto_message message;

    assert_true(villain.socket >= 0);
    command(&villain, PROTO_GET_VERSION, 1, &version, sizeof(version), &message);
    command(&villain, PROTO_HELLO, 2, &hello, sizeof(hello), &message);
    command(&villain, PROTO_CHANNEL_OPEN, 3, &open, sizeof(open), &message);
    memcpy(&villain.reply, message.body + sizeof(struct proto_error), sizeof(villain.reply));
    villain.memory = message.descriptors[0];
    villain.own_event = message.descriptors[1];
    villain.peer_event = message.descriptors[2];
    villain.page = mmap(NULL, sizeof(*villain.page), PROT_READ | PROT_WRITE, MAP_SHARED,
                        villain.memory, (off_t)villain.reply.page_offset);
    assert_ptr_not_equal(villain.page, MAP_FAILED);
    return villain;
}

static void villain_close(struct villain *villain)
{
    munmap(villain->page, sizeof(*villain->page));
    close(villain->socket);
    close(villain->memory);
    close(villain->own_event);
    close(villain->peer_event);
}

static struct vchan *victim_open(int port)
{
    struct vchan *v;

    assert_int_equal(native_open(0, 1, port, VCHAN_OPEN_SERVER, 0, &v), 0);
    return v;
}

static bool is_known_failure(ssize_t r)
{
    return r >= 0 || r == -EPROTO || r == -EPIPE || r == -EAGAIN || r == -ETIMEDOUT ||
           r == -EMSGSIZE;
}

/* Makes the victim use everything once. The span's bytes are touched: they must be mapped. */
static void exercise(struct vchan *v)
{
    uint8_t data[5000] = {0};
    struct vchan_statistics statistics;
    struct vchan_span span;

    assert_true(is_known_failure(vchan_write(v, data, 100, 0)));
    assert_true(is_known_failure(vchan_read(v, data, sizeof(data), 0)));
    assert_true(is_known_failure(vchan_receive(v, data, 50, 1)));
    assert_true(is_known_failure(vchan_send(v, data, 4000, 1)));
    int r = vchan_peek(v, 1, &span, 0);
    assert_true(is_known_failure(r));
    if (r == 0) {
        const volatile uint8_t *bytes = span.data;
        (void)bytes[0];
        (void)bytes[span.size - 1];
        vchan_release(v, span.size);
    }
    (void)vchan_readable(v);
    (void)vchan_writable(v);
    (void)vchan_state(v);
    assert_true(is_known_failure(vchan_wait(v, VCHAN_CAN_READ, 1)));
    assert_int_equal(vchan_statistics(v, &statistics), 0);
}

/* A channel of somebody else's, which must work all the time. */
static struct vchan *others[2];

static void assert_others_notice_nothing(void)
{
    char in[4] = "";

    assert_int_equal(vchan_send(others[0], "ping", 4, 1000), 4);
    assert_int_equal(vchan_receive(others[1], in, 4, 1000), 4);
    assert_memory_equal(in, "ping", 4);
}

static void ring_both(struct villain *villain)
{
    const uint64_t one = 1;

    assert_int_equal(write(villain->peer_event, &one, sizeof(one)), sizeof(one));
}

static const uint64_t rubbish[] = {1, 4096, 1ull << 63, UINT64_MAX};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Each 8-byte word of both rings that an end of a channel may write, and those that it may not. */
static void rubbish_in_any_word_of_the_page_harms_nobody_else(void **state)
{
    (void)state;
    for (size_t offset = 0; offset < offsetof(struct layout_channel_page, pad1); offset += 8) {
        for (size_t i = 0; i < COUNT(rubbish); i++) {
            int port = next_port++;
            struct vchan *victim = victim_open(port);
            struct villain villain = villain_open(port);

            watchdog(20);
            if (i % 2)
                exercise(victim);
            __atomic_store_n((uint64_t *)(void *)((char *)villain.page + offset), rubbish[i],
                             __ATOMIC_RELEASE);
            ring_both(&villain);
            exercise(victim);
            vchan_close(victim);
            villain_close(&villain);
            /* The pages' spare parts mean nothing: one value will do. */
            if (offset % 128 >= 72)
                break;
        }
        assert_others_notice_nothing();
    }
}

static void all_words_at_random_while_the_victim_runs(void **state)
{
    unsigned seed = 1;

    (void)state;
    for (int round = 0; round < rounds(100); round++) {
        int port = next_port++;
        struct vchan *victim = victim_open(port);
        struct villain villain = villain_open(port);
        uint64_t *words = (uint64_t *)(void *)villain.page;

        watchdog(20);
        exercise(victim);
        for (int i = 0; i < 10; i++) {
            size_t word = (size_t)rand_r(&seed) % (sizeof(*villain.page) / 8);
            uint64_t value =
                rand_r(&seed) % 2 ? (uint64_t)rand_r(&seed) % 10000 : (uint64_t)rand_r(&seed) << 33;
            __atomic_store_n(&words[word], value, __ATOMIC_RELEASE);
            ring_both(&villain);
            exercise(victim);
        }
        vchan_close(victim);
        villain_close(&villain);
        assert_others_notice_nothing();
    }
}

struct scribbler {
    struct villain *villain;
    int stop; /* atomic */
};

static void *scribble(void *context)
{
    struct scribbler *scribbler = context;
    uint64_t *words = (uint64_t *)(void *)scribbler->villain->page;
    unsigned seed = 7;

    while (!__atomic_load_n(&scribbler->stop, __ATOMIC_RELAXED)) {
        size_t word = 32 + (size_t)rand_r(&seed) % 256; /* the two rings */
        __atomic_store_n(&words[word], (uint64_t)rand_r(&seed) % 9000, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void words_that_change_all_the_time(void **state)
{
    (void)state;
    for (int round = 0; round < rounds(50); round++) {
        int port = next_port++;
        struct vchan *victim = victim_open(port);
        struct villain villain = villain_open(port);
        struct scribbler scribbler = {.villain = &villain};
        pthread_t thread;

        watchdog(20);
        pthread_create(&thread, NULL, scribble, &scribbler);
        for (int i = 0; i < 20; i++)
            exercise(victim);
        __atomic_store_n(&scribbler.stop, 1, __ATOMIC_RELAXED);
        pthread_join(thread, NULL);
        vchan_close(victim);
        villain_close(&villain);
        assert_others_notice_nothing();
    }
}

static void a_broken_channel_says_eproto_and_is_closed_with_a_reason(void **state)
{
    int port = next_port++;
    struct vchan *victim = victim_open(port);
    struct villain villain = villain_open(port);
    char in[4];

    (void)state;
    watchdog(20);
    villain.page->ring[LAYOUT_CLIENT_SENDS].producer.tail = 1ull << 40;
    assert_int_equal(vchan_read(victim, in, 4, 1000), -EPROTO);
    assert_int_equal(vchan_read(victim, in, 4, 1000), -EPROTO);
    assert_int_equal(vchan_write(victim, in, 4, 1000), -EPROTO);
    assert_true(vchan_state(victim) & VCHAN_IS_GONE);
    for (int i = 0; i < 1000 && villain.page->channel.state != LAYOUT_CHANNEL_CLOSED; i++)
        usleep(1000);
    assert_int_equal(villain.page->channel.state, LAYOUT_CHANNEL_CLOSED);
    assert_true(villain.page->channel.reason == EPROTO || villain.page->channel.reason == -EPROTO);
    vchan_close(victim);
    villain_close(&villain);
}

struct sleeper {
    struct vchan *v;
    pid_t thread; /* atomic */
    ssize_t result;
};

static void *sleep_for_data(void *context)
{
    struct sleeper *sleeper = context;
    char in[4];

    tell_thread(&sleeper->thread);
    sleeper->result = vchan_read(sleeper->v, in, 4, VCHAN_FOREVER);
    return NULL;
}

/* The writing thread finds out; the reading one, which sleeps, is told. */
static void both_sides_hear_of_it(void **state)
{
    int port = next_port++;
    struct sleeper sleeper = {.v = victim_open(port)};
    struct villain villain = villain_open(port);
    static char data[100000];
    pthread_t thread;

    (void)state;
    watchdog(20);
    pthread_create(&thread, NULL, sleep_for_data, &sleeper);
    wait_until_started_and_asleep(&sleeper.thread);
    villain.page->ring[LAYOUT_SERVER_SENDS].consumer.head = 1ull << 40;
    ssize_t r;
    while ((r = vchan_write(sleeper.v, data, sizeof(data), 1000)) > 0)
        ;
    assert_int_equal(r, -EPROTO);
    pthread_join(thread, NULL);
    assert_true(sleeper.result == -EPROTO || sleeper.result == 0);
    vchan_close(sleeper.v);
    villain_close(&villain);
}

static void libvchan_says_minus_one_and_disconnected(void **state)
{
    int port = next_port++;
    char in[4];

    (void)state;
    watchdog(20);
    as_domain(0);
    libvchan_t *victim = libvchan_server_init(1, port, 0, 0);
    assert_non_null(victim);
    struct villain villain = villain_open(port);
    villain.page->ring[LAYOUT_CLIENT_SENDS].producer.tail = 1ull << 40;
    assert_int_equal(libvchan_data_ready(victim), 0);
    assert_int_equal(libvchan_read(victim, in, 4), -1);
    assert_int_equal(errno, EPROTO);
    assert_int_equal(libvchan_write(victim, in, 4), -1);
    assert_int_equal(errno, EPROTO);
    assert_int_equal(libvchan_is_open(victim), VCHAN_DISCONNECTED);
    assert_int_equal(libvchan_buffer_space(victim), 0);
    while (libvchan_wait(victim) == 0)
        ;
    libvchan_close(victim);
    villain_close(&villain);
}

/* Its eventfd counts up to the limit: our doorbell must not block in write. */
static void a_full_eventfd_does_not_block_us(void **state)
{
    const uint64_t full = UINT64_MAX - 1;
    int port = next_port++;
    struct vchan *victim = victim_open(port);
    struct villain villain = villain_open(port);

    (void)state;
    watchdog(20);
    (void)fcntl(villain.own_event, F_SETFL, fcntl(villain.own_event, F_GETFL) | O_NONBLOCK);
    if (write(villain.own_event, &full, sizeof(full)) < 0)
        assert_int_equal(errno, EAGAIN);
    villain.page->ring[LAYOUT_SERVER_SENDS].consumer_sleep.wanted = 0;
    for (uint32_t i = 1; i < 100; i++) {
        __atomic_store_n(&villain.page->ring[LAYOUT_SERVER_SENDS].consumer_sleep.armed, i,
                         __ATOMIC_RELEASE);
        assert_int_equal(vchan_write(victim, "x", 1, 0), 1);
    }
    vchan_close(victim);
    villain_close(&villain);
}

static int all_setup(void **state)
{
    const struct vchan_options server = {.local_domain = 0}, client = {.local_domain = 2};

    (void)state;
    /* rings stay as large as they were asked for */
    vchand_start("[rebalance]\nring-default-max = 4K\n");
    if (vchan_open(2, 1, VCHAN_OPEN_SERVER, &server, &others[0]) < 0 ||
        vchan_open(0, 1, VCHAN_OPEN_CLIENT, &client, &others[1]) < 0)
        return -1;
    return 0;
}

static int all_teardown(void **state)
{
    (void)state;
    assert_others_notice_nothing();
    vchan_close(others[0]);
    vchan_close(others[1]);
    return vchand_stop();
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(a_broken_channel_says_eproto_and_is_closed_with_a_reason),
        cmocka_unit_test(both_sides_hear_of_it),
        cmocka_unit_test(libvchan_says_minus_one_and_disconnected),
        cmocka_unit_test(a_full_eventfd_does_not_block_us),
        cmocka_unit_test(rubbish_in_any_word_of_the_page_harms_nobody_else),
        cmocka_unit_test(all_words_at_random_while_the_victim_runs),
        cmocka_unit_test(words_that_change_all_the_time),
    };

    return cmocka_run_group_tests(cases, all_setup, all_teardown);
}
