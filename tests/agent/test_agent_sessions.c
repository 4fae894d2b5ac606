/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Programs at the agent's socket: the test is their end, and the broker's. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "client/agent/agent.h"
#include "tests/agent/agent_fixture.h"

#define BODY(message) ((message).body + sizeof(struct proto_error))

struct fixture {
    struct fake fake;
    struct agent agent;
    struct attachment *attachment;
    char directory[32];
    int program;
    uint32_t session; /* of the program */
    struct proto_frame frame;
    uint8_t body[PROTO_MESSAGE_BYTES_MAX];
};

static int setup(void **state)
{
    static struct fixture f;
    const struct agent_options options = {
        .socket_mode = 0600, .socket_group = (gid_t)-1, .log_level = LOG_ERR};

    memset(&f, 0, sizeof(f));
    f.program = -1;
    strcpy(f.directory, "/tmp/vchan-agent-XXXXXX");
    assert_non_null(mkdtemp(f.directory));
    setenv("VCHAN_RUNTIME_DIR", f.directory, 1);
    fake_new(&f.fake);
    *state = &f;
    return agent_init(&f.agent, &options);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (f->program >= 0)
        close(f->program);
    agent_deinit(&f->agent);
    fake_free(&f->fake);
    return rmdir(f->directory);
}

static void reply(struct fixture *f, uint32_t session, uint16_t id, uint32_t seq, int err,
                  const void *body, size_t bytes)
{
    uint8_t message[PROTO_MESSAGE_BYTES_MAX];
    const struct proto_header header = {
        .id = id, .size = (uint16_t)(sizeof(struct proto_error) + bytes), .seq = seq};
    const struct proto_error error = {.err = err};

    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), &error, sizeof(error));
    if (bytes)
        memcpy(message + sizeof(header) + sizeof(error), body, bytes);
    fake_send(&f->fake, PROTO_FRAME_DATA, session, message, sizeof(header) + header.size);
}

static void expect(struct fixture *f, uint16_t kind, uint32_t session)
{
    settle(&f->agent.loop);
    assert_true(fake_receive(&f->fake, &f->frame, f->body));
    assert_int_equal(f->frame.kind, kind);
    assert_int_equal(f->frame.session, session);
}

static struct proto_header expect_message(struct fixture *f, uint32_t session)
{
    struct proto_header header;

    expect(f, PROTO_FRAME_DATA, session);
    memcpy(&header, f->body, sizeof(header));
    assert_int_equal(sizeof(header) + header.size, f->frame.size);
    return header;
}

/* Its device is there, and the broker answers. */
static void attach(struct fixture *f, bool interrupts)
{
    const struct proto_agent_hello_reply hello = {
        .domain = FAKE_DOMAIN, .peer = FAKE_ID, .vectors = interrupts ? FAKE_VECTORS : 0};
    const uint16_t commands[] = {PROTO_GET_VERSION, PROTO_HELLO, PROTO_AGENT_HELLO};

    f->agent.log.level = -1; /* there is no such PCI device, it says */
    assert_int_equal(attachment_new(&f->agent, "0000:01:00.0", &f->attachment), 0);
    loop_timer_stop(&f->attachment->timer);
    fake_fill(&f->fake, &f->attachment->device, interrupts);
    assert_int_equal(device_map(&f->attachment->device), 0);
    attachment_start(f->attachment);
    fake_answer(&f->fake);
    if (!interrupts)
        f->fake.vector[0] = f->attachment->mailbox.event_fd; /* who polls does not wait here */
    fake_ring_vector(&f->fake, 0);
    expect(f, PROTO_FRAME_OPEN, PROTO_SESSION_AGENT);
    for (unsigned i = 0; i < 3; i++) {
        struct proto_header header = expect_message(f, PROTO_SESSION_AGENT);
        assert_int_equal(header.id, commands[i]);
        assert_int_equal(header.seq, i + 1);
    }
    reply(f, PROTO_SESSION_AGENT, PROTO_AGENT_HELLO, 3, 0, &hello, sizeof(hello));
    settle(&f->agent.loop);
    assert_int_equal(f->attachment->state, ATTACHMENT_READY);
}

static int setup_ready(void **state)
{
    assert_int_equal(setup(state), 0);
    attach(*state, true);
    return 0;
}

static int connect_program(const struct fixture *f)
{
    int fd = proto_socket_connect(f->agent.socket_path);

    assert_true(fd >= 0);
    return fd;
}

