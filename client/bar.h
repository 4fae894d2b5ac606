/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/bar.h - an end in a guest: its region is BAR2 of an ivshmem device, its doorbell a
 * register in BAR0. Internal to client/.
 *
 * Theory of operation. The guest's kernel gives an unplugged device up, and a new agent can
 * attach one, only when no process has it open or mapped any more. So an end whose agent has closed
 * the connection, or is dead, is over: writes fail at once with EPIPE, reads give what is there and
 * then the end of file, and the end lets go of the device as soon as its program calls:
 *
 *   the sending side unmaps its extent, in its own thread, and is refused from then on;
 *   the receiving side does the same when there is nothing left to read; asked for states or counts
 *   before that, it goes on with a private copy of what is left;
 *   with that they let go of what both share. Any thread may be looking at the channel's page, so a
 *   private copy takes its place; the doorbell's page becomes private memory, and the device's
 *   descriptor a copy of one that cannot be mapped.
 *
 * What a side holds whose thread makes no call any more is held until vchan_close.
 */
#ifndef VCHAN_CLIENT_BAR_H
#define VCHAN_CLIENT_BAR_H

#include <stdbool.h>
#include <stdint.h>

#include "client/channel.h"

/* Maps the doorbell's page of BAR0, which lies at offset. 0, -errno of mmap. */
int bar_map(struct vchan *v, int descriptor, uint64_t offset);
void bar_unmap(struct vchan *v);

/* Rings the other end through the device. Never blocks. Any thread. */
void bar_ring(const struct vchan *v);

/* Has the agent, or the broker, ended this end? From shared words and the socket alone. */
bool bar_is_revoked(const struct vchan *v);
/* The same, but asks the kernel: for calls that fail anyhow. */
void bar_look_for_agent(struct vchan *v);

/*
 * In the side's thread, when the channel is deserted: see above. Idempotent. The receiving side may
 * have to stay, in the middle of a switch: then again later.
 */
void bar_leave_receiving(struct vchan *v);
void bar_leave_sending(struct vchan *v);

#endif
