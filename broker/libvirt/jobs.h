/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/libvirt/jobs.h - requests of the broker, each in a thread, with a limit of time.
 *
 *            a thread is free, and nothing else
 *            attaches or detaches in that domain            task_run returns
 *   QUEUED -------------------------------------> RUNNING --------------------> answered, freed
 *      |                                             |
 *      | JOBS_LIMIT_MS are over                      | JOBS_LIMIT_MS are over: answered ETIMEDOUT
 *      v                                             v       task_run returns
 *   answered ETIMEDOUT, freed                    ABANDONED -------------------> freed
 *
 * Libvirt may hang in one domain, or in all of them: an abandoned job keeps its thread and its
 * domain, and others go on.
 *
 * Threads: all of it is the main thread's; job threads only run the task and ring.
 */
#ifndef VCHAN_BROKER_LIBVIRT_JOBS_H
#define VCHAN_BROKER_LIBVIRT_JOBS_H

#include <stdint.h>
#include <systemd/sd-event.h>

#include "broker/libvirt/driver.h"
#include "proto/guest.h"

/* Less than the broker waits (HYPERVISOR_WAIT_S), more than a guest may take. */
#define JOBS_LIMIT_MS 40000u
#define JOBS_THREADS_MAX 32u

struct jobs;

/* done's text is complete but for `request`, which is set too. */
typedef void (*jobs_answer)(void *context, const struct proto_hypervisor_done *done);

int jobs_new(sd_event *event, jobs_answer answer, void *context, struct jobs **out);

/* driver is taken over. Answers now if it cannot. */
void jobs_add(struct jobs *jobs, struct driver *driver, const struct proto_event_hypervisor *event);

/* Nobody waits for the answers any more: those that come are dropped. */
void jobs_disown(struct jobs *jobs);

/* Fills the text of a reply, cut off where it is too long. */
void jobs_say(struct proto_hypervisor_done *done, const char *text);

#endif