/* A program that the broker has been told of. */
static void join(struct fixture *f)
{
    struct proto_frame_open open;

    f->program = connect_program(f);
    settle(&f->agent.loop);
    /* It is announced with its first message, or at once. */
    proto_send(f->program, PROTO_CHANNEL_CLOSE, 1, NULL, 0, NULL, 0, NULL, 0);
    settle(&f->agent.loop);
    assert_true(fake_receive(&f->fake, &f->frame, f->body));
    assert_int_equal(f->frame.kind, PROTO_FRAME_OPEN);
    f->session = f->frame.session;
    memcpy(&open, f->body, sizeof(open));
    assert_int_equal(open.pid, getpid());
    assert_int_equal(expect_message(f, f->session).id, PROTO_CHANNEL_CLOSE);
}

static int setup_joined(void **state)
{
    assert_int_equal(setup_ready(state), 0);
    join(*state);
    return 0;
}

static void receive(struct fixture *f, struct proto_message *message)
{
    settle(&f->agent.loop);
    assert_int_equal(proto_receive(f->program, message, MSG_DONTWAIT), 1);
}

static int verdict(const struct proto_message *message)
{
    struct proto_error error;

    memcpy(&error, message->body, sizeof(error));
    return error.err;
}

static bool is_closed(struct fixture *f)
{
    struct proto_message message;
    int r = 1;

    settle(&f->agent.loop);
    while (r == 1) {
        r = proto_receive(f->program, &message, MSG_DONTWAIT);
        if (r == 1)
            proto_message_close(&message);
    }
    return r == 0;
}

static struct proto_channel_open_reply open_reply(uint32_t vector)
{
    return (struct proto_channel_open_reply){.role = PROTO_OPEN_SERVER,
                                             .page_offset = FAKE_CHANNEL,
                                             .doorbell_offset = PROTO_NO_OFFSET,
                                             .vector = vector,
                                             .zone_uuid = "a zone of tests"};
}

static void deliver_open(struct fixture *f, uint32_t vector, struct proto_message *message)
{
    const struct proto_channel_open_reply open = open_reply(vector);

    reply(f, f->session, PROTO_CHANNEL_OPEN, 2, 0, &open, sizeof(open));
    receive(f, message);
}

static void without_a_device_programs_hear_why(void **state)
{
    struct fixture *f = *state;
    const struct proto_hello hello = {0};
    struct proto_message message;
    struct proto_text text;

    f->program = connect_program(f);
    proto_send(f->program, PROTO_HELLO, 1, &hello, sizeof(hello), NULL, 0, NULL, 0);
    receive(f, &message);
    assert_int_equal(verdict(&message), -ENODEV);
    proto_send(f->program, PROTO_EXPLAIN, 2, NULL, 0, NULL, 0, NULL, 0);
    receive(f, &message);
    assert_int_equal(verdict(&message), 0);
    memcpy(&text, BODY(message), sizeof(text));
    assert_non_null(strstr(text.text, "no ivshmem device"));
}

static void hello_gets_our_domain_and_the_real_pid(void **state)
{
    struct fixture *f = *state;
    struct proto_hello hello = {.domain = 0, .pid = 1};

    proto_send(f->program, PROTO_HELLO, 2, &hello, sizeof(hello), NULL, 0, NULL, 0);
    assert_int_equal(expect_message(f, f->session).seq, 2);
    memcpy(&hello, f->body + sizeof(struct proto_header), sizeof(hello));
    assert_int_equal(hello.domain, FAKE_DOMAIN);
    assert_int_equal(hello.pid, getpid());
}

static void another_domain_is_the_brokers_to_refuse(void **state)
{
    struct fixture *f = *state;
    struct proto_hello hello = {.domain = FAKE_DOMAIN + 1};

    proto_send(f->program, PROTO_HELLO, 2, &hello, sizeof(hello), NULL, 0, NULL, 0);
    (void)expect_message(f, f->session);
    memcpy(&hello, f->body + sizeof(struct proto_header), sizeof(hello));
    assert_int_equal(hello.domain, FAKE_DOMAIN + 1);
}

static void a_channel_comes_with_the_device_and_a_wake_up(void **state)
{
    struct fixture *f = *state;
    struct proto_channel_open_reply open;
    struct proto_message message;
    struct stat ours, theirs;
    uint64_t count;

    deliver_open(f, 1, &message);
    assert_int_equal(verdict(&message), 0);
    memcpy(&open, BODY(message), sizeof(open));
    assert_int_equal(open.region_bytes, FAKE_BYTES);
    assert_int_equal(open.data_offset, FAKE_DATA);
    assert_true(open.doorbell_offset != PROTO_NO_OFFSET);
    assert_int_equal(message.descriptor_count, 3); /* BAR0 is another file here */
    assert_int_equal(fstat(message.descriptors[0], &theirs), 0);
    assert_int_equal(fstat(f->fake.memory_fd, &ours), 0);
    assert_int_equal(theirs.st_ino, ours.st_ino);
    fake_ring_vector(&f->fake, 1);
    assert_int_equal(read(message.descriptors[1], &count, sizeof(count)), sizeof(count));
    proto_message_close(&message);
}

