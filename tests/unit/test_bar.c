/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An end in a guest: the test is its agent and its peer. The device is a memfd with BAR2 at one
 * offset and BAR0 at another, as VFIO has them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/channel.h"
#include "proto/socket.h"
#include "ring/geometry.h"

#define DOMAIN 5u
#define BAR0_OFFSET 0u
#define BAR2_OFFSET 65536u
#define REGION_BYTES (1u << 20)
#define DATA_OFFSET 8192u
#define RING_BYTES 4096u
#define DOORBELL ((9u << 16) | 3u)
#define RUNG(f) (f)->bar0[PROTO_DOORBELL_REGISTER / 4]

struct fixture {
    char directory[32], path[64];
    int listener, agent, device, own_event;
    volatile uint32_t *bar0;
    struct layout_channel_page *page;
    struct ring_memory memory;
    struct ring_geometry geometry[2];
    struct ring_producer peer_sends;
    struct ring_consumer peer_receives;
    struct vchan *v;
};

static void make_device(struct fixture *f)
{
    f->device = memfd_create("device", MFD_CLOEXEC);
    assert_int_equal(ftruncate(f->device, BAR2_OFFSET + REGION_BYTES), 0);
    f->bar0 = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f->device, BAR0_OFFSET);
    f->memory = (struct ring_memory){.descriptor = f->device,
                                     .descriptor_offset = BAR2_OFFSET,
                                     .size_bytes = REGION_BYTES,
                                     .data_offset = DATA_OFFSET};
    assert_true(f->bar0 != MAP_FAILED);
    assert_int_equal(ring_memory_map_page(&f->memory, 4096, &f->page), 0);
    f->page->channel.fence_sleep = 1;
    f->page->channel.server_doorbell = DOORBELL;
    f->page->channel.state = LAYOUT_CHANNEL_CONNECTED;
    for (unsigned i = 0; i < 2; i++)
        ring_geometry_init(&f->geometry[i], &f->page->ring[i],
                           (struct ring_extent){DATA_OFFSET + i * RING_BYTES, RING_BYTES});
    ring_producer_init(&f->peer_sends, f->page, LAYOUT_SERVER_SENDS, &f->memory, 0, RING_BYTES);
    ring_consumer_init(&f->peer_receives, f->page, LAYOUT_CLIENT_SENDS, &f->memory, 0);
}

static void listen_as_agent(struct fixture *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    strcpy(f->directory, "/tmp/vchan-bar-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    snprintf(f->path, sizeof(f->path), "%s/s", f->directory);
    strcpy(address.sun_path, f->path);
    f->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(f->listener, 1), 0);
}

static void answer_open(struct fixture *f, uint64_t doorbell_offset, unsigned descriptors)
{
    struct proto_get_version_reply version = {.version = PROTO_VERSION};
    struct proto_hello_reply hello = {.domain = DOMAIN};
    struct proto_channel_open_reply open = {.role = PROTO_OPEN_CLIENT,
                                            .region_bytes = REGION_BYTES,
                                            .page_offset = 4096,
                                            .data_offset = DATA_OFFSET,
                                            .receive_min = RING_BYTES,
                                            .send_min = RING_BYTES,
                                            .memory_offset = BAR2_OFFSET,
                                            .doorbell_offset = doorbell_offset};
    const int attached[3] = {f->device, f->own_event, f->device};

    proto_reply(f->agent, PROTO_GET_VERSION, 1, 0, &version, sizeof(version), NULL, 0, NULL, 0);
    proto_reply(f->agent, PROTO_HELLO, 2, 0, &hello, sizeof(hello), NULL, 0, NULL, 0);
    proto_reply(f->agent, PROTO_CHANNEL_OPEN, 3, 0, &open, sizeof(open), NULL, 0, attached,
                descriptors);
}

