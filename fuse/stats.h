/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse/stats.h - the text of the stats files. Waits for the broker: for the asker thread.
 *
 * /stats and /<domain>/stats are a table with a heading, a line for each ring of the mount's
 * domain's channels (with that domain). /<domain>/<port>.stats has a line "key value" for each
 * figure of the one channel; keys of a ring begin with who sends in it: "server." or "client.".
 */
#ifndef VCHAN_FUSE_STATS_H
#define VCHAN_FUSE_STATS_H

#include <stddef.h>

#include "fuse/names.h"

struct mount;

struct stats_text {
    char *data;
    size_t size;
};

/* As of now. -ENOENT: a port that no channel has; -ECONNREFUSED no broker; other -errno. For
 * stats_free. */
int stats_new(const struct mount *mount, const struct name *name, struct stats_text **out);
void stats_free(struct stats_text *text);

#endif
