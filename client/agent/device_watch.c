/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/device_watch.h"

#include <errno.h>
#include <libudev.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SUBSYSTEM "pci"
#define MESSAGES_A_TURN 64
#define BUFFER_BYTES (1 << 20)

struct device_watch {
    struct udev *udev;
    struct udev_monitor *monitor;
    device_watch_handler *handler;
    void *context;
};

int device_watch_new(device_watch_handler *handler, void *context, struct device_watch **out)
{
    struct device_watch *watch = calloc(1, sizeof(*watch));
    int r = -ENOMEM;

    if (!watch)
        return r;
    watch->handler = handler;
    watch->context = context;
    watch->udev = udev_new();
    if (watch->udev)
        watch->monitor = udev_monitor_new_from_netlink(watch->udev, "kernel");
    if (watch->monitor) {
        (void)udev_monitor_set_receive_buffer_size(watch->monitor, BUFFER_BYTES);
        r = udev_monitor_filter_add_match_subsystem_devtype(watch->monitor, SUBSYSTEM, NULL);
        if (r >= 0)
            r = udev_monitor_enable_receiving(watch->monitor);
    }
    if (r < 0) {
        device_watch_free(watch);
        return r;
    }
    *out = watch;
    return 0;
}

void device_watch_free(struct device_watch *watch)
{
    if (!watch)
        return;
    if (watch->monitor)
        udev_monitor_unref(watch->monitor);
    if (watch->udev)
        udev_unref(watch->udev);
    free(watch);
}

int device_watch_fd(const struct device_watch *watch)
{
    return udev_monitor_get_fd(watch->monitor);
}

/* As the kernel says it in its messages; the files of one that is gone are gone too. */
static bool is_ivshmem(struct udev_device *device)
{
    const char *id = udev_device_get_property_value(device, "PCI_ID");

    return id && strcasecmp(id, DEVICE_WATCH_VENDOR ":" DEVICE_WATCH_DEVICE) == 0;
}

static void take(struct device_watch *watch, struct udev_device *device)
{
    const char *action = udev_device_get_action(device);
    const char *address = udev_device_get_sysname(device);

    if (!action || !address || !is_ivshmem(device))
        return;
    if (strcmp(action, "add") == 0 || strcmp(action, "bind") == 0)
        watch->handler(watch->context, address, true);
    else if (strcmp(action, "remove") == 0)
        watch->handler(watch->context, address, false);
}

void device_watch_read(struct device_watch *watch)
{
    for (int i = 0; i < MESSAGES_A_TURN; i++) {
        errno = 0;
        struct udev_device *device = udev_monitor_receive_device(watch->monitor);
        if (device) {
            take(watch, device);
            udev_device_unref(device);
        } else if (errno == ENOBUFS) {
            (void)device_watch_enumerate(watch);
        } else if (errno == EAGAIN || errno == 0) {
            return; /* none is left, or one that the filter dropped: then we are called again */
        }
    }
}

int device_watch_enumerate(struct device_watch *watch)
{
    struct udev_enumerate *enumerate = udev_enumerate_new(watch->udev);
    struct udev_list_entry *entry;

    if (!enumerate)
        return -ENOMEM;
    int r = udev_enumerate_add_match_subsystem(enumerate, SUBSYSTEM);
    if (r >= 0)
        r = udev_enumerate_add_match_sysattr(enumerate, "vendor", "0x" DEVICE_WATCH_VENDOR);
    if (r >= 0)
        r = udev_enumerate_add_match_sysattr(enumerate, "device", "0x" DEVICE_WATCH_DEVICE);
    if (r >= 0)
        r = udev_enumerate_scan_devices(enumerate);
    if (r >= 0)
        udev_list_entry_foreach(entry, udev_enumerate_get_list_entry(enumerate))
        {
            const char *name = strrchr(udev_list_entry_get_name(entry), '/');
            if (name)
                watch->handler(watch->context, name + 1, true);
        }
    udev_enumerate_unref(enumerate);
    return r < 0 ? r : 0;
}
