/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/compaction.h - which rings to move so that an extent fits into a fragmented region.
 *
 * allocator/plan.h finds the cheapest moves; here it is said which rings may be moved, and the
 * extents get their names back. Event loop only.
 */
#ifndef VCHAN_BROKER_COMPACTION_H
#define VCHAN_BROKER_COMPACTION_H

#include <stddef.h>
#include <stdint.h>

#include "broker/channel.h"
#include "broker/zone.h"

#define COMPACTION_STEPS_MAX 64u

/* This ring goes to that offset of the region, with the size it has. */
struct compaction_step {
    struct channel *channel;
    unsigned ring;
    uint64_t bytes;
    uint64_t to_offset;
};

/*
 * How many steps make room for so many bytes in one run; 0: none are needed, or none would do. The
 * steps may be taken in any order, but before anything else is taken from the zone or given to it.
 */
size_t compaction_plan(const struct channels *channels, const struct zone *zone, uint64_t bytes,
                       struct compaction_step steps[COMPACTION_STEPS_MAX]);

#endif
