/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/agent/device.h"

#define BUS "/sys/bus/pci"
#define PATH_BYTES 256

static void path_of(const struct device *device, const char *file, char *path)
{
    snprintf(path, PATH_BYTES, BUS "/devices/%s/%s", device->address, file);
}

int sysfs_link(const struct device *device, const char *link, char *name, size_t name_bytes)
{
    char path[PATH_BYTES], target[PATH_BYTES];

    path_of(device, link, path);
    ssize_t n = readlink(path, target, sizeof(target) - 1);
    if (n < 0)
        return -errno;
    target[n] = '\0';
    const char *last = strrchr(target, '/');
    int written = snprintf(name, name_bytes, "%s", last ? last + 1 : target);
    return written < 0 || (size_t)written >= name_bytes ? -ENAMETOOLONG : 0;
}

static int write_word(const char *path, const char *word)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    int r = write(fd, word, strlen(word)) < 0 ? -errno : 0;
    close(fd);
    return r;
}

int sysfs_write(const struct device *device, const char *file, const char *word)
{
    char path[PATH_BYTES];

    path_of(device, file, path);
    return write_word(path, word);
}

int sysfs_write_bus(const char *file, const char *word)
{
    char path[PATH_BYTES];

    snprintf(path, sizeof(path), BUS "/%s", file);
    return write_word(path, word);
}

static int open_resource(struct device *device, const char *file, int *fd, uint64_t *bytes)
{
    char path[PATH_BYTES];
    struct stat status;

    path_of(device, file, path);
    *fd = open(path, O_RDWR | O_CLOEXEC);
    if (*fd < 0 || fstat(*fd, &status) < 0)
        return device_explain(device, -errno, "cannot open %s: %s", path, strerror(errno));
    *bytes = (uint64_t)status.st_size;
    return 0;
}

static void close_files(struct device *device)
{
    if (device->memory_fd >= 0)
        close(device->memory_fd);
    if (device->register_fd >= 0)
        close(device->register_fd);
}

/* By the firmware, perhaps. */
static bool is_enabled(const struct device *device)
{
    char path[PATH_BYTES];
    uint16_t command = 0;

    path_of(device, "config", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = pread(fd, &command, sizeof(command), PCI_COMMAND);
    close(fd);
    return n == sizeof(command) && (command & PCI_COMMAND_MEMORY);
}

static const struct device_backend backend = {.name = "sysfs", .close = close_files};

int sysfs_open(struct device *device)
{
    uint64_t register_bytes;
    char driver[64];

    device->backend = &backend;
    if (sysfs_link(device, "driver", driver, sizeof(driver)) == 0)
        return device_explain(device, -EBUSY, "the driver %s has it", driver);
    int r = sysfs_write(device, "enable", "1"); /* its BARs, that is */
    if (r < 0 && !is_enabled(device))
        return device_explain(device, r, "cannot enable it: %s%s", strerror(-r),
                              r == -EPERM ? " (it takes CAP_SYS_ADMIN, see vchan-agent(8))" : "");
    r = open_resource(device, "resource2", &device->memory_fd, &device->memory_bytes);
    if (r == 0)
        r = open_resource(device, "resource0", &device->register_fd, &register_bytes);
    return r;
}
