/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vchanfs - the channels of one domain as files. See fuse/README.md.
 *
 * Exit codes: 0 unmounted, 1 could not mount or work, 2 wrong command line.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include "fuse/end.h"
#include "fuse/mount.h"
#include "fuse/operations.h"
#include "fuse/options.h"

/* of the kernel's fs/fuse/inode.c; older linux/magic.h lack it */
#define FUSE_SUPER_MAGIC 0x65735546

static bool complain(const char *what, const char *why)
{
    fprintf(stderr, "vchanfs: %s: %s\n", what, why);
    return false;
}

static bool check_device(void)
{
    if (access("/dev/fuse", F_OK) < 0)
        return complain("/dev/fuse",
                        "the kernel has no FUSE: try 'modprobe fuse'; a container needs the "
                        "device (--device /dev/fuse) and CAP_SYS_ADMIN");
    if (access("/dev/fuse", R_OK | W_OK) < 0)
        return complain("/dev/fuse", strerror(errno));
    return true;
}

static bool check_mountpoint(const char *path)
{
    struct stat status;
    struct statfs filesystem;

    if (stat(path, &status) < 0) {
        if (errno == ENOTCONN)
            fprintf(stderr,
                    "vchanfs: %s: a vchanfs (or other FUSE program) died without unmounting it: "
                    "first do 'umount -l %s' or 'fusermount3 -uz %s'\n",
                    path, path, path);
        else if (errno == ENOENT)
            fprintf(stderr, "vchanfs: %s: no such directory: make it first ('mkdir -p %s')\n", path,
                    path);
        else
            complain(path, strerror(errno));
        return false;
    }
    if (!S_ISDIR(status.st_mode))
        return complain(path, "not a directory");
    if (statfs(path, &filesystem) == 0 && filesystem.f_type == FUSE_SUPER_MAGIC
        && status.st_ino == FUSE_ROOT_ID)
        return complain(path, "a FUSE file system is mounted there already");
    return true;
}

/* In a guest only the broker knows which domain we are. */
static bool check_broker(struct vchan_options *options)
{
    int r = vchan_local_domain(options);

    if (r >= 0) {
        options->local_domain = r;
        return true;
    }
    const char *reason = vchan_explain();
    fprintf(stderr, "vchanfs: cannot talk to the broker%s%s as domain %d: %s%s%s%s\n",
            options->socket_path ? " at " : "", options->socket_path ? options->socket_path : "",
            options->local_domain, strerror(-r), *reason ? ": " : "", reason,
            r == -ENOENT || r == -ECONNREFUSED
                ? "; is vchand running, and with the same VCHAN_RUNTIME_DIR or --socket?"
                : "");
    return false;
}

/* Each open file is a channel end, with some descriptors of its own. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int start(struct mount *mount, const struct options *options)
{
    *mount = (struct mount){
        .options = {.local_domain = options->domain, .socket_path = options->socket_path},
        .for_all_users = options->for_all_users,
        .owner = getuid(),
        .group = getgid(),
        .loop = {.epoll_fd = -1, .signal_fd = -1},
    };
    clock_gettime(CLOCK_REALTIME, &mount->since);
    TAILQ_INIT(&mount->ends);
    TAILQ_INIT(&mount->dead_ends);
    TAILQ_INIT(&mount->interrupted);
    raise_descriptor_limit();
    signal(SIGPIPE, SIG_IGN);
    if (!check_device() || !check_mountpoint(options->mountpoint))
        return -1;
    return check_broker(&mount->options) ? 0 : -1;
}

/* The loop and the asker, until unmounted or told to end. */
static int serve(struct mount *mount)
{
    struct end *end;
    int r = loop_init(&mount->loop);

    if (r == 0)
        r = asker_init(&mount->asker, mount);
    if (r == 0) {
        r = loop_run(mount);
        asker_deinit(&mount->asker);
    }
    while ((end = TAILQ_FIRST(&mount->ends)))
        end_shut(end);
    ends_bury(mount);
    loop_deinit(&mount->loop);
    free(mount->copy);
    return r;
}

static int mount_and_serve(struct mount *mount, const struct options *options)
{
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    int r = -1;

    if (fuse_opt_add_arg(&args, "vchanfs") < 0 || fuse_opt_add_arg(&args, "-o") < 0
        || fuse_opt_add_arg(&args, options->fuse_options) < 0
        || (options->debug && fuse_opt_add_arg(&args, "-d") < 0))
        return -1;
    mount->session = fuse_session_new(&args, &operations, sizeof(operations), mount);
    if (mount->session && fuse_session_mount(mount->session, options->mountpoint) == 0) {
        r = fuse_daemonize(options->foreground);
        if (r == 0)
            r = serve(mount);
        if (r < 0 && r != -1)
            complain("cannot go on", strerror(-r));
        fuse_session_unmount(mount->session);
    }
    if (mount->session)
        fuse_session_destroy(mount->session);
    fuse_opt_free_args(&args);
    return r;
}

int main(int argc, char **argv)
{
    struct options options;
    struct mount mount;
    int r = options_parse(&options, argc, argv);

    if (r != 0)
        return r - 1;
    r = start(&mount, &options);
    if (r == 0)
        r = mount_and_serve(&mount, &options);
    options_free(&options);
    return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
