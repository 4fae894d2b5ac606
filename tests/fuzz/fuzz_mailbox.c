/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest that writes what it likes into its mailbox, against the broker's own code with its
 * threads: frames that are nearly right, words of rubbish, doorbells. The broker neither crashes
 * nor hangs, and when the guest is gone nothing of it is left.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/connection.h"
#include "broker/guest_mailbox.h"
#include "ring/order.h"

#define DOMAIN 3u
#define SESSIONS 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *data;
    size_t left;
};

/* What the guest knows of its mailbox. */
struct villain {
    struct guest *guest;
    struct layout_channel_page *page;
    uint8_t *extent; /* of the ring that it sends in */
    uint64_t tail;
    uint32_t seq[SESSIONS];
};

static struct broker broker;
static uint8_t *region;
static uint64_t free_bytes;

static void stop(void)
{
    char directory[64], path[128];

    snprintf(directory, sizeof(directory), "%s", broker.listener.socket_path);
    *strrchr(directory, '/') = 0;
    broker_deinit(&broker);
    snprintf(path, sizeof(path), "%s/vchand.pid", directory);
    unlink(path);
    rmdir(directory);
}

static void start(void)
{
    char directory[] = "/tmp/vchan-fuzz-XXXXXX";
    struct config config;

    config_init(&config);
    config.region_bytes = 4 << 20;
    config.channels = 32;
    config.guest_vectors = 4;
    config.log_level = LOG_ERR;
    snprintf(config.metrics_socket, sizeof(config.metrics_socket), "no");
    if (!mkdtemp(directory) || broker_init(&broker, &config, NULL, directory) < 0 ||
        broker_start_threads(&broker) < 0)
        abort();
    region = mmap(NULL, broker.zones[0]->region.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                  broker.zones[0]->region.descriptor, 0);
    if (region == MAP_FAILED)
        abort();
    free_bytes = broker.zones[0]->free_bytes;
    atexit(stop);
}

static uint8_t take(struct input *input)
{
    if (input->left == 0)
        return 0;
    input->left--;
    return *input->data++;
}

static uint64_t take_word(struct input *input)
{
    uint64_t word = 0;

    for (unsigned i = 0; i < 8; i++)
        word = word << 8 | take(input);
    return word;
}

static void run_loop(void)
{
    while (sd_event_run(broker.event, 0) > 0)
        ;
}

static bool find_mailbox(struct villain *villain)
{
    const struct layout_peer *peer = region_peer(&broker.zones[0]->region, villain->guest->id);

    if (peer->answered == 0)
        return false;
    villain->page = (void *)(region + peer->page_offset);
    villain->extent = region + villain->page->ring[LAYOUT_CLIENT_SENDS].geometry.extent[1].offset;
    return true;
}

/* Published in one piece. */
static void put(struct villain *villain, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        villain->extent[(villain->tail + i) % PROTO_MAILBOX_BYTES] = ((const uint8_t *)bytes)[i];
    villain->tail += count;
    order_store_release(&villain->page->ring[LAYOUT_CLIENT_SENDS].producer.tail, villain->tail);
}

static void put_frame(struct villain *villain, uint16_t kind, uint32_t session, const void *body,
                      size_t bytes)
{
    uint8_t frame[sizeof(struct proto_frame) + 512];
    const struct proto_frame head = {.kind = kind, .size = (uint16_t)bytes, .session = session};

    memcpy(frame, &head, sizeof(head));
    memcpy(frame + sizeof(head), body, bytes);
    put(villain, frame, sizeof(head) + bytes);
}

static void put_command(struct villain *villain, uint32_t session, uint16_t id, const void *body,
                        size_t bytes)
{
    uint8_t message[512];
    const struct proto_header header = {
        .id = id, .size = (uint16_t)bytes, .seq = ++villain->seq[session]};

    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), body, bytes);
    put_frame(villain, PROTO_FRAME_DATA, session, message, sizeof(header) + bytes);
}

/* A program that gets as far as a channel. */
static void join(struct villain *villain, uint32_t session, struct input *input)
{
    const struct proto_frame_open open = {.pid = 1};
    const struct proto_get_version version = {.version = PROTO_VERSION,
                                              .byte_order = PROTO_BYTE_ORDER};
    const struct proto_hello hello = {.domain = 0};
    const struct proto_agent_hello agent = {.vectors = take(input) % 6};
    const struct proto_channel_open channel = {.peer_domain = take(input) % 2 ? DOMAIN : 0,
                                               .port = take(input) % 2,
                                               .mode = 1u + take(input) % 3u};

    villain->seq[session] = 0;
    put_frame(villain, PROTO_FRAME_OPEN, session, &open, sizeof(open));
    put_command(villain, session, PROTO_GET_VERSION, &version, sizeof(version));
    put_command(villain, session, PROTO_HELLO, &hello, sizeof(hello));
    if (session == PROTO_SESSION_AGENT)
        put_command(villain, session, PROTO_AGENT_HELLO, &agent, sizeof(agent));
    else
        put_command(villain, session, PROTO_CHANNEL_OPEN, &channel, sizeof(channel));
}

static void put_any(struct villain *villain, struct input *input)
{
    uint8_t body[256] = {0};
    const uint16_t kind = take(input) % 5;
    const uint32_t session = take(input) % (SESSIONS + 1);
    const size_t bytes = kind == PROTO_FRAME_OPEN ? 8 : kind == PROTO_FRAME_CLOSE ? 0 : take(input);

    for (size_t i = 0; i < bytes; i++)
        body[i] = take(input);
    put_frame(villain, kind, session, body, bytes);
}

static void step(struct villain *villain, struct input *input)
{
    struct layout_peer *peer = region_peer(&broker.zones[0]->region, villain->guest->id);
    struct layout_ring *in = &villain->page->ring[LAYOUT_SERVER_SENDS];

    switch (take(input) % 8) {
    case 0:
        join(villain, take(input) % SESSIONS, input);
        break;
    case 1:
        put_any(villain, input);
        break;
    case 2: {
        const uint32_t session = take(input) % SESSIONS;
        put_command(villain, session, take(input) % (PROTO_COMMAND_MAX + 1), &peer->pad0,
                    take(input) % 64);
        break;
    }
    case 3:
        order_store_release(&in->consumer.head, order_load_acquire(&in->producer.tail));
        break;
    case 4:
        ((uint64_t *)(void *)villain->page)[take_word(input) % (sizeof(*villain->page) / 8)] =
            take_word(input);
        break;
    case 5:
        ((uint8_t *)villain->page)[take_word(input) % sizeof(*villain->page)] = take(input);
        break;
    case 6:
        ((uint64_t *)(void *)peer)[take(input) % (sizeof(*peer) / 8)] = take_word(input);
        break;
    default:
        run_loop();
    }
    guest_mailbox_look(villain->guest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    struct villain villain = {0};
    const char *why;

    if (!broker.event)
        start();
    if (guest_new(&broker, broker.zones[0], DOMAIN, 1, &villain.guest) < 0)
        abort();
    order_store_release(&region_peer(&broker.zones[0]->region, villain.guest->id)->request, 1u);
    guest_mailbox_look(villain.guest);
    if (!find_mailbox(&villain))
        abort();
    while (input.left > 0)
        step(&villain, &input);
    run_loop();
    guest_free(villain.guest);
    connection_free_doomed(&broker);
    run_loop();
    if (broker.channels.count != 0 || broker.connection_count != 0 ||
        broker.zones[0]->free_bytes != free_bytes ||
        allocator_check(broker.zones[0]->allocator, &why) < 0)
        abort();
    return 0;
}
