/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/region.h - one sealed memfd: header, channel pages, data section.
 *
 * The broker maps the control section only. What lies in the data section is none of its business;
 * it makes blocks present before somebody gets them and gives them back to the host afterwards. The
 * event loop's, but for region_page: the mapping stays until the region is freed, so readers may
 * look at pages at any time.
 */
#ifndef VCHAN_BROKER_REGION_H
#define VCHAN_BROKER_REGION_H

#include <stdint.h>

#include "ring/layout.h"

/* Entries of the table of peers: the host and so many guests less one. */
#define REGION_PEERS 64u

struct region {
    int descriptor; /* the memfd */
    uint64_t size_bytes;
    uint64_t control_offset;
    uint64_t data_offset;
    uint64_t data_bytes;
    uint32_t channel_count;
    uint32_t features; /* LAYOUT_FEATURE_* */
    uint8_t uuid[16];  /* tells regions apart: of the zone */
    uint8_t *control;  /* header and pages, mapped */
};

/* The least size that has room for the pages and a few blocks. */
uint64_t region_size_min(uint32_t channel_count);

/*
 * Makes it. size_bytes: a power of two. -EINVAL: it is not, or is less than region_size_min. Else
 * the errno of memfd_create, ftruncate, mmap.
 */
int region_init(struct region *region, const char *name, uint64_t size_bytes,
                uint32_t channel_count, uint32_t features, const uint8_t uuid[16]);
void region_deinit(struct region *region);

/* Writes page 0, the same bytes each time. */
void region_write_header(const struct region *region);

/* id: 0 to REGION_PEERS - 1. */
struct layout_peer *region_peer(const struct region *region, uint32_t id);

/* slot: 0 to channel_count - 1. */
struct layout_channel_page *region_page(const struct region *region, uint32_t slot);
uint64_t region_page_offset(const struct region *region, uint32_t slot);

/* Zeroes a page for a new channel, and makes it present (-ENOMEM: the host is full); gives its
 * memory back to the host. */
int region_page_make(const struct region *region, uint32_t slot);
void region_page_drop(const struct region *region, uint32_t slot);

/* Makes a run present: 0, or -ENOMEM when the host is full. Gives it back to the host: what was in
 * it is gone. */
int region_make_present(const struct region *region, uint64_t offset, uint64_t bytes);
void region_punch(const struct region *region, uint64_t offset, uint64_t bytes);

/* Bytes of the memfd that the host's memory holds. */
uint64_t region_resident_bytes(const struct region *region);

#endif
