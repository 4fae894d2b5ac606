/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/broker_link.h - vchanctl's connection to the broker: one question at a time, one
 * answer each.
 *
 * The client library's connection serves one channel end; this one opens no channel and pages
 * through lists. The broker is not trusted to behave: it answers within BROKER_LINK_WAIT_S or is
 * given up, a reply of the wrong shape is EPROTO, and a list ends after BROKER_LINK_ITEMS_MAX items
 * whatever the broker says.
 */
#ifndef VCHAN_CLIENT_CTL_BROKER_LINK_H
#define VCHAN_CLIENT_CTL_BROKER_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/proto.h"
#include "proto/socket.h"

#define BROKER_LINK_WAIT_S 5
#define BROKER_LINK_ITEMS_MAX (1u << 18)
#define BROKER_LINK_PAGES_MAX (1u << 16)

struct broker_link {
    int socket; /* -1: none */
    uint32_t seq;
    uint32_t domain;            /* that this process plays */
    bool lost;                  /* no broker behind the socket, or none any more */
    char why[PROTO_TEXT_BYTES]; /* on the last failure, a sentence or lines, clean; empty: none */
    bool keep_descriptors;      /* of the next reply: the caller takes them from it */
    struct proto_message reply;
};

/* Items of a list, malloc'ed, item_bytes each as the asker passed it. */
struct broker_items {
    void *items;
    size_t count;
    size_t capacity;
};

/*
 * Connects to path (NULL: the default one) and shakes hands as `domain`. 0, or -errno: with lost
 * set there is no broker, without it this broker refuses. A link that failed to open need not be
 * closed.
 */
int broker_link_open(struct broker_link *link, const char *path, uint32_t domain);
void broker_link_close(struct broker_link *link);

/* The next commands may take that long: some wait for somebody else than the broker. */
void broker_link_patience(struct broker_link *link, unsigned seconds);

/*
 * One command. reply (reply_bytes, exactly what the reply must hold after proto_error) may be NULL
 * with 0. 0, or the broker's -errno with its sentence in why; -EPROTO, -ETIMEDOUT, -ECONNRESET with
 * lost set.
 */
int broker_link_call(struct broker_link *link, uint16_t id, const void *request,
                     size_t request_bytes, void *reply, size_t reply_bytes);

/* The same for a command whose reply has one descriptor, which is the caller's then. */
int broker_link_call_descriptor(struct broker_link *link, uint16_t id, const void *request,
                                size_t request_bytes, void *reply, size_t reply_bytes,
                                int *descriptor);

/*
 * One page of a list: the items are appended to *items. request: proto_list for LIST_*,
 * proto_rebalance for REBALANCE. *next: the cursor of the next page, 0: this was the last. As
 * broker_link_call; -ENOMEM, and -EOVERFLOW past BROKER_LINK_ITEMS_MAX.
 */
int broker_link_page(struct broker_link *link, uint16_t id, const void *request,
                     size_t request_bytes, size_t item_bytes, struct broker_items *items,
                     uint64_t *next);

/*
 * The whole list from cursor on. *items is set on success only, and is the caller's to deinit.
 * As broker_link_page.
 */
int broker_link_list(struct broker_link *link, uint16_t id, uint64_t cursor, uint32_t channel,
                     size_t item_bytes, struct broker_items *items);

void broker_items_deinit(struct broker_items *items);

/* Sorts, and drops what the list repeats: neighbours that compare equal. compare: as qsort takes
 * it. */
void broker_items_order(struct broker_items *items, size_t item_bytes,
                        int (*compare)(const void *, const void *));

#endif
