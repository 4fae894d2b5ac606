/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl doctor, on the host: broker, kernel, and each domain that libvirt knows. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client/ctl/doctor.h"
#include "client/ctl/domain.h"
#include "client/ctl/names.h"
#include "client/ctl/quantity.h"
#include "client/ctl/text.h"

static void look_at_broker(struct doctor *doctor, int link_error, struct proto_broker_info *info)
{
    struct broker_link *link = &doctor->ctl->link;
    const char *directory = getenv("VCHAN_RUNTIME_DIR");

    *info = (struct proto_broker_info){0};
    if (link_error < 0 && link->lost) {
        doctor_say(doctor, DOCTOR_WRONG, "broker",
                   link_error == -EACCES
                       ? "Join the socket's group (ls -l), or run the doctor as root."
                       : "Start it: systemctl start vchand, or: vchand. A broker elsewhere: "
                         "--socket PATH, or\nVCHAN_RUNTIME_DIR for its directory.",
                   "no broker in %s: %s",
                   doctor->ctl->socket_path  ? doctor->ctl->socket_path
                   : directory && *directory ? directory
                                             : "/run/vchand",
                   strerror(-link_error));
        return;
    }
    if (link_error < 0) {
        doctor_say(doctor, DOCTOR_WRONG, "broker",
                   "Install vchand and vchanctl of one version; domain 0 administers the broker.",
                   "the broker refuses: %s %s", strerror(-link_error), link->why);
        return;
    }
    int r = broker_link_call(link, PROTO_BROKER_INFO, NULL, 0, info, sizeof(*info));
    if (r < 0) {
        doctor_say(doctor, DOCTOR_WRONG, "broker", "Look at its log.", "the broker fails: %s",
                   strerror(-r));
        doctor->linked = false;
        return;
    }
    text_clean(info->version, sizeof(info->version));
    if (strcmp(info->version, VCHAN_VERSION) == 0)
        doctor_say(doctor, DOCTOR_OK, "broker", NULL, "vchand %s answers, up for %s", info->version,
                   quantity_duration(info->uptime_ns).text);
    else
        doctor_say(doctor, DOCTOR_WARN, "broker", "Install both of one version.",
                   "vchand is of version %s, vchanctl of %s", info->version, VCHAN_VERSION);
}

static void look_at_membarrier(struct doctor *doctor)
{
    char cpus[256] = "";
    long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);

    doctor_read(doctor, "/sys/devices/system/cpu/nohz_full", cpus, sizeof(cpus));
    if (strcmp(cpus, "(null)") == 0)
        cpus[0] = '\0';
    if (commands > 0 && (commands & MEMBARRIER_CMD_GLOBAL) && !cpus[0])
        doctor_say(doctor, DOCTOR_OK, "membarrier", NULL,
                   "the kernel runs grace periods for the broker");
    else
        doctor_say(doctor, DOCTOR_WARN, "membarrier",
                   "Channels work, with a fence in each operation: about a third slower on small "
                   "messages.\nBoot without nohz_full, on a kernel with CONFIG_MEMBARRIER.",
                   "the kernel refuses membarrier(GLOBAL)%s%s", cpus[0] ? ": nohz_full=" : "",
                   cpus);
}

/* Who listens on the socket; with socket activation that is systemd, and any vchand has to do. */
static uint32_t broker_pid(const struct doctor *doctor)
{
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);
    char path[64], comm[32];

    if (doctor->linked &&
        getsockopt(doctor->ctl->link.socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0) {
        snprintf(path, sizeof(path), "/proc/%d/comm", (int)peer.pid);
        if (doctor_read(doctor, path, comm, sizeof(comm)) == 0 && strcmp(comm, "vchand") == 0)
            return (uint32_t)peer.pid;
    }
    return doctor_process(doctor, "vchand");
}

static void look_at_sandbox(struct doctor *doctor)
{
    const uint32_t pid = broker_pid(doctor);
    char mode[32], uid[64];

    if (!pid || doctor_process_status(doctor, pid, "Seccomp", mode, sizeof(mode)) < 0 ||
        doctor_process_status(doctor, pid, "Uid", uid, sizeof(uid)) < 0) {
        doctor_say(doctor, DOCTOR_UNSEEN, "sandbox", NULL,
                   "the broker's process is not visible from here");
        return;
    }
    if (strcmp(mode, "2") != 0)
        doctor_say(doctor, DOCTOR_WARN, "sandbox", "In vchand.conf: [broker] sandbox = yes",
                   "vchand (pid %u) runs without its system call filter", pid);
    else if (strtoul(uid, NULL, 10) == 0)
        doctor_say(doctor, DOCTOR_WARN, "sandbox",
                   "It needs no privilege: start it as a user of its own, as vchand.service does.",
                   "vchand (pid %u) filters its system calls, but runs as root", pid);
    else
        doctor_say(doctor, DOCTOR_OK, "sandbox", NULL,
                   "vchand (pid %u) runs as user %lu, with its system call filter", pid,
                   strtoul(uid, NULL, 10));
}

