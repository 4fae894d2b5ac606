/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/agent.h - struct agent: everything that vchan-agent has.
 *
 *   device_watch ---> attachment ---> device (vfio, sysfs), vectors, mailbox ----> broker
 *   (udev)               |                                      ^
 *                        v                                      | frames
 *                     sessions <--------- programs -------------+
 *
 * One thread, one loop. Nothing waits anywhere else.
 */
#ifndef VCHAN_AGENT_AGENT_H
#define VCHAN_AGENT_AGENT_H

#include <stdbool.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "client/agent/attachment.h"
#include "client/agent/device_watch.h"
#include "client/agent/log.h"
#include "client/agent/loop.h"
#include "client/agent/poller.h"
#include "client/agent/ringer.h"
#include "client/agent/sessions.h"

struct agent_options {
    bool no_vfio;
    mode_t socket_mode;
    gid_t socket_group; /* (gid_t)-1: as it is */
    int log_level;
};

struct agent {
    struct agent_options options;
    struct log log;
    struct loop loop;
    struct ringer ringer;
    struct poller poller;
    struct sessions sessions;
    int listener;
    char socket_path[108];
    struct device_watch *watch; /* NULL: none (tests) */
    struct loop_source watched, signals;
    int signal_fd;
    TAILQ_HEAD(, attachment) attachments;
};

/* All but devices: socket, loop. -errno; logged. */
int agent_init(struct agent *agent, const struct agent_options *options);
void agent_deinit(struct agent *agent);

/* Finds devices, now and from now on; and hears SIGINT and SIGTERM, which stop the loop. */
int agent_watch(struct agent *agent);

/* The attachment through which programs talk to the broker; NULL: none is ready. */
struct attachment *agent_talks(const struct agent *agent);

/* Why there is none: a sentence. */
const char *agent_why_not(const struct agent *agent);

#endif