static void a_closed_channel_gives_its_vector_back(void **state)
{
    struct fixture *f = *state;
    struct proto_message message;

    deliver_open(f, 1, &message);
    proto_message_close(&message);
    assert_int_not_equal(f->fake.vector[1], -1);
    reply(f, f->session, PROTO_CHANNEL_CLOSE, 3, 0, NULL, 0);
    receive(f, &message);
    assert_int_equal(f->fake.vector[1], -1);
}

static void a_region_that_is_not_here_is_an_error_of_our_own(void **state)
{
    struct fixture *f = *state;
    struct proto_channel_open_reply open = open_reply(1);
    struct proto_text text = {.length = 6, .text = "broker"};
    struct proto_message message;

    open.zone_uuid[0]++;
    reply(f, f->session, PROTO_CHANNEL_OPEN, 2, 0, &open, sizeof(open));
    receive(f, &message);
    assert_int_equal(verdict(&message), -ENODEV);
    assert_int_equal(message.descriptor_count, 0);
    proto_send(f->program, PROTO_EXPLAIN, 3, NULL, 0, NULL, 0, NULL, 0);
    assert_int_equal(expect_message(f, f->session).id, PROTO_EXPLAIN);
    reply(f, f->session, PROTO_EXPLAIN, 3, 0, &text, sizeof(text));
    receive(f, &message);
    memcpy(&text, BODY(message), sizeof(text));
    assert_non_null(strstr(text.text, "zone"));
}

static void a_vector_that_is_none_is_an_error(void **state)
{
    struct proto_message message;

    deliver_open(*state, 60, &message);
    assert_int_equal(verdict(&message), -EINVAL);
}

static void a_program_that_goes_is_closed_at_the_broker(void **state)
{
    struct fixture *f = *state;

    close(f->program);
    f->program = -1;
    expect(f, PROTO_FRAME_CLOSE, f->session);
    assert_int_equal(f->agent.sessions.count, 0);
    join(f);
}

static void a_number_is_not_used_again_soon(void **state)
{
    struct fixture *f = *state;
    const uint32_t before = f->session;

    close(f->program);
    expect(f, PROTO_FRAME_CLOSE, before);
    join(f);
    assert_int_not_equal(f->session, before);
    /* What was on its way to the one before is nobody's. */
    reply(f, before, PROTO_CHANNEL_CLOSE, 1, 0, NULL, 0);
    settle(&f->agent.loop);
    struct proto_message message;
    assert_int_equal(proto_receive(f->program, &message, MSG_DONTWAIT), -EAGAIN);
}

static void the_broker_closes_a_program(void **state)
{
    struct fixture *f = *state;

    fake_send(&f->fake, PROTO_FRAME_CLOSE, f->session, NULL, 0);
    assert_true(is_closed(f));
    assert_false(fake_receive(&f->fake, &f->frame, f->body));
}

static void a_malformed_message_closes_its_program(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(send(f->program, "short", 5, 0), 5);
    expect(f, PROTO_FRAME_CLOSE, f->session);
    assert_true(is_closed(f));
}

static void descriptors_that_come_along_are_closed(void **state)
{
    struct fixture *f = *state;
    const int attached[3] = {0, 1, 2};
    int lowest = dup(0);

    close(lowest);
    for (unsigned i = 0; i < 50; i++) {
        proto_send(f->program, PROTO_CHANNEL_CLOSE, 2 + i, NULL, 0, NULL, 0, attached, 3);
        (void)expect_message(f, f->session);
    }
    int now = dup(0);
    close(now);
    assert_int_equal(now, lowest);
}

static void a_program_that_does_not_read_is_closed(void **state)
{
    static const uint8_t body[PROTO_MESSAGE_BYTES_MAX - 16];
    struct fixture *f = *state;

    for (unsigned i = 0; i < 64 && f->agent.sessions.count > 0; i++) {
        reply(f, f->session, PROTO_LIST_CHANNELS, 2, 0, body, sizeof(body));
        settle(&f->agent.loop);
    }
    expect(f, PROTO_FRAME_CLOSE, f->session);
    assert_true(is_closed(f));
}