static uint64_t memory_total(const struct doctor *doctor)
{
    char text[8192];
    unsigned long long kib = 0;

    if (doctor_read(doctor, "/proc/meminfo", text, sizeof(text)) < 0 ||
        sscanf(text, "MemTotal: %llu", &kib) != 1)
        return 0;
    return (uint64_t)kib * 1024;
}

static void look_at_region(struct doctor *doctor, const struct proto_broker_info *info)
{
    const uint64_t total = memory_total(doctor), bytes = info->region_bytes;

    if (!info->version[0]) {
        doctor_say(doctor, DOCTOR_UNSEEN, "region", NULL, "there is no broker to ask");
        return;
    }
    if (info->zones == 1 && (bytes & (bytes - 1)))
        doctor_say(doctor, DOCTOR_WRONG, "region", "In vchand.conf: [broker] region-size = 256M",
                   "%" PRIu64 " bytes are no power of two: QEMU would abort", bytes);
    else if (total && bytes > total)
        doctor_say(doctor, DOCTOR_WARN, "region",
                   "Only what rings hold is in use; but they may find no memory. Less: [broker] "
                   "region-size.",
                   "%s, and the host has %s of memory in all", quantity_size(bytes).text,
                   quantity_size(total).text);
    else
        doctor_say(doctor, DOCTOR_OK, "region", NULL, "%s in %u %s, %s of it in memory",
                   quantity_size(bytes).text, info->zones, info->zones == 1 ? "zone" : "zones",
                   quantity_size(info->resident_bytes).text);
}

static void look_at_kvm(struct doctor *doctor)
{
    char path[PATH_MAX];

    doctor_path(doctor, "/dev/kvm", path, sizeof(path));
    if (!doctor_exists(doctor, "/dev/kvm"))
        doctor_say(doctor, DOCTOR_WARN, "kvm",
                   "Switch virtualization on in the firmware; modprobe kvm_intel, or kvm_amd. "
                   "Without: domains\nof type='qemu', with <vcpu current='1'>2</vcpu> at least.",
                   "there is no /dev/kvm: virtual machines are emulated (TCG)");
    else if (doctor_exists(doctor, "/sys/module/kvm_pvm"))
        doctor_say(
            doctor, DOCTOR_WARN, "kvm",
            "Define domains with type='qemu' (TCG), and <vcpu current='1'>2</vcpu> at least.",
            "this KVM is kvm_pvm, under which the kernels of distributions hang");
    else if (access(path, R_OK | W_OK) < 0)
        doctor_say(doctor, DOCTOR_UNSEEN, "kvm", NULL,
                   "/dev/kvm is there; whether QEMU's user may use it is not visible to you");
    else
        doctor_say(doctor, DOCTOR_OK, "kvm", NULL, "/dev/kvm is there and may be used");
}

/* What the helper looks at, in a domain of its own: as DOMAIN_SHOW's text has it, a line each, and
 * below one that is missing what mends it. running: else what is missing is no fault yet. */
static void say_findings(struct doctor *doctor, const char *name, char *text, bool running)
{
    static const char missing[] = "missing: ", ok[] = "ok: ";
    char *line = text;

    while (line && *line) {
        char *next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        if (strncmp(line, missing, strlen(missing)) == 0) {
            char *end = next;
            while (end && strncmp(end, "  ", 2) == 0)
                end = strchr(end, '\n') ? strchr(end, '\n') + 1 : end + strlen(end);
            const char kept = end ? *end : '\0';
            if (end)
                *end = '\0';
            doctor_say(doctor, running ? DOCTOR_WRONG : DOCTOR_WARN, name,
                       next && *next ? next : NULL, "%s", line + strlen(missing));
            if (end)
                *end = kept;
            next = end;
        } else if (strncmp(line, ok, strlen(ok)) == 0) {
            doctor_say(doctor, DOCTOR_OK, name, NULL, "%s", line + strlen(ok));
        }
        line = next;
    }
}

