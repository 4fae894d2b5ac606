/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "proto/device_xml.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct writer {
    char *text;
    size_t bytes;
    size_t length;
    unsigned indent;
};

static void put(struct writer *writer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void put(struct writer *writer, const char *format, ...)
{
    const size_t at = writer->length < writer->bytes ? writer->length : writer->bytes;
    va_list arguments;

    va_start(arguments, format);
    int n = vsnprintf(writer->text + at, writer->bytes - at, format, arguments);
    va_end(arguments);
    writer->length += n > 0 ? (size_t)n : 0;
}

/* A line of its own, `depth` further in than the element. */
#define LINE(writer, depth, format, ...) \
    put(writer, "%*s" format "\n", (int)((writer)->indent + (depth)), "" __VA_OPT__(, ) __VA_ARGS__)

/* The value of an attribute in '...'. */
static void put_value(struct writer *writer, const char *value)
{
    for (; *value; value++) {
        if (*value == '&')
            put(writer, "&amp;");
        else if (*value == '<')
            put(writer, "&lt;");
        else if (*value == '\'')
            put(writer, "&apos;");
        else
            put(writer, "%c", *value);
    }
}

size_t device_xml_shmem(const struct proto_domain_device *device,
                        const struct device_xml_address *address, unsigned indent, char *text,
                        size_t bytes)
{
    struct writer writer = {.text = text, .bytes = bytes, .indent = indent};

    put(&writer, "%*s<shmem name='vchan-", (int)indent, "");
    put_value(&writer, device->zone);
    put(&writer, "'>\n");
    LINE(&writer, 2, "<model type='ivshmem-doorbell'/>");
    put(&writer, "%*s<server path='", (int)indent + 2, "");
    put_value(&writer, device->socket);
    put(&writer, "'/>\n");
    LINE(&writer, 2, "<msi vectors='%" PRIu32 "'/>", device->vectors);
    LINE(&writer, 2,
         "<address type='pci' domain='0x0000' bus='0x%02x' slot='0x%02x' function='0x0'/>",
         address->bus, address->slot);
    LINE(&writer, 0, "</shmem>");
    return writer.length;
}

size_t device_xml_root_port(const struct proto_domain_device *device, unsigned index,
                            unsigned indent, char *text, size_t bytes)
{
    struct writer writer = {.text = text, .bytes = bytes, .indent = indent};

    LINE(&writer, 0, "<controller type='pci' index='%u' model='pcie-root-port'>", index);
    put(&writer, "%*s<alias name='ua-vchan-", (int)indent + 2, "");
    put_value(&writer, device->zone);
    put(&writer, "'/>\n");
    LINE(&writer, 0, "</controller>");
    return writer.length;
}

size_t device_xml_override(const struct proto_domain_device *device, const char *alias,
                           unsigned indent, char *text, size_t bytes)
{
    struct writer writer = {.text = text, .bytes = bytes, .indent = indent};

    LINE(&writer, 0, "<qemu:override>");
    put(&writer, "%*s<qemu:device alias='", (int)indent + 2, "");
    put(&writer, "%s", alias ? "" : "ua-vchan-");
    put_value(&writer, alias ? alias : device->zone);
    put(&writer, "'>\n");
    LINE(&writer, 4, "<qemu:frontend>");
    LINE(&writer, 6, "<qemu:property name='pref64-reserve' type='unsigned' value='%" PRIu64 "'/>",
         device_xml_room(device->region_bytes));
    LINE(&writer, 4, "</qemu:frontend>");
    LINE(&writer, 2, "</qemu:device>");
    LINE(&writer, 0, "</qemu:override>");
    return writer.length;
}
