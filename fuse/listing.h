/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse/listing.h - what the broker knows: which domains there are, and the contents of directories.
 * Waits for the broker: for the asker thread, and before the mount is there.
 */
#ifndef VCHAN_FUSE_LISTING_H
#define VCHAN_FUSE_LISTING_H

#include <fuse3/fuse_lowlevel.h>
#include <stddef.h>

#include "fuse/names.h"

struct mount;

struct listing_entry {
    struct name name;
    char text[NAMES_TEXT_BYTES];
};

/* A directory as it was when it was opened. */
struct listing {
    struct listing_entry *entries;
    size_t count, room;
};

/*
 * The domain that a name of the root directory means. -ENOENT; -ECONNREFUSED: no broker; other
 * -errno. A number that the broker does not list may be a domain of its range of local ones, so it
 * is asked for by itself.
 */
int listing_find_domain(const struct mount *mount, const char *text, struct name *out);

/*
 * The contents of the root (the mount's own domain, those that have a name, run or have a channel
 * with it) or of a domain's directory (the ports of its channels with the mount's domain). *out is
 * the caller's, for listing_free. -errno.
 */
int listing_new(const struct mount *mount, const struct name *directory, struct listing **out);
void listing_free(struct listing *listing);

/* Answers readdir from entry number `from` with what fits into size bytes. */
void listing_reply(const struct listing *listing, fuse_req_t req, size_t size, size_t from);

#endif
