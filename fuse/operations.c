/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/operations.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

#include "fuse/file.h"
#include "fuse/listing.h"
#include "fuse/mount.h"
#include "fuse/stats.h"

/* How long the kernel may believe what it was told, in seconds. */
#define ENTRY_SECONDS 1.0
#define ATTRIBUTE_SECONDS 1.0

static struct mount *mount_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

/* Answers ENOENT itself when there is no such inode. */
static bool name_of(fuse_req_t req, fuse_ino_t inode, struct name *name)
{
    if (name_from_inode(inode, name))
        return true;
    fuse_reply_err(req, ENOENT);
    return false;
}

static void attributes_of(const struct mount *mount, const struct name *name, struct stat *out)
{
    name_attributes(name, mount->for_all_users, out);
    out->st_uid = mount->owner;
    out->st_gid = mount->group;
    out->st_atim = out->st_mtim = out->st_ctim = mount->since;
}

void operations_reply_entry(const struct mount *mount, fuse_req_t req, const struct name *name)
{
    struct fuse_entry_param entry = {.ino = name_to_inode(name),
                                     .attr_timeout = ATTRIBUTE_SECONDS,
                                     .entry_timeout = ENTRY_SECONDS};

    if (name->kind == NAME_PORT && name->domain == mount->options.local_domain)
        entry.entry_timeout = 0; /* the next opening gets another inode */
    attributes_of(mount, name, &entry.attr);
    fuse_reply_entry(req, &entry);
}

static void on_init(void *context, struct fuse_conn_info *connection)
{
    (void)context;
    connection->max_write = FILE_REQUEST_BYTES_MAX;
    connection->max_readahead = 0;
    /* Data is copied from the buffer into a ring, not from a pipe. */
    connection->want &= ~(unsigned)FUSE_CAP_SPLICE_READ;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *text)
{
    struct mount *mount = mount_of(req);
    struct name directory, name;

    if (!name_of(req, parent, &directory))
        return;
    if (directory.kind == NAME_ROOT && strcmp(text, NAMES_STATS) != 0) {
        asker_find_domain(&mount->asker, req, text);
        return;
    }
    if (directory.kind == NAME_ROOT) {
        name = (struct name){.kind = NAME_ALL_STATS};
    } else if (!name_parse_in_domain(directory.domain, text, &name)) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    if (name.kind == NAME_PORT_STATS) {
        asker_find_stats(&mount->asker, req, &name);
        return;
    }
    if (name.kind == NAME_PORT && name.domain == mount->options.local_domain)
        name.variant = ++mount->last_variant & NAMES_VARIANT_MASK;
    operations_reply_entry(mount, req, &name);
}

static void on_getattr(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info)
{
    struct name name;
    struct stat attributes;

    (void)info;
    if (!name_of(req, inode, &name))
        return;
    attributes_of(mount_of(req), &name, &attributes);
    fuse_reply_attr(req, &attributes, ATTRIBUTE_SECONDS);
}

/* Truncation and times say nothing about a stream, and programs that write files set them: accepted
 * and ignored. */
static void on_setattr(fuse_req_t req, fuse_ino_t inode, struct stat *wanted, int which,
                       struct fuse_file_info *info)
{
    (void)wanted;
    if (which & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
        fuse_reply_err(req, EPERM);
    else
        on_getattr(req, inode, info);
}

static void on_open(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info)
{
    struct mount *mount = mount_of(req);
    struct name name;

    if (!name_of(req, inode, &name))
        return;
    if (name.kind == NAME_PORT)
        file_open(mount, req, &name, info);
    else if ((info->flags & O_ACCMODE) != O_RDONLY)
        fuse_reply_err(req, EACCES);
    else
        asker_open(&mount->asker, req, &name, info);
}

static void on_read(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
                    struct fuse_file_info *info)
{
    struct name name;

