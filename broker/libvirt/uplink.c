/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/libvirt/uplink.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int lose(struct uplink *uplink, int err, const char *why)
{
    snprintf(uplink->why, sizeof(uplink->why), "%s", why ? why : strerror(-err));
    uplink_close(uplink);
    return err;
}

void uplink_close(struct uplink *uplink)
{
    if (uplink->socket >= 0)
        close(uplink->socket);
    uplink->socket = -1;
    uplink->event_count = 0;
}

static int keep_event(struct uplink *uplink)
{
    const struct proto_message *message = &uplink->message;

    if (proto_event_check(message->header.id, message->body, message->header.size) < 0 ||
        message->header.id != PROTO_EVENT_HYPERVISOR || uplink->event_count == UPLINK_EVENTS)
        return lose(uplink, -EPROTO, "the broker sent an event that it should not");
    unsigned at = (uplink->first_event + uplink->event_count++) % UPLINK_EVENTS;
    memcpy(&uplink->events[at], message->body, sizeof(uplink->events[at]));
    return 0;
}

/* One message into uplink->message; an event is kept, and that is 1. 0: it is a reply. */
static int take(struct uplink *uplink, int flags)
{
    int r = proto_receive(uplink->socket, &uplink->message, flags);

    if (r == 0)
        return lose(uplink, -ECONNRESET, "the broker has closed the connection");
    if (r == -EAGAIN && !(flags & MSG_DONTWAIT))
        return lose(uplink, -ETIMEDOUT, "the broker does not answer");
    if (r == -EAGAIN)
        return r;
    if (r < 0)
        return lose(uplink, r, NULL);
    proto_message_close(&uplink->message);
    if (!(uplink->message.header.id & PROTO_EVENT))
        return 0;
    r = keep_event(uplink);
    return r < 0 ? r : 1;
}

static int exchange(struct uplink *uplink, uint16_t id, const void *body, size_t bytes)
{
    const struct proto_header *header = &uplink->message.header;

    if (uplink->socket < 0)
        return -ENOTCONN;
    int r = proto_send(uplink->socket, id, ++uplink->seq, body, bytes, NULL, 0, NULL, 0);
    if (r < 0)
        return lose(uplink, r, NULL);
    do
        r = take(uplink, 0);
    while (r == 1);
    if (r < 0)
        return r;
    if (header->id != id || header->seq != uplink->seq || header->size < sizeof(struct proto_error))
        return lose(uplink, -EPROTO, "the broker's reply is of another shape");
    return ((const struct proto_error *)(const void *)uplink->message.body)->err;
}

static void explain(struct uplink *uplink, int err)
{
    const struct proto_text *text;

    if (exchange(uplink, PROTO_EXPLAIN, NULL, 0) == 0 &&
        uplink->message.header.size == sizeof(struct proto_error) + sizeof(*text)) {
        text = (const void *)(uplink->message.body + sizeof(struct proto_error));
        snprintf(uplink->why, sizeof(uplink->why), "%.*s", (int)sizeof(text->text) - 1, text->text);
    }
    if (!uplink->why[0])
        snprintf(uplink->why, sizeof(uplink->why), "%s", strerror(-err));
}

int uplink_call(struct uplink *uplink, uint16_t id, const void *body, size_t bytes, void *reply,
                size_t reply_bytes)
{
    uplink->why[0] = '\0';
    int r = exchange(uplink, id, body, bytes);

    if (r < 0) {
        if (uplink->socket >= 0)
            explain(uplink, r);
        return r;
    }
    if (uplink->message.header.size != sizeof(struct proto_error) + reply_bytes)
        return lose(uplink, -EPROTO, "the broker's reply is of another size");
    if (reply_bytes > 0)
        memcpy(reply, uplink->message.body + sizeof(struct proto_error), reply_bytes);
    return 0;
}

static int shake_hands(struct uplink *uplink, const char *name)
{
    const struct proto_get_version version = {.version = PROTO_VERSION,
                                              .byte_order = PROTO_BYTE_ORDER};
    const struct proto_hello hello = {.domain = PROTO_DOMAIN_HOST, .pid = (uint32_t)getpid()};
    struct proto_get_version_reply common;
    struct proto_hypervisor_serve serve = {0};
    struct proto_hello_reply welcome;

    snprintf(serve.name, sizeof(serve.name), "%s", name);
    int r =
        uplink_call(uplink, PROTO_GET_VERSION, &version, sizeof(version), &common, sizeof(common));
    if (r == 0)
        r = uplink_call(uplink, PROTO_HELLO, &hello, sizeof(hello), &welcome, sizeof(welcome));
    if (r == 0)
        r = uplink_call(uplink, PROTO_HYPERVISOR_SERVE, &serve, sizeof(serve), NULL, 0);
    return r;
}

int uplink_open(struct uplink *uplink, const char *path, const char *name)
{
    const struct timeval wait = {.tv_sec = UPLINK_WAIT_S};

    uplink->seq = 0;
    uplink->event_count = 0;
    uplink->socket = proto_socket_connect(path);
    if (uplink->socket < 0)
        return lose(uplink, uplink->socket, NULL);
    setsockopt(uplink->socket, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    setsockopt(uplink->socket, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    int r = shake_hands(uplink, name);
    if (r < 0)
        uplink_close(uplink);
    return r;
}

int uplink_receive(struct uplink *uplink)
{
    int r;

    do
        r = take(uplink, MSG_DONTWAIT);
    while (r == 1);
    if (r == 0)
        return lose(uplink, -EPROTO, "the broker answered what was not asked");
    return r == -EAGAIN ? 0 : r;
}

bool uplink_event(struct uplink *uplink, struct proto_event_hypervisor *event)
{
    if (uplink->event_count == 0)
        return false;
    *event = uplink->events[uplink->first_event];
    uplink->first_event = (uplink->first_event + 1) % UPLINK_EVENTS;
    uplink->event_count--;
    return true;
}
