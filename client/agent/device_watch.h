/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/device_watch.h - which ivshmem devices there are, now and as they come and go: udev.
 *
 * It listens to the kernel's own messages, so it needs no udevd.
 */
#ifndef VCHAN_AGENT_DEVICE_WATCH_H
#define VCHAN_AGENT_DEVICE_WATCH_H

#include <stdbool.h>

#define DEVICE_WATCH_VENDOR "1af4"
#define DEVICE_WATCH_DEVICE "1110"

struct device_watch;

/* here: it has come, or its driver has changed; else it is gone. address: "0000:01:00.0". */
typedef void device_watch_handler(void *context, const char *address, bool here);

/* Listens from now on. -errno. */
int device_watch_new(device_watch_handler *handler, void *context, struct device_watch **out);
void device_watch_free(struct device_watch *watch);

/* Readable when there are messages: then call device_watch_read. */
int device_watch_fd(const struct device_watch *watch);
void device_watch_read(struct device_watch *watch);

/* Calls the handler for each that is there. After messages were lost, too. -errno. */
int device_watch_enumerate(struct device_watch *watch);

#endif