static void a_full_mailbox_holds_programs_up_and_loses_nothing(void **state)
{
    static const uint8_t body[8000];
    struct fixture *f = *state;
    unsigned sent = 0, seen = 0;

    for (unsigned i = 0; i < 64; i++) {
        struct msghdr header = {0};
        struct proto_header start = {.id = 99, .size = sizeof(body), .seq = 2 + i};
        struct iovec parts[2] = {{&start, sizeof(start)}, {(void *)(uintptr_t)body, sizeof(body)}};
        header.msg_iov = parts;
        header.msg_iovlen = 2;
        if (sendmsg(f->program, &header, MSG_DONTWAIT) < 0)
            break;
        sent++;
        settle(&f->agent.loop);
    }
    assert_true(sent > 8);
    assert_null(f->agent.sessions.source.loop); /* nobody is read */
    for (bool more = true; more;) {
        more = fake_receive(&f->fake, &f->frame, f->body);
        seen += more;
        settle(&f->agent.loop);
    }
    assert_int_equal(seen, sent);
    assert_non_null(f->agent.sessions.source.loop);
}

static void a_mailbox_that_ends_ends_its_programs(void **state)
{
    struct fixture *f = *state;

    fake_peer(&f->fake)->answered = 0;
    fake_ring_vector(&f->fake, 0);
    assert_true(is_closed(f));
    assert_int_equal(f->attachment->state, ATTACHMENT_OPEN);
    close(f->program);
    f->program = connect_program(f);
    settle(&f->agent.loop);
    proto_send(f->program, PROTO_HELLO, 1, &(struct proto_hello){0}, sizeof(struct proto_hello),
               NULL, 0, NULL, 0);
    struct proto_message message;
    receive(f, &message);
    assert_int_equal(verdict(&message), -ENODEV);
}

static void a_device_that_goes_takes_its_programs_along(void **state)
{
    struct fixture *f = *state;
    struct proto_message message;

    deliver_open(f, 1, &message);
    proto_message_close(&message);
    attachment_free(f->attachment);
    assert_true(is_closed(f));
    assert_int_equal(f->agent.sessions.count, 0);
}

static void without_interrupts_a_sleeper_is_woken_by_who_looks(void **state)
{
    struct fixture *f = *state;
    struct layout_channel_page *page = fake_page(&f->fake, FAKE_CHANNEL);
    struct layout_ring *ring = &page->ring[LAYOUT_CLIENT_SENDS]; /* the server receives */
    struct proto_message message;
    uint64_t count;

    attach(f, false);
    join(f);
    deliver_open(f, 0, &message);
    assert_int_equal(verdict(&message), 0);
    const int event = message.descriptors[1];
    struct polled *polled = TAILQ_FIRST(&f->agent.poller.ends);
    assert_non_null(polled);
    (void)poller_look(polled);
    (void)read(event, &count, sizeof(count));

    ring->producer.tail = 10; /* nobody sleeps */
    assert_true(poller_look(polled));
    assert_int_equal(read(event, &count, sizeof(count)), -1);
    ring->consumer_sleep.wanted = 100;
    ring->consumer_sleep.armed = 1; /* for more than is there */
    assert_false(poller_look(polled));
    assert_int_equal(read(event, &count, sizeof(count)), -1);
    ring->producer.tail = 100;
    assert_true(poller_look(polled));
    assert_int_equal(read(event, &count, sizeof(count)), sizeof(count));
    assert_false(poller_look(polled)); /* once for each arming */
    assert_int_equal(read(event, &count, sizeof(count)), -1);
    ring->consumer_sleep.armed = 2; /* what it wants is there already */
    assert_false(poller_look(polled));
    assert_int_equal(read(event, &count, sizeof(count)), sizeof(count));
    page->channel.gone = LAYOUT_GONE_CLIENT;
    assert_true(poller_look(polled));
    assert_int_equal(read(event, &count, sizeof(count)), sizeof(count));
    proto_message_close(&message);
}

#define JOINED(test) cmocka_unit_test_setup_teardown(test, setup_joined, teardown)
#define BARE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BARE(without_a_device_programs_hear_why),
        JOINED(hello_gets_our_domain_and_the_real_pid),
        JOINED(another_domain_is_the_brokers_to_refuse),
        JOINED(a_channel_comes_with_the_device_and_a_wake_up),
        JOINED(a_closed_channel_gives_its_vector_back),
        JOINED(a_region_that_is_not_here_is_an_error_of_our_own),
        JOINED(a_vector_that_is_none_is_an_error),
        JOINED(a_program_that_goes_is_closed_at_the_broker),
        JOINED(a_number_is_not_used_again_soon),
        JOINED(the_broker_closes_a_program),
        JOINED(a_malformed_message_closes_its_program),
        JOINED(descriptors_that_come_along_are_closed),
        JOINED(a_program_that_does_not_read_is_closed),
        JOINED(a_full_mailbox_holds_programs_up_and_loses_nothing),
        JOINED(a_mailbox_that_ends_ends_its_programs),
        JOINED(a_device_that_goes_takes_its_programs_along),
        BARE(without_interrupts_a_sleeper_is_woken_by_who_looks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
