/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest that floods, writes rubbish or never answers, against a real vchand. It costs that guest:
 * meanwhile another client's commands are answered soon, and a channel between two others flows.
 */
#include "tests/system/fake_guest.h"

/* What another client waits at most; the machine may be slow, and busy with other tests. */
#define LATENCY_MS_MAX 5000
#define WATCH_MS 700
#define BYSTANDERS 3u /* connections */
#define LOCAL_A 3u
#define LOCAL_B 4u

static struct broker_process broker;
static struct fake_guest web;
/* The bystanders. */
static struct client asker, local[2];
static struct opened opened[2];
static struct fake_end ends[2];

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int start(void **state)
{
    (void)state;
    broker_start(&broker, "[broker]\nconnections = 160\n" FAKE_CONFIG);
    client_join(&asker, &broker, 0);
    client_join(&local[0], &broker, LOCAL_A);
    client_join(&local[1], &broker, LOCAL_B);
    assert_int_equal(client_open_mode(&local[0], LOCAL_B, 1, PROTO_OPEN_SERVER, &opened[0]), 0);
    assert_int_equal(client_open_mode(&local[1], LOCAL_A, 1, PROTO_OPEN_CLIENT, &opened[1]), 0);
    end_of_client(&ends[0], &opened[0]);
    end_of_client(&ends[1], &opened[1]);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    broker_stop(&broker);
    return 0;
}

static int boot(void **state)
{
    (void)state;
    fake_boot(&web, &broker, "web");
    return 0;
}

static uint32_t connections(void)
{
    struct proto_broker_info info;
    struct proto_message message;

    assert_int_equal(client_call(&asker, PROTO_BROKER_INFO, NULL, 0, &message), 0);
    memcpy(&info, BODY_OF(&message), sizeof(info));
    return info.connections;
}

static void look_on(void)
{
    struct proto_message message;
    char text[8];

    assert_int_equal(client_call(&asker, PROTO_BROKER_INFO, NULL, 0, &message), 0);
    end_send(&ends[0], "ping", 4);
    assert_int_equal(end_receive(&ends[1], text, sizeof(text)), 4);
    end_send(&ends[1], "pong", 4);
    assert_int_equal(end_receive(&ends[0], text, sizeof(text)), 4);
}

/* All others go on as if nothing were. False: somebody had to wait too long. */
static bool watch_others(const char *what, unsigned ms)
{
    const uint64_t end_ms = now_ms() + ms;
    uint64_t worst_ms = 0, before_ms;
    unsigned count = 0;

    for (; (before_ms = now_ms()) < end_ms; count++) {
        look_on();
        const uint64_t took_ms = now_ms() - before_ms;
        if (worst_ms < took_ms)
            worst_ms = took_ms;
    }
    print_message("%s: %u looks at others, the slowest took %u ms\n", what, count,
                  (unsigned)worst_ms);
    return worst_ms < LATENCY_MS_MAX;
}

/* The guest does that again and again, in a process of its own, while we look at the others. */
static void flood(const char *what, void (*once)(uint32_t))
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL); /* cmocka's would go on with the next test here, too */
        for (uint32_t i = 0;; i++)
            once(i);
    }
    bool well = watch_others(what, WATCH_MS);
    kill(pid, SIGKILL);
    assert_int_equal(wait_exit(pid), -SIGKILL);
    assert_true(well);
}

/* After all it did: a new agent in the guest works, and so does a channel. */
static int recover(void **state)
{
    struct proto_agent_hello_reply reply;
    struct fake_session session;
    struct proto_message message;

    (void)state;
    web.request = order_load_plain(&fake_peer(&web)->request) + 1000;
    fake_agent_connect(&web);
    fake_agent_hello(&web, 4, &reply);
    session_join(&session, &web);
    assert_int_equal(session_call(&session, PROTO_EXPLAIN, NULL, 0, &message), 0);
    fake_detach(&web);
    look_on();
    return 0;
}

static void ring_once(uint32_t i)
{
    const uint64_t one = 1;

    (void)i;
    assert_int_equal(write(web.event[0][0], &one, sizeof(one)), sizeof(one));
    assert_int_equal(write(web.event[0][3], &one, sizeof(one)), sizeof(one));
}

