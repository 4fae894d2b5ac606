/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/libvirt/readiness.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What one look finds. */
struct finding {
    int err;         /* 0: it is there */
    char said[256];  /* one line */
    char mend[2048]; /* lines; only with err */
};

typedef void (*look)(const struct hardware *hardware, const struct proto_domain_device *device,
                     struct finding *finding);

#define SAY(finding, ...) snprintf((finding)->said, sizeof((finding)->said), __VA_ARGS__)
#define MEND(finding, ...) snprintf((finding)->mend, sizeof((finding)->mend), __VA_ARGS__)

void readiness_say(struct readiness_text *text, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int n =
        vsnprintf(text->text + text->length, sizeof(text->text) - text->length, format, arguments);
    va_end(arguments);
    text->length += n > 0 ? (size_t)n : 0;
    if (text->length > sizeof(text->text) - 1)
        text->length = sizeof(text->text) - 1;
}

static void look_at_machine(const struct hardware *hardware,
                            const struct proto_domain_device *device, struct finding *finding)
{
    (void)device;
    SAY(finding, "machine %s, with a PCI Express root bus", hardware->machine);
    if (hardware->pcie)
        return;
    finding->err = -EOPNOTSUPP;
    SAY(finding, "machine %s has no PCI Express", hardware->machine);
    MEND(finding, "  Define the domain anew with this machine; its devices get other addresses:\n"
                  "    <type arch='x86_64' machine='q35'>hvm</type>\n");
}

/* The first free slot of a bus that devices can be plugged into; -1: none. */
static int free_slot(const struct hardware_bus *bus)
{
    if (!bus->plug)
        return -1;
    if (bus->kind == HARDWARE_BUS_PORT)
        return bus->slots ? -1 : 0;
    for (int slot = 1; bus->kind == HARDWARE_BUS_BRIDGE && slot < 32; slot++)
        if (!(bus->slots >> slot & 1))
            return slot;
    return -1;
}

bool readiness_place(const struct hardware *hardware, const struct proto_domain_device *device,
                     struct device_xml_address *address)
{
    uint64_t best_room = 0;
    unsigned best_rank = 0;

    for (unsigned i = 0; i < hardware->buses; i++) {
        const struct hardware_bus *bus = &hardware->bus[i];
        const int slot = free_slot(bus);
        if (slot < 0)
            continue;
        /* With room before without; ports before bridges, whose devices share an IOMMU group; and
         * no more room than is needed, which somebody else may need. */
        const bool fits = bus->room_bytes >= device_xml_room(device->region_bytes);
        const unsigned rank = (fits ? 4u : 1u) + (bus->kind == HARDWARE_BUS_PORT);
        if (rank < best_rank || (rank == best_rank && (fits ? bus->room_bytes >= best_room
                                                            : bus->room_bytes <= best_room)))
            continue;
        best_rank = rank;
        best_room = bus->room_bytes;
        *address = (struct device_xml_address){.bus = i, .slot = (unsigned)slot};
    }
    return best_rank > 0;
}

