/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/libvirt/hardware.h"

#include <errno.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/device_xml.h"

static bool is_element(const xmlNode *node, const char *name)
{
    return node->type == XML_ELEMENT_NODE && strcmp((const char *)node->name, name) == 0;
}

/* The first child element of that name; NULL: none, or no parent. */
static const xmlNode *child(const xmlNode *parent, const char *name)
{
    for (const xmlNode *node = parent ? parent->children : NULL; node; node = node->next)
        if (is_element(node, name))
            return node;
    return NULL;
}

/* The attribute, cut to what fits into word; "": none. */
static const char *attribute(const xmlNode *node, const char *name, char *word, size_t bytes)
{
    xmlChar *value = node ? xmlGetProp(node, (const xmlChar *)name) : NULL;

    snprintf(word, bytes, "%s", value ? (const char *)value : "");
    xmlFree(value);
    return word;
}

#define ATTRIBUTE(node, name, word) attribute((node), (name), (word), sizeof(word))

static bool attribute_is(const xmlNode *node, const char *name, const char *value)
{
    char word[HARDWARE_WORD_BYTES];

    return strcmp(ATTRIBUTE(node, name, word), value) == 0;
}

/* Decimal or 0x...; missing: otherwise. */
static unsigned number(const xmlNode *node, const char *name, unsigned otherwise)
{
    char word[HARDWARE_WORD_BYTES];

    return *ATTRIBUTE(node, name, word) ? (unsigned)strtoul(word, NULL, 0) : otherwise;
}

static const char *text_of(const xmlNode *node, char *word, size_t bytes)
{
    xmlChar *text = node ? xmlNodeGetContent(node) : NULL;

    snprintf(word, bytes, "%s", text ? (const char *)text : "");
    xmlFree(text);
    return word;
}

static void read_controller(const xmlNode *node, struct hardware *hardware)
{
    const unsigned index = number(node, "index", HARDWARE_BUSES);
    char model[HARDWARE_WORD_BYTES];

    if (!attribute_is(node, "type", "pci") || index >= HARDWARE_BUSES)
        return;
    struct hardware_bus *bus = &hardware->bus[index];
    ATTRIBUTE(node, "model", model);
    ATTRIBUTE(child(node, "alias"), "name", bus->alias);
    bus->kind =
        strcmp(model, "pcie-root-port") == 0 || strcmp(model, "pcie-switch-downstream-port") == 0
            ? HARDWARE_BUS_PORT
        : strcmp(model, "pcie-to-pci-bridge") == 0 ? HARDWARE_BUS_BRIDGE
                                                   : HARDWARE_BUS_OTHER;
    bus->plug = !attribute_is(child(node, "target"), "hotplug", "off");
    bus->room_bytes = DEVICE_XML_ROOM_DEFAULT;
    if (strcmp(model, "pcie-root") == 0)
        hardware->pcie = true;
    if (hardware->buses <= index)
        hardware->buses = index + 1;
}

/* Any device: it takes a place on a bus. */
static void read_address(const xmlNode *node, struct hardware *hardware)
{
    const xmlNode *address = child(node, "address");

    if (!attribute_is(address, "type", "pci"))
        return;
    const unsigned bus = number(address, "bus", 0), slot = number(address, "slot", 0);
    if (bus < HARDWARE_BUSES && slot < 32)
        hardware->bus[bus].slots |= 1u << slot;
}

static void read_shmem(const xmlNode *node, const char *socket, struct hardware *hardware)
{
    const xmlNode *address = child(node, "address");
    char path[256];

    if (strcmp(ATTRIBUTE(child(node, "server"), "path", path), socket) != 0)
        return;
    hardware->attached = true;
    hardware->attached_bus = number(address, "bus", 0);
    hardware->attached_slot = number(address, "slot", 0);
    ATTRIBUTE(child(node, "alias"), "name", hardware->attached_alias);
}

static void read_iommu(const xmlNode *node, struct hardware *hardware)
{
    ATTRIBUTE(node, "model", hardware->iommu);
    hardware->interrupt_remapping = attribute_is(child(node, "driver"), "intremap", "on");
}

static void read_devices(const xmlNode *devices, const char *socket, struct hardware *hardware)
{
    for (const xmlNode *node = devices ? devices->children : NULL; node; node = node->next) {
        if (node->type != XML_ELEMENT_NODE)
            continue;
        read_address(node, hardware);
        if (is_element(node, "controller"))
            read_controller(node, hardware);
        else if (is_element(node, "shmem"))
            read_shmem(node, socket, hardware);
        else if (is_element(node, "iommu"))
            read_iommu(node, hardware);
    }
}