static void a_flood_of_doorbells(void **state)
{
    (void)state;
    flood("doorbells", ring_once);
}

static void ask_once(uint32_t i)
{
    order_store_release(&fake_peer(&web)->request, i + 1);
    ring_once(i);
}

static void a_flood_of_requests_for_mailboxes(void **state)
{
    const struct proto_list request = {.channel = PROTO_ANY};
    struct proto_message message;

    (void)state;
    const uint64_t began_ms = now_ms();
    flood("requests", ask_once);
    const uint64_t took_ms = now_ms() - began_ms;
    assert_int_equal(client_call(&asker, PROTO_LIST_GUESTS, &request, sizeof(request), &message),
                     0);
    const struct proto_list_reply *reply = BODY_OF(&message);
    const struct proto_guest_info *info = (const void *)(reply + 1);
    assert_int_equal(reply->count, 1);
    assert_in_range(info->mailboxes, 2, 2 + took_ms / 100 + 1);
}

static void open_and_close_once(uint32_t i)
{
    const struct proto_frame_open open = {0};
    const uint32_t number = 100 + i % 60000;

    fake_send(&web, PROTO_FRAME_OPEN, number, &open, sizeof(open));
    fake_send(&web, PROTO_FRAME_CLOSE, number, NULL, 0);
}

static void a_flood_of_sessions_that_close_at_once(void **state)
{
    (void)state;
    flood("opens and closes", open_and_close_once);
}

/* Takes what comes, so that it can go on. */
static void open_once(uint32_t i)
{
    const struct proto_frame_open open = {0};
    struct fake_frame frame;

    if (i < 60000)
        fake_send(&web, PROTO_FRAME_OPEN, 100 + i, &open, sizeof(open));
    while (fake_try_receive(&web, &frame))
        ;
}

static void a_flood_of_sessions_that_stay(void **state)
{
    (void)state;
    flood("opens", open_once);
    assert_in_range(connections(), BYSTANDERS, BYSTANDERS + 20); /* an eighth of 160 */
}

static struct fake_session flooding;

/* Never takes a reply. */
static void command_once(uint32_t i)
{
    const struct proto_header header = {.id = PROTO_EXPLAIN, .seq = flooding.seq + 1 + i};

    fake_send(&web, PROTO_FRAME_DATA, flooding.number, &header, sizeof(header));
}

static void a_flood_of_commands_whose_replies_are_never_taken(void **state)
{
    (void)state;
    session_join(&flooding, &web);
    assert_int_equal(connections(), BYSTANDERS + 2);
    flood("commands", command_once);
    for (unsigned waited_ms = 0; connections() > BYSTANDERS + 1; waited_ms += 10) {
        assert_true(waited_ms < PATIENCE_MS);
        pause_ms(10);
    }
}

static uint64_t random_state = 88172645463325252ull;

static uint64_t random_word(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static uint64_t *peer_words;

static void rubbish_once(uint32_t i)
{
    uint64_t *page = (void *)web.page, *header = (void *)web.region;

    page[random_word() % (sizeof(*web.page) / 8)] = random_word();
    peer_words[random_word() % (sizeof(struct layout_peer) / 8)] = random_word();
    header[random_word() % (sizeof(struct layout_region_header) / 8)] = random_word();
    if (i % 16 == 0)
        ring_once(i);
}

/* Its own page, entry, and the header that everybody shares: whoever is there has it already. */
static void rubbish_everywhere(void **state)
{
    struct layout_region_header header = *fake_header(&web);

    (void)state;
    peer_words = (void *)fake_peer(&web);
    flood("rubbish", rubbish_once);
    *fake_header(&web) = header; /* for this test's own sake: it looks there */
}

static void rubbish_with_an_agent_that_comes_again(void **state)
{
    struct layout_region_header header = *fake_header(&web);

    (void)state;
    peer_words = (void *)fake_peer(&web);
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned i = 0; i < 200; i++)
            rubbish_once(i);
        *fake_header(&web) = header;
        web.request = order_load_plain(&fake_peer(&web)->request) + 1;
        fake_agent_connect(&web);
        look_on();
    }
}