/* A size as people write it. */
static const char *size_text(uint64_t bytes, char text[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    unsigned unit = 0;

    while (bytes >= 1024 && bytes % 1024 == 0 && unit < 4) {
        bytes /= 1024;
        unit++;
    }
    snprintf(text, 32, "%" PRIu64 " %s", bytes, units[unit]);
    return text;
}

#define STOPPED "with the domain shut down, by virsh edit"

static void mend_place(const struct hardware *hardware, const struct proto_domain_device *device,
                       struct finding *finding)
{
    char port[512], override[1024];

    device_xml_root_port(device, hardware->buses, 4, port, sizeof(port));
    device_xml_override(device, NULL, 4, override, sizeof(override));
    MEND(finding,
         "  Add a root port that reserves room for the region, " STOPPED ".\n"
         "  In <devices>:\n%s"
         "  before </domain>:\n%s"
         "  and in the <domain> tag, or libvirt ignores that:\n"
         "    " DEVICE_XML_NAMESPACE "\n",
         port, override);
}

static void look_at_place(const struct hardware *hardware, const struct proto_domain_device *device,
                          struct finding *finding)
{
    struct device_xml_address address;

    if (hardware->attached) {
        SAY(finding, "the device is plugged in at bus 0x%02x, slot 0x%02x", hardware->attached_bus,
            hardware->attached_slot);
    } else if (readiness_place(hardware, device, &address)) {
        SAY(finding, "%s %s (index %u) has a free slot",
            hardware->bus[address.bus].kind == HARDWARE_BUS_PORT ? "root port" : "bridge",
            hardware->bus[address.bus].alias, address.bus);
    } else {
        finding->err = -ENOSPC;
        SAY(finding, "no PCIe root port or pcie-to-pci-bridge is free that devices can be plugged "
                     "into");
        mend_place(hardware, device, finding);
    }
}

static void look_at_room(const struct hardware *hardware, const struct proto_domain_device *device,
                         struct finding *finding)
{
    char region[32], room[32], override[1024];
    struct device_xml_address address;

    size_text(device->region_bytes, region);
    if (hardware->attached) {
        SAY(finding, "room for the region of %s", region);
        return;
    }
    if (!readiness_place(hardware, device, &address)) {
        finding->err = -ENOSPC;
        SAY(finding, "so there is no room for the region of %s either", region);
        return;
    }
    const struct hardware_bus *bus = &hardware->bus[address.bus];
    size_text(bus->room_bytes, room);
    SAY(finding, "room for the region of %s behind it (%s)", region, room);
    if (bus->room_bytes >= device_xml_room(device->region_bytes))
        return;
    finding->err = -ENOSPC;
    SAY(finding,
        "%s (index %u) is free, but reserves room for %s only, and the region of %s takes twice "
        "its size, to be aligned",
        bus->alias, address.bus, room, region);
    if (bus->kind == HARDWARE_BUS_BRIDGE) {
        mend_place(hardware, device, finding);
        return;
    }
    device_xml_override(device, bus->alias, 4, override, sizeof(override));
    MEND(finding,
         "  Let that root port reserve more, " STOPPED ". Before </domain>:\n%s"
         "  and in the <domain> tag, or libvirt ignores that:\n"
         "    " DEVICE_XML_NAMESPACE "\n",
         override);
}

static void look_at_iommu(const struct hardware *hardware, const struct proto_domain_device *device,
                          struct finding *finding)
{
    (void)device;
    SAY(finding, "a vIOMMU, model %s, with interrupt remapping", hardware->iommu);
    if (strcmp(hardware->iommu, "intel") == 0 && hardware->interrupt_remapping &&
        hardware->split_ioapic)
        return;
    finding->err = -ENODEV;
    if (!hardware->iommu[0])
        SAY(finding, "the guest sees no IOMMU, and VFIO needs one there");
    else if (strcmp(hardware->iommu, "intel") != 0)
        SAY(finding,
            "the guest's IOMMU is of model %s, and only intel remaps interrupts as VFIO "
            "needs it",
            hardware->iommu);
    else
        SAY(finding, "the guest's IOMMU does not remap interrupts (%s)",
            hardware->interrupt_remapping ? "the I/O APIC is not QEMU's" : "intremap is off");
    MEND(finding,
         "  Add one, " STOPPED ".\n"
         "  In <features>:\n    <ioapic driver='qemu'/>\n"
         "  in <devices>:\n    <iommu model='intel'>\n      <driver intremap='on'/>\n    </iommu>\n"
         "  and put intel_iommu=on on the guest kernel's command line.\n"
         "  Without an IOMMU the agent can only poll: attach with --force to have that.\n");
}

static void look_at_processors(const struct hardware *hardware,
                               const struct proto_domain_device *device, struct finding *finding)
{
    (void)device;
    SAY(finding, "%" PRIu32 " possible processors, %s", hardware->processors_max,
        hardware->tcg ? "emulated (TCG)" : "KVM");
    if (!hardware->tcg || hardware->processors_max > 1)
        return;
    finding->err = -EOPNOTSUPP;
    SAY(finding, "QEMU emulates (TCG) a machine that can have one processor only: its atomic "
                 "instructions would not be atomic, and data would be lost");
    MEND(finding, "  Allow a second processor, " STOPPED "; it need not be there:\n"
                  "    <vcpu current='1'>2</vcpu>\n");
}

static const look looks[] = {look_at_machine, look_at_place, look_at_room, look_at_iommu,
                             look_at_processors};

#define LOOKS (sizeof(looks) / sizeof(looks[0]))

void readiness_report(const struct hardware *hardware, const struct proto_domain_device *device,
                      struct readiness_text *text)
{
    for (size_t i = 0; i < LOOKS; i++) {
        struct finding finding = {0};
        looks[i](hardware, device, &finding);
        readiness_say(text, "%s: %s\n%s", finding.err ? "missing" : "ok", finding.said,
                      finding.mend);
    }
}

int readiness_check(const struct hardware *hardware, const struct proto_domain_device *device,
                    struct readiness_text *text)
{
    int err = 0;

    for (size_t i = 0; i < LOOKS; i++) {
        struct finding finding = {0};
        looks[i](hardware, device, &finding);
        if (!finding.err)
            continue;
        readiness_say(text, "%smissing: %s\n%s", err ? "" : "the device cannot be attached\n",
                      finding.said, finding.mend);
        err = err ? err : finding.err;
    }
    return err;
}
