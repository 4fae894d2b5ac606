/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "proto/guest.h"
#include "proto/proto.h"

#define COMMAND(number, text, request, reply, fds, who) \
    [number] = {.id = (number), \
                .name = #text, \
                .request_bytes = sizeof(struct request), \
                .reply_bytes = sizeof(struct reply), \
                .descriptors = (fds), \
                .may = (who)},
#define EVENT(number, text, event_body, who) \
    [(number) & ~PROTO_EVENT] = { \
        .id = (number), .name = #text, .request_bytes = sizeof(struct event_body), .may = (who)},

static const struct proto_command commands[] = {PROTO_COMMANDS(COMMAND)};
static const struct proto_command events[] = {PROTO_EVENTS(EVENT)};

static_assert(sizeof(commands) / sizeof(commands[0]) == PROTO_COMMAND_MAX + 1, "PROTO_COMMAND_MAX");
static_assert(sizeof(events) / sizeof(events[0]) == PROTO_EVENT_MAX + 1, "PROTO_EVENT_MAX");
static_assert(PROTO_COMMAND_MAX < 64 && PROTO_EVENT_MAX < 64,
              "the allow masks have a bit for each");

const struct proto_command *proto_command_find(unsigned id)
{
    return id <= PROTO_COMMAND_MAX && commands[id].id != 0 ? &commands[id] : NULL;
}

const struct proto_command *proto_event_find(unsigned id)
{
    unsigned index = id & ~PROTO_EVENT;

    return (id & PROTO_EVENT) && index <= PROTO_EVENT_MAX && events[index].id != 0 ? &events[index]
                                                                                   : NULL;
}

struct proto_allow proto_allow_default(unsigned may)
{
    struct proto_allow allow = {0};

    for (unsigned id = 0; id <= PROTO_COMMAND_MAX; id++)
        if (commands[id].may & may)
            allow.commands |= 1ull << id;
    for (unsigned index = 0; index <= PROTO_EVENT_MAX; index++)
        if (events[index].may & may)
            allow.events |= 1ull << index;
    return allow;
}

int proto_allow_command(const struct proto_allow *allow, unsigned id)
{
    if (!proto_command_find(id))
        return -ENOSYS;
    return allow->commands & (1ull << id) ? 0 : -EPERM;
}

int proto_allow_event(const struct proto_allow *allow, unsigned id)
{
    if (!proto_event_find(id))
        return -ENOSYS;
    return allow->events & (1ull << (id & ~PROTO_EVENT)) ? 0 : -EPERM;
}

void proto_allow_deny(struct proto_allow *allow, unsigned id)
{
    if (proto_command_find(id))
        allow->commands &= ~(1ull << id);
    if (proto_event_find(id))
        allow->events &= ~(1ull << (id & ~PROTO_EVENT));
}

static bool channel_open_is_sound(const struct proto_channel_open *open)
{
    return open->peer_domain <= PROTO_DOMAIN_MAX && open->port <= PROTO_PORT_MAX &&
           open->mode >= PROTO_OPEN_SERVER && open->mode <= PROTO_OPEN_RENDEZVOUS &&
           !(open->flags & ~PROTO_OPEN_NONBLOCK) && open->weight <= 1000 && open->padding == 0;
}

static bool ring_set_is_sound(const struct proto_ring_set *set)
{
    const uint32_t known = PROTO_SET_MIN | PROTO_SET_MAX | PROTO_SET_WEIGHT | PROTO_SET_SIZE;

    if (set->ring > 1 || set->fields == 0 || (set->fields & ~known))
        return false;
    if ((set->fields & PROTO_SET_WEIGHT) && (set->weight < 1 || set->weight > 1000))
        return false;
    return !(set->fields & PROTO_SET_MIN) || !(set->fields & PROTO_SET_MAX) ||
           set->min_bytes <= set->max_bytes;
}

/* Texts from elsewhere end where they should. */
#define IS_TEXT(field) (memchr((field), 0, sizeof(field)) != NULL)

static bool domain_request_is_sound(const struct proto_domain_request *request)
{
    return IS_TEXT(request->domain) && request->domain[0] && IS_TEXT(request->zone) &&
           !(request->flags & ~PROTO_DOMAIN_FORCE) && request->padding == 0;
}

static bool hypervisor_is_sound(unsigned id, const void *body)
{
    const struct proto_hypervisor_serve *serve = body;
    const struct proto_hypervisor_domain *domain = body;
    const struct proto_hypervisor_done *done = body;

    switch (id) {
    case PROTO_HYPERVISOR_SERVE:
        return IS_TEXT(serve->name);
    case PROTO_HYPERVISOR_DOMAIN:
        return IS_TEXT(domain->name) && domain->name[0] && domain->padding == 0 &&
               domain->state >= PROTO_HYPERVISOR_DEFINED &&
               domain->state <= PROTO_HYPERVISOR_UNKNOWN;
    default:
        return done->err <= 0 && done->text.padding == 0 && IS_TEXT(done->text.text) &&
               strlen(done->text.text) == done->text.length;
    }
}

static bool agent_hello_is_sound(const struct proto_agent_hello *hello)
{
    return hello->vectors <= UINT16_MAX && !(hello->flags & ~PROTO_AGENT_POLLS) &&
           IS_TEXT(hello->version);
}

int proto_request_check(unsigned id, const void *body, size_t size)
{
    const struct proto_command *command = proto_command_find(id);
    bool sound = true;

    if (!command)
        return -ENOSYS;
    if (size != command->request_bytes)
        return -EINVAL;
    switch (id) {
    case PROTO_CHECK_COMMAND:
    case PROTO_CHECK_EVENT: {
        const struct proto_check *check = body;
        sound = check->padding1 == 0 && check->padding2 == 0;
        break;
    }
    case PROTO_HELLO: {
        const struct proto_hello *hello = body;
        sound = hello->domain <= PROTO_DOMAIN_MAX && !(hello->flags & ~PROTO_HELLO_BARRIER) &&
                hello->padding == 0;
        break;
    }
    case PROTO_CHANNEL_OPEN:
        sound = channel_open_is_sound(body);
        break;
    case PROTO_LIST_DOMAINS:
    case PROTO_LIST_CHANNELS:
    case PROTO_LIST_RINGS:
    case PROTO_LIST_EXTENTS:
    case PROTO_LIST_HISTORY:
    case PROTO_LIST_GUESTS:
        sound = ((const struct proto_list *)body)->padding == 0;
        break;
    case PROTO_REBALANCE: {
        const struct proto_rebalance *rebalance = body;
        sound = !(rebalance->flags & ~PROTO_REBALANCE_DRY_RUN) && rebalance->padding == 0;
        break;
    }
    case PROTO_RING_SET:
        sound = ring_set_is_sound(body);
        break;
    case PROTO_DOMAIN_SET: {
        const struct proto_domain_set *set = body;
        sound = set->domain <= PROTO_DOMAIN_MAX && set->padding == 0;
        break;
    }
    case PROTO_AGENT_HELLO:
        sound = agent_hello_is_sound(body);
        break;
    case PROTO_DOMAIN_DEVICE:
    case PROTO_DOMAIN_ATTACH:
    case PROTO_DOMAIN_DETACH:
    case PROTO_DOMAIN_SHOW:
        sound = domain_request_is_sound(body);
        break;
    case PROTO_HYPERVISOR_SERVE:
    case PROTO_HYPERVISOR_DOMAIN:
    case PROTO_HYPERVISOR_DONE:
        sound = hypervisor_is_sound(id, body);
        break;
    default: /* GET_VERSION's values negotiate; the others carry nothing */
        break;
    }
    return sound ? 0 : -EINVAL;
}

int proto_event_check(unsigned id, const void *body, size_t size)
{
    const struct proto_command *event = proto_event_find(id);

    if (!event)
        return -ENOSYS;
    if (size != event->request_bytes)
        return -EINVAL;
    if (id == PROTO_EVENT_BROKEN) {
        const struct proto_event_broken *broken = body;
        return broken->ring <= 1 && memchr(broken->text, 0, sizeof(broken->text)) ? 0 : -EINVAL;
    }
    if (id == PROTO_EVENT_HYPERVISOR) {
        const struct proto_event_hypervisor *event_body = body;
        const struct proto_domain_device *device = &event_body->device;
        return IS_TEXT(device->name) && IS_TEXT(device->zone) && IS_TEXT(device->socket) &&
                       event_body->action >= PROTO_HYPERVISOR_ATTACH &&
                       event_body->action <= PROTO_HYPERVISOR_ATTACH_UNCHECKED
                   ? 0
                   : -EINVAL;
    }
    const struct proto_event_ring *ring = body;
    return ring->ring <= 1 && ring->padding == 0 ? 0 : -EINVAL;
}
