/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/broker.h - vchand: one struct that everything hangs on.
 *
 * The event loop (the thread that calls broker_run) owns all of it. What other threads may read
 * says so where it is declared.
 */
#ifndef VCHAN_BROKER_BROKER_H
#define VCHAN_BROKER_BROKER_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>
#include <urcu/list.h>

#include "broker/channel.h"
#include "broker/config.h"
#include "broker/crowd.h"
#include "broker/domain.h"
#include "broker/guest.h"
#include "broker/guest_sockets.h"
#include "broker/ivshmem.h"
#include "broker/listener.h"
#include "broker/log.h"
#include "broker/waitlist.h"
#include "broker/zone.h"

struct inspector;
struct metrics;
struct policy;
struct rebalancer;
struct mover;
struct history;
struct hypervisor;

struct broker {
    struct log log; /* any thread */
    struct config config;
    char *config_path; /* to read again at SIGHUP; NULL: none was read */
    sd_event *event;
    struct listener listener;
    struct crowd crowd;
    struct zone **zones; /* constant after setup, any thread */
    uint32_t zone_count;
    uint32_t channels_max; /* of all zones */
    struct domains domains;
    struct channels channels;
    struct guests guests;
    struct guest_sockets guest_sockets;
    struct ivshmem ivshmem;
    struct waitlist waitlist;
    struct cds_list_head connections; /* of connection.link */
    uint32_t connection_count;        /* plain */
    struct cds_list_head doomed;      /* of connection.link: freed between two events */
    struct log_limit peer_lines;
    struct inspector *inspector;
    struct metrics *metrics;     /* NULL: none */
    const struct policy *policy; /* plain: that of config, which is the event loop's */
    struct rebalancer *rebalancer;
    struct mover *mover;
    struct history *history;
    struct hypervisor *hypervisor;
    bool barrier_works; /* order_register(): a sleeper here needs no fence on the other side */
    uint64_t started_ns;
    uint64_t opens, closes; /* plain; ends */
};

/*
 * Sets everything up but the threads and the sandbox. On failure the reason is logged and *broker
 * is clean. Takes *config over. config_path: NULL if it comes from no file. runtime_directory: NULL
 * for the default.
 */
int broker_init(struct broker *broker, struct config *config, const char *config_path,
                const char *runtime_directory);
void broker_deinit(struct broker *broker);

/* The inspector's, the rebalancer's, the metrics'. 0 or -errno (logged). */
int broker_start_threads(struct broker *broker);

/* Starts the threads, enters the sandbox, and runs until SIGTERM or SIGINT: 0, or -errno of what
 * failed. */
int broker_run(struct broker *broker);

/* An end has been opened by a connection of its domain, or is left. Event loop. */
void broker_channel_joined(struct broker *broker, struct channel *channel, unsigned end);
void broker_channel_left(struct broker *broker, struct channel *channel, unsigned end);

/* Limits what a domain's rings may hold in each zone, bytes; 0: no limit. -ENOENT: no such domain.
 * -EINVAL: not whole blocks. -ENOMEM. Event loop. */
int broker_quota_set(struct broker *broker, uint32_t domain, uint64_t quota_bytes);

/* CLOCK_MONOTONIC. */
uint64_t broker_now_ns(void);

#endif
