/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How an agent gets its mailbox, and what it makes of what is in it. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/agent/mailbox.h"
#include "tests/agent/agent_fixture.h"

struct fixture {
    struct fake fake;
    struct loop loop;
    struct mailbox mailbox;
    unsigned opened, closed, frames, rooms, rings;
    struct proto_frame last;
    uint8_t data[PROTO_MESSAGE_BYTES_MAX];
};

static void on_opened(void *context)
{
    ((struct fixture *)context)->opened++;
}

static void on_frame(void *context, const struct proto_frame *frame, const uint8_t *data)
{
    struct fixture *f = context;

    f->frames++;
    f->last = *frame;
    memcpy(f->data, data, frame->size);
}

static void on_rung(void *context)
{
    ((struct fixture *)context)->rings++;
}

static void on_room(void *context)
{
    ((struct fixture *)context)->rooms++;
}

static void on_closed(void *context, const char *why)
{
    (void)why;
    ((struct fixture *)context)->closed++;
}

static const struct mailbox_handlers handlers = {
    .opened = on_opened, .frame = on_frame, .rung = on_rung, .room = on_room, .closed = on_closed};

static int setup(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof(f));
    fake_new(&f.fake);
    fake_fill(&f.fake, &f.fake.device, true);
    assert_int_equal(device_map(&f.fake.device), 0);
    assert_int_equal(loop_init(&f.loop), 0);
    *state = &f;
    return mailbox_start(&f.mailbox, &f.fake.device, &f.loop, &handlers, &f);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    mailbox_stop(&f->mailbox);
    device_close(&f->fake.device);
    loop_deinit(&f->loop);
    fake_free(&f->fake);
    return 0;
}

static void answer(struct fixture *f)
{
    fake_answer(&f->fake);
    fake_ring_vector(&f->fake, 0);
    settle(&f->loop);
}

static int setup_open(void **state)
{
    assert_int_equal(setup(state), 0);
    answer(*state);
    return 0;
}

/* Until it asks again, for some seconds. */
static void wait_for_request(struct fixture *f, uint32_t before)
{
    for (int i = 0; i < 500 && fake_peer(&f->fake)->request == before; i++) {
        poll(NULL, 0, 10);
        settle(&f->loop);
    }
    assert_int_not_equal(fake_peer(&f->fake)->request, before);
}

static void it_asks_with_a_number_and_a_ring(void **state)
{
    struct fixture *f = *state;

    assert_int_not_equal(fake_peer(&f->fake)->request, 0);
    assert_true(fake_was_rung(&f->fake));
    assert_int_equal(f->opened, 0);
}

static void an_answer_to_another_question_is_none(void **state)
{
    struct fixture *f = *state;

    fake_answer(&f->fake);
    fake_peer(&f->fake)->answered++;
    fake_ring_vector(&f->fake, 0);
    settle(&f->loop);
    assert_int_equal(f->opened, 0);
    assert_int_equal(f->rings, 1);
}

static void the_answer_opens_it_even_when_its_ring_is_lost(void **state)
{
    struct fixture *f = *state;

    fake_answer(&f->fake);
    for (int i = 0; i < 200 && f->opened == 0; i++) {
        poll(NULL, 0, 10);
        settle(&f->loop);
    }
    assert_int_equal(f->opened, 1);
}

static void frames_come_one_by_one_however_many(void **state)
{
    struct fixture *f = *state;
    char body[100];

    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 200; i++) {
            int n = snprintf(body, sizeof(body), "number %u of round %u", i, round);
            fake_send(&f->fake, PROTO_FRAME_DATA, i + 1, body, (size_t)n);
        }
        settle(&f->loop);
        assert_int_equal(f->frames, 200 * (round + 1));
    }
    assert_int_equal(f->last.session, 200);
    assert_memory_equal(f->data, "number 199 of round 4", 21);
}

static void what_is_sent_comes_out_whole(void **state)
{
    struct fixture *f = *state;
    uint8_t body[PROTO_MESSAGE_BYTES_MAX];
    struct proto_frame frame;

    mailbox_send(&f->mailbox, PROTO_FRAME_DATA, 7, "head", 4, "and rest", 8);
    assert_true(fake_receive(&f->fake, &frame, body));
    assert_int_equal(frame.kind, PROTO_FRAME_DATA);
    assert_int_equal(frame.session, 7);
    assert_int_equal(frame.size, 12);
    assert_memory_equal(body, "headand rest", 12);
    assert_false(fake_receive(&f->fake, &frame, body));
}

static void room_is_told_of_when_the_broker_has_read(void **state)
{
    static const uint8_t large[PROTO_MESSAGE_BYTES_MAX];
    struct fixture *f = *state;
    uint8_t body[PROTO_MESSAGE_BYTES_MAX];
    struct proto_frame frame;
    unsigned sent = 0;

    while (mailbox_has_room(&f->mailbox)) {
        mailbox_send(&f->mailbox, PROTO_FRAME_DATA, 1, large, sizeof(large), NULL, 0);
        sent++;
    }
    assert_true(sent > 1);
    settle(&f->loop);
    assert_int_equal(f->rooms, 0);
    while (fake_receive(&f->fake, &frame, body))
        sent--;
    assert_int_equal(sent, 0);
    settle(&f->loop);
    assert_int_equal(f->rooms, 1);
    assert_true(mailbox_has_room(&f->mailbox));
}

