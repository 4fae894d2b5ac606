/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/hypervisor.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/connection.h"
#include "broker/device.h"
#include "broker/roster.h"
#include "proto/guest.h"
#include "proto/socket.h"

struct request {
    struct cds_list_head link; /* owner: hypervisor.requests, the oldest first */
    uint32_t number;
    uint32_t seq;
    uint16_t id;              /* PROTO_DOMAIN_ATTACH, _DETACH, _SHOW */
    struct connection *asker; /* NULL: it has gone */
    uint64_t deadline_ns;
};

struct hypervisor {
    struct broker *broker;
    struct connection *helper; /* NULL: none */
    char name[PROTO_NAME_BYTES];
    struct roster roster;
    struct cds_list_head requests;
    uint32_t request_count;
    uint32_t last_number;
    sd_event_source *timer;
};

/* How people start a helper. */
#define START_HELPER "start it with: systemctl start vchan-libvirt, or: vchan-libvirt"

static void reply(struct connection *connection, const struct proto_message *message,
                  const void *body, size_t bytes)
{
    connection_reply(connection, message->header.id, message->header.seq, 0, body, bytes, NULL, 0);
}

/* Ends a request: its asker gets the text, in a reply or as the explanation of err. */
static void answer(struct hypervisor *hypervisor, struct request *request, int err,
                   const struct proto_text *text)
{
    struct connection *asker = request->asker;

    cds_list_del(&request->link);
    hypervisor->request_count--;
    if (asker && err < 0) {
        connection_quote(asker, text->text);
        connection_log(asker, LOG_DEBUG, "vchan-libvirt: %.*s (%s)",
                       (int)strcspn(text->text, "\n"), text->text, strerror(-err));
        connection_reply(asker, request->id, request->seq, err, NULL, 0, NULL, 0);
    } else if (asker) {
        connection_reply(asker, request->id, request->seq, 0, text, sizeof(*text), NULL, 0);
    }
    free(request);
}

static void answer_sentence(struct hypervisor *hypervisor, struct request *request, int err,
                            const char *sentence)
{
    struct proto_text text = {0};

    snprintf(text.text, sizeof(text.text), "%s", sentence);
    text.length = (uint32_t)strlen(text.text);
    answer(hypervisor, request, err, &text);
}

static struct request *oldest(struct hypervisor *hypervisor)
{
    return cds_list_empty(&hypervisor->requests)
               ? NULL
               : cds_list_entry(hypervisor->requests.next, struct request, link);
}