struct bad_frame {
    const char *what;
    struct proto_frame head;
    size_t bytes; /* that are sent after the head */
};

static void a_malformed_frame_breaks_the_mailbox(void **state)
{
    static const struct bad_frame frames[] = {
        {"kind 0", {.kind = 0}, 0},
        {"kind 4", {.kind = 4, .session = 1}, 0},
        {"OPEN without its body", {.kind = PROTO_FRAME_OPEN, .session = 1}, 0},
        {"OPEN that is too long", {.kind = PROTO_FRAME_OPEN, .size = 9, .session = 1}, 9},
        {"OPEN of a number that cannot be",
         {.kind = PROTO_FRAME_OPEN, .size = 8, .session = 65536},
         8},
        {"OPEN of what is open", {.kind = PROTO_FRAME_OPEN, .size = 8, .session = 0}, 8},
        {"DATA for nobody", {.kind = PROTO_FRAME_DATA, .size = 8, .session = 9}, 8},
        {"DATA that is no message", {.kind = PROTO_FRAME_DATA, .size = 7, .session = 0}, 7},
        {"DATA that is too long", {.kind = PROTO_FRAME_DATA, .size = 16385, .session = 0}, 16385},
        {"DATA of all a size can say", {.kind = PROTO_FRAME_DATA, .size = 65535, .session = 0}, 0},
        {"CLOSE for nobody", {.kind = PROTO_FRAME_CLOSE, .session = 9}, 0},
        {"CLOSE with a body", {.kind = PROTO_FRAME_CLOSE, .size = 8, .session = 0}, 8},
    };
    static uint8_t body[32768];
    struct proto_agent_hello_reply reply;

    (void)state;
    for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
        print_message("%s\n", frames[i].what);
        assert_true(fake_try_send(&web, &frames[i].head, body, frames[i].bytes));
        fake_ring_broker(&web);
        fake_await_no_mailbox(&web);
        fake_agent_connect(&web);
        fake_agent_hello(&web, 4, &reply);
    }
    assert_true(log_has(&broker, "its mailbox is broken: Protocol error"));
}

struct bad_word {
    const char *what;
    size_t offset; /* in the page */
    unsigned bytes;
    uint64_t value;
};

#define WORD(ring_index, line, word, rubbish) \
    { \
        "ring " #ring_index " " #line "." #word " = " #rubbish, \
            offsetof(struct layout_channel_page, ring) + \
                (ring_index) * sizeof(struct layout_ring) + \
                offsetof(struct layout_ring, line.word), \
            sizeof(((struct layout_ring *)NULL)->line.word), rubbish \
    }
#define LINE(word, rubbish) \
    { \
        "channel." #word " = " #rubbish, offsetof(struct layout_channel_page, channel.word), \
            sizeof(((struct layout_channel_page *)NULL)->channel.word), rubbish \
    }

/* One word of rubbish at a time, as what is in the ring is looked at. The mailbox breaks or
 * goes on; in any case the agent can have a new one. */
static void a_word_of_rubbish(void **state)
{
    static const struct bad_word words[] = {
        WORD(1, producer, tail, UINT64_MAX),
        WORD(1, producer, tail, 1),
        WORD(1, producer, switch_count, 1),
        WORD(1, producer, switch_count, UINT64_MAX),
        WORD(1, geometry, generation, 0),
        WORD(1, geometry, generation, UINT64_MAX),
        WORD(1, geometry, extent[1].offset, 0),
        WORD(1, geometry, extent[1].size, 1ull << 40),
        WORD(1, consumer, head, UINT64_MAX),
        WORD(1, producer_sleep, closed, 1),
        WORD(1, producer_sleep, armed, UINT32_MAX),
        WORD(0, consumer, head, UINT64_MAX),
        WORD(0, consumer, followed, UINT64_MAX),
        WORD(0, consumer, followed, 1),
        WORD(0, geometry, generation, 0),
        WORD(0, geometry, generation, 2),
        WORD(0, geometry, extent[1].offset, UINT64_MAX),
        WORD(0, geometry, extent[1].size, 0),
        WORD(0, consumer_sleep, closed, 1),
        WORD(0, consumer_sleep, armed, UINT32_MAX),
        WORD(0, producer, tail, UINT64_MAX),
        LINE(state, LAYOUT_CHANNEL_CLOSED),
        LINE(gone, UINT32_MAX),
        LINE(fence_sleep, 0),
        LINE(incarnation, UINT64_MAX),
    };
    struct proto_agent_hello_reply reply;
    const struct proto_frame head = {.kind = PROTO_FRAME_OPEN, .size = 8, .session = 5};
    const uint8_t body[8] = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        uint8_t *word = (uint8_t *)web.page + words[i].offset;
        fake_try_send(&web, &head, body, sizeof(body));
        if (words[i].bytes == 8)
            order_store_release((uint64_t *)(void *)word, words[i].value);
        else
            order_store_release((uint32_t *)(void *)word, (uint32_t)words[i].value);
        fake_ring_broker(&web);
        look_on();
        fake_agent_connect(&web);
        fake_agent_hello(&web, 4, &reply);
    }
}

