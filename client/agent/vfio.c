/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/vfio.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/agent/device.h"
#include "client/agent/sysfs.h"

#define DRIVER "vfio-pci"

struct vfio {
    int container, group, device;
};

static int set_events(const struct vfio *vfio, uint32_t index, uint32_t start, const int *events,
                      uint32_t count)
{
    _Alignas(struct vfio_irq_set)
        uint8_t request[sizeof(struct vfio_irq_set) + DEVICE_VECTORS_MAX * sizeof(int32_t)];
    const struct vfio_irq_set set = {
        .argsz = (uint32_t)(sizeof(set) + count * sizeof(int32_t)),
        .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
        .index = index,
        .start = start,
        .count = count,
    };

    memcpy(request, &set, sizeof(set));
    memcpy(request + sizeof(set), events, count * sizeof(int32_t));
    return ioctl(vfio->device, VFIO_DEVICE_SET_IRQS, request) < 0 ? -errno : 0;
}

static int set_vector(struct device *device, uint32_t vector, int event_fd)
{
    return set_events(device->state, VFIO_PCI_MSIX_IRQ_INDEX, vector, &event_fd, 1);
}

static int set_request(struct device *device, int event_fd)
{
    return set_events(device->state, VFIO_PCI_REQ_IRQ_INDEX, 0, &event_fd, 1);
}

static void close_all(struct device *device)
{
    struct vfio *vfio = device->state;

    if (!vfio)
        return;
    /* The device first: its group has it, and the container the group. */
    const int descriptors[] = {vfio->device, vfio->group, vfio->container};
    for (size_t i = 0; i < sizeof(descriptors) / sizeof(descriptors[0]); i++)
        if (descriptors[i] >= 0)
            close(descriptors[i]);
    free(vfio);
    device->state = NULL;
}

/* Binds it, unless it is bound. */
static int bind_driver(struct device *device)
{
    char driver[64];

    if (sysfs_link(device, "driver", driver, sizeof(driver)) == 0) {
        if (strcmp(driver, DRIVER) == 0)
            return 0;
        return device_explain(device, -EBUSY, "the driver %s has it", driver);
    }
    int r = sysfs_write(device, "driver_override", DRIVER);
    if (r == 0)
        r = sysfs_write_bus("drivers_probe", device->address);
    if (r == -ENODEV || r == -ENOENT)
        return device_explain(device, -EAGAIN, "the kernel is still adding it");
    if (r < 0)
        return device_explain(device, -ENOSYS, "cannot bind it to " DRIVER ": %s", strerror(-r));
    if (sysfs_link(device, "driver", driver, sizeof(driver)) == 0 && strcmp(driver, DRIVER) == 0)
        return 0;
    /* A device that is just being added is probed by the kernel itself, a moment later. */
    if (access("/sys/bus/pci/drivers/" DRIVER, F_OK) == 0)
        return device_explain(device, -EAGAIN, DRIVER " does not take it (see dmesg)");
    return device_explain(device, -ENOSYS, "there is no driver " DRIVER " (modprobe vfio-pci)");
}

void vfio_give_back(const struct device *device)
{
    char driver[64];

    if (sysfs_link(device, "driver", driver, sizeof(driver)) == 0 && strcmp(driver, DRIVER) == 0)
        (void)sysfs_write(device, "driver/unbind", device->address);
    (void)sysfs_write(device, "driver_override", "\n");
}

static int open_container(struct device *device, struct vfio *vfio)
{
    vfio->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
    if (vfio->container < 0)
        return device_explain(device, -ENOSYS, "cannot open /dev/vfio/vfio: %s", strerror(errno));
    if (ioctl(vfio->container, VFIO_GET_API_VERSION) != VFIO_API_VERSION ||
        ioctl(vfio->container, VFIO_CHECK_EXTENSION, VFIO_TYPE1_IOMMU) != 1)
        return device_explain(device, -ENOSYS, "VFIO lacks type 1 (modprobe vfio_iommu_type1)");
    return 0;
}

