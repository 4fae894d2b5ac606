/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ring/memory.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#include "ring/layout.h"

/* What a neighbour who names a huge extent can make us spend at once is bounded by this. */
#define POPULATE_BYTES_MAX (16u << 20)

int ring_memory_check(const struct ring_memory *memory, uint64_t offset, uint64_t size)
{
    if (offset % LAYOUT_BLOCK_BYTES || size % LAYOUT_BLOCK_BYTES || size == 0)
        return -EPROTO;
    if (offset < memory->data_offset || offset > memory->size_bytes ||
        size > memory->size_bytes - offset)
        return -EPROTO;
    return 0;
}

int ring_memory_map(const struct ring_memory *memory, uint64_t offset, uint64_t size,
                    uint8_t **address)
{
    /*
     * Large extents are present already, thanks to the broker, but their page tables are filled as
     * they are touched.
     */
    const int flags = MAP_SHARED | MAP_FIXED | (size <= POPULATE_BYTES_MAX ? MAP_POPULATE : 0);
    off_t from = (off_t)(memory->descriptor_offset + offset);
    /* Reserves the room for both copies, so that nothing else can come to lie behind the first. */
    uint8_t *room =
        mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (room == MAP_FAILED)
        return -errno;
    if (mmap(room, size, PROT_READ | PROT_WRITE, flags, memory->descriptor, from) == MAP_FAILED ||
        mmap(room + size, size, PROT_READ | PROT_WRITE, flags, memory->descriptor, from) ==
            MAP_FAILED) {
        int error = errno;
        munmap(room, 2 * size);
        return -error;
    }
    *address = room;
    return 0;
}

void ring_memory_unmap(uint8_t *address, uint64_t size)
{
    if (address)
        munmap(address, 2 * size);
}

int ring_memory_map_page(const struct ring_memory *memory, uint64_t offset,
                         struct layout_channel_page **page)
{
    void *address;

    /* Page 0 is the region's header. */
    if (offset % LAYOUT_CHANNEL_PAGE_BYTES || offset < LAYOUT_CHANNEL_PAGE_BYTES ||
        offset > memory->data_offset - LAYOUT_CHANNEL_PAGE_BYTES)
        return -EPROTO;
    address =
        mmap(NULL, LAYOUT_CHANNEL_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
             memory->descriptor, (off_t)(memory->descriptor_offset + offset));
    if (address == MAP_FAILED)
        return -errno;
    *page = address;
    return 0;
}

void ring_memory_unmap_page(struct layout_channel_page *page)
{
    if (page)
        munmap(page, LAYOUT_CHANNEL_PAGE_BYTES);
}
