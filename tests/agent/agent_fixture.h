/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A region in memory with one peer, and a device of it without hardware: the test is the broker.
 * BAR0 is a page of memory, vectors are remembered.
 */
#ifndef VCHAN_TESTS_AGENT_FIXTURE_H
#define VCHAN_TESTS_AGENT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/agent/device.h"
#include "client/agent/guard.h"
#include "client/agent/loop.h"
#include "proto/guest.h"
#include "ring/consumer.h"
#include "ring/geometry.h"
#include "ring/order.h"
#include "ring/producer.h"

#define FAKE_BYTES (1u << 20)
#define FAKE_PEERS 4096u
#define FAKE_CONTROL 8192u
#define FAKE_PAGES 8u
#define FAKE_DATA (FAKE_CONTROL + FAKE_PAGES * 4096u)
#define FAKE_ID 3u
#define FAKE_VECTORS 4u
#define FAKE_DOMAIN 5u
#define FAKE_MAILBOX FAKE_CONTROL
#define FAKE_CHANNEL (FAKE_CONTROL + 4096u)

struct fake {
    struct device device;
    int memory_fd, register_fd;
    uint8_t *region;
    volatile uint32_t *registers;
    int vector[DEVICE_VECTORS_MAX]; /* event_fd of each */
    /* The broker's end of the mailbox. */
    struct ring_memory memory;
    struct ring_producer to_agent;
    struct ring_consumer from_agent;
};

static inline int fake_set_vector(struct device *device, uint32_t vector, int event_fd)
{
    ((struct fake *)device->state)->vector[vector] = event_fd;
    return 0;
}

static inline void fake_close(struct device *device)
{
    (void)device;
}

static const struct device_backend fake_backend = {
    .name = "memory", .set_vector = fake_set_vector, .close = fake_close};
static const struct device_backend fake_backend_silent = {.name = "memory", .close = fake_close};

static inline struct layout_region_header *fake_header(struct fake *fake)
{
    return (void *)fake->region;
}

static inline struct layout_peer *fake_peer(struct fake *fake)
{
    return (void *)(fake->region + FAKE_PEERS + FAKE_ID * LAYOUT_PEER_BYTES);
}

static inline struct layout_channel_page *fake_page(struct fake *fake, uint64_t offset)
{
    return (void *)(fake->region + offset);
}

static inline void fake_new(struct fake *fake)
{
    memset(fake, 0, sizeof(*fake));
    fake->memory_fd = memfd_create("region", MFD_CLOEXEC);
    fake->register_fd = memfd_create("registers", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fake->memory_fd, FAKE_BYTES), 0);
    assert_int_equal(ftruncate(fake->register_fd, 4096), 0);
    fake->region =
        mmap(NULL, FAKE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fake->memory_fd, 0);
    fake->registers = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fake->register_fd, 0);
    *fake_header(fake) = (struct layout_region_header){.magic = LAYOUT_MAGIC,
                                                       .version = LAYOUT_VERSION,
                                                       .size_bytes = FAKE_BYTES,
                                                       .control_offset = FAKE_CONTROL,
                                                       .data_offset = FAKE_DATA,
                                                       .channel_count = FAKE_PAGES,
                                                       .block_bytes = LAYOUT_BLOCK_BYTES,
                                                       .zone_uuid = "a zone of tests",
                                                       .peers_offset = FAKE_PEERS,
                                                       .peer_count = 8};
    fake->registers[DEVICE_REGISTER_POSITION / 4] = FAKE_ID;
    fake->registers[DEVICE_REGISTER_DOORBELL / 4] = LAYOUT_NO_DOORBELL;
    fake_peer(fake)->domain = FAKE_DOMAIN;
    fake->memory = (struct ring_memory){
        .descriptor = fake->memory_fd, .size_bytes = FAKE_BYTES, .data_offset = FAKE_DATA};
}

/* As a backend would. */
static inline void fake_fill(struct fake *fake, struct device *device, bool interrupts)
{
    *device = (struct device){.address = "0000:01:00.0",
                              .backend = interrupts ? &fake_backend : &fake_backend_silent,
                              .state = fake,
                              .memory_fd = fake->memory_fd,
                              .register_fd = fake->register_fd,
                              .memory_bytes = FAKE_BYTES,
                              .vectors = interrupts ? FAKE_VECTORS : 0};
}

