/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse/options.h - the command line of vchanfs, as a shell or mount(8) gives it.
 */
#ifndef VCHAN_FUSE_OPTIONS_H
#define VCHAN_FUSE_OPTIONS_H

#include <stdbool.h>

struct options {
    char *mountpoint;  /* absolute */
    char *socket_path; /* absolute; NULL: the default */
    int domain;
    bool foreground;
    bool debug;         /* libfuse prints each request */
    bool for_all_users; /* -o allow_other */
    char *fuse_options; /* the rest of -o, comma-separated, for libfuse */
};

/* 0; or the program's exit code + 1, having said why (or having printed --help or --version). */
int options_parse(struct options *options, int argc, char **argv);
void options_free(struct options *options);

#endif
