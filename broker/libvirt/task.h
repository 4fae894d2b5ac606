/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/libvirt/task.h - what was asked about one domain, carried out.
 */
#ifndef VCHAN_BROKER_LIBVIRT_TASK_H
#define VCHAN_BROKER_LIBVIRT_TASK_H

#include "broker/libvirt/driver.h"
#include "broker/libvirt/readiness.h"
#include "proto/guest.h"

/* How long the guest may take to let the device go. */
#define TASK_DETACH_WAIT_MS 15000u

/*
 * Attaches, detaches or shows (action: PROTO_HYPERVISOR_*), for as long as libvirt takes: in a
 * thread of its own. What was done, or what went wrong and how to mend it, is in text. 0, or:
 *
 *   -ENOENT     libvirt knows no such domain; DETACH: it has no such device
 *   -EHOSTDOWN  it does not run
 *   -EEXIST     ATTACH: it has the device
 *   -EOPNOTSUPP, -ENOSPC, -ENODEV  ATTACH: something is missing, see readiness.h
 *   -EBUSY, -ETIMEDOUT  DETACH: the guest did not let go
 *   -EIO        libvirt or QEMU failed
 */
int task_run(struct driver *driver, unsigned action, const struct proto_domain_device *device,
             struct readiness_text *text);

#endif
