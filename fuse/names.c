/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/names.h"

#include <limits.h>
#include <string.h>

#define INODE_ROOT 1u /* FUSE_ROOT_ID */
#define KIND_SHIFT 61
#define VARIANT_SHIFT 46
#define DOMAIN_SHIFT 31
#define DOMAIN_MASK 0x7fffu
#define PORT_MASK 0x7fffffffu

uint64_t name_to_inode(const struct name *name)
{
    if (name->kind == NAME_ROOT)
        return INODE_ROOT;
    return (uint64_t)name->kind << KIND_SHIFT
           | (uint64_t)(name->variant & NAMES_VARIANT_MASK) << VARIANT_SHIFT
           | (uint64_t)((unsigned)name->domain & DOMAIN_MASK) << DOMAIN_SHIFT
           | ((unsigned)name->port & PORT_MASK);
}

bool name_from_inode(uint64_t inode, struct name *out)
{
    *out = (struct name){.kind = (enum name_kind)(inode >> KIND_SHIFT)};
    if (inode == INODE_ROOT)
        return true;
    if (out->kind == NAME_ROOT || out->kind > NAME_PORT_STATS)
        return false;
    out->variant = (unsigned)(inode >> VARIANT_SHIFT) & NAMES_VARIANT_MASK;
    out->domain = (int)(inode >> DOMAIN_SHIFT & DOMAIN_MASK);
    out->port = (int)(inode & PORT_MASK);
    return true;
}

/* The number that the first `length` bytes of text are. */
static bool parse_number(const char *text, size_t length, int max, int *out)
{
    long long value = 0;

    if (length == 0 || length > 10 || (length > 1 && text[0] == '0'))
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (text[i] - '0');
    }
    if (value > max)
        return false;
    *out = (int)value;
    return true;
}

bool name_parse_domain(const char *text, int *domain)
{
    return parse_number(text, strlen(text), NAMES_DOMAIN_MAX, domain);
}

bool name_parse_port(const char *text, int *port)
{
    return parse_number(text, strlen(text), INT_MAX, port);
}

bool name_parse_in_domain(int domain, const char *text, struct name *out)
{
    const char *dot = strchr(text, '.');

    *out = (struct name){.kind = NAME_DOMAIN_STATS, .domain = domain};
    if (strcmp(text, NAMES_STATS) == 0)
        return true;
    out->kind = dot ? NAME_PORT_STATS : NAME_PORT;
    if (dot && strcmp(dot + 1, NAMES_STATS) != 0)
        return false;
    return parse_number(text, dot ? (size_t)(dot - text) : strlen(text), INT_MAX, &out->port);
}

bool name_is_usable(const char *domain_name)
{
    size_t length = strlen(domain_name);

    return length > 0 && length < NAMES_TEXT_BYTES && !strchr(domain_name, '/')
           && domain_name[0] != '.' && strspn(domain_name, "0123456789") != length
           && strcmp(domain_name, NAMES_STATS) != 0;
}

void name_attributes(const struct name *name, bool for_all_users, struct stat *out)
{
    bool directory = name->kind == NAME_ROOT || name->kind == NAME_DOMAIN;

    *out = (struct stat){
        .st_ino = name_to_inode(name), .st_nlink = directory ? 2 : 1, .st_blksize = 65536};
    if (directory)
        out->st_mode = S_IFDIR | 0555u;
    else if (name->kind == NAME_PORT)
        out->st_mode = S_IFREG | 0666u;
    else
        out->st_mode = S_IFREG | 0444u;
    if (!for_all_users)
        out->st_mode &= S_IFMT | S_IRWXU;
}
