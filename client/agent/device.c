/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/device.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "client/agent/guard.h"
#include "client/agent/sysfs.h"
#include "client/agent/vfio.h"
#include "ring/order.h"

#define PAGE_BYTES 4096u
#define POSITION_NONE 0xffffffffu

int device_explain(struct device *device, int err, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(device->why, sizeof(device->why), format, arguments);
    va_end(arguments);
    return err;
}

static int map_page(struct device *device, int fd, uint64_t offset, void **page)
{
    void *address = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);

    if (address == MAP_FAILED)
        return device_explain(device, -errno, "cannot map its memory: %s", strerror(errno));
    if (guard_add(address, PAGE_BYTES, &device->lost) < 0) {
        munmap(address, PAGE_BYTES);
        return device_explain(device, -ENOSPC, "too many devices");
    }
    *page = address;
    return 0;
}

static void unmap_page(void *page)
{
    if (!page)
        return;
    guard_remove(page);
    munmap(page, PAGE_BYTES);
}

static int check_header(struct device *device)
{
    const struct layout_region_header *h = &device->header;

    if (h->magic != LAYOUT_MAGIC)
        return device_explain(device, -ENOTSUP, "its memory is not a region of vchan");
    if (h->version != LAYOUT_VERSION)
        return device_explain(device, -ENOTSUP,
                              "its region has layout version %u, this agent knows %u", h->version,
                              LAYOUT_VERSION);
    if (h->size_bytes != device->memory_bytes)
        return device_explain(device, -EPROTO, "its BAR2 has %llu bytes, its region says %llu",
                              (unsigned long long)device->memory_bytes,
                              (unsigned long long)h->size_bytes);
    /* Each compared with what has been checked, so that no sum overflows. */
    if (h->block_bytes != LAYOUT_BLOCK_BYTES || h->data_offset > h->size_bytes ||
        h->data_offset % LAYOUT_BLOCK_BYTES || h->control_offset > h->data_offset ||
        h->control_offset % LAYOUT_CHANNEL_PAGE_BYTES || h->peers_offset > h->control_offset ||
        h->peers_offset % LAYOUT_PEER_BYTES || h->peers_offset < PAGE_BYTES ||
        h->peer_count > (h->control_offset - h->peers_offset) / LAYOUT_PEER_BYTES)
        return device_explain(device, -EPROTO, "its region's header contradicts itself");
    return 0;
}

static int find_peer(struct device *device)
{
    const struct layout_region_header *h = &device->header;

    device->id = device->registers[DEVICE_REGISTER_POSITION / 4];
    if (device->id == POSITION_NONE)
        return device_explain(device, -EAGAIN, "the server has not given it a number yet");
    if (device->id == LAYOUT_PEER_HOST || device->id >= h->peer_count)
        return device_explain(device, -EPROTO, "its number %u is not among the %u peers",
                              device->id, h->peer_count);
    const uint64_t offset = h->peers_offset + (uint64_t)device->id * LAYOUT_PEER_BYTES;
    int r = map_page(device, device->memory_fd,
                     device->memory_offset + offset / PAGE_BYTES * PAGE_BYTES, &device->peer_page);
    if (r == 0)
        device->peer = (void *)((uint8_t *)device->peer_page + offset % PAGE_BYTES);
    return r;
}

int device_map(struct device *device)
{
    void *registers;

    if (device->memory_bytes < 2 * PAGE_BYTES ||
        (device->memory_bytes & (device->memory_bytes - 1)))
        return device_explain(device, -ENOTSUP, "its BAR2 has %llu bytes",
                              (unsigned long long)device->memory_bytes);
    int r = map_page(device, device->register_fd, device->register_offset, &registers);
    if (r < 0)
        return r;
    device->registers = registers;
    r = map_page(device, device->memory_fd, device->memory_offset, &device->header_page);
    if (r < 0)
        return r;
    memcpy(&device->header, device->header_page, sizeof(device->header));
    r = check_header(device);
    if (r < 0)
        return r;
    device->memory = (struct ring_memory){.descriptor = device->memory_fd,
                                          .descriptor_offset = device->memory_offset,
                                          .size_bytes = device->header.size_bytes,
                                          .data_offset = device->header.data_offset};
    return find_peer(device);
}

/* With the backend that r is the verdict of: 0, or closed again. */
static int finish_open(struct device *device, int r)
{
    if (r == 0) {
        r = device_map(device);
        /* Read from registers and memory that were not there. */
        if (device->lost)
            r = device_explain(device, -ENODEV, "its memory cannot be read");
        if (r == 0 && device->backend->enable)
            r = device->backend->enable(device);
    }
    if (r < 0)
        device_close(device);
    return r;
}

int device_open(struct device *device, const char *address, bool no_vfio)
{
    char vfio_why[DEVICE_WHY_BYTES];
    int r = 0;

    *device = (struct device){.memory_fd = -1, .register_fd = -1};
    snprintf(device->address, sizeof(device->address), "%s", address);
    if (no_vfio) {
        snprintf(vfio_why, sizeof(vfio_why), "as told");
    } else {
        r = finish_open(device, vfio_open(device));
        if (r != -ENOTSUP && r != -ENOSYS)
            return r;
        snprintf(vfio_why, sizeof(vfio_why), "%s", device->why);
    }
    vfio_give_back(device);
    if (!no_vfio && r == -ENOTSUP)
        return r;
    r = finish_open(device, sysfs_open(device));
    if (r == 0)
        device_explain(device, 0, "without VFIO (%.150s): it polls", vfio_why);
    return r;
}

void device_close(struct device *device)
{
    unmap_page((void *)(uintptr_t)device->registers);
    unmap_page(device->header_page);
    unmap_page(device->peer_page);
    device->registers = NULL;
    device->header_page = device->peer_page = NULL;
    device->peer = NULL;
    if (device->backend)
        device->backend->close(device);
    device->backend = NULL;
    device->memory_fd = device->register_fd = -1;
    /* Another backend may be next. */
    device->memory_offset = device->register_offset = device->memory_bytes = 0;
    device->vectors = 0;
    device->lost = 0;
}

void device_ring(const struct device *device, uint32_t peer, uint32_t vector)
{
    order_store_device(&device->registers[DEVICE_REGISTER_DOORBELL / 4], peer << 16 | vector);
}