static int start(void **state)
{
    static struct fixture fixture;
    struct fixture *f = &fixture;
    struct vchan_options options = VCHAN_OPTIONS_INIT;

    memset(f, 0, sizeof(*f));
    *state = f;
    unsetenv("VCHAN_DOMAIN");
    make_device(f);
    listen_as_agent(f);
    f->own_event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    options.socket_path = f->path;
    if (vchan_open_start(0, 5000, VCHAN_OPEN_CLIENT, &options, &f->v) < 0)
        return -1;
    f->agent = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
    return f->agent < 0 ? -1 : 0;
}

static int open_end(void **state)
{
    if (start(state) < 0)
        return -1;
    struct fixture *f = *state;
    answer_open(f, BAR0_OFFSET, 2);
    return vchan_open_finish(f->v, 1000);
}

static void hang_up(struct fixture *f)
{
    close(f->agent);
    f->agent = -1;
}

static int finish(void **state)
{
    struct fixture *f = *state;

    if (f->agent >= 0)
        hang_up(f);
    vchan_close(f->v);
    ring_producer_deinit(&f->peer_sends);
    ring_consumer_deinit(&f->peer_receives);
    ring_memory_unmap_page(f->page);
    munmap((void *)(uintptr_t)f->bar0, 4096);
    close(f->device);
    close(f->own_event);
    close(f->listener);
    unlink(f->path);
    return rmdir(f->directory);
}

static void peer_writes(struct fixture *f, const char *text)
{
    struct ring_span span;

    assert_int_equal(ring_producer_reserve(&f->peer_sends, strlen(text), strlen(text), &span), 0);
    memcpy(span.data, text, strlen(text));
    ring_producer_commit(&f->peer_sends, strlen(text));
}

/* Mappings of the device in this process; the test's own are BAR0, the page and perhaps extents. */
static unsigned count_mappings(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    unsigned count = 0;

    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps))
        count += strstr(line, "memfd:device") != NULL;
    fclose(maps);
    return count;
}

static bool holds_device(const struct fixture *f)
{
    char path[64], target[256];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", f->v->memory.descriptor);
    ssize_t n = readlink(path, target, sizeof(target) - 1);
    assert_true(n > 0);
    target[n] = '\0';
    return strstr(target, "memfd:device") != NULL;
}

static void the_agent_says_which_domain_this_is(void **state)
{
    struct fixture *f = *state;
    struct vchan_statistics statistics;

    assert_int_equal(vchan_statistics(f->v, &statistics), 0);
    assert_int_equal(statistics.local_domain, DOMAIN);
}

static void a_sleeper_is_rung_through_the_device(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vchan_write(f->v, "a", 1, 0), 1);
    assert_int_equal(RUNG(f), 0);
    assert_false(ring_consumer_arm(&f->peer_receives, 1));
    ring_consumer_disarm(&f->peer_receives);
    struct ring_span span;
    assert_int_equal(ring_consumer_peek(&f->peer_receives, 1, &span), 0);
    ring_consumer_release(&f->peer_receives, 1);
    assert_true(ring_consumer_arm(&f->peer_receives, 1));
    assert_int_equal(vchan_write(f->v, "b", 1, 0), 1);
    assert_int_equal(RUNG(f), DOORBELL);
}

static void rubbish_for_a_doorbell_is_stored_and_nothing_else(void **state)
{
    struct fixture *f = *state;

    f->page->channel.server_doorbell = 0xfffffffeu;
    assert_true(ring_consumer_arm(&f->peer_receives, 1));
    assert_int_equal(vchan_write(f->v, "b", 1, 0), 1);
    assert_int_equal(RUNG(f), 0xfffffffeu);
    assert_int_equal(f->bar0[PROTO_DOORBELL_REGISTER / 4 + 1], 0);
}

static void nobody_is_rung_who_needs_no_doorbell(void **state)
{
    struct fixture *f = *state;

    f->page->channel.server_doorbell = LAYOUT_NO_DOORBELL;
    assert_true(ring_consumer_arm(&f->peer_receives, 1));
    assert_int_equal(vchan_write(f->v, "b", 1, 0), 1);
    assert_int_equal(RUNG(f), 0);
}

