/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/libvirt/driver.h - a connection to libvirt. The only place that knows libvirt's types is
 * driver.c.
 *
 * Any of these calls may take as long as libvirt likes, so the thread that speaks with the broker
 * makes none of them. They may be made by several threads at once.
 */
#ifndef VCHAN_BROKER_LIBVIRT_DRIVER_H
#define VCHAN_BROKER_LIBVIRT_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DRIVER_NAME_BYTES 256u
#define DRIVER_ERROR_BYTES 1024u

struct driver;

struct driver_domain {
    uint8_t uuid[16];
    uint32_t state; /* PROTO_HYPERVISOR_* */
    char name[DRIVER_NAME_BYTES];
};

/* What libvirt tells by itself, in its own thread: these only take note. */
struct driver_listener {
    void (*changed)(void *context, const uint8_t uuid[16]); /* look at it again */
    void (*closed)(void *context);                          /* the connection is of no more use */
    void *context;
};

/* Before all else: libvirt's event loop, in a thread of its own until the process ends. 0, -EIO. */
int driver_start(void);

/*
 * Connects, and listens to events; the listener lives longer than the driver. 0, or -ENOTCONN with
 * libvirt's words in error (DRIVER_ERROR_BYTES), as below.
 */
int driver_open(const char *uri, const struct driver_listener *listener, struct driver **out,
                char *error);
struct driver *driver_hold(struct driver *driver);
void driver_drop(struct driver *driver); /* the last one closes it */

/* All domains, running or not: *domains is malloc'ed. 0, -EIO, -ENOMEM. */
int driver_list(struct driver *driver, struct driver_domain **domains, size_t *count, char *error);

/* One of them. -ENOENT: there is none with this UUID (or, where that is zero, this name). -EIO. */
int driver_look(struct driver *driver, const uint8_t uuid[16], const char *name,
                struct driver_domain *domain, char *error);

/* Its definition as it is now, malloc'ed. As driver_look. */
int driver_xml(struct driver *driver, const uint8_t uuid[16], char **xml, char *error);

/* Plugs a device in while it runs, not into its definition. As driver_look. */
int driver_attach(struct driver *driver, const uint8_t uuid[16], const char *device_xml,
                  char *error);

/*
 * Asks the guest to let the device go, and waits until it has. As driver_look; -ETIMEDOUT: it has
 * not within wait_ms (and still may); -EBUSY: it refused.
 */
int driver_detach(struct driver *driver, const uint8_t uuid[16], const char *alias,
                  unsigned wait_ms, char *error);

#endif
