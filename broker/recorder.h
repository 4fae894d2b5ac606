/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/recorder.h - one recording (command RECORD): each round of the policy as text
 * (broker/policy_trace.h), into a stream socket.
 *
 * Nothing here waits. What the reader has not taken is kept, up to RECORDER_PENDING_MAX bytes; a
 * round that comes when there is more is left out, and the next one says how many were. When the
 * reader has gone, or memory is short, the recording is over.
 *
 * The rebalancer's thread.
 */
#ifndef VCHAN_BROKER_RECORDER_H
#define VCHAN_BROKER_RECORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/policy.h"

#define RECORDER_PENDING_MAX (8u << 20)

struct recorder;

/* Takes the socket over, also on failure. NULL: no memory. */
struct recorder *recorder_new(int socket);
/* Sends what goes without waiting, and closes. NULL is ignored. */
void recorder_free(struct recorder *recorder);

void recorder_round(struct recorder *recorder, uint32_t zone, const struct policy *policy,
                    const struct policy_config *config, const struct policy_input *input,
                    const struct policy_decision *decisions, size_t count);

/* Sends what goes without waiting. False: the recording is over, free it. */
bool recorder_flush(struct recorder *recorder);

/* To wait for: the socket, and the poll events (POLLOUT, or 0: only its end). */
int recorder_socket(const struct recorder *recorder);
short recorder_events(const struct recorder *recorder);

#endif
