/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest that breaks the rules: writes rubbish over what it shares, from inside a real guest.
 *
 *     vchan-vandal WHAT SECONDS
 *
 *   header     page 0
 *   peers      the whole table of peers
 *   request    its own request for a mailbox, again and again, ringing each time
 *   mailbox    the page of its own mailbox, and the extents that this names
 *   own        the pages of all channels that it is an end of, its mailbox's too
 *   pages      the whole control section
 *   region     everything
 *   doorbells  rings everybody's vectors as fast as it can
 *
 * It goes around vchan-agent: BAR0 and BAR2 are mapped from sysfs, which needs root, and a device
 * that no driver has (an agent that was killed leaves it to vfio-pci: unbind it).
 */
#include <err.h>
#include <fcntl.h>
#include <glob.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ring/layout.h"

#define OWN_NUMBER 2u /* words of BAR0: IVPosition, Doorbell */
#define DOORBELL 3u
#define VECTORS 64u

struct device {
    volatile uint32_t *registers;
    uint8_t *region;
    uint64_t bytes;
    struct layout_region_header header; /* as it was before */
    uint32_t id, domain;
};

static uint64_t random_word(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void *map(const char *directory, const char *name, uint64_t *bytes)
{
    char path[512];
    struct stat status;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    int fd = open(path, O_RDWR | O_SYNC | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        err(1, "%s", path);
    size_t size = (size_t)status.st_size < 4096 ? 4096 : (size_t)status.st_size;
    void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED)
        err(1, "%s: mmap", path);
    close(fd);
    *bytes = size;
    return address;
}

static bool reads(const char *directory, const char *name, const char *value)
{
    char path[512], text[32] = "";

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "re");
    if (file && !fgets(text, sizeof(text), file))
        text[0] = 0;
    if (file)
        fclose(file);
    return strncmp(text, value, strlen(value)) == 0;
}

static void find(struct device *device)
{
    glob_t paths;
    uint64_t bytes;

    if (glob("/sys/bus/pci/devices/*", 0, NULL, &paths) != 0)
        errx(1, "no PCI devices");
    for (size_t i = 0; i < paths.gl_pathc; i++) {
        const char *directory = paths.gl_pathv[i];
        if (!reads(directory, "vendor", "0x1af4") || !reads(directory, "device", "0x1110"))
            continue;
        char path[512];
        snprintf(path, sizeof(path), "%s/enable", directory);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "1", 1) != 1)
            err(1, "%s", path);
        close(fd);
        device->registers = map(directory, "resource0", &bytes);
        device->region = map(directory, "resource2", &device->bytes);
        globfree(&paths);
        return;
    }
    errx(1, "no ivshmem device");
}

static struct layout_peer *own_peer(const struct device *device)
{
    return (struct layout_peer *)(device->region + device->header.peers_offset) + device->id;
}

static struct layout_channel_page *page(const struct device *device, uint32_t slot)
{
    return (struct layout_channel_page *)(device->region + device->header.control_offset +
                                          (uint64_t)slot * LAYOUT_CHANNEL_PAGE_BYTES);
}

static void spoil(void *start, uint64_t bytes, unsigned words)
{
    uint64_t *at = start;

    for (unsigned i = 0; i < words; i++)
        at[random_word() % (bytes / sizeof(*at))] = random_word() >> (random_word() % 64);
}

static void spoil_mailbox(const struct device *device)
{
    uint64_t offset = own_peer(device)->page_offset;

    if (offset == 0 || offset > device->bytes - LAYOUT_CHANNEL_PAGE_BYTES)
        return;
    struct layout_channel_page *mailbox = (void *)(device->region + offset);
    for (unsigned ring = 0; ring < 2; ring++)
        for (unsigned slot = 0; slot < 2; slot++) {
            struct layout_extent extent = mailbox->ring[ring].geometry.extent[slot];
            if (extent.size >= 8 && extent.size <= device->bytes &&
                extent.offset <= device->bytes - extent.size)
                spoil(device->region + extent.offset, extent.size, 64);
        }
    spoil(mailbox, sizeof(*mailbox), 16);
}

static void spoil_own(const struct device *device)
{
    for (uint32_t slot = 0; slot < device->header.channel_count; slot++) {
        const struct layout_channel *channel = &page(device, slot)->channel;
        if (channel->server_domain == device->domain || channel->client_domain == device->domain)
            spoil(page(device, slot), LAYOUT_CHANNEL_PAGE_BYTES, 16);
    }
}

static void ask(const struct device *device)
{
    __atomic_store_n(&own_peer(device)->request, (uint32_t)random_word(), __ATOMIC_RELEASE);
    device->registers[DOORBELL] = 0;
}

static void ring(const struct device *device)
{
    for (unsigned i = 0; i < 256; i++)
        device->registers[DOORBELL] =
            (uint32_t)(random_word() % device->header.peer_count << 16 | random_word() % VECTORS);
}

static void act(const struct device *device, const char *what)
{
    const struct layout_region_header *header = &device->header;

    if (strcmp(what, "header") == 0)
        spoil(device->region, LAYOUT_BLOCK_BYTES, 64);
    else if (strcmp(what, "peers") == 0)
        spoil(device->region + header->peers_offset, header->peer_count * LAYOUT_PEER_BYTES, 64);
    else if (strcmp(what, "request") == 0)
        ask(device);
    else if (strcmp(what, "mailbox") == 0)
        spoil_mailbox(device);
    else if (strcmp(what, "own") == 0)
        spoil_own(device);
    else if (strcmp(what, "pages") == 0)
        spoil(device->region + header->control_offset,
              (uint64_t)header->channel_count * LAYOUT_CHANNEL_PAGE_BYTES, 1024);
    else if (strcmp(what, "region") == 0)
        spoil(device->region, device->bytes, 4096);
    else if (strcmp(what, "doorbells") == 0)
        ring(device);
    else
        errx(2, "what is '%s'?", what);
}

int main(int argc, char **argv)
{
    struct device device;

    if (argc != 3)
        errx(2, "usage: vchan-vandal WHAT SECONDS");
    time_t end = time(NULL) + atoi(argv[2]);
    find(&device);
    memcpy(&device.header, device.region, sizeof(device.header));
    if (device.header.magic != LAYOUT_MAGIC || device.header.size_bytes != device.bytes)
        errx(1, "this is no region of vchan's");
    device.id = device.registers[OWN_NUMBER];
    device.domain = own_peer(&device)->domain;
    printf("peer %u, domain %u\n", device.id, device.domain);
    fflush(stdout);
    do
        act(&device, argv[1]);
    while (time(NULL) < end);
    return 0;
}
