/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/ivshmem.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/sock_diag.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/connection.h"
#include "broker/guest_bell.h"

#define PROTOCOL_VERSION 0
#define REGION_FOLLOWS (-1)
#define NO_DESCRIPTOR (-1)
/* Descriptors in flight are counted for each user by the kernel, so one QEMU that does not read may
 * hold few: the kernel makes it some twenty messages. */
#define SEND_BUFFER_BYTES 8192
/* After the kernel was short of something, and until a QEMU that has not read is looked at
 * again. */
#define PAUSE_US 50000u
/* In 10 s, about all who come and go: one that does nothing else does so often. */
#define LINES_ALL 200u

/* What a QEMU has been told of a number. */
struct told {
    uint64_t arrival; /* of which guest; 0: of none */
    uint32_t vectors;
    bool news; /* it may not have read that yet: what it rings there is lost */
};

struct ivshmem_connection {
    struct cds_list_head link; /* owner: ivshmem.connections */
    struct broker *broker;
    struct zone *zone;
    struct guest *guest; /* NULL: REFUSED */
    uint32_t domain;
    uint32_t qemu_pid;
    int descriptor;
    sd_event_source *source;
    uint32_t greeted; /* messages: 3 in SERVED */
    bool behind;      /* there are news */
    uint64_t read_ns; /* when all that it was sent was found to be read; 0: not yet */
    struct told told[REGION_PEERS];
};