static void bar0_may_come_from_a_third_descriptor(void **state)
{
    struct fixture *f = *state;

    answer_open(f, BAR0_OFFSET, 3);
    assert_int_equal(vchan_open_finish(f->v, 1000), 0);
    assert_true(ring_consumer_arm(&f->peer_receives, 1));
    assert_int_equal(vchan_write(f->v, "b", 1, 0), 1);
    assert_int_equal(RUNG(f), DOORBELL);
}

static void without_a_doorbell_or_a_third_descriptor_the_reply_is_rubbish(void **state)
{
    struct fixture *f = *state;

    answer_open(f, PROTO_NO_OFFSET, 2);
    assert_int_equal(vchan_open_finish(f->v, 1000), -EPROTO);
}

static void a_write_fails_and_lets_go_when_the_agent_is_gone(void **state)
{
    struct fixture *f = *state;
    unsigned before = count_mappings();

    assert_int_equal(vchan_write(f->v, "a", 1, 0), 1);
    assert_true(count_mappings() > before);
    hang_up(f);
    assert_true(vchan_wait(f->v, VCHAN_CAN_READ, 1000) & (int)VCHAN_IS_GONE);
    assert_int_equal(vchan_write(f->v, "b", 1, 0), -EPIPE);
    assert_false(holds_device(f));
    assert_int_equal(count_mappings(), 2);
}

/* The agent has gone, the broker ended the channel and gave its page away; nobody here looked. */
static void a_page_that_is_another_channels_is_not_touched(void **state)
{
    struct fixture *f = *state;
    struct layout_channel_page before;
    char text[8];

    assert_int_equal(vchan_write(f->v, "a", 1, 0), 1);
    peer_writes(f, "old");
    f->page->channel.incarnation++;
    memcpy(&before, f->page, sizeof(before));
    assert_int_equal(vchan_shutdown(f->v, VCHAN_SENDING | VCHAN_RECEIVING), 0);
    assert_int_equal(vchan_write(f->v, "b", 1, 0), -EPIPE);
    assert_int_equal(vchan_read(f->v, text, sizeof(text), 0), 0);
    assert_memory_equal(&before, f->page, sizeof(before));
    assert_false(holds_device(f));
}

static void nor_is_it_when_the_end_is_closed(void **state)
{
    struct fixture *f = *state;
    struct layout_channel_page before;

    assert_int_equal(vchan_write(f->v, "a", 1, 0), 1);
    f->page->channel.incarnation++;
    memcpy(&before, f->page, sizeof(before));
    hang_up(f);
    vchan_close(f->v);
    f->v = NULL;
    assert_memory_equal(&before, f->page, sizeof(before));
}

static void what_is_there_is_read_before_letting_go(void **state)
{
    struct fixture *f = *state;
    char text[8];

    peer_writes(f, "rest");
    ring_producer_deinit(&f->peer_sends);
    hang_up(f);
    assert_int_equal(vchan_write(f->v, "b", 1, 0), 1);
    assert_int_equal(vchan_read(f->v, text, 2, 1000), 2);
    assert_true(holds_device(f));
    assert_int_equal(vchan_read(f->v, text + 2, sizeof(text), 1000), 2);
    assert_memory_equal(text, "rest", 4);
    assert_int_equal(vchan_read(f->v, text, sizeof(text), 1000), 0);
    assert_int_equal(vchan_write(f->v, "b", 1, 0), -EPIPE);
    assert_false(holds_device(f));
    assert_int_equal(count_mappings(), 2);
}

static void what_is_there_can_be_kept_without_the_device(void **state)
{
    struct fixture *f = *state;
    char text[8];

    peer_writes(f, "rest");
    ring_producer_deinit(&f->peer_sends);
    assert_int_equal(vchan_write(f->v, "b", 1, 0), 1);
    hang_up(f);
    assert_true(vchan_wait(f->v, VCHAN_IS_GONE, 1000) > 0);
    assert_int_equal(vchan_readable(f->v), 4);
    assert_int_equal(vchan_writable(f->v), 0);
    assert_false(holds_device(f));
    assert_int_equal(count_mappings(), 2);
    assert_int_equal(vchan_read(f->v, text, 1, 1000), 1);
    assert_int_equal(vchan_read(f->v, text + 1, sizeof(text), 1000), 3);
    assert_memory_equal(text, "rest", 4);
    assert_int_equal(vchan_read(f->v, text, sizeof(text), 1000), 0);
}

