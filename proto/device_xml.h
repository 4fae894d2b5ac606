/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * proto/device_xml.h - the ivshmem device of a domain, in libvirt's XML.
 *
 * Pure functions. Each writes to text (bytes) as snprintf does: ended by a NUL, and it returns the
 * length that the whole needs. indent: spaces before each line.
 */
#ifndef VCHAN_PROTO_DEVICE_XML_H
#define VCHAN_PROTO_DEVICE_XML_H

#include <stddef.h>

#include "proto/guest.h"

/* What QEMU reserves behind a PCIe root port whose definition says nothing, for hot-plug. */
#define DEVICE_XML_ROOM_DEFAULT (UINT64_C(2) << 20)

/* What has to be reserved for a region: the firmware (SeaBIOS) aligns what it reserves to a MiB or
 * two only, and a BAR is aligned to its size. In twice the size there is always such a place. */
static inline uint64_t device_xml_room(uint64_t region_bytes)
{
    return 2 * region_bytes;
}

#define DEVICE_XML_NAMESPACE "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"

struct device_xml_address {
    unsigned bus; /* index of the PCI controller it is plugged into */
    unsigned slot;
};

/* <shmem>: what is plugged in. */
size_t device_xml_shmem(const struct proto_domain_device *device,
                        const struct device_xml_address *address, unsigned indent, char *text,
                        size_t bytes);

/* <controller>: a root port with that index, which device_xml_override can speak of. */
size_t device_xml_root_port(const struct proto_domain_device *device, unsigned index,
                            unsigned indent, char *text, size_t bytes);

/* <qemu:override>: the root port reserves room for the region, so that it can be plugged in while
 * the domain runs. alias: of the root port, NULL for device_xml_root_port's. */
size_t device_xml_override(const struct proto_domain_device *device, const char *alias,
                           unsigned indent, char *text, size_t bytes);

#endif
