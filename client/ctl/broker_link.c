/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl/broker_link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "client/ctl/text.h"

static int link_lost(struct broker_link *link, int err)
{
    link->lost = true;
    return err;
}

/*
 * Sends a command and receives its reply into link->reply. 0, or -errno when there is no reply: the
 * link is of no further use then. The reply is at least a proto_error.
 */
static int exchange(struct broker_link *link, uint16_t id, const void *request,
                    size_t request_bytes)
{
    const struct proto_header *header = &link->reply.header;
    int r = proto_send(link->socket, id, ++link->seq, request, request_bytes, NULL, 0, NULL, 0);

    if (r == 0) {
        r = proto_receive(link->socket, &link->reply, 0);
        if (r > 0 && !link->keep_descriptors)
            proto_message_close(&link->reply);
        else if (r == 0)
            r = -ECONNRESET;
    }
    if (r == -EPIPE)
        r = -ECONNRESET;
    if (r == -EAGAIN)
        r = -ETIMEDOUT;
    if (r == -EMSGSIZE || r == -EBADMSG)
        r = -EPROTO;
    if (r < 0)
        return link_lost(link, r);
    if (header->id != id || header->seq != link->seq || header->size < sizeof(struct proto_error))
        return link_lost(link, -EPROTO);
    return 0;
}

/* The error in link->reply: 0 or negative. Anything else is no errno. */
static int reply_error(struct broker_link *link)
{
    struct proto_error error;

    memcpy(&error, link->reply.body, sizeof(error));
    if (error.err > 0 || error.err < -4095)
        return link_lost(link, -EPROTO);
    return error.err;
}

static size_t reply_bytes_of(const struct broker_link *link)
{
    return link->reply.header.size - sizeof(struct proto_error);
}

static const uint8_t *reply_body(const struct broker_link *link)
{
    return link->reply.body + sizeof(struct proto_error);
}

/* Asks why the last command failed. No sentence is no further failure, unless the link is gone. */
static void explain(struct broker_link *link)
{
    struct proto_text text;

    if (exchange(link, PROTO_EXPLAIN, NULL, 0) < 0 || reply_error(link) != 0 ||
        reply_bytes_of(link) != sizeof(text))
        return;
    memcpy(&text, reply_body(link), sizeof(text));
    memcpy(link->why, text.text, sizeof(link->why));
    text_clean_lines(link->why, sizeof(link->why));
}

static int ask(struct broker_link *link, uint16_t id, const void *request, size_t request_bytes)
{
    int r;

    link->why[0] = '\0';
    r = exchange(link, id, request, request_bytes);
    if (r < 0)
        return r;
    r = reply_error(link);
    if (r < 0 && !link->lost)
        explain(link);
    return r;
}

int broker_link_call(struct broker_link *link, uint16_t id, const void *request,
                     size_t request_bytes, void *reply, size_t reply_bytes)
{
    int r = ask(link, id, request, request_bytes);

    if (r < 0)
        return r;
    if (reply_bytes_of(link) != reply_bytes)
        return link_lost(link, -EPROTO);
    if (reply_bytes > 0)
        memcpy(reply, reply_body(link), reply_bytes);
    return 0;
}

int broker_link_call_descriptor(struct broker_link *link, uint16_t id, const void *request,
                                size_t request_bytes, void *reply, size_t reply_bytes,
                                int *descriptor)
{
    link->keep_descriptors = true;
    link->reply.descriptor_count = 0;
    int r = broker_link_call(link, id, request, request_bytes, reply, reply_bytes);
    link->keep_descriptors = false;
    if (r == 0 && link->reply.descriptor_count != 1)
        r = link_lost(link, -EPROTO);
    if (r < 0)
        proto_message_close(&link->reply);
    else
        *descriptor = link->reply.descriptors[0];
    return r;
}

static int shake_hands(struct broker_link *link, uint32_t domain)
{
    struct proto_get_version version = {.version = PROTO_VERSION, .byte_order = PROTO_BYTE_ORDER};
    struct proto_get_version_reply broker_version;
    struct proto_hello hello = {.domain = domain, .pid = (uint32_t)getpid()};
    struct proto_hello_reply welcome;
    int r;

    r = broker_link_call(link, PROTO_GET_VERSION, &version, sizeof(version), &broker_version,
                         sizeof(broker_version));
    if (r < 0)
        return r;
    if (broker_version.version < PROTO_VERSION_OLDEST || broker_version.version > PROTO_VERSION)
        return -EPROTONOSUPPORT;
    r = broker_link_call(link, PROTO_HELLO, &hello, sizeof(hello), &welcome, sizeof(welcome));
    if (r < 0)
        return r;
    link->domain = welcome.domain;
    return 0;
}

