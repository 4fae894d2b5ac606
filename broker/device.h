/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/device.h - which ivshmem device a DOMAIN_* request means, and what it must look like.
 *
 * A person says the domain by number, UUID or name, and the zone only where there are several.
 *
 * Threads: the event loop's.
 */
#ifndef VCHAN_BROKER_DEVICE_H
#define VCHAN_BROKER_DEVICE_H

#include "proto/guest.h"

struct connection;
struct roster;
struct zone;

/*
 * 0; else what to answer, explained to the connection: -ENOENT (no such domain or zone; the
 * sentence says which there are), -EPERM (the domain is not in that zone, or in none), -EINVAL (it
 * is in several zones, and none was said).
 */
int device_describe(struct connection *connection, const struct roster *roster,
                    const struct proto_domain_request *request, struct proto_domain_device *device,
                    struct zone **zone);

/*
 * Refuses with -EBUSY if the domain has channels open in that zone: detaching would break them. The
 * sentence names them.
 */
int device_refuse_busy(struct connection *connection, const struct zone *zone,
                       const struct proto_domain_device *device);

/* Closes them: the domain's ends see it and let go, the others read what is left. */
void device_close_channels(struct connection *connection, const struct zone *zone, uint32_t domain);

#endif
