/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/region.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ring/order.h"

/* The data section starts where a guest with 64 KiB pages can map it apart from the control
 * section. */
#define DATA_ALIGNMENT_BYTES 65536u
#define DATA_BLOCKS_MIN 16u

/* The header, then the peers, then the pages. */
#define PEERS_OFFSET LAYOUT_BLOCK_BYTES
#define CONTROL_OFFSET (PEERS_OFFSET + REGION_PEERS * LAYOUT_PEER_BYTES)
static_assert(CONTROL_OFFSET % LAYOUT_CHANNEL_PAGE_BYTES == 0, "pages are mapped one by one");

static uint64_t data_offset_for(uint32_t channel_count)
{
    uint64_t end = CONTROL_OFFSET + (uint64_t)channel_count * LAYOUT_CHANNEL_PAGE_BYTES;

    return (end + DATA_ALIGNMENT_BYTES - 1) & ~(uint64_t)(DATA_ALIGNMENT_BYTES - 1);
}

uint64_t region_size_min(uint32_t channel_count)
{
    return data_offset_for(channel_count) + (uint64_t)DATA_BLOCKS_MIN * LAYOUT_BLOCK_BYTES;
}

void region_write_header(const struct region *region)
{
    struct layout_region_header *header = (struct layout_region_header *)region->control;

    header->version = LAYOUT_VERSION;
    header->features = region->features;
    header->size_bytes = region->size_bytes;
    header->control_offset = region->control_offset;
    header->data_offset = region->data_offset;
    header->channel_count = region->channel_count;
    header->block_bytes = LAYOUT_BLOCK_BYTES;
    memcpy(header->zone_uuid, region->uuid, sizeof(header->zone_uuid));
    header->peers_offset = PEERS_OFFSET;
    header->peer_count = REGION_PEERS;
    header->magic = LAYOUT_MAGIC;
}

static int make_memfd(struct region *region, const char *name)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

    region->descriptor = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (region->descriptor < 0 || ftruncate(region->descriptor, (off_t)region->size_bytes) < 0 ||
        fcntl(region->descriptor, F_ADD_SEALS, seals) < 0)
        return -errno;
    void *control = mmap(NULL, region->data_offset, PROT_READ | PROT_WRITE, MAP_SHARED,
                         region->descriptor, 0);
    if (control == MAP_FAILED)
        return -errno;
    region->control = control;
    return region_make_present(region, 0, CONTROL_OFFSET);
}

int region_init(struct region *region, const char *name, uint64_t size_bytes,
                uint32_t channel_count, uint32_t features, const uint8_t uuid[16])
{
    *region = (struct region){
        .descriptor = -1,
        .size_bytes = size_bytes,
        .control_offset = CONTROL_OFFSET,
        .data_offset = data_offset_for(channel_count),
        .channel_count = channel_count,
        .features = features,
    };
    memcpy(region->uuid, uuid, sizeof(region->uuid));
    if (size_bytes == 0 || (size_bytes & (size_bytes - 1)) || size_bytes > INT64_MAX ||
        size_bytes < region_size_min(channel_count))
        return -EINVAL;
    region->data_bytes = size_bytes - region->data_offset;
    int r = make_memfd(region, name);
    if (r < 0) {
        region_deinit(region);
        return r;
    }
    region_write_header(region);
    return 0;
}

void region_deinit(struct region *region)
{
    if (region->control)
        munmap(region->control, region->data_offset);
    if (region->descriptor >= 0)
        close(region->descriptor);
    region->control = NULL;
    region->descriptor = -1;
}

struct layout_peer *region_peer(const struct region *region, uint32_t id)
{
    return (struct layout_peer *)(region->control + PEERS_OFFSET) + id;
}

uint64_t region_page_offset(const struct region *region, uint32_t slot)
{
    return region->control_offset + (uint64_t)slot * LAYOUT_CHANNEL_PAGE_BYTES;
}

struct layout_channel_page *region_page(const struct region *region, uint32_t slot)
{
    return (struct layout_channel_page *)(region->control + region_page_offset(region, slot));
}

int region_page_make(const struct region *region, uint32_t slot)
{
    int r = region_make_present(region, region_page_offset(region, slot),
                                LAYOUT_CHANNEL_PAGE_BYTES);

    /* Its last channel's data may be in it, and that one's ends may write still. Word by word:
     * another thread may look at the page on account of that channel. */
    if (r == 0) {
        uint64_t *words = (uint64_t *)region_page(region, slot);
        for (size_t i = 0; i < LAYOUT_CHANNEL_PAGE_BYTES / sizeof(*words); i++)
            order_store_plain(&words[i], 0);
    }
    return r;
}

void region_page_drop(const struct region *region, uint32_t slot)
{
    region_punch(region, region_page_offset(region, slot), LAYOUT_CHANNEL_PAGE_BYTES);
}

int region_make_present(const struct region *region, uint64_t offset, uint64_t bytes)
{
    int r;

    do
        r = fallocate(region->descriptor, 0, (off_t)offset, (off_t)bytes);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return errno == ENOSPC ? -ENOMEM : -errno;
    return 0;
}

void region_punch(const struct region *region, uint64_t offset, uint64_t bytes)
{
    int r;

    /* It cannot fail but for a signal; if it does, the host keeps memory that the next owner of the
     * blocks uses. */
    do
        r = fallocate(region->descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                      (off_t)bytes);
    while (r < 0 && errno == EINTR);
}

uint64_t region_resident_bytes(const struct region *region)
{
    struct stat status;

    return fstat(region->descriptor, &status) == 0 ? (uint64_t)status.st_blocks * 512u : 0;
}
