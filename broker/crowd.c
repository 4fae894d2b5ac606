/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/crowd.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/connection.h"

/* In a row; then others have their turn. */
#define ACCEPTS_A_TURN 32
#define CLIENTS_A_TURN 64
#define EXPIRIES_A_TURN 64
/* After a failure to accept that we can do nothing about, before trying again. */
#define ACCEPT_PAUSE_US 500000u
/* Places for the privileged: so many, and at most an eighth of all. */
#define PLACES_KEPT 16u
#define HANDSHAKE_NS (CROWD_HANDSHAKE_MS * 1000000ull)
/* In 10 s. */
#define LINES_ALL 5

/* Newcomers come as often as they like. */
__attribute__((format(printf, 2, 3))) static void warn(struct broker *broker, const char *format,
                                                       ...)
{
    uint32_t left_out;
    va_list arguments;
    char text[256];

    if (!log_limit_admits(&broker->crowd.lines, LINES_ALL, broker_now_ns(), &left_out))
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (left_out > 0)
        log_warning(&broker->log, "%s (%u lines about newcomers left out)", text, left_out);
    else
        log_warning(&broker->log, "%s", text);
}

static struct connection *longest_silent(struct crowd *crowd, enum crowd_rank rank)
{
    if (cds_list_empty(&crowd->silent[rank]))
        return NULL;
    return cds_list_entry(crowd->silent[rank].next, struct connection, silent);
}

static enum crowd_rank rank_of(const struct crowd *crowd, const struct connection *connection)
{
    return connection->uid == 0 || connection->uid == crowd->uid ? CROWD_PRIVILEGED
                                                                 : CROWD_ORDINARY;
}

/* For the one whose time ends first. */
static int arm_handshake_timer(struct crowd *crowd)
{
    uint64_t end_ns = UINT64_MAX;

    for (unsigned rank = 0; rank < CROWD_RANKS; rank++) {
        const struct connection *first = longest_silent(crowd, rank);
        if (first && first->arrived_ns + HANDSHAKE_NS < end_ns)
            end_ns = first->arrived_ns + HANDSHAKE_NS;
    }
    if (end_ns == UINT64_MAX)
        return sd_event_source_set_enabled(crowd->handshake_timer, SD_EVENT_OFF);
    int r = sd_event_source_set_time(crowd->handshake_timer, end_ns / 1000 + 1);
    return r < 0 ? r : sd_event_source_set_enabled(crowd->handshake_timer, SD_EVENT_ONESHOT);
}

static int on_handshake_timer(sd_event_source *source, uint64_t now_us, void *context)
{
    struct broker *broker = context;
    const uint64_t now_ns = broker_now_ns();

    (void)source;
    (void)now_us;
    for (unsigned rank = 0; rank < CROWD_RANKS; rank++)
        for (unsigned i = 0; i < EXPIRIES_A_TURN; i++) {
            struct connection *first = longest_silent(&broker->crowd, rank);
            if (!first || first->arrived_ns + HANDSHAKE_NS > now_ns)
                break;
            connection_doom(first, "it did not say who it is");
        }
    connection_free_doomed(broker);
    return arm_handshake_timer(&broker->crowd);
}

/* The newcomer is among the silent ones, the last of its rank. */
static void send_one_away(struct broker *broker, struct connection *newcomer, const char *full)
{
    struct connection *victim = longest_silent(&broker->crowd, CROWD_ORDINARY);

    if (!victim) /* then the newcomer is of the other rank */
        victim = longest_silent(&broker->crowd, CROWD_PRIVILEGED);
    warn(broker, "a client was turned away%s: %s",
         victim == newcomer ? "" : ", as it kept silent and another came", full);
    connection_doom(victim, NULL);
    connection_free_doomed(broker);
}

static uint32_t places_for(const struct broker *broker, enum crowd_rank rank)
{
    const uint32_t all = (uint32_t)broker->config.connections;
    const uint32_t kept = all / 8 < PLACES_KEPT ? all / 8 : PLACES_KEPT;

    return rank == CROWD_PRIVILEGED ? all : all - kept;
}

static void take_spare(struct crowd *crowd)
{
    if (crowd->spare < 0)
        crowd->spare = eventfd(0, EFD_CLOEXEC);
}

void crowd_admit(struct connection *newcomer)
{
    struct broker *broker = newcomer->broker;
    char full[96];

    if (broker->connection_count <= places_for(broker, rank_of(&broker->crowd, newcomer)))
        return;
    snprintf(full, sizeof(full), "there are %u connections already (connections=)",
             broker->connection_count - 1);
    send_one_away(broker, newcomer, full);
}

/* last: it has the spare descriptor. */
static void let_in(struct broker *broker, int descriptor, bool last)
{
    struct connection *newcomer;

    int r = connection_new(broker, descriptor, &newcomer);
    if (r < 0) {
        warn(broker, "cannot serve a client: %s", strerror(-r));
        return;
    }
    if (last)
        send_one_away(broker, newcomer, "no file descriptors are left (LimitNOFILE=)");
    else
        crowd_admit(newcomer);
}

static int accept_one(struct crowd *crowd, int listening, bool *last)
{
    int descriptor = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    *last = false;
    if (descriptor >= 0 || (errno != EMFILE && errno != ENFILE) || crowd->spare < 0)
        return descriptor < 0 ? -errno : descriptor;
    close(crowd->spare);
    crowd->spare = -1;
    *last = true;
    descriptor = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return descriptor < 0 ? -errno : descriptor;
}

