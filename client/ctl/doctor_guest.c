/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl doctor, in a guest: device, IOMMU, VFIO, agent. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client/ctl/doctor.h"
#include "client/ctl/quantity.h"
#include "client/ctl/text.h"

#define DEVICES "/sys/bus/pci/devices"
#define IVSHMEM_VENDOR 0x1af4u
#define IVSHMEM_DEVICE 0x1110u

static unsigned long read_number(const struct doctor *doctor, const char *address, const char *file)
{
    char path[PATH_MAX], text[64];

    snprintf(path, sizeof(path), DEVICES "/%s/%s", address, file);
    return doctor_read(doctor, path, text, sizeof(text)) < 0 ? 0 : strtoul(text, NULL, 0);
}

static bool is_ivshmem(const struct doctor *doctor, const char *address)
{
    return read_number(doctor, address, "vendor") == IVSHMEM_VENDOR &&
           read_number(doctor, address, "device") == IVSHMEM_DEVICE;
}

/* Calls look for each ivshmem device: how many there are. */
static unsigned for_each_device(struct doctor *doctor,
                                void (*look)(struct doctor *doctor, const char *address))
{
    char path[PATH_MAX];
    struct dirent *entry;
    unsigned count = 0;

    doctor_path(doctor, DEVICES, path, sizeof(path));
    DIR *directory = opendir(path);
    while (directory && (entry = readdir(directory)))
        if (entry->d_name[0] != '.' && is_ivshmem(doctor, entry->d_name)) {
            if (look)
                look(doctor, entry->d_name);
            count++;
        }
    if (directory)
        closedir(directory);
    return count;
}

bool doctor_is_guest(const struct doctor *doctor)
{
    return for_each_device((struct doctor *)(uintptr_t)doctor, NULL) > 0;
}

/* Bytes of a BAR, as /sys/.../resource has them, a line each; 0: it has no place. */
static uint64_t bar_bytes(const struct doctor *doctor, const char *address, unsigned bar)
{
    char path[PATH_MAX], text[4096];
    uint64_t first, last, flags;

    snprintf(path, sizeof(path), DEVICES "/%s/resource", address);
    if (doctor_read(doctor, path, text, sizeof(text)) < 0)
        return 0;
    char *line = strtok(text, "\n");
    while (line && bar-- > 0)
        line = strtok(NULL, "\n");
    if (!line || sscanf(line, "%" SCNx64 " %" SCNx64 " %" SCNx64, &first, &last, &flags) != 3 ||
        first == 0 || last < first)
        return 0;
    return last - first + 1;
}

static void look_at_bars(struct doctor *doctor, const char *address)
{
    const uint64_t registers = bar_bytes(doctor, address, 0);
    const uint64_t region = bar_bytes(doctor, address, 2);

    doctor_say(doctor, DOCTOR_OK, "device", NULL, "an ivshmem device at %s", address);
    if (registers == 0 || region == 0)
        doctor_say(doctor, DOCTOR_WRONG, "memory window",
                   "The root port has too little room for it. On the host: vchanctl domain xml "
                   "DOMAIN prints\nthe <qemu:override> that reserves more; or have the device in "
                   "the definition from the start.",
                   "%s: the kernel found no place for its %s", address,
                   region == 0 ? "memory (BAR 2)" : "registers (BAR 0)");
    else if (region & (region - 1))
        doctor_say(doctor, DOCTOR_WRONG, "memory window", NULL,
                   "%s: BAR 2 has %" PRIu64 " bytes, which are no power of two", address, region);
    else
        doctor_say(doctor, DOCTOR_OK, "memory window", NULL,
                   "%s: BAR 2 has %s, the region; BAR 0 %s, the doorbell", address,
                   quantity_size(region).text, quantity_size(registers).text);
}

