/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/attachment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "client/agent/agent.h"
#include "client/agent/holders.h"
#include "client/agent/uncached.h"
#include "ring/order.h"

/* While the kernel is adding it; then, and for other reasons, less often. */
#define SOON_MS 20u
#define SOON_TRIES 250u
#define LATER_MS 1000u
/* A program that lets go does so at once. */
#define RETURN_MS 1000u

enum { SEQ_GET_VERSION = 1, SEQ_HELLO, SEQ_AGENT_HELLO };

static void complain(struct attachment *attachment)
{
    const struct device *device = &attachment->device;

    if (strcmp(attachment->said, device->why) == 0)
        return;
    snprintf(attachment->said, sizeof(attachment->said), "%s", device->why);
    log_write(&attachment->agent->log,
              attachment->state == ATTACHMENT_IGNORED ? LOG_NOTICE : LOG_WARNING, "device %s: %s%s",
              device->address, device->why,
              attachment->state == ATTACHMENT_IGNORED ? "; it is left alone" : "");
}

static void send_command(struct attachment *attachment, uint16_t id, uint32_t seq,
                         const void *body, size_t bytes)
{
    const struct proto_header header = {.id = id, .size = (uint16_t)bytes, .seq = seq};

    mailbox_send(&attachment->mailbox, PROTO_FRAME_DATA, PROTO_SESSION_AGENT, &header,
                 sizeof(header), body, bytes);
}

/* All at once: they are few, and the mailbox is empty. */
static void on_opened(void *context)
{
    struct attachment *attachment = context;
    const struct device *device = &attachment->device;
    const struct proto_frame_open open = {.pid = (uint32_t)getpid(), .uid = getuid()};
    const struct proto_get_version version = {.version = PROTO_VERSION,
                                              .byte_order = PROTO_BYTE_ORDER};
    const struct proto_hello hello = {.domain = order_load_plain(&device->peer->domain),
                                      .pid = (uint32_t)getpid()};
    struct proto_agent_hello agent_hello = {
        .vectors = device->vectors, .flags = device->vectors ? 0 : PROTO_AGENT_POLLS};

    snprintf(agent_hello.version, sizeof(agent_hello.version), "%s", VCHAN_VERSION);
    mailbox_send(&attachment->mailbox, PROTO_FRAME_OPEN, PROTO_SESSION_AGENT, &open, sizeof(open),
                 NULL, 0);
    send_command(attachment, PROTO_GET_VERSION, SEQ_GET_VERSION, &version, sizeof(version));
    send_command(attachment, PROTO_HELLO, SEQ_HELLO, &hello, sizeof(hello));
    send_command(attachment, PROTO_AGENT_HELLO, SEQ_AGENT_HELLO, &agent_hello,
                 sizeof(agent_hello));
}

static void become_ready(struct attachment *attachment, const struct proto_agent_hello_reply *reply)
{
    struct agent *agent = attachment->agent;
    struct device *device = &attachment->device;
    int r = vectors_use(&attachment->vectors, reply->vectors);

    if (r < 0) {
        log_write(&agent->log, LOG_ERR, "device %s: cannot use its vectors: %s", device->address,
                  strerror(-r));
        mailbox_fail(&attachment->mailbox, "its vectors cannot be used");
        return;
    }
    attachment->domain = reply->domain;
    attachment->state = ATTACHMENT_READY;
    attachment->said[0] = '\0';
    log_write(&agent->log, LOG_NOTICE,
              "device %s (%s): domain %u in zone %.*s, %llu MiB, %u vectors", device->address,
              device->backend->name, reply->domain, (int)sizeof(reply->zone), reply->zone,
              (unsigned long long)(device->memory_bytes >> 20), attachment->vectors.count);
    uint32_t ratio = uncached_ratio(device->header_page);
    if (ratio >= UNCACHED_RATIO)
        log_write(&agent->log, LOG_WARNING,
                  "device %s: its memory is read %u times slower than ours: the mapping is not "
                  "cached, and channels will be slow (does the host honour the guest's memory "
                  "types? vchan-agent(8), UNCACHED MEMORY)",
                  device->address, ratio);
}