/* Its eventfd is a shared description: it blocks, and is full. */
static void a_guest_that_makes_its_doorbell_block(void **state)
{
    const int event = fake_own_event(&web, 0);
    const uint64_t full = UINT64_MAX - 1;
    uint64_t count;

    (void)state;
    assert_int_equal(fcntl(event, F_SETFL, O_NONBLOCK), 0);
    while (read(event, &count, sizeof(count)) > 0)
        ;
    assert_int_equal(write(event, &full, sizeof(full)), sizeof(full));
    assert_int_equal(fcntl(event, F_SETFL, 0), 0);
    for (unsigned i = 0; i < 20; i++) {
        fake_agent_ask(&web);
        look_on();
    }
    assert_true(watch_others("a doorbell that blocks", 100));
    fake_detach(&web);
}

static void a_guest_that_dies_in_the_middle_of_a_frame(void **state)
{
    struct ring_span span;

    (void)state;
    assert_int_equal(ring_producer_reserve(&web.to_broker, 100, 100, &span), 0);
    memset(span.data, 0, 100);
    memcpy(span.data, &(struct proto_frame){.kind = PROTO_FRAME_DATA, .size = 92}, 8);
    ring_producer_commit(&web.to_broker, 50);
    fake_ring_broker(&web);
    look_on();
    assert_true(fake_mailbox_is_there(&web));
    fake_detach(&web);
    look_on();
}

#define OUTSTANDING 1500u

/* More than its socket holds: the guest's frames wait in the ring until there is room again. */
static void many_commands_at_once_are_all_answered(void **state)
{
    struct fake_session session;
    struct proto_message message;
    struct proto_check check = {.id = PROTO_HELLO};
    uint32_t taken = 0;

    (void)state;
    session_join(&session, &web);
    const uint32_t first = session.seq + 1;
    for (unsigned i = 0; i < 2 * OUTSTANDING; i++) {
        const uint32_t seq = session_send(&session, PROTO_CHECK_COMMAND, &check, sizeof(check));
        if (seq - first < OUTSTANDING)
            continue;
        assert_int_equal(session_await(&session, PROTO_CHECK_COMMAND, first + taken++, &message),
                         0);
    }
    while (taken < 2 * OUTSTANDING)
        assert_int_equal(session_await(&session, PROTO_CHECK_COMMAND, first + taken++, &message),
                         0);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, boot, recover)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_flood_of_doorbells),
        CASE(a_flood_of_requests_for_mailboxes),
        CASE(a_flood_of_sessions_that_close_at_once),
        CASE(a_flood_of_sessions_that_stay),
        CASE(a_flood_of_commands_whose_replies_are_never_taken),
        CASE(rubbish_everywhere),
        CASE(rubbish_with_an_agent_that_comes_again),
        CASE(a_malformed_frame_breaks_the_mailbox),
        CASE(a_word_of_rubbish),
        CASE(many_commands_at_once_are_all_answered),
        cmocka_unit_test_setup(a_guest_that_makes_its_doorbell_block, boot),
        cmocka_unit_test_setup(a_guest_that_dies_in_the_middle_of_a_frame, boot),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