/* "intel_iommu=on" and the like, as a word of its own. */
static bool has_word(const char *text, const char *word)
{
    const size_t length = strlen(word);

    for (const char *at = text; (at = strstr(at, word)); at += length)
        if ((at == text || at[-1] == ' ') && strchr(" ,", at[length]))
            return true;
    return false;
}

/* The device's group, "": none. */
static const char *group_of(const struct doctor *doctor, const char *address, char *group,
                            size_t bytes)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), DEVICES "/%s/iommu_group", address);
    if (doctor_link(doctor, path, group, bytes) < 0)
        *group = '\0';
    return group;
}

static void look_at_iommu(struct doctor *doctor, const char *address)
{
    char group[32], line[4096] = "";

    if (*group_of(doctor, address, group, sizeof(group))) {
        doctor_say(doctor, DOCTOR_OK, "iommu", NULL, "%s is in IOMMU group %s", address, group);
        return;
    }
    doctor_read(doctor, "/proc/cmdline", line, sizeof(line));
    if (!has_word(line, "intel_iommu=on"))
        doctor_say(doctor, DOCTOR_WARN, "iommu",
                   "Put intel_iommu=on on the kernel's command line (GRUB_CMDLINE_LINUX in "
                   "/etc/default/grub,\nthen update-grub), and boot again.",
                   "%s has no IOMMU group, and the kernel was booted without intel_iommu=on: "
                   "the agent can only poll",
                   address);
    else
        doctor_say(doctor, DOCTOR_WARN, "iommu",
                   "On the host, in the domain's <features>: <ioapic driver='qemu'/>, in its "
                   "<devices>:\n<iommu model='intel'><driver intremap='on'/></iommu>",
                   "%s has no IOMMU group: the machine has no IOMMU; the agent can only poll",
                   address);
}

static void look_at_modules(struct doctor *doctor)
{
    static const struct {
        const char *path, *module;
    } needed[] = {
        {"/sys/bus/pci/drivers/vfio-pci", "vfio-pci"},
        {"/sys/module/vfio_iommu_type1", "vfio_iommu_type1"},
    };
    char mend[DOCTOR_TEXT_BYTES];
    bool all = true;

    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
        if (doctor_exists(doctor, needed[i].path))
            continue;
        snprintf(mend, sizeof(mend),
                 "modprobe %s; at each boot: echo %s >/etc/modules-load.d/%s.conf",
                 needed[i].module, needed[i].module, needed[i].module);
        doctor_say(doctor, DOCTOR_WRONG, "vfio", mend, "the kernel has not loaded %s",
                   needed[i].module);
        all = false;
    }
    if (all)
        doctor_say(doctor, DOCTOR_OK, "vfio", NULL, "vfio-pci and its IOMMU driver are loaded");
}

static void look_at_driver(struct doctor *doctor, const char *address)
{
    char path[PATH_MAX], driver[64], mend[DOCTOR_TEXT_BYTES], group[32];

    if (!*group_of(doctor, address, group, sizeof(group)))
        return; /* VFIO is impossible, which has been said */
    snprintf(path, sizeof(path), DEVICES "/%s/driver", address);
    snprintf(mend, sizeof(mend),
             "vchan-agent does it where it may write there; by hand:\n"
             "echo vfio-pci >" DEVICES "/%s/driver_override; echo %s >/sys/bus/pci/drivers_probe",
             address, address);
    if (doctor_link(doctor, path, driver, sizeof(driver)) < 0)
        doctor_say(doctor, DOCTOR_WRONG, "driver", mend, "no driver has taken %s", address);
    else if (strcmp(driver, "vfio-pci") != 0)
        doctor_say(doctor, DOCTOR_WRONG, "driver", mend,
                   "%s has the driver %s, and the agent needs vfio-pci", address, driver);
    else
        doctor_say(doctor, DOCTOR_OK, "driver", NULL, "%s is bound to vfio-pci", address);
}

