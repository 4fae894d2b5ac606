/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ring/end.h"

#include <errno.h>
#include <stddef.h>

int end_look_up(const struct layout_ring *shared, const struct ring_memory *memory,
                uint64_t generation, uint64_t base, struct ring_view *view, uint64_t *offset)
{
    const struct layout_extent *slot = &shared->geometry.extent[generation & 1];
    uint64_t offset_untrusted = order_load_plain(&slot->offset);
    uint64_t size_untrusted = order_load_plain(&slot->size);

    if (order_load_plain(&slot->generation) != generation ||
        ring_memory_check(memory, offset_untrusted, size_untrusted) < 0)
        return -EPROTO;
    *view = (struct ring_view){.generation = generation, .base = base, .size = size_untrusted};
    *offset = offset_untrusted;
    return 0;
}

int end_map(const struct layout_ring *shared, const struct ring_memory *memory,
            struct ring_view *view)
{
    struct ring_view fresh;
    uint64_t offset;
    int r = end_look_up(shared, memory, view->generation, view->base, &fresh, &offset);

    if (r < 0)
        return r;
    /* What was decided on the size that was looked up before must still hold. */
    if (view->size && fresh.size != view->size)
        return -EPROTO;
    r = ring_memory_map(memory, offset, fresh.size, &fresh.address);
    if (r < 0)
        return r;
    *view = fresh;
    return 0;
}

void end_unmap(struct ring_view *view)
{
    ring_memory_unmap(view->address, view->size);
    *view = (struct ring_view){0};
}
