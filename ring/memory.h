/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring/memory.h - how an end maps its parts of a region.
 *
 * An extent is mapped twice in a row, so that any run of bytes in it, the one over its end
 * included, is contiguous in memory. Only the channel page and the current extents are mapped,
 * never the whole region.
 */
#ifndef VCHAN_RING_MEMORY_H
#define VCHAN_RING_MEMORY_H

#include <stdint.h>

/*
 * Where the region can be mapped from. The descriptor is borrowed: it stays open while this is in
 * use.
 */
struct ring_memory {
    int descriptor;             /* the memfd, or a VFIO device */
    uint64_t descriptor_offset; /* of the region in it: 0, or where BAR2 lies */
    uint64_t size_bytes;        /* of the region */
    uint64_t data_offset;       /* first byte of the data section */
};

/*
 * Is (offset, size) a run of whole blocks inside the data section? Values may come from shared
 * memory.
 */
int ring_memory_check(const struct ring_memory *memory, uint64_t offset, uint64_t size);

/*
 * Maps a checked extent twice in a row, populated up to 16 MiB (no faults later). 0, or -errno of
 * mmap (-ENOMEM). Unmap with ring_memory_unmap, which takes a NULL address too.
 */
int ring_memory_map(const struct ring_memory *memory, uint64_t offset, uint64_t size,
                    uint8_t **address);
void ring_memory_unmap(uint8_t *address, uint64_t size);

/* Maps a channel page once. */
struct layout_channel_page;
int ring_memory_map_page(const struct ring_memory *memory, uint64_t offset,
                         struct layout_channel_page **page);
void ring_memory_unmap_page(struct layout_channel_page *page);

#endif