static void a_message_cut_short_is_left_for_reading(void **state)
{
    struct fixture *f = *state;
    char text[8];

    peer_writes(f, "rest");
    f->page->channel.gone = LAYOUT_GONE_SERVER | LAYOUT_GONE_CLIENT;
    hang_up(f);
    assert_int_equal(vchan_receive(f->v, text, 8, 1000), -EPIPE);
    assert_int_equal(vchan_read(f->v, text, 8, 1000), 4);
    assert_int_equal(vchan_read(f->v, text, 8, 1000), 0);
    assert_false(holds_device(f));
}

static void a_poller_notices_that_the_broker_ended_it(void **state)
{
    struct fixture *f = *state;
    char byte;

    assert_int_equal(vchan_read(f->v, &byte, 1, 0), -EAGAIN);
    f->page->channel.gone = LAYOUT_GONE_CLIENT;
    assert_int_equal(vchan_read(f->v, &byte, 1, 0), 0);
    assert_false(holds_device(f));
}

static void an_event_loop_lets_go_by_asking(void **state)
{
    struct fixture *f = *state;
    const unsigned both = VCHAN_CAN_READ | VCHAN_CAN_WRITE;

    assert_int_equal(vchan_write(f->v, "a", 1, 0), 1);
    assert_int_equal(vchan_poll_arm(f->v, VCHAN_CAN_READ), 0);
    hang_up(f);
    assert_int_equal(vchan_poll_arm(f->v, VCHAN_CAN_READ), VCHAN_CAN_READ);
    assert_true(vchan_poll_arm(f->v, both) & VCHAN_CAN_WRITE);
    assert_false(holds_device(f));
    assert_int_equal(count_mappings(), 2);
}

static void states_can_be_asked_after_letting_go(void **state)
{
    struct fixture *f = *state;
    struct vchan_statistics statistics;
    char byte;

    hang_up(f);
    assert_int_equal(vchan_read(f->v, &byte, 1, 1000), 0);
    assert_false(holds_device(f));
    assert_true(vchan_state(f->v) & VCHAN_IS_GONE);
    assert_int_equal(vchan_readable(f->v), 0);
    assert_int_equal(vchan_writable(f->v), 0);
    assert_int_equal(vchan_statistics(f->v, &statistics), 0);
    assert_int_equal(vchan_shutdown(f->v, VCHAN_SENDING), 0);
    assert_int_equal(RUNG(f), 0);
}

#define OPENED(test) cmocka_unit_test_setup_teardown(test, open_end, finish)
#define STARTED(test) cmocka_unit_test_setup_teardown(test, start, finish)

int main(void)
{
    const struct CMUnitTest tests[] = {
        OPENED(the_agent_says_which_domain_this_is),
        OPENED(a_sleeper_is_rung_through_the_device),
        OPENED(rubbish_for_a_doorbell_is_stored_and_nothing_else),
        OPENED(nobody_is_rung_who_needs_no_doorbell),
        STARTED(bar0_may_come_from_a_third_descriptor),
        STARTED(without_a_doorbell_or_a_third_descriptor_the_reply_is_rubbish),
        OPENED(a_write_fails_and_lets_go_when_the_agent_is_gone),
        OPENED(a_page_that_is_another_channels_is_not_touched),
        OPENED(nor_is_it_when_the_end_is_closed),
        OPENED(what_is_there_is_read_before_letting_go),
        OPENED(what_is_there_can_be_kept_without_the_device),
        OPENED(a_message_cut_short_is_left_for_reading),
        OPENED(a_poller_notices_that_the_broker_ended_it),
        OPENED(an_event_loop_lets_go_by_asking),
        OPENED(states_can_be_asked_after_letting_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
