/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/map.h - the data section of a zone as a strip of characters.
 *
 *   AAAAAAAABBccccCCCCCCCC#..........DDDD.....
 *
 * Each character (cell) stands for the same number of bytes. A ring has a letter, in capitals; the
 * extent of an old generation has the letter in lower case; '#' is a cell with several rings, '.'
 * is free. A cell that is used at all never looks free. Pure functions.
 */
#ifndef VCHAN_CLIENT_CTL_MAP_H
#define VCHAN_CLIENT_CTL_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "proto/proto.h"

#define MAP_FREE '.'
#define MAP_SEVERAL '#'
#define MAP_LETTERS 26u

/* What the strip shows: cell_count cells of cell_bytes from the start of the data section. */
struct map_scale {
    uint64_t cell_bytes; /* a power of two, at least a block */
    size_t cell_count;   /* up to the end of the last extent in use */
};

/* Sorts by zone and offset. No zone has more than data_bytes: of an extent beyond that, what lies
 * before stays. Returns how many are left. */
size_t map_order(struct proto_extent_info *extents, size_t count, uint64_t data_bytes);

/* A zone, as its extents tell: the list has the free ones too. */
struct map_zone {
    uint32_t zone;
    size_t count; /* extents */
    uint64_t data_bytes;
    uint64_t free_bytes;
    uint64_t largest_free_bytes;
};

/* The zone of the first extent. extents, at least one, as map_order left them; all functions below
 * take those of one zone. */
struct map_zone map_zone(const struct proto_extent_info *extents, size_t count);

/* The part of the free memory outside its largest run, rounded up; 0: there is one run or none. */
unsigned map_fragmentation_permille(const struct map_zone *zone);

/* The smallest cells with which everything in use fits into cells_max. */
struct map_scale map_scale(const struct proto_extent_info *extents, size_t count, size_t cells_max);

/*
 * Gives each ring its number, in the order of its first extent: letters[i] of extents[i]. Free
 * extents get UINT32_MAX. -ENOMEM.
 */
int map_letters(const struct proto_extent_info *extents, size_t count, uint32_t *letters);

/* 'A' to 'Z' and again; in lower case for an old extent. */
char map_letter(uint32_t letter, uint32_t kind);

/* One cell of the strip. */
struct map_cell {
    char character;
    uint32_t letter; /* of its ring, for colours; UINT32_MAX: none or several */
};

/* Fills scale->cell_count cells. */
void map_draw(const struct proto_extent_info *extents, size_t count, const uint32_t *letters,
              const struct map_scale *scale, struct map_cell *cells);

#endif
