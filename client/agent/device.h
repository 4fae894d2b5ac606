/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/device.h - one ivshmem device: its registers, its region, its interrupts.
 *
 *                 device_open                          device_close
 *   (PCI device) -------------> open, in use by us  ---------------> (PCI device)
 *
 * How it is got at is a backend's: VFIO (client/agent/vfio.h), or files in sysfs
 * (client/agent/sysfs.h), which have no interrupts: then who waits has to look, again and again.
 *
 * What lies in the region is any member's to write. The header is copied and checked once; the
 * copy is what counts.
 */
#ifndef VCHAN_AGENT_DEVICE_H
#define VCHAN_AGENT_DEVICE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "ring/layout.h"
#include "ring/memory.h"

/* Registers of BAR0, bytes (QEMU, docs/specs/ivshmem-spec). */
#define DEVICE_REGISTER_POSITION 8u
#define DEVICE_REGISTER_DOORBELL 12u

#define DEVICE_VECTORS_MAX 64u
#define DEVICE_ADDRESS_BYTES 16u /* "0000:01:00.0" */
#define DEVICE_WHY_BYTES 256u

struct device;

struct device_backend {
    const char *name;
    /* Once it is known to be ours: interrupts. Sets device->vectors. NULL: it has none. */
    int (*enable)(struct device *device);
    /* Interrupts write event_fd from now on; -1: nothing. NULL where there are none. */
    int (*set_vector)(struct device *device, uint32_t vector, int event_fd);
    /* event_fd is written when the kernel wants the device back. NULL: it does not ask. */
    int (*set_request)(struct device *device, int event_fd);
    void (*close)(struct device *device);
};

struct device {
    char address[DEVICE_ADDRESS_BYTES];
    /* Filled by the backend: */
    const struct device_backend *backend; /* NULL: not open */
    void *state;                          /* the backend's */
    int memory_fd;                        /* BAR2 is mapped from it at memory_offset */
    int register_fd;                      /* BAR0, likewise; may be the same */
    uint64_t memory_offset, register_offset;
    uint64_t memory_bytes; /* of BAR2 */
    /* By device_open: */
    uint32_t vectors; /* interrupts that it has; 0: none, look */
    struct layout_region_header header; /* checked copy */
    struct ring_memory memory;
    uint32_t id; /* among the peers */
    volatile uint32_t *registers;
    void *header_page, *peer_page;
    struct layout_peer *peer; /* our entry, in peer_page */
    volatile sig_atomic_t lost; /* its memory is gone from under us */
    /* What went wrong, or what is not as it should be; "" */
    char why[DEVICE_WHY_BYTES];
};

/*
 * Opens it: by VFIO unless no_vfio, else by sysfs. -EAGAIN: it is not ready yet, try again soon.
 * -ENOTSUP: not one of ours, leave it alone. Other -errno: it cannot be used. device->why says
 * more.
 */
int device_open(struct device *device, const char *address, bool no_vfio);

/*
 * The second half, for an open backend: maps and checks the region, finds our entry. As above; the
 * caller closes. (For backends that are not PCI devices: tests.)
 */
int device_map(struct device *device);

/* Unmaps and closes everything. */
void device_close(struct device *device);

/* Rings that vector of that peer. */
void device_ring(const struct device *device, uint32_t peer, uint32_t vector);

/* Sets device->why. Returns err. */
int device_explain(struct device *device, int err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
