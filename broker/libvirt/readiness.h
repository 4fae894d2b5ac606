/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/libvirt/readiness.h - can this domain take the ivshmem device while it runs, and if not,
 * what is missing and what mends it?
 *
 * Looked at, in this order: a PCIe machine, a free place to plug it in, room for the region behind
 * that place, an IOMMU that the guest sees (VFIO needs one), and more than one possible processor
 * where QEMU emulates them (else it translates to code without atomic instructions).
 *
 * Pure functions; the texts are for people, and for `vchanctl doctor`, which knows lines by how
 * they begin ("ok: ", "missing: ", two spaces before what mends it).
 */
#ifndef VCHAN_BROKER_LIBVIRT_READINESS_H
#define VCHAN_BROKER_LIBVIRT_READINESS_H

#include <stdbool.h>

#include "broker/libvirt/hardware.h"
#include "proto/device_xml.h"
#include "proto/guest.h"

/* A text that grows; what does not fit is cut off. */
struct readiness_text {
    char text[PROTO_TEXT_BYTES];
    size_t length;
};

void readiness_say(struct readiness_text *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A line for each thing that is looked at, in a domain that has the device or not. */
void readiness_report(const struct hardware *hardware, const struct proto_domain_device *device,
                      struct readiness_text *text);

/*
 * 0: nothing is missing. Else the errno of the first thing (-EOPNOTSUPP, -ENOSPC, -ENODEV), and in
 * text what is missing, each with what mends it.
 */
int readiness_check(const struct hardware *hardware, const struct proto_domain_device *device,
                    struct readiness_text *text);

/* Where to plug it in: the place with most promise. False: there is none at all. */
bool readiness_place(const struct hardware *hardware, const struct proto_domain_device *device,
                     struct device_xml_address *address);

#endif
