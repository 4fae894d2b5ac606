/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse/file.h - what the kernel asks of /<domain>/<port>. Each call answers req, now or later.
 *
 * A port is a byte stream that looks like a regular file of size 0, because the kernel would keep a
 * FIFO or a device node to itself. It is opened as a stream (FOPEN_STREAM): no position, lseek and
 * pread give ESPIPE, and a read that is blocked in one thread does not hold up a write of the same
 * open file in another. Opening:
 *
 *                    nobody is there yet                    somebody is
 *     blocking       serves, waits; Ctrl-C: EINTR           connects
 *     O_NONBLOCK
 *       O_RDONLY     serves; reads give EAGAIN              connects
 *       O_WRONLY     ENXIO                                  connects
 *       O_RDWR       serves; both directions give EAGAIN    connects
 *
 * EBUSY: this mount has the name open in that direction. EADDRINUSE: another program serves the
 * port.
 *
 * Blocking reads wait for one byte and give what there is; blocking writes write everything, unless
 * the peer goes or a signal comes: then they tell how much was written, if anything was.
 */
#ifndef VCHAN_FUSE_FILE_H
#define VCHAN_FUSE_FILE_H

#include <fuse3/fuse_lowlevel.h>

#include "fuse/names.h"

struct mount;

/* The most that one request of the kernel transfers. */
#define FILE_REQUEST_BYTES_MAX (1024u * 1024u)

void file_open(struct mount *mount, fuse_req_t req, const struct name *name,
               const struct fuse_file_info *info);
void file_read(fuse_req_t req, const struct fuse_file_info *info, size_t size);
void file_write(fuse_req_t req, const struct fuse_file_info *info, const char *data, size_t size);
void file_poll(fuse_req_t req, const struct fuse_file_info *info, struct fuse_pollhandle *handle);
void file_release(fuse_req_t req, const struct fuse_file_info *info);

/* Answers the requests that mount.interrupted holds. */
void file_answer_interrupted(struct mount *mount);

#endif
