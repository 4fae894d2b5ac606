/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse/names.h - the tree: what a path names, and its inode number.
 *
 *     /                      NAME_ROOT
 *     /stats                 NAME_ALL_STATS
 *     /<domain>/             NAME_DOMAIN        by number, or by the name the broker knows
 *     /<domain>/stats        NAME_DOMAIN_STATS
 *     /<domain>/<port>       NAME_PORT
 *     /<domain>/<port>.stats NAME_PORT_STATS
 *
 * An inode number says all of it, so that there is no table of inodes, nothing to count and nothing
 * to forget:
 *
 *     63  61 60            46 45           31 30                                 0
 *     | kind | variant        | domain       | port                              |
 *
 * The variant tells inodes apart that name the same thing. A directory has 1 when it is reached by
 * name: the kernel gives a directory inode one place only. A port of the mount's own domain has a
 * running number, so that each opening has an inode of its own: the kernel lets one write at a time
 * into an inode, and there both ends write in one mount.
 */
#ifndef VCHAN_FUSE_NAMES_H
#define VCHAN_FUSE_NAMES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#define NAMES_DOMAIN_MAX 0x7fef
#define NAMES_VARIANT_MASK 0x7fffu
#define NAMES_STATS "stats"
#define NAMES_TEXT_BYTES 80 /* any name of the tree, with its NUL */

enum name_kind {
    NAME_ROOT,
    NAME_ALL_STATS,
    NAME_DOMAIN,
    NAME_DOMAIN_STATS,
    NAME_PORT,
    NAME_PORT_STATS,
};

struct name {
    enum name_kind kind;
    int domain;
    int port;
    unsigned variant;
};

uint64_t name_to_inode(const struct name *name);

/* False: no such inode was ever given out. */
bool name_from_inode(uint64_t inode, struct name *out);

/* A domain's or a port's number as it is written canonically: decimal digits, no sign, no leading
 * zero. */
bool name_parse_domain(const char *text, int *domain);
bool name_parse_port(const char *text, int *port);

/* What a name in a domain's directory means: a port, its statistics, or the domain's. False:
 * nothing. */
bool name_parse_in_domain(int domain, const char *text, struct name *out);

/* Can a domain be listed by this name? Not if it is empty, cannot be in a path, or means something
 * else already. */
bool name_is_usable(const char *domain_name);

/* mode, size and links; the caller adds owner and times. */
void name_attributes(const struct name *name, bool for_all_users, struct stat *out);

#endif
