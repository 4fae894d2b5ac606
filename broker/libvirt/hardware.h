/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/libvirt/hardware.h - what a domain's XML says about the hardware that vchan needs.
 *
 * The only place that knows libxml2 is hardware.c. Pure functions.
 */
#ifndef VCHAN_BROKER_LIBVIRT_HARDWARE_H
#define VCHAN_BROKER_LIBVIRT_HARDWARE_H

#include <stdbool.h>
#include <stdint.h>

#define HARDWARE_BUSES 256u
#define HARDWARE_WORD_BYTES 64u

/* What a PCI controller is to a device that is to be plugged in. */
enum hardware_bus_kind {
    HARDWARE_BUS_NONE,   /* no controller has this index */
    HARDWARE_BUS_OTHER,  /* one that takes no ivshmem device while the domain runs */
    HARDWARE_BUS_PORT,   /* a PCIe root port or switch port: one device, in slot 0 */
    HARDWARE_BUS_BRIDGE, /* a pcie-to-pci-bridge: slots 1 to 31 */
};

struct hardware_bus {
    enum hardware_bus_kind kind;
    bool plug;           /* devices can come and go while the domain runs */
    uint32_t slots;      /* bits: those that have a device */
    uint64_t room_bytes; /* for prefetchable memory of devices that come later */
    char alias[HARDWARE_WORD_BYTES];
};

struct hardware {
    bool tcg; /* type='qemu': QEMU emulates the processors */
    char architecture[HARDWARE_WORD_BYTES];
    char machine[HARDWARE_WORD_BYTES];
    bool pcie; /* its root bus is PCIe */
    uint32_t processors_max;
    char iommu[HARDWARE_WORD_BYTES]; /* model of the vIOMMU; "": there is none */
    bool interrupt_remapping;
    bool split_ioapic; /* <ioapic driver='qemu'/> */
    struct hardware_bus bus[HARDWARE_BUSES];
    unsigned buses; /* one more than the highest index */
    /* The ivshmem device that was looked for. */
    bool attached;
    unsigned attached_bus, attached_slot;
    char attached_alias[HARDWARE_WORD_BYTES];
};

/*
 * Reads a domain's XML as libvirt writes it. socket: of the ivshmem device that is looked for.
 * -EINVAL: this is no domain's XML.
 */
int hardware_read(const char *xml, const char *socket, struct hardware *hardware);

#endif
