/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl doctor: what programs have in the end, a channel's memory and the files. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "client/agent/uncached.h"
#include "client/ctl/doctor.h"

#define PAGE_BYTES 4096u
/* Ports that nobody uses: one that is taken is passed over. */
#define PORT_FIRST (PROTO_PORT_MAX - 16u)

/* Opens a channel to the host as its server, and leaves it in link->reply. 0 or -errno. */
static int open_channel(struct broker_link *link, uint32_t port)
{
    const struct proto_channel_open request = {
        .peer_domain = PROTO_DOMAIN_HOST, .port = port, .mode = PROTO_OPEN_SERVER};
    int r = proto_send(link->socket, PROTO_CHANNEL_OPEN, ++link->seq, &request, sizeof(request),
                       NULL, 0, NULL, 0);

    if (r == 0)
        r = proto_receive(link->socket, &link->reply, 0);
    if (r <= 0)
        return r == 0 ? -ECONNRESET : r;
    const struct proto_error *error = (const void *)link->reply.body;
    if (link->reply.header.size >= sizeof(*error) && error->err < 0)
        return error->err;
    return link->reply.header.size == sizeof(*error) + sizeof(struct proto_channel_open_reply) &&
                   link->reply.descriptor_count > 0
               ? 0
               : -EPROTO;
}

static void measure(struct doctor *doctor, const struct proto_message *message)
{
    struct proto_channel_open_reply reply;

    memcpy(&reply, message->body + sizeof(struct proto_error), sizeof(reply));
    const void *page = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, message->descriptors[0],
                            (off_t)(reply.memory_offset + reply.page_offset));
    if (page == MAP_FAILED) {
        doctor_say(doctor, DOCTOR_WRONG, "memory",
                   "May this program lock or map memory? See ulimit -v, and its security module.",
                   "a channel can be opened, but its memory cannot be mapped: %s", strerror(errno));
        return;
    }
    const uint32_t ratio = uncached_ratio(page);
    munmap((void *)page, PAGE_BYTES);
    if (ratio >= UNCACHED_RATIO)
        doctor_say(doctor, DOCTOR_WARN, "memory",
                   "The hypervisor does not override that the guest maps the device uncached (KVM "
                   "on AMD,\nor a device that does not snoop). Channels work, slowly. Another "
                   "machine type or a newer\nkernel on the host may help.",
                   "a channel's memory is mapped uncached: it is read %u times slower than "
                   "private memory",
                   ratio);
    else
        doctor_say(doctor, DOCTOR_OK, "memory", NULL,
                   "a channel can be opened, and its memory is mapped cached");
}

void doctor_look_at_memory(struct doctor *doctor)
{
    struct broker_link link = {.socket = -1};
    int r = -EADDRINUSE;

    if (!doctor->linked) {
        doctor_say(doctor, DOCTOR_UNSEEN, "memory", NULL,
                   "how a channel's memory is mapped: nobody opens a channel here");
        return;
    }
    for (uint32_t port = PORT_FIRST; r == -EADDRINUSE && port < PROTO_PORT_MAX; port++) {
        r = broker_link_open(&link, doctor->ctl->socket_path, doctor->ctl->link.domain);
        if (r == 0)
            r = open_channel(&link, port);
        if (r == 0)
            measure(doctor, &link.reply);
        proto_message_close(&link.reply);
        link.reply.descriptor_count = 0;
        broker_link_close(&link);
    }
    if (r < 0)
        doctor_say(doctor, DOCTOR_WRONG, "memory",
                   "See what vchanctl info and vchanctl domains say of room and quotas.",
                   "no channel can be opened: %s", strerror(-r));
}

/* A line of /proc/mounts: DEVICE PATH TYPE ... */
static void look_at_mount(struct doctor *doctor, const char *path)
{
    char mend[2 * DOCTOR_TEXT_BYTES]; /* the path twice */
    struct statfs status;

    if (doctor->ctl->root || statfs(path, &status) == 0) {
        doctor_say(doctor, DOCTOR_OK, "files", NULL, "vchanfs is mounted at %s", path);
        return;
    }
    snprintf(mend, sizeof(mend), "umount -l %s; vchanfs %s", path, path);
    if (errno == EACCES)
        doctor_say(doctor, DOCTOR_UNSEEN, "files", NULL,
                   "vchanfs is mounted at %s, by somebody who shares it with nobody", path);
    else
        doctor_say(doctor, DOCTOR_WRONG, "files", mend, "vchanfs at %s does not answer: %s", path,
                   strerror(errno));
}

void doctor_look_at_files(struct doctor *doctor)
{
    char mounts[65536], path[256], type[64];
    bool found = false;
    int r = doctor_read(doctor, "/proc/mounts", mounts, sizeof(mounts));

    if (r < 0) {
        doctor_say(doctor, DOCTOR_UNSEEN, "files", NULL, "/proc/mounts: %s", strerror(-r));
        return;
    }
    for (char *line = strtok(mounts, "\n"); line; line = strtok(NULL, "\n"))
        if (sscanf(line, "%*s %255s %63s", path, type) == 2 && strcmp(type, "fuse.vchanfs") == 0) {
            look_at_mount(doctor, path);
            found = true;
        }
    if (!found)
        doctor_say(doctor, DOCTOR_WARN, "files",
                   "Programs need none; for shells: systemctl start vchanfs, or: vchanfs DIRECTORY",
                   "vchanfs is not mounted");
}