void broker_link_patience(struct broker_link *link, unsigned seconds)
{
    const struct timeval wait = {.tv_sec = (time_t)seconds};

    setsockopt(link->socket, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
}

int broker_link_open(struct broker_link *link, const char *path, uint32_t domain)
{
    struct timeval wait = {.tv_sec = BROKER_LINK_WAIT_S};
    int r;

    link->seq = 0;
    link->domain = domain;
    link->lost = false;
    link->why[0] = '\0';
    link->socket = proto_socket_connect(path);
    if (link->socket < 0) {
        r = link->socket;
        link->socket = -1;
        return link_lost(link, r);
    }
    setsockopt(link->socket, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    setsockopt(link->socket, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    r = shake_hands(link, domain);
    if (r < 0)
        broker_link_close(link);
    return r;
}

void broker_link_close(struct broker_link *link)
{
    if (link->socket >= 0)
        close(link->socket);
    link->socket = -1;
}

static int reserve(struct broker_items *items, size_t count, size_t item_bytes)
{
    size_t capacity = 2 * items->capacity;
    void *grown;

    if (items->count + count <= items->capacity)
        return 0;
    if (capacity < items->count + count)
        capacity = items->count + count;
    grown = reallocarray(items->items, capacity, item_bytes);
    if (!grown)
        return -ENOMEM;
    items->items = grown;
    items->capacity = capacity;
    return 0;
}

/* An item of a newer broker may be longer than what is known here; its start is the same. */
static int append(struct broker_items *items, const uint8_t *from, size_t count, size_t from_bytes,
                  size_t item_bytes)
{
    int r;

    if (count > BROKER_LINK_ITEMS_MAX - items->count)
        return -EOVERFLOW;
    r = reserve(items, count, item_bytes);
    if (r < 0)
        return r;
    for (size_t i = 0; i < count; i++)
        memcpy((uint8_t *)items->items + (items->count + i) * item_bytes, from + i * from_bytes,
               item_bytes);
    items->count += count;
    return 0;
}

int broker_link_page(struct broker_link *link, uint16_t id, const void *request,
                     size_t request_bytes, size_t item_bytes, struct broker_items *items,
                     uint64_t *next)
{
    struct proto_list_reply list;
    int r = ask(link, id, request, request_bytes);

    if (r < 0)
        return r;
    if (reply_bytes_of(link) < sizeof(list))
        return link_lost(link, -EPROTO);
    memcpy(&list, reply_body(link), sizeof(list));
    if ((list.count > 0 && list.item_bytes < item_bytes) ||
        (uint64_t)list.count * list.item_bytes != reply_bytes_of(link) - sizeof(list))
        return link_lost(link, -EPROTO);
    r = append(items, reply_body(link) + sizeof(list), list.count, list.item_bytes, item_bytes);
    *next = list.next;
    return r;
}

int broker_link_list(struct broker_link *link, uint16_t id, uint64_t cursor, uint32_t channel,
                     size_t item_bytes, struct broker_items *items)
{
    struct broker_items list = {0};
    unsigned pages = 0;
    int r;

    do {
        struct proto_list request = {.cursor = cursor, .channel = channel};
        r = broker_link_page(link, id, &request, sizeof(request), item_bytes, &list, &cursor);
        if (r == 0 && ++pages > BROKER_LINK_PAGES_MAX)
            r = -EOVERFLOW;
    } while (r == 0 && cursor != 0);
    if (r < 0) {
        broker_items_deinit(&list);
        return r;
    }
    *items = list;
    return 0;
}

void broker_items_deinit(struct broker_items *items)
{
    free(items->items);
    *items = (struct broker_items){0};
}

void broker_items_order(struct broker_items *items, size_t item_bytes,
                        int (*compare)(const void *, const void *))
{
    uint8_t *all = items->items;
    size_t kept = 1;

    if (items->count == 0)
        return;
    qsort(all, items->count, item_bytes, compare);
    for (size_t i = 1; i < items->count; i++) {
        if (compare(all + (kept - 1) * item_bytes, all + i * item_bytes) == 0)
            continue;
        memmove(all + kept++ * item_bytes, all + i * item_bytes, item_bytes);
    }
    items->count = kept;
}