static void say_device(struct doctor *doctor, const char *name,
                       const struct proto_domain_info *info, bool attached,
                       const struct broker_items *guests)
{
    const struct proto_guest_info *guest = guests->items;
    char mend[DOCTOR_TEXT_BYTES];
    size_t i = 0;

    while (i < guests->count && guest[i].domain != info->domain)
        i++;
    if (i < guests->count && guest[i].state == PROTO_GUEST_ATTACHED) {
        doctor_say(doctor, DOCTOR_OK, name, NULL, "its agent %s is connected, %u vectors%s",
                   guest[i].version, guest[i].vectors,
                   guest[i].flags & PROTO_AGENT_POLLS ? ", and polls" : "");
    } else if (i < guests->count) {
        doctor_say(doctor, DOCTOR_WRONG, name,
                   "In the guest: systemctl start vchan-agent; vchanctl doctor there says more.",
                   "QEMU has the device, but no agent in the guest uses it");
    } else if (attached) {
        snprintf(mend, sizeof(mend),
                 "vchanctl domain detach %s, then attach; does its <server path> lead to this "
                 "broker?",
                 name);
        doctor_say(doctor, DOCTOR_WRONG, name, mend,
                   "libvirt has the device, but QEMU is not connected to this broker");
    } else if (info->hypervisor == PROTO_HYPERVISOR_RUNNING) {
        snprintf(mend, sizeof(mend), "vchanctl domain attach %s", name);
        doctor_say(doctor, DOCTOR_WARN, name, mend, "it runs without its device");
    }
}

static void look_at_domain(struct doctor *doctor, const struct proto_domain_info *info,
                           const struct broker_items *guests)
{
    struct proto_domain_request request = {0};
    struct proto_text text;
    char what[PROTO_NAME_BYTES + 16];

    snprintf(what, sizeof(what), "%s", info->name);
    snprintf(request.domain, sizeof(request.domain), "%u", info->domain);
    int r = domain_ask(doctor->ctl, PROTO_DOMAIN_SHOW, &request, &text);
    if (r < 0) {
        doctor_say(doctor, r == -EINVAL ? DOCTOR_UNSEEN : DOCTOR_WRONG, what,
                   r == -EINVAL ? "vchanctl domain show --zone ZONE DOMAIN, for each zone" : NULL,
                   "%s", doctor->ctl->link.why[0] ? doctor->ctl->link.why : strerror(-r));
        return;
    }
    const bool attached = strstr(text.text, "\nattached: yes") != NULL;
    say_findings(doctor, what, text.text,
                 info->hypervisor == PROTO_HYPERVISOR_RUNNING ||
                     info->hypervisor == PROTO_HYPERVISOR_PAUSED);
    say_device(doctor, what, info, attached, guests);
}

static void look_at_domains(struct doctor *doctor)
{
    const bool helper = doctor_process(doctor, "vchan-libvirt") > 0;
    struct broker_items guests = {0};
    struct names names = {0};
    unsigned known = 0;

    if (!doctor->linked || names_load(&names, &doctor->ctl->link) < 0 ||
        domain_guests(&doctor->ctl->link, &guests) < 0) {
        doctor_say(doctor, DOCTOR_UNSEEN, "libvirt", NULL,
                   "what the broker knows of libvirt's domains: %s",
                   doctor->linked ? "it does not tell you" : "there is no broker to ask");
        names_deinit(&names);
        return;
    }
    const struct proto_domain_info *domains = names.domains.items;
    for (size_t i = 0; i < names.domains.count; i++)
        known += domains[i].hypervisor && domains[i].hypervisor != PROTO_HYPERVISOR_UNKNOWN;
    if (!known && !helper)
        doctor_say(doctor, DOCTOR_WARN, "libvirt",
                   "To attach devices by vchanctl: systemctl start vchan-libvirt, or: "
                   "vchan-libvirt",
                   "vchan-libvirt does not run: the broker knows nothing of libvirt's domains");
    else if (!known)
        doctor_say(
            doctor, DOCTOR_WARN, "libvirt",
            "Unless libvirt has none: its log says whether it reaches libvirt and this broker.",
            "vchan-libvirt runs, but this broker knows no domain of libvirt's");
    else
        doctor_say(doctor, DOCTOR_OK, "libvirt", NULL,
                   "vchan-libvirt is connected, and knows %u virtual machine%s", known,
                   known == 1 ? "" : "s");
    for (size_t i = 0; i < names.domains.count; i++)
        if (domains[i].hypervisor && domains[i].hypervisor != PROTO_HYPERVISOR_UNKNOWN)
            look_at_domain(doctor, &domains[i], &guests);
    names_deinit(&names);
    broker_items_deinit(&guests);
}

void doctor_look_at_host(struct doctor *doctor, int link_error)
{
    struct proto_broker_info info;

    look_at_broker(doctor, link_error, &info);
    look_at_membarrier(doctor);
    look_at_sandbox(doctor);
    look_at_region(doctor, &info);
    look_at_kvm(doctor);
    look_at_domains(doctor);
}