static int open_group(struct device *device, struct vfio *vfio, const char *number)
{
    struct vfio_group_status status = {.argsz = sizeof(status)};
    char path[64];

    snprintf(path, sizeof(path), "/dev/vfio/%s", number);
    vfio->group = open(path, O_RDWR | O_CLOEXEC);
    if (vfio->group < 0) {
        int error = errno;
        if (error == EBUSY)
            return device_explain(device, -EBUSY, "somebody has its group %s open still", path);
        return device_explain(device, error == ENOENT ? -EAGAIN : -ENOSYS, "cannot open %s: %s",
                              path, strerror(error));
    }
    if (ioctl(vfio->group, VFIO_GROUP_GET_STATUS, &status) < 0 ||
        !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
        return device_explain(device, -ENOSYS,
                              "devices of its IOMMU group %s have drivers of the kernel", number);
    if (ioctl(vfio->group, VFIO_GROUP_SET_CONTAINER, &vfio->container) < 0)
        return device_explain(device, -ENOSYS, "cannot use its group %s: %s", path,
                              strerror(errno));
    if (ioctl(vfio->container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU) < 0)
        return device_explain(device, -ENOSYS, "cannot set up the IOMMU: %s%s", strerror(errno),
                              errno == EPERM ? " (does it remap interrupts?)" : "");
    return 0;
}

static int find_bar(struct device *device, uint32_t index, uint64_t *offset, uint64_t *bytes)
{
    const struct vfio *vfio = device->state;
    struct vfio_region_info info = {.argsz = sizeof(info), .index = index};

    if (ioctl(vfio->device, VFIO_DEVICE_GET_REGION_INFO, &info) < 0)
        return device_explain(device, -errno, "cannot find its BAR%u: %s", index, strerror(errno));
    if (!(info.flags & VFIO_REGION_INFO_FLAG_MMAP))
        return device_explain(device, -ENOSYS, "its BAR%u cannot be mapped", index);
    *offset = info.offset;
    *bytes = info.size;
    return 0;
}

/* VFIO has cleared it; without it a device sends no interrupts, which are writes to memory. */
static int enable_bus_master(struct device *device)
{
    const struct vfio *vfio = device->state;
    struct vfio_region_info info = {.argsz = sizeof(info), .index = VFIO_PCI_CONFIG_REGION_INDEX};
    uint16_t command;

    if (ioctl(vfio->device, VFIO_DEVICE_GET_REGION_INFO, &info) < 0)
        return device_explain(device, -errno, "cannot find its configuration: %s", strerror(errno));
    const off_t offset = (off_t)info.offset + PCI_COMMAND;
    if (pread(vfio->device, &command, sizeof(command), offset) != sizeof(command))
        return device_explain(device, -EIO, "cannot read its configuration");
    command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    if (pwrite(vfio->device, &command, sizeof(command), offset) != sizeof(command))
        return device_explain(device, -EIO, "cannot write its configuration");
    return 0;
}

/* All its vectors, with nobody who listens: the kernel cannot add any later. */
static int enable_interrupts(struct device *device)
{
    const struct vfio *vfio = device->state;
    struct vfio_irq_info info = {.argsz = sizeof(info), .index = VFIO_PCI_MSIX_IRQ_INDEX};
    int nobody[DEVICE_VECTORS_MAX];

    if (ioctl(vfio->device, VFIO_DEVICE_GET_IRQ_INFO, &info) < 0 || info.count == 0)
        return device_explain(device, -ENOSYS, "it has no MSI-X vectors");
    device->vectors = info.count < DEVICE_VECTORS_MAX ? info.count : DEVICE_VECTORS_MAX;
    for (uint32_t i = 0; i < device->vectors; i++)
        nobody[i] = -1;
    int r = set_events(vfio, VFIO_PCI_MSIX_IRQ_INDEX, 0, nobody, device->vectors);
    if (r < 0)
        return device_explain(device, r, "cannot enable its interrupts: %s", strerror(-r));
    return 0;
}

static int open_device(struct device *device)
{
    struct vfio *vfio = device->state;
    uint64_t register_bytes;

    vfio->device = ioctl(vfio->group, VFIO_GROUP_GET_DEVICE_FD, device->address);
    if (vfio->device < 0) {
        int error = errno;
        return device_explain(device, error == ENODEV ? -EAGAIN : -error, "cannot open it: %s",
                              strerror(error));
    }
    (void)fcntl(vfio->device, F_SETFD, FD_CLOEXEC);
    device->memory_fd = device->register_fd = vfio->device;
    int r = find_bar(device, VFIO_PCI_BAR2_REGION_INDEX, &device->memory_offset,
                     &device->memory_bytes);
    if (r == 0)
        r = find_bar(device, VFIO_PCI_BAR0_REGION_INDEX, &device->register_offset,
                     &register_bytes);
    return r;
}

static int enable(struct device *device)
{
    int r = enable_bus_master(device);

    return r == 0 ? enable_interrupts(device) : r;
}

static const struct device_backend backend = {.name = "VFIO",
                                              .enable = enable,
                                              .set_vector = set_vector,
                                              .set_request = set_request,
                                              .close = close_all};

int vfio_open(struct device *device)
{
    struct vfio *vfio = malloc(sizeof(*vfio));
    char group[32];

    if (!vfio)
        return -ENOMEM;
    *vfio = (struct vfio){-1, -1, -1};
    device->state = vfio;
    device->backend = &backend;
    if (sysfs_link(device, "iommu_group", group, sizeof(group)) < 0)
        return device_explain(device, -ENOSYS,
                              "it has no IOMMU group: give the VM an IOMMU (<iommu "
                              "model='intel'/>) and its kernel intel_iommu=on");
    int r = bind_driver(device);
    if (r == 0)
        r = open_container(device, vfio);
    if (r == 0)
        r = open_group(device, vfio, group);
    return r == 0 ? open_device(device) : r;
}
