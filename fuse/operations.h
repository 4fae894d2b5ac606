/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse/operations.h - the kernel's requests, sorted by what they are about. The session's user data
 * is the struct mount.
 */
#ifndef VCHAN_FUSE_OPERATIONS_H
#define VCHAN_FUSE_OPERATIONS_H

#include <fuse3/fuse_lowlevel.h>

#include "fuse/names.h"

struct mount;

extern const struct fuse_lowlevel_ops operations;

/* Answers a look-up: there is such a name. */
void operations_reply_entry(const struct mount *mount, fuse_req_t req, const struct name *name);

#endif
