/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/inspector.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "broker/broker.h"
#include "broker/connection.h"
#include "broker/listing.h"
#include "broker/mailbox.h"
#include "proto/socket.h"
#include "ring/order.h"

/* Listings that one client may have under way: who sends more without waiting for answers floods.
 */
#define INSPECTIONS_A_CLIENT 16u

struct inspection {
    struct mailbox_letter letter;
    struct wire *wire;
    uint16_t id;
    uint32_t seq;
    uint32_t asker;
    struct proto_list request;
};

struct inspector {
    struct broker *broker;
    struct mailbox mailbox;
    pthread_t thread;
    uint32_t stop;          /* plain; then the mailbox is rung */
    struct listing listing; /* the page being made: large for a stack */
};

static void answer(struct inspector *inspector, struct inspection *inspection)
{
    struct listing *listing = &inspector->listing;
    struct wire *wire = inspection->wire;

    listing_fill(inspector->broker, inspection->id, &inspection->request, inspection->asker,
                 broker_now_ns(), listing);
    wire_reply(wire, inspection->id, inspection->seq, 0, &listing->reply, sizeof(listing->reply),
               listing->items, (size_t)listing->reply.count * listing->reply.item_bytes);
    __atomic_fetch_sub(&wire->inspections, 1, __ATOMIC_RELAXED);
    wire_drop(wire);
    free(inspection);
}

static struct inspection *take(struct inspector *inspector)
{
    struct mailbox_letter *letter = mailbox_take(&inspector->mailbox);

    return letter ? caa_container_of(letter, struct inspection, letter) : NULL;
}

static void *run(void *context)
{
    struct inspector *inspector = context;
    struct pollfd ring = {.fd = inspector->mailbox.event_fd, .events = POLLIN};
    struct inspection *inspection;

    rcu_register_thread();
    while (!order_load_plain(&inspector->stop)) {
        if (poll(&ring, 1, -1) < 0)
            continue;
        mailbox_acknowledge(&inspector->mailbox);
        while (!order_load_plain(&inspector->stop) && (inspection = take(inspector)))
            answer(inspector, inspection);
    }
    rcu_unregister_thread();
    return NULL;
}

int inspector_new(struct broker *broker, struct inspector **out)
{
    struct inspector *inspector = calloc(1, sizeof(*inspector));

    if (!inspector)
        return -ENOMEM;
    inspector->broker = broker;
    int r = mailbox_init(&inspector->mailbox);
    if (r == 0)
        r = -pthread_create(&inspector->thread, NULL, run, inspector);
    if (r < 0) {
        mailbox_deinit(&inspector->mailbox);
        free(inspector);
        return r;
    }
    pthread_setname_np(inspector->thread, "inspector");
    *out = inspector;
    return 0;
}

void inspector_free(struct inspector *inspector)
{
    struct inspection *inspection;

    if (!inspector)
        return;
    order_store_plain(&inspector->stop, 1);
    eventfd_write(inspector->mailbox.event_fd, 1);
    pthread_join(inspector->thread, NULL);
    while ((inspection = take(inspector))) {
        wire_drop(inspection->wire);
        free(inspection);
    }
    mailbox_deinit(&inspector->mailbox);
    free(inspector);
}

int inspector_ask(struct inspector *inspector, struct connection *connection,
                  const struct proto_message *message)
{
    struct wire *wire = connection->wire;

    if (order_load_plain(&wire->inspections) >= INSPECTIONS_A_CLIENT) {
        connection_doom(connection, "it asks for more listings than it takes");
        return 0;
    }
    struct inspection *inspection = calloc(1, sizeof(*inspection));
    if (!inspection)
        return -ENOMEM;
    __atomic_fetch_add(&wire->inspections, 1, __ATOMIC_RELAXED);
    inspection->wire = wire_hold(wire);
    inspection->id = message->header.id;
    inspection->seq = message->header.seq;
    inspection->asker = connection->domain;
    inspection->request = *(const struct proto_list *)(const void *)message->body;
    mailbox_post(&inspector->mailbox, &inspection->letter);
    return 0;
}