static int send_message(int descriptor, int64_t value, int attached)
{
    uint64_t word = htole64((uint64_t)value);
    struct iovec data = {.iov_base = &word, .iov_len = sizeof(word)};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};

    if (attached != NO_DESCRIPTOR) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        control.header = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET,
            .cmsg_type = SCM_RIGHTS,
            .cmsg_len = CMSG_LEN(sizeof(int)),
        };
        memcpy(CMSG_DATA(&control.header), &attached, sizeof(attached));
    }
    /* On a Unix socket these eight bytes go whole or not at all. */
    return sendmsg(descriptor, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int greet(struct ivshmem_connection *connection)
{
    const struct region *region = &connection->zone->region;
    int r = 0;

    while (r == 0 && connection->greeted < 3) {
        switch (connection->greeted) {
        case 0:
            r = send_message(connection->descriptor, PROTOCOL_VERSION, NO_DESCRIPTOR);
            break;
        case 1:
            r = send_message(connection->descriptor, connection->guest->id, NO_DESCRIPTOR);
            break;
        default:
            /* QEMU aborts on any other size: it is no BAR's. region_init has seen to it. */
            assert((region->size_bytes & (region->size_bytes - 1)) == 0);
            r = send_message(connection->descriptor, REGION_FOLLOWS, region->descriptor);
        }
        if (r == 0)
            connection->greeted++;
    }
    return r;
}

/* Brings it up to date about one number. */
static int tell_about(struct ivshmem_connection *connection, uint32_t id)
{
    const struct guest *self = connection->guest;
    const struct guest *peer =
        id == LAYOUT_PEER_HOST ? self : guests_by_id(&connection->broker->guests, self->zone, id);
    const int *events = id == LAYOUT_PEER_HOST ? self->host_event : peer ? peer->event : NULL;
    struct told *told = &connection->told[id];
    const uint64_t arrival = peer ? peer->arrival : 0;
    int r = 0;

    if (told->arrival != arrival) {
        if (told->vectors > 0)
            r = send_message(connection->descriptor, id, NO_DESCRIPTOR);
        if (r < 0)
            return r;
        *told = (struct told){.arrival = arrival};
    }
    while (r == 0 && peer && told->vectors < peer->vectors) {
        r = send_message(connection->descriptor, id, events[told->vectors]);
        if (r < 0)
            break;
        told->vectors++;
        told->news = connection->behind = true;
        connection->read_ns = 0;
    }
    return r;
}

/* The host, the others, then the guest itself. */
static int tell(struct ivshmem_connection *connection)
{
    const uint32_t self = connection->guest->id;
    int r = 0;

    for (uint32_t id = 0; id < REGION_PEERS && r == 0; id++)
        if (id != self)
            r = tell_about(connection, id);
    return r < 0 ? r : tell_about(connection, self);
}

static void leave(struct ivshmem_connection *connection, const char *why);

static int on_again(sd_event_source *source, uint64_t now_us, void *context);

static void come_again(struct broker *broker)
{
    sd_event_source **again = &broker->ivshmem.again;
    int enabled = SD_EVENT_OFF;
    int r = 0;

    if (!*again)
        r = sd_event_add_time(broker->event, again, CLOCK_MONOTONIC, 0, 0, on_again, broker);
    else
        r = sd_event_source_get_enabled(*again, &enabled);
    if (r >= 0 && enabled == SD_EVENT_OFF)
        r = sd_event_source_set_time_relative(*again, PAUSE_US);
    if (r >= 0)
        r = sd_event_source_set_enabled(*again, SD_EVENT_ONESHOT);
    if (r < 0)
        log_error(&broker->log, "ivshmem: cannot set a timer: %s", strerror(-r));
}

static bool has_read_all(const struct ivshmem_connection *connection)
{
    uint32_t memory[SK_MEMINFO_VARS] = {0};
    socklen_t bytes = sizeof(memory);

    return getsockopt(connection->descriptor, SOL_SOCKET, SO_MEMINFO, memory, &bytes) < 0 ||
           memory[SK_MEMINFO_WMEM_ALLOC] == 0;
}

/* Those whose doorbells it was told of late: it may have rung them, in vain. */
static void wake_peers(struct ivshmem_connection *connection)
{
    struct broker *broker = connection->broker;
    struct cds_lfht_iter iterator;
    struct channel *channel;

    rcu_enter();
    for (channel = channels_first(&broker->channels, &iterator); channel;
         channel = channels_next(&broker->channels, &iterator))
        for (unsigned end = 0; end < 2; end++) {
            const struct guest_vector *peer = &channel->end[1 - end].vector;
            if (channel_end_in_guest(channel, end) && peer->guest &&
                channel->end[end].vector.guest == connection->guest &&
                connection->told[peer->host ? LAYOUT_PEER_HOST : peer->guest->id].news)
                channel_wake(channel, 1 - end);
        }
    rcu_leave();
    for (uint32_t id = 0; id < REGION_PEERS; id++)
        connection->told[id].news = false;
}

/*
 * All has been sent. QEMU drops a ring for a vector that it does not know yet, and whoever rings
 * does so once: a guest that runs before its QEMU has read (both were stopped, and go on) would
 * leave its peer asleep. So the peers are woken when it has read all, and has had time to take it
 * in.
 */
static void catch_up(struct ivshmem_connection *connection)
{
    const uint64_t now_ns = broker_now_ns();

    if (!connection->behind)
        return;
    if (connection->read_ns == 0 && has_read_all(connection))
        connection->read_ns = now_ns;
    if (connection->read_ns == 0 || now_ns < connection->read_ns + PAUSE_US * 1000ull) {
        come_again(connection->broker);
        return;
    }
    connection->behind = false;
    wake_peers(connection);
}

/* Sends what can be sent now. */
static void serve(struct ivshmem_connection *connection)
{
    int r = greet(connection);

    if (r == 0)
        r = tell(connection);
    switch (r) {
    case 0:
        catch_up(connection);
        break;
    case -EAGAIN:
        sd_event_source_set_io_events(connection->source, EPOLLIN | EPOLLOUT);
        return;
    case -ETOOMANYREFS: /* others do not read what they were sent */
    case -ENOBUFS:
    case -ENOMEM:
        come_again(connection->broker);
        break;
    default: /* it does not read any more; the rest of what it did is told by on_socket */
        break;
    }
    sd_event_source_set_io_events(connection->source, EPOLLIN);
}

/* Somebody has come to the zone, or left. */
static void serve_zone(struct broker *broker, const struct zone *zone)
{
    struct ivshmem_connection *connection;

    cds_list_for_each_entry(connection, &broker->ivshmem.connections,
                            link) if (connection->guest && connection->zone == zone)
        serve(connection);
}

static int on_again(sd_event_source *source, uint64_t now_us, void *context)
{
    struct broker *broker = context;

    (void)source;
    (void)now_us;
    for (uint32_t i = 0; i < broker->zone_count; i++)
        serve_zone(broker, broker->zones[i]);
    return 0;
}

/* NULL: it is still there. */
static const char *why_it_is_over(const struct ivshmem_connection *connection)
{
    char byte;
    ssize_t n = recv(connection->descriptor, &byte, sizeof(byte), MSG_DONTWAIT);

    if (n == 0)
        return "QEMU has gone, or the device was removed";
    if (n > 0)
        return "it sent something, which QEMU never does";
    if (errno == EAGAIN || errno == EINTR)
        return NULL;
    return "its socket is broken";
}

static int on_socket(sd_event_source *source, int descriptor, uint32_t events, void *context)
{
    struct ivshmem_connection *connection = context;
    const char *why = NULL;

    (void)source;
    (void)descriptor;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        why = why_it_is_over(connection);
    if (why) {
        struct broker *broker = connection->broker;
        leave(connection, why);
        connection_free_doomed(broker);
    } else if (connection->guest) {
        serve(connection);
    }
    return 0;
}

static void drop(struct ivshmem_connection *connection)
{
    sd_event_source_disable_unref(connection->source);
    cds_list_del(&connection->link);
    close(connection->descriptor);
    free(connection);
}

static bool may_log(struct broker *broker)
{
    uint32_t left_out;

    if (!log_limit_admits(&broker->ivshmem.lines, LINES_ALL, broker_now_ns(), &left_out))
        return false;
    if (left_out > 0)
        log_notice(&broker->log, "%u lines about devices that come and go left out", left_out);
    return true;
}

static void leave(struct ivshmem_connection *connection, const char *why)
{
    struct broker *broker = connection->broker;
    struct zone *zone = connection->zone;
    struct guest *guest = connection->guest;

    if (guest) {
        if (may_log(broker))
            log_notice(&broker->log, "domain %u in zone %s: detached, peer %u (QEMU pid %u): %s",
                       guest->domain, zone->name, guest->id, guest->qemu_pid, why);
        guest_bells_stop(guest);
        guest_free(guest);
    }
    drop(connection);
    if (guest)
        serve_zone(broker, zone);
}

static uint32_t pid_of(int descriptor)
{
    struct ucred peer = {0};
    socklen_t length = sizeof(peer);

    if (getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
        return 0;
    return (uint32_t)peer.pid;
}

static const char *what_to_do(int err)
{
    switch (err) {
    case -EBUSY:
        return "a domain has one device in a zone; take one of them out of its definition, or end "
               "the other QEMU";
    case -ENOSPC:
        return "all numbers of the zone's region are in use; detach another domain from it, or put "
               "domains into zones of their own";
    case -EMFILE:
    case -ENFILE:
        return "no file descriptors are left; raise LimitNOFILE= of vchand, or lower vectors= in "
               "[guests]";
    default:
        return strerror(-err);
    }
}

/* Makes room among those of a domain that have been refused before it. */
static void forget_refused(struct ivshmem *ivshmem, uint32_t domain)
{
    struct ivshmem_connection *connection, *oldest = NULL;
    uint32_t count = 0;

    cds_list_for_each_entry(connection, &ivshmem->connections, link)
    {
        if (connection->guest || connection->domain != domain)
            continue;
        if (!oldest)
            oldest = connection;
        count++;
    }
    if (count >= IVSHMEM_REFUSED_MAX)
        drop(oldest);
}

static void log_refusal(struct broker *broker, const struct ivshmem_connection *connection, int err)
{
    const struct guest *other = guests_find(&broker->guests, connection->zone, connection->domain);
    char holder[64] = "";
    uint32_t left_out;

    if (!log_limit_admits(&broker->guest_sockets.lines, 10, broker_now_ns(), &left_out))
        return;
    if (err == -EBUSY && other)
        snprintf(holder, sizeof(holder), ", as QEMU pid %u has one (peer %u)", other->qemu_pid,
                 other->id);
    log_warning(&broker->log, "domain %u in zone %s: the device of QEMU pid %u was refused%s: %s",
                connection->domain, connection->zone->name, connection->qemu_pid, holder,
                what_to_do(err));
}

/* Should QEMU not see the refusal, it is one that had closed. */
static void refuse(struct ivshmem_connection *connection, int err)
{
    log_refusal(connection->broker, connection, err);
    send_message(connection->descriptor, err, NO_DESCRIPTOR);
}

/* A domain that is started anew may come before its last QEMU's end was seen. */
static void see_who_has_gone(struct broker *broker, const struct zone *zone, uint32_t domain)
{
    const struct guest *guest = guests_find(&broker->guests, zone, domain);
    const char *why = guest ? why_it_is_over(guest->connection) : NULL;

    if (why)
        leave(guest->connection, why);
}

static int attach(struct ivshmem_connection *connection)
{
    struct broker *broker = connection->broker;
    struct guest *guest;

    see_who_has_gone(broker, connection->zone, connection->domain);
    int r = guest_new(broker, connection->zone, connection->domain, connection->qemu_pid, &guest);
    if (r < 0)
        return r;
    r = guest_bells_watch(guest);
    if (r < 0) {
        guest_free(guest);
        return r;
    }
    guest->connection = connection;
    connection->guest = guest;
    /* Some other guest of the zone may have written over it. */
    region_write_header(&connection->zone->region);
    if (may_log(broker))
        log_notice(&broker->log,
                   "domain %u in zone %s: attached as peer %u (QEMU pid %u, %u vectors)",
                   guest->domain, connection->zone->name, guest->id, guest->qemu_pid,
                   guest->vectors);
    return 0;
}

void ivshmem_accept(struct broker *broker, struct zone *zone, uint32_t domain, int descriptor)
{
    struct ivshmem_connection *connection = calloc(1, sizeof(*connection));
    const int buffer = SEND_BUFFER_BYTES;

    if (!connection) {
        log_error(&broker->log, "domain %u in zone %s: out of memory", domain, zone->name);
        close(descriptor);
        return;
    }
    connection->broker = broker;
    connection->zone = zone;
    connection->domain = domain;
    connection->descriptor = descriptor;
    connection->qemu_pid = pid_of(descriptor);
    setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
    forget_refused(&broker->ivshmem, domain);
    cds_list_add_tail(&connection->link, &broker->ivshmem.connections);
    int r = sd_event_add_io(broker->event, &connection->source, descriptor, EPOLLIN, on_socket,
                            connection);
    if (r >= 0)
        r = attach(connection);
    if (r < 0) {
        refuse(connection, r);
    } else {
        serve(connection);
        serve_zone(broker, zone);
    }
    connection_free_doomed(broker); /* of the guest that had to go first */
}

void ivshmem_init(struct ivshmem *ivshmem)
{
    CDS_INIT_LIST_HEAD(&ivshmem->connections);
}

void ivshmem_deinit(struct broker *broker)
{
    struct ivshmem_connection *connection, *next;

    cds_list_for_each_entry_safe(connection, next, &broker->ivshmem.connections, link)
    {
        if (connection->guest) {
            guest_bells_stop(connection->guest);
            guest_free(connection->guest);
        }
        drop(connection);
    }
    broker->ivshmem.again = sd_event_source_disable_unref(broker->ivshmem.again);
}
