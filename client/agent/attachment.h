/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/attachment.h - what the agent has to do with one ivshmem device.
 *
 *            it opens             the broker has answered AGENT_HELLO
 *   TRYING ------------> OPEN ----------------------------------------> READY
 *    |  ^ \                ^                                              |
 *    |  |  \ not ours      +------------- its mailbox has ended ----------+
 *    |  |   v                                                             |
 *    |  |  IGNORED           the kernel wants it back (OPEN, READY)       |
 *    |  +--------- RETURNED <---------------------------------------------+
 *    |    it was bound anew
 *    +---> freed, from any state: it is gone
 *
 * TRYING tries again, soon while the kernel is not done with it, later when something else is
 * wrong. The agent's own words with the broker (session 0) are here.
 */
#ifndef VCHAN_AGENT_ATTACHMENT_H
#define VCHAN_AGENT_ATTACHMENT_H

#include <stdint.h>
#include <sys/queue.h>

#include "client/agent/device.h"
#include "client/agent/loop.h"
#include "client/agent/mailbox.h"
#include "client/agent/vectors.h"

struct agent;

enum attachment_state {
    ATTACHMENT_TRYING,
    ATTACHMENT_IGNORED,
    ATTACHMENT_OPEN,
    ATTACHMENT_READY,
    ATTACHMENT_RETURNED,
};

struct attachment {
    TAILQ_ENTRY(attachment) link; /* owner: agent.attachments */
    struct agent *agent;
    enum attachment_state state;
    struct device device; /* its `why` is worth reading in TRYING and IGNORED */
    struct vectors vectors;
    struct mailbox mailbox;
    uint32_t domain; /* READY: ours */
    uint32_t tries;
    struct loop_source timer; /* TRYING: again; RETURNED: look who still has it */
    struct loop_source request;
    int request_fd;
    char said[DEVICE_WHY_BYTES]; /* the last complaint in the log */
};

/* A device has been found: tries to open it. -ENOMEM, -EMFILE. */
int attachment_new(struct agent *agent, const char *address, struct attachment **out);
/* It is gone, or the agent ends: its sessions end first. NULL: nothing. */
void attachment_free(struct attachment *attachment);

/* Its device is open, by whatever backend: goes on from there. */
void attachment_start(struct attachment *attachment);

/* The kernel has something new about it: worth another try. */
void attachment_try(struct attachment *attachment);

#endif
