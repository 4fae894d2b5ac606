/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/sysfs.h - a PCI device by its files in /sys/bus/pci/devices: the fall-back where
 * VFIO is impossible, and what both backends ask sysfs.
 *
 * Without a driver nobody delivers interrupts. And the kernel does not ask for the device back:
 * when it is unplugged its mappings vanish, and a program that touches one gets SIGBUS.
 */
#ifndef VCHAN_AGENT_SYSFS_H
#define VCHAN_AGENT_SYSFS_H

#include <stddef.h>
#include <stdint.h>

struct device;

/* A backend for device_open: resource2 and resource0. -errno, explained. */
int sysfs_open(struct device *device);

/* The name that a link of the device points to ("driver", "iommu_group"). -ENOENT: none. */
int sysfs_link(const struct device *device, const char *link, char *name, size_t name_bytes);

/* Writes a word to a file of the device, or to one in /sys/bus/pci. -errno. */
int sysfs_write(const struct device *device, const char *file, const char *word);
int sysfs_write_bus(const char *file, const char *word);

#endif
