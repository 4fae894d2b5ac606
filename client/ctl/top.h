/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/top.h - the two ways in which vchanctl top shows its samples.
 */
#ifndef VCHAN_CLIENT_CTL_TOP_H
#define VCHAN_CLIENT_CTL_TOP_H

#include <stdbool.h>
#include <stdint.h>

#include "client/ctl/ctl.h"
#include "client/ctl/top_rows.h"

struct top_options {
    enum top_key key;
    uint32_t domain; /* PROTO_ANY: all */
    unsigned interval_ms;
    uint64_t count; /* samples, then it ends; 0: no end */
    uint64_t lines; /* plain: at most so many rings; 0: all */
    const char *socket_path;
};

/* Prints sample after sample. An exit code. */
int top_plain(struct ctl *ctl, const struct top_options *options);

/*
 * Takes the terminal over, until q. An exit code, or -ENOTSUP: the terminal can not do it, and
 * nothing has been done.
 */
int top_screen(struct ctl *ctl, const struct top_options *options);

#endif
