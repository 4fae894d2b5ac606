/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a hostile root in a guest can do to the region and to the device. It goes past the agent:
 * sysfs lets root map the BARs.
 *
 *     rubbish WHAT SECONDS SEED
 *
 *     header      random words over the region's first page
 *     peers       over the table of peers
 *     mailbox     over the page and the rings of this guest's own mailbox
 *     control     over all channel pages
 *     region      over all of it
 *     requests    asks for a new mailbox, again and again
 *     doorbells   rings everybody's, as fast as it can
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "proto/proto.h"
#include "ring/layout.h"

enum { REGISTER_OWN_ID = 8 };

struct device {
    uint8_t *region;
    uint64_t region_bytes;
    volatile uint8_t *registers;
    struct layout_region_header header; /* as it was when we came */
    uint32_t id;
};

static uint64_t state;

/* xorshift64* */
static uint64_t chance(uint64_t below)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * 0x2545f4914f6cdd1dull >> 16) % below;
}

static void die(const char *what)
{
    fprintf(stderr, "rubbish: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *map(const char *directory, const char *name, uint64_t *size_bytes)
{
    char path[256];
    struct stat status;
    void *mapped;
    int fd;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0)
        die(path);
    *size_bytes = (uint64_t)status.st_size;
    mapped = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        die(path);
    close(fd);
    return mapped;
}

static int is_ivshmem(const char *directory)
{
    char path[256], id[16] = "";
    FILE *file;

    snprintf(path, sizeof(path), "%s/device", directory);
    file = fopen(path, "re");
    if (file && !fgets(id, sizeof(id), file))
        id[0] = '\0';
    if (file)
        fclose(file);
    return strncmp(id, "0x1110", 6) == 0;
}

static void find(struct device *device)
{
    glob_t all;
    uint64_t size_bytes;

    if (glob("/sys/bus/pci/devices/*", 0, NULL, &all) != 0)
        die("/sys/bus/pci/devices");
    for (size_t i = 0; i < all.gl_pathc && !device->region; i++) {
        if (!is_ivshmem(all.gl_pathv[i]))
            continue;
        device->region = map(all.gl_pathv[i], "resource2", &device->region_bytes);
        device->registers = map(all.gl_pathv[i], "resource0", &size_bytes);
    }
    globfree(&all);
    if (!device->region) {
        fprintf(stderr, "rubbish: there is no ivshmem device\n");
        exit(1);
    }
    memcpy(&device->header, device->region, sizeof(device->header));
    device->id = *(const volatile uint32_t *)(device->registers + REGISTER_OWN_ID);
}

/* A burst, so that the clock is asked now and then only. */
static void scribble(struct device *device, uint64_t begin, uint64_t end)
{
    for (int i = 0; i < 4096; i++) {
        uint64_t word = chance(UINT64_MAX);

        /* Mostly anything; also what looks like a count, an offset, a flag. */
        if (i % 4 == 1)
            word = chance(device->region_bytes);
        if (i % 4 == 2)
            word = chance(4);
        __atomic_store_n((uint64_t *)(device->region + begin + chance((end - begin) / 8) * 8), word,
                         __ATOMIC_RELAXED);
    }
}

static struct layout_peer *own_peer(struct device *device)
{
    return (struct layout_peer *)(device->region + device->header.peers_offset) + device->id;
}

static void scribble_mailbox(struct device *device, uint64_t page_offset)
{
    const struct layout_channel_page *page = (void *)(device->region + page_offset);
    static struct layout_extent extents[4];
    static bool known;

    if (!known) { /* before we spoil them */
        known = true;
        memcpy(&extents[0], page->ring[0].geometry.extent, 2 * sizeof(extents[0]));
        memcpy(&extents[2], page->ring[1].geometry.extent, 2 * sizeof(extents[0]));
    }
    scribble(device, page_offset, page_offset + LAYOUT_CHANNEL_PAGE_BYTES);
    for (int i = 0; i < 4; i++) {
        if (extents[i].size > 0)
            scribble(device, extents[i].offset, extents[i].offset + extents[i].size);
    }
}

static void ring(struct device *device, uint32_t doorbell)
{
    *(volatile uint32_t *)(device->registers + PROTO_DOORBELL_REGISTER) = doorbell;
}

static void do_it(struct device *device, const char *what, uint64_t mailbox)
{
    const struct layout_region_header *header = &device->header;

    if (strcmp(what, "header") == 0) {
        scribble(device, 0, LAYOUT_BLOCK_BYTES);
    } else if (strcmp(what, "peers") == 0) {
        scribble(device, header->peers_offset,
                 header->peers_offset + header->peer_count * (uint64_t)LAYOUT_PEER_BYTES);
    } else if (strcmp(what, "mailbox") == 0) {
        scribble_mailbox(device, mailbox);
    } else if (strcmp(what, "control") == 0) {
        scribble(device, header->control_offset, header->data_offset);
    } else if (strcmp(what, "region") == 0) {
        scribble(device, 0, device->region_bytes);
    } else if (strcmp(what, "requests") == 0) {
        __atomic_store_n(&own_peer(device)->request, (uint32_t)chance(UINT32_MAX),
                         __ATOMIC_RELEASE);
        ring(device, LAYOUT_PEER_HOST << 16);
    } else if (strcmp(what, "doorbells") == 0) {
        ring(device, (uint32_t)(chance(header->peer_count) << 16 | chance(64)));
    } else {
        fprintf(stderr, "rubbish: what is '%s'?\n", what);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct device device = {0};
    struct timespec now, end;
    uint64_t mailbox;

    if (argc != 4) {
        fprintf(stderr, "usage: rubbish WHAT SECONDS SEED\n");
        return 2;
    }
    state = strtoull(argv[3], NULL, 0) | 1;
    find(&device);
    mailbox = own_peer(&device)->page_offset;
    printf("peer %u, mailbox at 0x%" PRIx64 " of 0x%" PRIx64 "\n", device.id, mailbox,
           device.region_bytes);
    fflush(stdout);
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += strtol(argv[2], NULL, 10);
    do {
        for (int i = 0; i < 100; i++)
            do_it(&device, argv[1], mailbox);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
    return 0;
}
