/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/grant.h"

#include <errno.h>
#include <string.h>

#include "client/agent/agent.h"

bool grant_succeeded(const struct proto_message *reply)
{
    struct proto_error error;

    if (reply->header.size < sizeof(error))
        return false;
    memcpy(&error, reply->body, sizeof(error));
    return error.err == 0;
}

void grant_take_back(struct session *session)
{
    poller_remove(&session->sessions->agent->poller, session->polled);
    session->polled = NULL;
    vectors_give(&session->vector);
    session->memory = NULL;
}

static struct attachment *find_region(const struct agent *agent, const uint8_t uuid[16])
{
    struct attachment *attachment;

    TAILQ_FOREACH(attachment, &agent->attachments, link)
        if ((attachment->state == ATTACHMENT_OPEN || attachment->state == ATTACHMENT_READY) &&
            memcmp(attachment->device.header.zone_uuid, uuid, 16) == 0)
            return attachment;
    return NULL;
}

static int take_vector(struct session *session, struct attachment *attachment,
                       const struct proto_channel_open_reply *open)
{
    struct poller *poller = &session->sessions->agent->poller;
    int r = vectors_take(&attachment->vectors, open->vector, &session->vector);

    if (r < 0)
        return r;
    session->memory = attachment;
    if (attachment->device.vectors == 0)
        r = poller_add(poller, &attachment->device, open->page_offset,
                       open->role == PROTO_OPEN_SERVER, &session->vector, &session->polled);
    if (r < 0)
        grant_take_back(session);
    return r;
}

/* 0, or why it cannot be granted. */
static int complete(struct session *session, struct proto_channel_open_reply *open)
{
    struct attachment *attachment = find_region(session->sessions->agent, open->zone_uuid);

    if (!attachment) {
        session->why = "the channel is in a zone whose ivshmem device is not attached here: run "
                       "vchanctl doctor";
        return -ENODEV;
    }
    const struct device *device = &attachment->device;
    grant_take_back(session);
    int r = take_vector(session, attachment, open);
    if (r < 0) {
        session->why = "the agent could not make a wake-up for the channel";
        return r;
    }
    open->region_bytes = device->header.size_bytes;
    open->data_offset = device->header.data_offset;
    open->memory_offset = device->memory_offset;
    open->doorbell_offset = device->register_offset;
    return 0;
}

int grant_deliver(struct session *session, struct proto_message *reply)
{
    struct proto_channel_open_reply open;
    const struct device *device;

    if (!grant_succeeded(reply) ||
        reply->header.size != sizeof(struct proto_error) + sizeof(open))
        return proto_send(session->socket, reply->header.id, reply->header.seq, reply->body,
                          reply->header.size, NULL, 0, NULL, 0);
    memcpy(&open, reply->body + sizeof(struct proto_error), sizeof(open));
    int r = complete(session, &open);
    if (r < 0) /* the broker takes the channel back when the program closes */
        return proto_reply(session->socket, reply->header.id, reply->header.seq, r, NULL, 0, NULL,
                           0, NULL, 0);
    device = &session->memory->device;
    const int descriptors[3] = {device->memory_fd, session->vector.event_fd, device->register_fd};
    return proto_reply(session->socket, reply->header.id, reply->header.seq, 0, &open,
                       sizeof(open), NULL, 0, descriptors,
                       device->register_fd == device->memory_fd ? 2 : 3);
}
