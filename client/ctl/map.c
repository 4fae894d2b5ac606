/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl/map.h"

#include <errno.h>
#include <stdlib.h>

#include "ring/layout.h"

static int compare_places(const void *a, const void *b)
{
    const struct proto_extent_info *x = a, *y = b;

    if (x->zone != y->zone)
        return x->zone < y->zone ? -1 : 1;
    if (x->offset_bytes != y->offset_bytes)
        return x->offset_bytes < y->offset_bytes ? -1 : 1;
    return (x->kind > y->kind) - (x->kind < y->kind);
}

size_t map_order(struct proto_extent_info *extents, size_t count, uint64_t data_bytes)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        struct proto_extent_info extent = extents[i];
        if (extent.offset_bytes >= data_bytes || extent.size_bytes == 0)
            continue;
        if (extent.size_bytes > data_bytes - extent.offset_bytes)
            extent.size_bytes = data_bytes - extent.offset_bytes;
        extents[kept++] = extent;
    }
    if (kept > 0)
        qsort(extents, kept, sizeof(*extents), compare_places);
    return kept;
}

struct map_zone map_zone(const struct proto_extent_info *extents, size_t count)
{
    struct map_zone zone = {.zone = extents[0].zone};

    for (; zone.count < count && extents[zone.count].zone == zone.zone; zone.count++) {
        const struct proto_extent_info *extent = &extents[zone.count];
        if (extent->offset_bytes + extent->size_bytes > zone.data_bytes)
            zone.data_bytes = extent->offset_bytes + extent->size_bytes;
        if (extent->kind != PROTO_EXTENT_FREE)
            continue;
        zone.free_bytes += extent->size_bytes;
        if (extent->size_bytes > zone.largest_free_bytes)
            zone.largest_free_bytes = extent->size_bytes;
    }
    return zone;
}

unsigned map_fragmentation_permille(const struct map_zone *zone)
{
    if (zone->free_bytes == 0)
        return 0;
    return 1000 - (unsigned)(1000.0 * (double)zone->largest_free_bytes / (double)zone->free_bytes);
}

struct map_scale map_scale(const struct proto_extent_info *extents, size_t count, size_t cells_max)
{
    struct map_scale scale = {.cell_bytes = LAYOUT_BLOCK_BYTES};
    uint64_t end = 0;

    for (size_t i = 0; i < count; i++)
        if (extents[i].kind != PROTO_EXTENT_FREE &&
            extents[i].offset_bytes + extents[i].size_bytes > end)
            end = extents[i].offset_bytes + extents[i].size_bytes;
    while (end / scale.cell_bytes + (end % scale.cell_bytes != 0) > cells_max &&
           scale.cell_bytes < 1ull << 62)
        scale.cell_bytes *= 2;
    scale.cell_count = (size_t)(end / scale.cell_bytes + (end % scale.cell_bytes != 0));
    return scale;
}

struct keyed {
    uint64_t key; /* of the ring */
    size_t index; /* of the extent */
};

static int compare_keyed(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

int map_letters(const struct proto_extent_info *extents, size_t count, uint32_t *letters)
{
    struct keyed *keyed = calloc(count + 1, sizeof(*keyed));
    uint32_t next = 0;
    size_t used = 0;

    if (!keyed)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        letters[i] = UINT32_MAX;
        if (extents[i].kind != PROTO_EXTENT_FREE)
            keyed[used++] = (struct keyed){(uint64_t)extents[i].channel << 32 | extents[i].ring, i};
    }
    if (used > 0)
        qsort(keyed, used, sizeof(*keyed), compare_keyed);
    /* First all extents of one ring point at its first one, ... */
    for (size_t i = 0, first = 0; i < used; i++) {
        if (i == 0 || keyed[i].key != keyed[i - 1].key)
            first = keyed[i].index;
        letters[keyed[i].index] = (uint32_t)first;
    }
    /* ... which then, in the order of the offsets, gets the number. */
    for (size_t i = 0; i < count; i++)
        if (letters[i] != UINT32_MAX)
            letters[i] = letters[i] == i ? next++ : letters[letters[i]];
    free(keyed);
    return 0;
}

char map_letter(uint32_t letter, uint32_t kind)
{
    return (char)((kind == PROTO_EXTENT_OLD ? 'a' : 'A') + (int)(letter % MAP_LETTERS));
}

void map_draw(const struct proto_extent_info *extents, size_t count, const uint32_t *letters,
              const struct map_scale *scale, struct map_cell *cells)
{
    for (size_t i = 0; i < scale->cell_count; i++)
        cells[i] = (struct map_cell){.character = MAP_FREE, .letter = UINT32_MAX};
    for (size_t i = 0; i < count; i++) {
        if (letters[i] == UINT32_MAX)
            continue;
        uint64_t first = extents[i].offset_bytes / scale->cell_bytes;
        uint64_t last = (extents[i].offset_bytes + extents[i].size_bytes - 1) / scale->cell_bytes;
        for (uint64_t c = first; c <= last && c < scale->cell_count; c++) {
            struct map_cell *cell = &cells[c];
            if (cell->character == MAP_FREE)
                *cell = (struct map_cell){map_letter(letters[i], extents[i].kind), letters[i]};
            else if (cell->letter != letters[i])
                *cell = (struct map_cell){MAP_SEVERAL, UINT32_MAX};
            else if (extents[i].kind == PROTO_EXTENT_RING)
                cell->character = map_letter(letters[i], PROTO_EXTENT_RING);
        }
    }
}
