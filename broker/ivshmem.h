/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/ivshmem.h - QEMU's protocol for a device "ivshmem-doorbell", spoken to one QEMU.
 *
 * The server alone talks: numbers of 8 bytes, little-endian, some with a descriptor. QEMU documents
 * it in docs/specs/ivshmem-spec; what follows from its code (hw/misc/ivshmem.c) is said here.
 *
 *          0                    protocol version
 *          id                   of this device: what the guest reads as IVPosition
 *          -1 + memfd           the region
 *          peer + eventfd       for each vector of each peer, in the order of the vectors
 *          peer                 a peer that is gone
 *
 *            accepted                   all three are sent          the socket closes
 *   GREETING --------------------------> SERVED ---------------------> freed
 *       |     version, id, region,       peers and what becomes
 *       |     in the same turn           of them, for ever
 *       +----> REFUSED: no guest; waits until QEMU closes ----------> freed
 *
 * QEMU's main loop, and with it the VM, sleeps from the moment that the device is made until it has
 * the region. If the connection ends before that, it spins for ever. So a device that must not
 * be is told a version that is an errno (QEMU: "server sent version -16, expecting 0"), which fails
 * the device and nothing else, and the connection is left open: QEMU may look at it much later, as
 * chardev-add and device_add are two commands.
 *
 * What is sent about peers follows from the state and not from a queue of events: told[] says what
 * this QEMU has been told of each number, and a turn sends what lacks, until the socket is full.
 * So memory is bounded, whatever comes and goes while a QEMU does not read.
 *
 * Threads: the event loop's.
 */
#ifndef VCHAN_BROKER_IVSHMEM_H
#define VCHAN_BROKER_IVSHMEM_H

#include <stdint.h>
#include <systemd/sd-event.h>
#include <urcu/list.h>

#include "broker/log.h"

struct broker;
struct guest;
struct ivshmem_connection;
struct zone;

/* Refused connections of one domain that are left open; one more closes the oldest. */
#define IVSHMEM_REFUSED_MAX 8u

struct ivshmem {
    struct cds_list_head connections; /* of ivshmem_connection.link, in order of arrival */
    /* When the kernel was short of something, or a QEMU has not read; NULL: never yet. */
    sd_event_source *again;
    struct log_limit lines; /* about those who come and go */
};

void ivshmem_init(struct ivshmem *ivshmem);
/* All guests go. */
void ivshmem_deinit(struct broker *broker);

/*
 * A QEMU has connected on the socket of that domain and zone; descriptor is taken over. Makes the
 * guest, or refuses it (logged).
 */
void ivshmem_accept(struct broker *broker, struct zone *zone, uint32_t domain, int descriptor);

#endif
