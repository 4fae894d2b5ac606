/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/libvirt/task.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What a task works on. */
struct subject {
    struct driver *driver;
    const struct proto_domain_device *device;
    struct driver_domain domain;
    struct hardware hardware;
    char error[DRIVER_ERROR_BYTES];
};

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int say_error(struct subject *subject, int err, struct readiness_text *text)
{
    if (err == -ENOENT)
        readiness_say(text, "libvirt knows no domain %s: %s\n", subject->device->name,
                      subject->error);
    else
        readiness_say(text, "libvirt: %s\n", subject->error);
    return err;
}

static int look(struct subject *subject, struct readiness_text *text)
{
    char *xml;
    int r = driver_look(subject->driver, subject->device->uuid, subject->device->name,
                        &subject->domain, subject->error);

    if (r == 0)
        r = driver_xml(subject->driver, subject->domain.uuid, &xml, subject->error);
    if (r < 0)
        return say_error(subject, r, text);
    r = hardware_read(xml, subject->device->socket, &subject->hardware);
    free(xml);
    if (r < 0)
        readiness_say(text, "libvirt gave XML that cannot be read\n");
    return r;
}

static bool is_running(const struct subject *subject)
{
    return subject->domain.state == PROTO_HYPERVISOR_RUNNING ||
           subject->domain.state == PROTO_HYPERVISOR_PAUSED;
}

static int check_running(const struct subject *subject, struct readiness_text *text)
{
    if (is_running(subject))
        return 0;
    readiness_say(text,
                  "the domain does not run; start it with: virsh start %s\n"
                  "A device that is there from the start: put what \"vchanctl domain xml %s\" "
                  "prints into its definition\n",
                  subject->domain.name, subject->device->name);
    return -EHOSTDOWN;
}

static int find_place(struct subject *subject, bool unchecked, struct device_xml_address *address,
                      struct readiness_text *text)
{
    const struct hardware *hardware = &subject->hardware;

    if (hardware->attached) {
        readiness_say(text,
                      "domain %s has its device for zone %s already, at bus 0x%02x, slot 0x%02x\n",
                      subject->device->name, subject->device->zone, hardware->attached_bus,
                      hardware->attached_slot);
        return -EEXIST;
    }
    int r = readiness_check(hardware, subject->device, text);
    if (!readiness_place(hardware, subject->device, address))
        return r < 0 ? r : -ENOSPC;
    if (r < 0 && unchecked) {
        *text = (struct readiness_text){0};
        r = 0;
    }
    return r;
}

static void advise(const struct subject *subject, struct readiness_text *text)
{
    /* QEMU could not open the socket, or nobody listened there. */
    if (strstr(subject->error, "connect") || strstr(subject->error, "ermission"))
        readiness_say(text,
                      "  May QEMU's user open %s? [guests] socket-group and socket-mode in "
                      "vchand.conf say who may\n",
                      subject->device->socket);
}

static int attach(struct subject *subject, bool unchecked, struct readiness_text *text)
{
    struct device_xml_address address;
    char xml[1024];
    int r = check_running(subject, text);

    if (r == 0)
        r = find_place(subject, unchecked, &address, text);
    if (r < 0)
        return r;
    const uint64_t started_ms = now_ms();
    device_xml_shmem(subject->device, &address, 0, xml, sizeof(xml));
    r = driver_attach(subject->driver, subject->domain.uuid, xml, subject->error);
    if (r < 0) {
        say_error(subject, r, text);
        advise(subject, text);
        return r;
    }
    readiness_say(text,
                  "attached to %s: zone %s at bus 0x%02x, slot 0x%02x, in %" PRIu64 " ms; until it "
                  "is detached or the domain is shut down\n",
                  subject->device->name, subject->device->zone, address.bus, address.slot,
                  now_ms() - started_ms);
    return 0;
}

static int detach(struct subject *subject, struct readiness_text *text)
{
    const char *name = subject->device->name;
    int r = check_running(subject, text);

    if (r < 0)
        return r;
    if (!subject->hardware.attached) {
        readiness_say(text, "domain %s has no device for zone %s\n", name, subject->device->zone);
        return -ENOENT;
    }
    const uint64_t started_ms = now_ms();
    r = driver_detach(subject->driver, subject->domain.uuid, subject->hardware.attached_alias,
                      TASK_DETACH_WAIT_MS, subject->error);
    if (r == 0)
        readiness_say(text, "detached from %s: zone %s, in %" PRIu64 " ms\n", name,
                      subject->device->zone, now_ms() - started_ms);
    else if (r == -ETIMEDOUT)
        readiness_say(text,
                      "the guest has not let the device go within %u s, and still may. Is it up "
                      "(a guest that boots, or is paused, does not answer)? Does a program in it "
                      "still hold a channel?\n",
                      TASK_DETACH_WAIT_MS / 1000);
    else if (r == -EBUSY)
        readiness_say(text, "the guest refuses to let the device go\n");
    else
        say_error(subject, r, text);
    return r;
}

static const char *state_word(uint32_t state)
{
    static const char *const words[] = {
        [PROTO_HYPERVISOR_DEFINED] = "shut off", [PROTO_HYPERVISOR_RUNNING] = "running",
        [PROTO_HYPERVISOR_PAUSED] = "paused",    [PROTO_HYPERVISOR_GONE] = "gone",
        [PROTO_HYPERVISOR_UNKNOWN] = "unknown",
    };

    return words[state];
}

static int show(struct subject *subject, struct readiness_text *text)
{
    const struct hardware *hardware = &subject->hardware;

    readiness_say(text, "domain: %s, %s, %s %s\n", subject->domain.name,
                  state_word(subject->domain.state), hardware->architecture, hardware->machine);
    readiness_say(text, "zone: %s, %" PRIu64 " bytes, %u vectors, socket %s\n",
                  subject->device->zone, subject->device->region_bytes, subject->device->vectors,
                  subject->device->socket);
    if (hardware->attached)
        readiness_say(text, "attached: yes, bus 0x%02x, slot 0x%02x, alias %s\n",
                      hardware->attached_bus, hardware->attached_slot, hardware->attached_alias);
    else
        readiness_say(text, "attached: no\n");
    readiness_say(text, "next-index: %u\n", hardware->buses);
    readiness_report(hardware, subject->device, text);
    return 0;
}

int task_run(struct driver *driver, unsigned action, const struct proto_domain_device *device,
             struct readiness_text *text)
{
    struct subject *subject = calloc(1, sizeof(*subject));

    if (!subject) {
        readiness_say(text, "vchan-libvirt is out of memory\n");
        return -ENOMEM;
    }
    subject->driver = driver;
    subject->device = device;
    int r = look(subject, text);
    if (r == 0)
        r = action == PROTO_HYPERVISOR_SHOW ? show(subject, text)
            : action == PROTO_HYPERVISOR_DETACH
                ? detach(subject, text)
                : attach(subject, action != PROTO_HYPERVISOR_ATTACH, text);
    free(subject);
    return r;
}