    if (!name_of(req, inode, &name))
        return;
    if (name.kind == NAME_PORT) {
        file_read(req, info, size);
        return;
    }
    const struct stats_text *text = (const struct stats_text *)(uintptr_t)info->fh;
    size_t from = (size_t)offset < text->size ? (size_t)offset : text->size;
    size_t n = text->size - from < size ? text->size - from : size;
    fuse_reply_buf(req, text->data + from, n);
}

static void on_write(fuse_req_t req, fuse_ino_t inode, const char *data, size_t size, off_t offset,
                     struct fuse_file_info *info)
{
    (void)inode; /* only ports can be open for writing */
    (void)offset;
    file_write(req, info, data, size);
}

static void on_poll(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info,
                    struct fuse_pollhandle *handle)
{
    struct name name;

    if (!name_from_inode(inode, &name) || name.kind != NAME_PORT) {
        if (handle)
            fuse_pollhandle_destroy(handle);
        fuse_reply_poll(req, info->poll_events & (unsigned)(POLLIN | POLLRDNORM));
        return;
    }
    file_poll(req, info, handle);
}

static void on_release(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info)
{
    struct name name;

    if (!name_of(req, inode, &name))
        return;
    if (name.kind == NAME_PORT) {
        file_release(req, info);
        return;
    }
    stats_free((struct stats_text *)(uintptr_t)info->fh);
    fuse_reply_err(req, 0);
}

static void on_fsync(fuse_req_t req, fuse_ino_t inode, int data_only, struct fuse_file_info *info)
{
    (void)inode;
    (void)data_only;
    (void)info;
    fuse_reply_err(req, 0); /* what was written is in the ring */
}

static void on_opendir(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info)
{
    struct mount *mount = mount_of(req);
    struct name name;

    if (name_of(req, inode, &name))
        asker_open(&mount->asker, req, &name, info);
}

static void on_readdir(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
                       struct fuse_file_info *info)
{
    (void)inode;
    listing_reply((const struct listing *)(uintptr_t)info->fh, req, size, (size_t)offset);
}

static void on_releasedir(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info)
{
    (void)inode;
    listing_free((struct listing *)(uintptr_t)info->fh);
    fuse_reply_err(req, 0);
}

/* The tree is what the broker says; nobody makes, moves or removes names in it. */
static void on_create(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode,
                      struct fuse_file_info *info)
{
    (void)parent;
    (void)text;
    (void)mode;
    (void)info;
    fuse_reply_err(req, EPERM);
}

static void on_mknod(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode, dev_t device)
{
    (void)device;
    on_create(req, parent, text, mode, NULL);
}

static void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode)
{
    on_create(req, parent, text, mode, NULL);
}

static void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *text)
{
    on_create(req, parent, text, 0, NULL);
}

static void on_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *text)
{
    (void)target;
    on_create(req, parent, text, 0, NULL);
}

static void on_rename(fuse_req_t req, fuse_ino_t parent, const char *text, fuse_ino_t new_parent,
                      const char *new_text, unsigned flags)
{
    (void)new_parent;
    (void)new_text;
    (void)flags;
    on_create(req, parent, text, 0, NULL);
}

static void on_link(fuse_req_t req, fuse_ino_t inode, fuse_ino_t parent, const char *text)
{
    (void)inode;
    on_create(req, parent, text, 0, NULL);
}

const struct fuse_lowlevel_ops operations = {
    .init = on_init,
    .lookup = on_lookup,
    .getattr = on_getattr,
    .setattr = on_setattr,
    .open = on_open,
    .read = on_read,
    .write = on_write,
    .poll = on_poll,
    .release = on_release,
    .fsync = on_fsync,
    .opendir = on_opendir,
    .readdir = on_readdir,
    .releasedir = on_releasedir,
    .create = on_create,
    .mknod = on_mknod,
    .mkdir = on_mkdir,
    .unlink = on_unlink,
    .rmdir = on_unlink,
    .symlink = on_symlink,
    .rename = on_rename,
    .link = on_link,
};