static void take_reply(struct attachment *attachment, const uint8_t *data, size_t bytes)
{
    struct proto_header header;
    struct proto_error error;
    struct proto_agent_hello_reply reply;

    if (bytes < sizeof(header) + sizeof(error)) {
        mailbox_fail(&attachment->mailbox, "its answers are too short");
        return;
    }
    memcpy(&header, data, sizeof(header));
    memcpy(&error, data + sizeof(header), sizeof(error));
    if (error.err != 0) {
        log_write(&attachment->agent->log, LOG_ERR, "device %s: the broker refuses command %u: %s",
                  attachment->device.address, header.id,
                  strerror(error.err < 0 && error.err > -4096 ? -error.err : EPROTO));
        mailbox_fail(&attachment->mailbox, "the broker refused the agent");
    } else if (header.id == PROTO_AGENT_HELLO && attachment->state == ATTACHMENT_OPEN &&
               bytes == sizeof(header) + sizeof(error) + sizeof(reply)) {
        memcpy(&reply, data + sizeof(header) + sizeof(error), sizeof(reply));
        become_ready(attachment, &reply);
    }
}

static void on_frame(void *context, const struct proto_frame *frame, const uint8_t *data)
{
    struct attachment *attachment = context;

    if (frame->session != PROTO_SESSION_AGENT)
        sessions_take_frame(&attachment->agent->sessions, attachment, frame, data);
    else if (frame->kind == PROTO_FRAME_DATA)
        take_reply(attachment, data, frame->size);
    else
        mailbox_fail(&attachment->mailbox, "the broker closed the agent's session");
}

/* Of a device with a single vector, all share it with the mailbox. */
static void on_rung(void *context)
{
    struct attachment *attachment = context;

    if (attachment->vectors.count == 1)
        vectors_wake_shared(&attachment->vectors);
}

static void on_room(void *context)
{
    struct attachment *attachment = context;

    sessions_resume(&attachment->agent->sessions);
}

static void on_closed(void *context, const char *why)
{
    struct attachment *attachment = context;

    if (attachment->state == ATTACHMENT_READY)
        log_write(&attachment->agent->log, LOG_WARNING, "device %s: its mailbox has ended: %s",
                  attachment->device.address, why);
    sessions_end_talk(&attachment->agent->sessions, attachment);
    attachment->state = ATTACHMENT_OPEN;
    /* Not from here: we are called by the mailbox. */
    if (attachment->device.lost)
        loop_timer_set(&attachment->timer, 0);
}

static const struct mailbox_handlers handlers = {
    .opened = on_opened, .frame = on_frame, .rung = on_rung, .room = on_room, .closed = on_closed};

/* Gives everything back that it holds, and ends those who use it. */
static void let_go(struct attachment *attachment)
{
    if (attachment->state != ATTACHMENT_OPEN && attachment->state != ATTACHMENT_READY)
        return;
    sessions_end_talk(&attachment->agent->sessions, attachment);
    sessions_end_memory(&attachment->agent->sessions, attachment);
    vectors_deinit(&attachment->vectors);
    mailbox_stop(&attachment->mailbox);
    loop_remove(&attachment->request);
    if (attachment->request_fd >= 0)
        close(attachment->request_fd);
    attachment->request_fd = -1;
    device_close(&attachment->device);
}

static void on_request(void *context)
{
    struct attachment *attachment = context;

    log_write(&attachment->agent->log, LOG_NOTICE, "device %s: the kernel wants it back",
              attachment->device.address);
    let_go(attachment);
    attachment->state = ATTACHMENT_RETURNED;
    loop_timer_set(&attachment->timer, RETURN_MS);
}

static int listen_to_requests(struct attachment *attachment)
{
    struct device *device = &attachment->device;

    if (!device->backend->set_request)
        return 0;
    attachment->request_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (attachment->request_fd < 0)
        return -errno;
    int r = loop_add(&attachment->agent->loop, &attachment->request, attachment->request_fd,
                     on_request, attachment);
    return r < 0 ? r : device->backend->set_request(device, attachment->request_fd);
}