/* The listening socket stays readable, so without a pause the loop would spin. */
static int pause_accepting(struct broker *broker, int err)
{
    warn(broker, "cannot accept a client: %s; trying again in %u ms", strerror(-err),
         ACCEPT_PAUSE_US / 1000);
    int r = sd_event_source_set_time_relative(broker->crowd.accept_again, ACCEPT_PAUSE_US);
    if (r >= 0)
        r = sd_event_source_set_enabled(broker->crowd.accept_again, SD_EVENT_ONESHOT);
    return r < 0 ? r : sd_event_source_set_enabled(broker->crowd.accept_source, SD_EVENT_OFF);
}

static int on_accept_again(sd_event_source *source, uint64_t now_us, void *context)
{
    struct broker *broker = context;

    (void)source;
    (void)now_us;
    return sd_event_source_set_enabled(broker->crowd.accept_source, SD_EVENT_ON);
}

static int on_client(sd_event_source *source, int listening, uint32_t events, void *context)
{
    struct broker *broker = context;
    bool last;

    (void)source;
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        take_spare(&broker->crowd);
        int descriptor = accept_one(&broker->crowd, listening, &last);
        if (descriptor >= 0)
            let_in(broker, descriptor, last);
        take_spare(&broker->crowd);
        if (descriptor == -EAGAIN || descriptor == -EINTR || descriptor == -ECONNABORTED)
            return 0;
        if (descriptor < 0)
            return pause_accepting(broker, descriptor);
    }
    return 0;
}

static int on_ready(sd_event_source *source, int epoll, uint32_t events, void *context)
{
    struct epoll_event ready[CLIENTS_A_TURN];
    struct broker *broker = context;

    (void)source;
    (void)events;
    int count = epoll_wait(epoll, ready, CLIENTS_A_TURN, 0);
    for (int i = 0; i < count; i++)
        connection_serve(ready[i].data.ptr);
    connection_free_doomed(broker);
    return 0;
}

void crowd_init(struct crowd *crowd)
{
    *crowd = (struct crowd){.epoll = -1, .spare = -1, .uid = geteuid()};
    for (unsigned rank = 0; rank < CROWD_RANKS; rank++)
        CDS_INIT_LIST_HEAD(&crowd->silent[rank]);
}

int crowd_open(struct broker *broker)
{
    struct crowd *crowd = &broker->crowd;

    crowd->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (crowd->epoll < 0)
        return -errno;
    take_spare(crowd);
    int r = sd_event_add_io(broker->event, &crowd->ready_source, crowd->epoll, EPOLLIN, on_ready,
                            broker);
    if (r >= 0)
        r = sd_event_add_io(broker->event, &crowd->accept_source, broker->listener.descriptor,
                            EPOLLIN, on_client, broker);
    if (r >= 0)
        r = sd_event_add_time(broker->event, &crowd->accept_again, CLOCK_MONOTONIC, 0, 0,
                              on_accept_again, broker);
    if (r >= 0)
        r = sd_event_source_set_enabled(crowd->accept_again, SD_EVENT_OFF);
    if (r >= 0)
        r = sd_event_add_time(broker->event, &crowd->handshake_timer, CLOCK_MONOTONIC, 0, 100000,
                              on_handshake_timer, broker);
    if (r >= 0)
        r = sd_event_source_set_enabled(crowd->handshake_timer, SD_EVENT_OFF);
    return r < 0 ? r : 0;
}

void crowd_deinit(struct crowd *crowd)
{
    sd_event_source_disable_unref(crowd->ready_source);
    sd_event_source_disable_unref(crowd->accept_source);
    sd_event_source_disable_unref(crowd->accept_again);
    sd_event_source_disable_unref(crowd->handshake_timer);
    if (crowd->epoll >= 0)
        close(crowd->epoll);
    if (crowd->spare >= 0)
        close(crowd->spare);
    crowd_init(crowd);
}

int crowd_join(struct connection *connection)
{
    struct crowd *crowd = &connection->broker->crowd;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    struct cds_list_head *silent = &crowd->silent[rank_of(crowd, connection)];

    if (epoll_ctl(crowd->epoll, EPOLL_CTL_ADD, connection->wire->descriptor, &event) < 0)
        return -errno;
    connection->arrived_ns = broker_now_ns();
    cds_list_add_tail(&connection->silent, silent);
    /* Else it runs already, and for one who came before. */
    int enabled = SD_EVENT_OFF;
    sd_event_source_get_enabled(crowd->handshake_timer, &enabled);
    int r = enabled == SD_EVENT_OFF ? arm_handshake_timer(crowd) : 0;
    if (r < 0)
        crowd_leave(connection);
    return r < 0 ? r : 0;
}

void crowd_greeted(struct connection *connection)
{
    cds_list_del(&connection->silent);
}

void crowd_leave(struct connection *connection)
{
    if (connection->state < CONNECTION_READY)
        cds_list_del(&connection->silent);
    /* The inspector may keep the socket, and with it its place in there. */
    epoll_ctl(connection->broker->crowd.epoll, EPOLL_CTL_DEL, connection->wire->descriptor, NULL);
}
