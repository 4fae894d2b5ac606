/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/reload.h - reading the configuration again, on SIGHUP.
 *
 * Domains, quotas, the policy, limits and the log level change at once. What the running broker is
 * built on (zones, regions, socket, sandbox) does not, and the log says so. A file with an error
 * changes nothing.
 */
#ifndef VCHAN_BROKER_RELOAD_H
#define VCHAN_BROKER_RELOAD_H

#include <systemd/sd-event.h>

struct broker;
struct config;
struct signalfd_siginfo;

/* What a configuration says about domains, into the broker's tables: at the start, too. 0 or
 * -errno. */
int reload_apply_domains(struct broker *broker, const struct config *config);

/* For sd_event_add_signal; context is the broker. */
int reload_on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *context);

#endif
