/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/vfio.h - a PCI device by VFIO (Linux, Documentation/driver-api/vfio.rst).
 *
 * The device is bound to vfio-pci, and stays bound when the agent ends, for the next one. One that
 * turns out not to be ours is given back as it was found: without a driver.
 */
#ifndef VCHAN_AGENT_VFIO_H
#define VCHAN_AGENT_VFIO_H

struct device;

/*
 * A backend for device_open. -ENOSYS: VFIO is impossible here (no IOMMU, no module, no permission);
 * -EAGAIN: the driver is not done yet; -EBUSY: another driver or process has it. Explained.
 */
int vfio_open(struct device *device);

/* Takes vfio-pci off a closed device. */
void vfio_give_back(const struct device *device);

#endif