void attachment_start(struct attachment *attachment)
{
    struct agent *agent = attachment->agent;
    int r;

    if (attachment->device.why[0])
        complain(attachment);
    attachment->state = ATTACHMENT_OPEN;
    attachment->tries = 0;
    vectors_init(&attachment->vectors, &attachment->device, &agent->loop, &agent->ringer);
    r = mailbox_start(&attachment->mailbox, &attachment->device, &agent->loop, &handlers,
                      attachment);
    if (r == 0)
        r = listen_to_requests(attachment);
    if (r < 0) {
        device_explain(&attachment->device, r, "cannot use it: %s", strerror(-r));
        let_go(attachment);
        attachment->state = ATTACHMENT_TRYING;
        complain(attachment);
        loop_timer_set(&attachment->timer, LATER_MS);
    }
    poller_update(&agent->poller);
}

void attachment_try(struct attachment *attachment)
{
    struct device *device = &attachment->device;
    char address[DEVICE_ADDRESS_BYTES];
    char holders[HOLDERS_TEXT_BYTES];

    if (attachment->state == ATTACHMENT_OPEN || attachment->state == ATTACHMENT_READY)
        return;
    snprintf(address, sizeof(address), "%s", device->address);
    int r = device_open(device, address, attachment->agent->options.no_vfio);
    attachment->state = r == -ENOTSUP ? ATTACHMENT_IGNORED : ATTACHMENT_TRYING;
    if (r == 0) {
        attachment_start(attachment);
        return;
    }
    if (r == -EBUSY && holders_find(holders, sizeof(holders)) > 0) {
        size_t used = strlen(device->why);
        snprintf(device->why + used, sizeof(device->why) - used, ": %s", holders);
    }
    if (r == -EAGAIN && attachment->tries++ < SOON_TRIES) {
        loop_timer_set(&attachment->timer, SOON_MS);
        return;
    }
    complain(attachment);
    if (r != -ENOTSUP)
        loop_timer_set(&attachment->timer, LATER_MS);
}

static void on_timer(void *context)
{
    struct attachment *attachment = context;
    char holders[HOLDERS_TEXT_BYTES];
    uint64_t count;

    if (read(attachment->timer.fd, &count, sizeof(count)) < 0)
        return;
    switch (attachment->state) {
    case ATTACHMENT_RETURNED:
        if (holders_find(holders, sizeof(holders)) > 0)
            log_write(&attachment->agent->log, LOG_WARNING,
                      "device %s cannot be removed yet: %s has it, and makes no call of the "
                      "library; end it",
                      attachment->device.address, holders);
        break;
    case ATTACHMENT_OPEN: /* its memory is gone */
    case ATTACHMENT_READY:
        log_write(&attachment->agent->log, LOG_WARNING, "device %s: its memory is gone",
                  attachment->device.address);
        let_go(attachment);
        attachment->state = ATTACHMENT_TRYING;
        loop_timer_set(&attachment->timer, LATER_MS);
        break;
    case ATTACHMENT_TRYING:
        attachment_try(attachment);
        break;
    case ATTACHMENT_IGNORED:
        break;
    }
}

int attachment_new(struct agent *agent, const char *address, struct attachment **out)
{
    struct attachment *attachment = calloc(1, sizeof(*attachment));

    if (!attachment)
        return -ENOMEM;
    attachment->agent = agent;
    attachment->request_fd = -1;
    snprintf(attachment->device.address, sizeof(attachment->device.address), "%s", address);
    int r = loop_timer_init(&agent->loop, &attachment->timer, on_timer, attachment);
    if (r < 0) {
        free(attachment);
        return r;
    }
    TAILQ_INSERT_TAIL(&agent->attachments, attachment, link);
    attachment_try(attachment);
    *out = attachment;
    return 0;
}

void attachment_free(struct attachment *attachment)
{
    if (!attachment)
        return;
    let_go(attachment);
    TAILQ_REMOVE(&attachment->agent->attachments, attachment, link);
    loop_timer_deinit(&attachment->timer);
    poller_update(&attachment->agent->poller);
    free(attachment);
}