static void rubbish_ends_it_and_another_one_is_asked_for(void **state)
{
    static const struct proto_frame rubbish[] = {
        {.kind = 0, .size = 8, .session = 1},
        {.kind = PROTO_FRAME_OPEN, .size = 8, .session = 1},
        {.kind = PROTO_FRAME_DATA, .size = 7, .session = 1},
        {.kind = PROTO_FRAME_DATA, .size = PROTO_MESSAGE_BYTES_MAX + 1, .session = 1},
        {.kind = PROTO_FRAME_CLOSE, .size = 1, .session = 1},
        {.kind = PROTO_FRAME_DATA, .size = 8, .session = PROTO_SESSION_MAX + 1},
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < sizeof(rubbish) / sizeof(rubbish[0]); i++) {
        const uint32_t before = fake_peer(&f->fake)->request;
        fake_send_raw(&f->fake, &rubbish[i], sizeof(rubbish[i]));
        settle(&f->loop);
        assert_int_equal(f->closed, i + 1);
        f->mailbox.pause_ms = 1; /* not to wait for seconds */
        loop_timer_set(&f->mailbox.timer, 1);
        wait_for_request(f, before);
        answer(f);
        assert_int_equal(f->opened, i + 2);
    }
    assert_int_equal(f->frames, 0);
}

static void it_ends_when_a_frame_cannot_be_sent(void **state)
{
    struct fixture *f = *state;

    fake_page(&f->fake, FAKE_MAILBOX)->ring[LAYOUT_CLIENT_SENDS].consumer_sleep.closed = 1;
    mailbox_send(&f->mailbox, PROTO_FRAME_DATA, 7, "lost", 4, NULL, 0);
    assert_int_equal(f->closed, 0);
    settle(&f->loop);
    assert_int_equal(f->closed, 1);
}

static void the_brokers_end_of_it_is_seen(void **state)
{
    struct fixture *f = *state;
    const uint32_t before = fake_peer(&f->fake)->request;

    fake_peer(&f->fake)->answered = 0;
    fake_ring_vector(&f->fake, 0);
    settle(&f->loop);
    assert_int_equal(f->closed, 1);
    assert_false(mailbox_has_room(&f->mailbox));
    mailbox_send(&f->mailbox, PROTO_FRAME_DATA, 7, "head", 4, NULL, 0);
    wait_for_request(f, before);
}

static void a_page_that_lies_elsewhere_is_not_taken(void **state)
{
    static const uint64_t offsets[] = {0, 4096, FAKE_CONTROL + 1, FAKE_DATA, FAKE_BYTES,
                                       UINT64_MAX - 4095};
    struct fixture *f = *state;

    for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        const uint32_t before = fake_peer(&f->fake)->request;
        fake_answer(&f->fake);
        fake_peer(&f->fake)->page_offset = offsets[i];
        fake_ring_vector(&f->fake, 0);
        settle(&f->loop);
        assert_int_equal(f->opened, 0);
        loop_timer_set(&f->mailbox.timer, 1);
        wait_for_request(f, before);
    }
}

/* All of it is any member's to write: nothing happens but that mailboxes end. */
static void rubbish_anywhere_harms_nobody(void **state)
{
    struct fixture *f = *state;

    srand(1);
    for (unsigned round = 0; round < 300; round++) {
        const size_t start = (size_t)rand() % FAKE_DATA / 8, words = (size_t)rand() % 64;
        for (size_t i = 0; i < words; i++)
            ((uint64_t *)(void *)f->fake.region)[(start + i) % (FAKE_DATA / 8)] =
                rand() % 3 ? (uint64_t)rand() % FAKE_BYTES : (uint64_t)rand() << 33;
        fake_ring_vector(&f->fake, 0);
        loop_turn(&f->loop, 50);
        mailbox_send(&f->mailbox, PROTO_FRAME_DATA, 7, "rubbish", 7, NULL, 0);
        if (f->mailbox.state != MAILBOX_OPEN) {
            loop_timer_set(&f->mailbox.timer, 0);
            poll(NULL, 0, 1);
            loop_turn(&f->loop, 50);
            memset(fake_peer(&f->fake), 0, 128);
            fake_answer(&f->fake);
            fake_ring_vector(&f->fake, 0);
            loop_turn(&f->loop, 50);
        }
    }
    assert_true(f->closed > 5);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
#define OPENED(test) cmocka_unit_test_setup_teardown(test, setup_open, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(it_asks_with_a_number_and_a_ring),
        CASE(an_answer_to_another_question_is_none),
        CASE(the_answer_opens_it_even_when_its_ring_is_lost),
        OPENED(frames_come_one_by_one_however_many),
        OPENED(what_is_sent_comes_out_whole),
        OPENED(room_is_told_of_when_the_broker_has_read),
        OPENED(rubbish_ends_it_and_another_one_is_asked_for),
        OPENED(it_ends_when_a_frame_cannot_be_sent),
        OPENED(the_brokers_end_of_it_is_seen),
        CASE(a_page_that_lies_elsewhere_is_not_taken),
        OPENED(rubbish_anywhere_harms_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
