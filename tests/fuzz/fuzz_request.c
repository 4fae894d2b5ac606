/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Any sequence of messages from four clients, against the broker's own code with its threads: it
 * neither crashes nor hangs, and when the clients are gone nothing of theirs is left.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/connection.h"
#include "proto/socket.h"

#define CLIENTS 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct client {
    int socket; /* ours; -1: closed */
    uint32_t seq;
};

struct input {
    const uint8_t *data;
    size_t left;
};

static struct broker broker;

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
    config.log_level = LOG_ERR;
    if (!mkdtemp(directory) || broker_init(&broker, &config, NULL, directory) < 0 ||
        broker_start_threads(&broker) < 0)
        abort();
    atexit(stop);
}

static uint8_t take(struct input *input)
{
    if (input->left == 0)
        return 0;
    input->left--;
    return *input->data++;
}

static void take_bytes(struct input *input, uint8_t *bytes, size_t count)
{
    size_t there = count < input->left ? count : input->left;

    memcpy(bytes, input->data, there);
    memset(bytes + there, 0, count - there);
    input->data += there;
    input->left -= there;
}

static void run_loop(void)
{
    while (sd_event_run(broker.event, 0) > 0)
        ;
}

static void drain(struct client *client)
{
    struct proto_message message;

    while (client->socket >= 0) {
        int r = proto_receive(client->socket, &message, MSG_DONTWAIT);
        if (r == 1) {
            if (message.header.size < sizeof(struct proto_error))
                abort();
            proto_message_close(&message);
            continue;
        }
        if (r == 0) {
            close(client->socket);
            client->socket = -1;
        }
        return;
    }
}

static void send_bytes(struct client *client, uint16_t id, uint32_t seq, const void *body,
                       size_t bytes)
{
    if (client->socket >= 0)
        proto_send(client->socket, id, seq, body, bytes, NULL, 0, NULL, 0);
}

static void join(struct client *client, uint32_t domain)
{
    const struct proto_get_version version = {.version = PROTO_VERSION,
                                              .byte_order = PROTO_BYTE_ORDER};
    const struct proto_hello hello = {.domain = domain};
    struct connection *connection;
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0 ||
        connection_new(&broker, ends[0], &connection) < 0)
        abort();
    *client = (struct client){.socket = ends[1]};
    send_bytes(client, PROTO_GET_VERSION, ++client->seq, &version, sizeof(version));
    send_bytes(client, PROTO_HELLO, ++client->seq, &hello, sizeof(hello));
}

/* Mostly well-formed in its shape, so that the handlers are reached; small numbers, so that clients
 * meet. */
static void send_one(struct client *client, struct input *input)
{
    const unsigned choice = take(input);
    uint16_t id = (uint16_t)(choice % (PROTO_COMMAND_MAX + PROTO_EVENT_MAX + 2));
    uint8_t body[PROTO_MESSAGE_BYTES_MAX];
    size_t bytes;

    if (id > PROTO_COMMAND_MAX)
        id = (uint16_t)(PROTO_EVENT | (id - PROTO_COMMAND_MAX));
    const struct proto_command *known = id & PROTO_EVENT ? proto_event_find(id)
                                                         : proto_command_find(id);
    bytes = known && choice < 250 ? known->request_bytes : take(input);
    take_bytes(input, body, bytes);
    if (id == PROTO_CHANNEL_OPEN && bytes >= 16 && choice < 200)
        for (unsigned i = 0; i < 16; i++)
            body[i] = i % 4 ? 0 : body[i] % 4;
    if (id & PROTO_EVENT)
        send_bytes(client, id, 0, body, bytes);
    else
        send_bytes(client, id, choice == 255 ? take(input) : ++client->seq, body, bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    struct client clients[CLIENTS];
    const char *why;

    if (!broker.event)
        start();
    for (uint32_t i = 0; i < CLIENTS; i++)
        join(&clients[i], i % 3);
    run_loop();
    while (input.left > 0) {
        struct client *client = &clients[take(&input) % CLIENTS];
        send_one(client, &input);
        run_loop();
        drain(client);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        if (clients[i].socket >= 0)
            close(clients[i].socket);
    run_loop();
    if (broker.channels.count != 0 || broker.connection_count != 0 ||
        allocator_check(broker.zones[0]->allocator, &why) < 0)
        abort();
    return 0;
}