/* For the oldest request; off without any. */
static void set_timer(struct hypervisor *hypervisor)
{
    const struct request *first = oldest(hypervisor);

    if (first)
        sd_event_source_set_time(hypervisor->timer, first->deadline_ns / 1000);
    sd_event_source_set_enabled(hypervisor->timer, first ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

static int on_timer(sd_event_source *source, uint64_t time_us, void *context)
{
    struct hypervisor *hypervisor = context;
    const uint64_t now_ns = broker_now_ns();
    struct request *first;

    (void)source;
    (void)time_us;
    while ((first = oldest(hypervisor)) && first->deadline_ns / 1000 * 1000 <= now_ns)
        answer_sentence(hypervisor, first, -ETIMEDOUT,
                        "vchan-libvirt took the request and has not answered for a minute: is it "
                        "stopped? What was asked may still happen; see its log");
    set_timer(hypervisor);
    return 0;
}

int hypervisor_new(struct broker *broker, struct hypervisor **out)
{
    struct hypervisor *hypervisor = calloc(1, sizeof(*hypervisor));

    if (!hypervisor)
        return -ENOMEM;
    hypervisor->broker = broker;
    CDS_INIT_LIST_HEAD(&hypervisor->requests);
    int r = sd_event_add_time(broker->event, &hypervisor->timer, CLOCK_MONOTONIC, 0, 0, on_timer,
                              hypervisor);
    if (r >= 0)
        r = sd_event_source_set_enabled(hypervisor->timer, SD_EVENT_OFF);
    if (r < 0) {
        hypervisor_free(hypervisor);
        return r;
    }
    *out = hypervisor;
    return 0;
}

void hypervisor_free(struct hypervisor *hypervisor)
{
    struct request *request;

    if (!hypervisor)
        return;
    while ((request = oldest(hypervisor))) {
        cds_list_del(&request->link);
        free(request);
    }
    sd_event_source_disable_unref(hypervisor->timer);
    roster_deinit(&hypervisor->roster);
    free(hypervisor);
}

int hypervisor_may_serve(const struct connection *connection)
{
    return connection->domain == PROTO_DOMAIN_HOST &&
           (connection->uid == 0 || connection->uid == connection->broker->crowd.uid);
}

int hypervisor_serve(struct connection *connection, const struct proto_message *message)
{
    const struct proto_hypervisor_serve *request = (const void *)message->body;
    struct hypervisor *hypervisor = connection->broker->hypervisor;

    if (hypervisor->helper && hypervisor->helper != connection)
        return connection_refuse(connection, -EBUSY, "a helper for \"%s\" serves already: pid %u",
                                 hypervisor->name, hypervisor->helper->pid);
    memcpy(hypervisor->name, request->name, sizeof(hypervisor->name)); /* it ends with a zero */
    if (hypervisor->helper) {
        roster_complete(connection->broker, &hypervisor->roster);
    } else {
        hypervisor->helper = connection;
        connection_log(connection, LOG_NOTICE, "knows the VMs of %s", hypervisor->name);
    }
    reply(connection, message, NULL, 0);
    return 0;
}

static int refuse_stranger(struct connection *connection)
{
    return connection_refuse(connection, -EPERM, "HYPERVISOR_SERVE comes first");
}

int hypervisor_domain(struct connection *connection, const struct proto_message *message)
{
    const struct proto_hypervisor_domain *request = (const void *)message->body;
    struct proto_hypervisor_domain_reply answer = {0};
    struct hypervisor *hypervisor = connection->broker->hypervisor;

    if (hypervisor->helper != connection)
        return refuse_stranger(connection);
    int r = roster_report(connection->broker, &hypervisor->roster, request, &answer.domain);
    if (r == -ENOSPC)
        return connection_refuse(connection, r,
                                 "no number is left for \"%s\": the roster holds %u domains, and "
                                 "numbers go from first-id to %u",
                                 request->name, ROSTER_ENTRIES_MAX, PROTO_DOMAIN_MAX);
    if (r < 0)
        return r;
    reply(connection, message, &answer, sizeof(answer));
    return 0;
}

int hypervisor_done(struct connection *connection, const struct proto_message *message)
{
    const struct proto_hypervisor_done *done = (const void *)message->body;
    struct hypervisor *hypervisor = connection->broker->hypervisor;
    struct request *request;

    if (hypervisor->helper != connection)
        return refuse_stranger(connection);
    /* One that is not found has been answered: it took too long. */
    cds_list_for_each_entry(request, &hypervisor->requests, link)
    {
        if (request->number != done->request)
            continue;
        answer(hypervisor, request, done->err, &done->text);
        set_timer(hypervisor);
        break;
    }
    reply(connection, message, NULL, 0);
    return 0;
}

/* The device that the request means. */
static int describe(struct connection *connection, const struct proto_domain_request *request,
                    struct proto_domain_device *device, struct zone **zone)
{
    return device_describe(connection, &connection->broker->hypervisor->roster, request, device,
                           zone);
}

int hypervisor_device(struct connection *connection, const struct proto_message *message)
{
    struct proto_domain_device device;
    struct zone *zone;

    int r = describe(connection, (const void *)message->body, &device, &zone);
    if (r == 0)
        reply(connection, message, &device, sizeof(device));
    return r;
}

static int refuse_without_helper(struct connection *connection)
{
    return connection_refuse(
        connection, -ENOTCONN,
        "nobody here speaks to libvirt: vchan-libvirt is not connected; " START_HELPER);
}

static int check_asker(struct connection *connection, const struct hypervisor *hypervisor)
{
    const struct request *request;
    uint32_t mine = 0;

    cds_list_for_each_entry(request, &hypervisor->requests, link) mine +=
        request->asker == connection;
    if (hypervisor->request_count >= HYPERVISOR_REQUESTS_MAX ||
        mine >= HYPERVISOR_REQUESTS_A_CLIENT)
        return connection_refuse(connection, -EBUSY,
                                 "%u requests to vchan-libvirt are under way already",
                                 hypervisor->request_count);
    return 0;
}

static int forward(struct connection *connection, const struct proto_message *message,
                   uint32_t action, const struct proto_domain_device *device)
{
    struct hypervisor *hypervisor = connection->broker->hypervisor;
    const struct proto_event_hypervisor event = {
        .request = ++hypervisor->last_number, .action = action, .device = *device};
    struct request *request = malloc(sizeof(*request));

    if (!request)
        return -ENOMEM;
    *request = (struct request){
        .number = event.request,
        .seq = message->header.seq,
        .id = message->header.id,
        .asker = connection,
        .deadline_ns = broker_now_ns() + HYPERVISOR_WAIT_S * 1000000000ull,
    };
    cds_list_add_tail(&request->link, &hypervisor->requests);
    hypervisor->request_count++;
    set_timer(hypervisor);
    /* A helper that cannot be told ends here, and the request with it. */
    connection_event(hypervisor->helper, PROTO_EVENT_HYPERVISOR, &event, sizeof(event));
    return 0;
}

int hypervisor_ask(struct connection *connection, const struct proto_message *message)
{
    const struct proto_domain_request *request = (const void *)message->body;
    const unsigned id = message->header.id;
    const bool force = request->flags & PROTO_DOMAIN_FORCE;
    struct hypervisor *hypervisor = connection->broker->hypervisor;
    struct proto_domain_device device;
    struct zone *zone;

    int r = describe(connection, request, &device, &zone);
    if (r == 0 && !hypervisor->helper)
        r = refuse_without_helper(connection);
    if (r == 0)
        r = check_asker(connection, hypervisor);
    if (r == 0 && id == PROTO_DOMAIN_DETACH && !force)
        r = device_refuse_busy(connection, zone, &device);
    if (r < 0)
        return r;
    if (id == PROTO_DOMAIN_SHOW)
        return forward(connection, message, PROTO_HYPERVISOR_SHOW, &device);
    connection_log(connection, LOG_NOTICE, "%s the device of %s in zone %s",
                   id == PROTO_DOMAIN_ATTACH ? "attaches" : "detaches", device.name, device.zone);
    if (id == PROTO_DOMAIN_ATTACH)
        return forward(connection, message,
                       force ? PROTO_HYPERVISOR_ATTACH_UNCHECKED : PROTO_HYPERVISOR_ATTACH,
                       &device);
    device_close_channels(connection, zone, device.domain);
    return forward(connection, message, PROTO_HYPERVISOR_DETACH, &device);
}

void hypervisor_left(struct connection *connection)
{
    struct hypervisor *hypervisor = connection->broker->hypervisor;
    struct request *request;

    if (!hypervisor)
        return;
    cds_list_for_each_entry(request, &hypervisor->requests, link) if (request->asker == connection)
        request->asker = NULL;
    if (hypervisor->helper != connection)
        return;
    hypervisor->helper = NULL;
    log_warning(&hypervisor->broker->log,
                "vchan-libvirt (%s) has gone: the states of its domains are unknown now",
                hypervisor->name);
    roster_lost(hypervisor->broker, &hypervisor->roster);
    while ((request = oldest(hypervisor)))
        answer_sentence(hypervisor, request, -ECONNABORTED,
                        "vchan-libvirt has gone before it answered; what was asked may have been "
                        "done: look with vchanctl domain show. " START_HELPER);
    set_timer(hypervisor);
}

void hypervisor_reloaded(struct broker *broker)
{
    roster_reconsider(broker, &broker->hypervisor->roster);
}