/* As QEMU takes sizes: bytes, or with K, M, G, T. */
static uint64_t parse_size(const char *text)
{
    static const char units[] = "KMGT";
    char *end;
    uint64_t value = strtoull(text, &end, 0);
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;

    return unit ? value << (10 * (unit - units + 1)) : value;
}

/* alias: NULL for all root ports. */
static void reserve(struct hardware *hardware, const char *alias, uint64_t room_bytes)
{
    for (unsigned i = 0; i < hardware->buses; i++)
        if (hardware->bus[i].kind == HARDWARE_BUS_PORT &&
            (!alias || strcmp(hardware->bus[i].alias, alias) == 0))
            hardware->bus[i].room_bytes = room_bytes;
}

#define PROPERTY "pref64-reserve"

/* "pcie-root-port.P=SIZE" for all, "device.ALIAS.P=SIZE" for one, whose name may have dots. */
static void read_argument(const char *value, struct hardware *hardware)
{
    static const char all[] = "pcie-root-port." PROPERTY "=", one[] = "device.",
                      end[] = "." PROPERTY "=";
    const char *property = strstr(value, end);
    char alias[HARDWARE_WORD_BYTES];

    if (strncmp(value, all, strlen(all)) == 0) {
        reserve(hardware, NULL, parse_size(value + strlen(all)));
    } else if (strncmp(value, one, strlen(one)) == 0 && property) {
        const char *name = value + strlen(one);
        snprintf(alias, sizeof(alias), "%.*s", (int)(property - name), name);
        reserve(hardware, alias, parse_size(property + strlen(end)));
    }
}

/* <qemu:arg value='-global'/> or '-set', and their arguments. */
static void read_command_line(const xmlNode *commandline, struct hardware *hardware)
{
    char value[256];

    for (const xmlNode *node = commandline ? commandline->children : NULL; node; node = node->next)
        if (is_element(node, "arg"))
            read_argument(ATTRIBUTE(node, "value", value), hardware);
}

/* <qemu:device alias='A'><qemu:frontend><qemu:property name='P' value='BYTES'/> */
static void read_override(const xmlNode *override, struct hardware *hardware)
{
    for (const xmlNode *device = override ? override->children : NULL; device;
         device = device->next) {
        const xmlNode *frontend = is_element(device, "device") ? child(device, "frontend") : NULL;
        char alias[HARDWARE_WORD_BYTES], value[HARDWARE_WORD_BYTES];
        ATTRIBUTE(frontend ? device : NULL, "alias", alias);
        for (const xmlNode *node = frontend ? frontend->children : NULL; node; node = node->next)
            if (is_element(node, "property") && attribute_is(node, "name", PROPERTY))
                reserve(hardware, alias, parse_size(ATTRIBUTE(node, "value", value)));
    }
}

/* Definitions have no alias yet where nobody gave one; it will be this. */
static void name_buses(struct hardware *hardware)
{
    for (unsigned i = 0; i < hardware->buses; i++)
        if (!hardware->bus[i].alias[0])
            snprintf(hardware->bus[i].alias, sizeof(hardware->bus[i].alias), "pci.%u", i);
}

static void read_domain(const xmlNode *domain, const char *socket, struct hardware *hardware)
{
    const xmlNode *type = child(child(domain, "os"), "type");
    char word[HARDWARE_WORD_BYTES];

    hardware->tcg = attribute_is(domain, "type", "qemu");
    ATTRIBUTE(type, "arch", hardware->architecture);
    ATTRIBUTE(type, "machine", hardware->machine);
    hardware->processors_max =
        (uint32_t)strtoul(text_of(child(domain, "vcpu"), word, sizeof(word)), NULL, 10);
    hardware->split_ioapic =
        attribute_is(child(child(domain, "features"), "ioapic"), "driver", "qemu");
    read_devices(child(domain, "devices"), socket, hardware);
    name_buses(hardware);
    read_command_line(child(domain, "commandline"), hardware);
    read_override(child(domain, "override"), hardware);
}

int hardware_read(const char *xml, const char *socket, struct hardware *hardware)
{
    xmlDoc *document = xmlReadMemory(xml, (int)strlen(xml), "domain.xml", NULL,
                                     XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    const xmlNode *root = document ? xmlDocGetRootElement(document) : NULL;
    const bool is_domain = root && is_element(root, "domain");

    *hardware = (struct hardware){0};
    if (is_domain)
        read_domain(root, socket, hardware);
    xmlFreeDoc(document);
    return is_domain ? 0 : -EINVAL;
}