/* May a process of that user and group open the file for reading and writing? */
static bool may_open(const struct stat *status, unsigned long uid, unsigned long gid)
{
    const mode_t rw = status->st_uid == uid ? 0600 : status->st_gid == gid ? 0060 : 0006;

    return uid == 0 || (status->st_mode & rw) == rw;
}

static void look_at_permission(struct doctor *doctor, const char *address)
{
    char group[32], node[64], whole[PATH_MAX], uid[64] = "0", gid[64] = "0";
    const uint32_t agent = doctor_process(doctor, "vchan-agent");
    struct stat status;

    if (!*group_of(doctor, address, group, sizeof(group)))
        return;
    snprintf(node, sizeof(node), "/dev/vfio/%s", group);
    doctor_path(doctor, node, whole, sizeof(whole));
    if (stat(whole, &status) < 0) {
        doctor_say(doctor, errno == EACCES ? DOCTOR_UNSEEN : DOCTOR_WRONG, "permission",
                   errno == EACCES ? NULL : "It comes when the device is bound to vfio-pci.",
                   "%s: %s", node, strerror(errno));
        return;
    }
    if (agent) { /* the effective one is the second */
        char *rest;
        doctor_process_status(doctor, agent, "Uid", uid, sizeof(uid));
        doctor_process_status(doctor, agent, "Gid", gid, sizeof(gid));
        strtoul(uid, &rest, 10);
        memmove(uid, rest, strlen(rest) + 1);
        strtoul(gid, &rest, 10);
        memmove(gid, rest, strlen(rest) + 1);
    }
    if (may_open(&status, strtoul(uid, NULL, 10), strtoul(gid, NULL, 10)))
        doctor_say(doctor, DOCTOR_OK, "permission", NULL, "the agent may open %s", node);
    else
        doctor_say(doctor, DOCTOR_WRONG, "permission",
                   "Run vchan-agent as root, as vchan-agent.service does.",
                   "%s belongs to user %u, group %u, mode %04o, and the agent runs as user %lu",
                   node, status.st_uid, status.st_gid, status.st_mode & 07777u,
                   strtoul(uid, NULL, 10));
}

static void look_at_agent(struct doctor *doctor, int link_error)
{
    struct broker_link *link = &doctor->ctl->link;
    struct proto_broker_info info;
    int r = link_error;

    if (r == 0)
        r = broker_link_call(link, PROTO_BROKER_INFO, NULL, 0, &info, sizeof(info));
    if (r < 0 && link->lost) {
        doctor_say(doctor, DOCTOR_WRONG, "agent",
                   r == -EACCES ? "Join the socket's group (ls -l), or run the doctor as root."
                                : "Start it: systemctl start vchan-agent, or: vchan-agent",
                   "%s: %s",
                   r == -EACCES ? "you may not use vchan's socket here"
                                : "nobody serves vchan's socket here",
                   strerror(-r));
    } else if (r < 0) {
        doctor_say(doctor, DOCTOR_WRONG, "agent",
                   "The agent's log says what it waits for; on the host: vchanctl doctor.",
                   "the agent runs, but is not connected to the host's broker: %s%s%s",
                   strerror(-r), link->why[0] ? ": " : "", link->why);
    } else {
        text_clean(info.version, sizeof(info.version));
        doctor_say(doctor, DOCTOR_OK, "agent", NULL,
                   "it is connected to the host's vchand %s; this is domain %u", info.version,
                   link->domain);
    }
    doctor->linked = r == 0;
}

void doctor_look_at_guest(struct doctor *doctor, int link_error)
{
    if (for_each_device(doctor, look_at_bars) == 0)
        doctor_say(doctor, DOCTOR_WRONG, "device", "On the host: vchanctl domain attach DOMAIN",
                   "there is no ivshmem device among the PCI devices");
    for_each_device(doctor, look_at_iommu);
    look_at_modules(doctor);
    for_each_device(doctor, look_at_driver);
    for_each_device(doctor, look_at_permission);
    look_at_agent(doctor, link_error);
}