static inline void fake_free(struct fake *fake)
{
    ring_consumer_deinit(&fake->from_agent);
    ring_producer_deinit(&fake->to_agent);
    munmap(fake->region, FAKE_BYTES);
    munmap((void *)(uintptr_t)fake->registers, 4096);
    close(fake->memory_fd);
    close(fake->register_fd);
}

/* True, once: the agent rang the broker. */
static inline bool fake_was_rung(struct fake *fake)
{
    bool rung = fake->registers[DEVICE_REGISTER_DOORBELL / 4] == 0;

    fake->registers[DEVICE_REGISTER_DOORBELL / 4] = LAYOUT_NO_DOORBELL;
    return rung;
}

static inline void fake_ring_vector(struct fake *fake, uint32_t vector)
{
    const uint64_t one = 1;

    assert_true(fake->vector[vector] >= 0);
    assert_int_equal(write(fake->vector[vector], &one, sizeof(one)), sizeof(one));
}

/* The broker makes a mailbox. */
static inline void fake_answer(struct fake *fake)
{
    struct layout_channel_page *page = fake_page(fake, FAKE_MAILBOX);
    struct layout_peer *peer = fake_peer(fake);
    struct ring_geometry geometry;

    ring_consumer_deinit(&fake->from_agent);
    ring_producer_deinit(&fake->to_agent);
    memset(page, 0, sizeof(*page));
    page->channel.fence_sleep = 1;
    page->channel.state = LAYOUT_CHANNEL_CONNECTED;
    for (unsigned i = 0; i < 2; i++)
        ring_geometry_init(&geometry, &page->ring[i],
                           (struct ring_extent){FAKE_DATA + i * PROTO_MAILBOX_BYTES,
                                                PROTO_MAILBOX_BYTES});
    ring_producer_init(&fake->to_agent, page, LAYOUT_SERVER_SENDS, &fake->memory, 0,
                       PROTO_MAILBOX_BYTES);
    ring_consumer_init(&fake->from_agent, page, LAYOUT_CLIENT_SENDS, &fake->memory, 0);
    peer->page_offset = FAKE_MAILBOX;
    order_store_release(&peer->answered, order_load_acquire(&peer->request));
}

static inline void fake_send_raw(struct fake *fake, const void *data, size_t bytes)
{
    struct ring_span span;

    assert_int_equal(ring_producer_reserve(&fake->to_agent, bytes, bytes, &span), 0);
    memcpy(span.data, data, bytes);
    if (ring_producer_commit(&fake->to_agent, bytes) && fake->vector[0] >= 0)
        fake_ring_vector(fake, 0);
}

static inline void fake_send(struct fake *fake, uint16_t kind, uint32_t session, const void *body,
                             size_t bytes)
{
    uint8_t whole[sizeof(struct proto_frame) + PROTO_MESSAGE_BYTES_MAX];
    const struct proto_frame frame = {.kind = kind, .size = (uint16_t)bytes, .session = session};

    memcpy(whole, &frame, sizeof(frame));
    if (bytes)
        memcpy(whole + sizeof(frame), body, bytes);
    fake_send_raw(fake, whole, sizeof(frame) + bytes);
}

/* The next frame from the agent. False: there is none. */
static inline bool fake_receive(struct fake *fake, struct proto_frame *frame, uint8_t *body)
{
    struct ring_span span;

    *frame = (struct proto_frame){0};
    if (ring_consumer_peek(&fake->from_agent, sizeof(*frame), &span) < 0)
        return false;
    memcpy(frame, span.data, sizeof(*frame));
    ring_consumer_release(&fake->from_agent, sizeof(*frame));
    if (frame->size == 0)
        return true;
    assert_int_equal(ring_consumer_peek(&fake->from_agent, frame->size, &span), 0);
    memcpy(body, span.data, frame->size);
    if (ring_consumer_release(&fake->from_agent, frame->size))
        fake_ring_vector(fake, 0);
    return true;
}

/* What can be done without waiting is done. */
static inline void settle(struct loop *loop)
{
    loop_turn(loop, 1000);
}

#endif
