/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/libvirt/liaison.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "broker/libvirt/follower.h"
#include "broker/libvirt/jobs.h"
#include "broker/libvirt/uplink.h"
#include "proto/socket.h"

#define RETRY_MIN_US UINT64_C(100000)
#define RETRY_MAX_US UINT64_C(5000000)

/* A domain of the hypervisor, as last seen. */
struct vm {
    struct driver_domain domain;
    uint32_t round; /* of the listing that had it last */
};

struct liaison {
    const char *uri;
    const char *socket_path;
    sd_event *event;
    struct follower *follower;
    struct jobs *jobs;
    struct uplink uplink;
    sd_event_source *uplink_source; /* NULL: no broker */
    sd_event_source *retry;
    uint64_t retry_us;
    bool broker_missed; /* said */
    struct vm *vms;
    size_t vm_count, vm_capacity;
    uint32_t round;
    bool complete;       /* vms is all there are */
    bool libvirt_missed; /* said */
};

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* One line; names of domains and libvirt's words are in it. */
static void say(const char *format, ...)
{
    char line[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    fprintf(stderr, "vchan-libvirt: %s\n", line);
}

static void lose_broker(struct liaison *liaison)
{
    liaison->uplink_source = sd_event_source_disable_unref(liaison->uplink_source);
    uplink_close(&liaison->uplink);
    jobs_disown(liaison->jobs);
    if (!liaison->broker_missed) {
        char path[128];

        if (!liaison->socket_path)
            (void)proto_socket_path(path, sizeof(path));
        say("no broker at %s: %s; trying again", liaison->socket_path ? liaison->socket_path : path,
            liaison->uplink.why);
    }
    liaison->broker_missed = true;
    sd_event_source_set_time_relative(liaison->retry, liaison->retry_us);
    sd_event_source_set_enabled(liaison->retry, SD_EVENT_ONESHOT);
    liaison->retry_us = 2 * liaison->retry_us < RETRY_MAX_US ? 2 * liaison->retry_us : RETRY_MAX_US;
}

/* Tells the broker; a broker that is lost is told when it is back. */
static void report(struct liaison *liaison, const struct driver_domain *domain)
{
    struct proto_hypervisor_domain body = {.state = domain->state};
    struct proto_hypervisor_domain_reply reply;

    if (!liaison->uplink_source)
        return;
    memcpy(body.uuid, domain->uuid, sizeof(body.uuid));
    snprintf(body.name, sizeof(body.name), "%.*s", (int)sizeof(body.name) - 1, domain->name);
    int r = uplink_call(&liaison->uplink, PROTO_HYPERVISOR_DOMAIN, &body, sizeof(body), &reply,
                        sizeof(reply));
    if (r < 0 && liaison->uplink.socket >= 0)
        say("the broker does not take domain \"%s\": %s", domain->name, liaison->uplink.why);
    else if (r < 0)
        lose_broker(liaison);
}

static void report_complete(struct liaison *liaison)
{
    struct proto_hypervisor_serve serve = {0};

    if (!liaison->uplink_source)
        return;
    snprintf(serve.name, sizeof(serve.name), "%s", liaison->uri);
    if (uplink_call(&liaison->uplink, PROTO_HYPERVISOR_SERVE, &serve, sizeof(serve), NULL, 0) < 0 &&
        liaison->uplink.socket < 0)
        lose_broker(liaison);
}

static void answer(void *context, const struct proto_hypervisor_done *done)
{
    struct liaison *liaison = context;

    say("request %u: %s: %.*s", done->request, done->err ? strerror(-done->err) : "done",
        (int)strcspn(done->text.text, "\n"), done->text.text);
    if (liaison->uplink_source &&
        uplink_call(&liaison->uplink, PROTO_HYPERVISOR_DONE, done, sizeof(*done), NULL, 0) < 0 &&
        liaison->uplink.socket < 0)
        lose_broker(liaison);
}

static void take_request(struct liaison *liaison, const struct proto_event_hypervisor *event)
{
    char why[DRIVER_ERROR_BYTES], text[2 * DRIVER_ERROR_BYTES];
    struct driver *driver = follower_driver(liaison->follower, why);

    if (driver) {
        jobs_add(liaison->jobs, driver, event);
        return;
    }
    struct proto_hypervisor_done done = {.request = event->request, .err = -ENOTCONN};
    snprintf(text, sizeof(text), "vchan-libvirt is not connected to %s, and tries again: %s",
             liaison->uri, why);
    jobs_say(&done, text);
    answer(liaison, &done);
}

/* After whatever happened: requests may have come while a call waited for its reply. */
static int on_post(sd_event_source *source, void *context)
{
    struct liaison *liaison = context;
    struct proto_event_hypervisor event;

    (void)source;
    while (liaison->uplink_source && uplink_event(&liaison->uplink, &event))
        take_request(liaison, &event);
    return 0;
}

static struct vm *find_vm(struct liaison *liaison, const uint8_t uuid[16])
{
    for (size_t i = 0; i < liaison->vm_count; i++)
        if (memcmp(liaison->vms[i].domain.uuid, uuid, 16) == 0)
            return &liaison->vms[i];
    return NULL;
}

static struct vm *add_vm(struct liaison *liaison)
{
    if (liaison->vm_count == liaison->vm_capacity) {
        size_t capacity = liaison->vm_capacity ? 2 * liaison->vm_capacity : 16;
        struct vm *grown = reallocarray(liaison->vms, capacity, sizeof(*grown));
        if (!grown)
            return NULL;
        liaison->vms = grown;
        liaison->vm_capacity = capacity;
    }
    return &liaison->vms[liaison->vm_count++];
}

static void forget_vm(struct liaison *liaison, struct vm *vm)
{
    struct driver_domain gone = vm->domain;

    *vm = liaison->vms[--liaison->vm_count];
    gone.state = PROTO_HYPERVISOR_GONE;
    report(liaison, &gone);
}

static void take_domain(struct liaison *liaison, const struct driver_domain *domain)
{
    struct vm *vm = find_vm(liaison, domain->uuid);

    if (domain->state == PROTO_HYPERVISOR_GONE) {
        if (vm)
            forget_vm(liaison, vm);
        return;
    }
    const bool news =
        !vm || vm->domain.state != domain->state || strcmp(vm->domain.name, domain->name) != 0;
    if (!vm)
        vm = add_vm(liaison);
    if (!vm) {
        say("out of memory: domain \"%s\" is not told to the broker", domain->name);
        return;
    }
    *vm = (struct vm){.domain = *domain, .round = liaison->round};
    if (news)
        report(liaison, domain);
}

static void take_connected(struct liaison *liaison)
{
    liaison->round++;
    if (liaison->libvirt_missed || liaison->round == 1)
        say("connected to %s", liaison->uri);
    liaison->libvirt_missed = false;
}

static void take_complete(struct liaison *liaison)
{
    for (size_t i = liaison->vm_count; i-- > 0;)
        if (liaison->vms[i].round != liaison->round)
            forget_vm(liaison, &liaison->vms[i]);
    liaison->complete = true;
    report_complete(liaison);
    sd_notifyf(0, "STATUS=%s: %zu domains", liaison->uri, liaison->vm_count);
}

static void take_lost(struct liaison *liaison, const char *why)
{
    if (!liaison->libvirt_missed)
        say("%s: %s; trying again", liaison->uri, why);
    liaison->libvirt_missed = true;
    liaison->complete = false;
    for (size_t i = 0; i < liaison->vm_count; i++) {
        struct driver_domain *domain = &liaison->vms[i].domain;
        if (domain->state != PROTO_HYPERVISOR_UNKNOWN) {
            domain->state = PROTO_HYPERVISOR_UNKNOWN;
            report(liaison, domain);
        }
    }
    sd_notifyf(0, "STATUS=%s: %s", liaison->uri, why);
}

static int on_notes(sd_event_source *source, int descriptor, uint32_t events, void *context)
{
    struct liaison *liaison = context;
    struct follower_note *note;
    eventfd_t count;

    (void)source;
    (void)events;
    eventfd_read(descriptor, &count);
    while ((note = follower_take(liaison->follower))) {
        while (note) {
            struct follower_note *next = note->next;
            if (note->kind == FOLLOWER_DOMAIN)
                take_domain(liaison, &note->domain);
            else if (note->kind == FOLLOWER_CONNECTED)
                take_connected(liaison);
            else if (note->kind == FOLLOWER_COMPLETE)
                take_complete(liaison);
            else
                take_lost(liaison, note->why);
            free(note);
            note = next;
        }
    }
    return 0;
}

static int on_broker(sd_event_source *source, int descriptor, uint32_t events, void *context)
{
    struct liaison *liaison = context;

    (void)source;
    (void)descriptor;
    (void)events;
    if (uplink_receive(&liaison->uplink) < 0)
        lose_broker(liaison);
    return 0;
}

static int on_retry(sd_event_source *source, uint64_t time_us, void *context)
{
    struct liaison *liaison = context;

    (void)source;
    (void)time_us;
    int r = uplink_open(&liaison->uplink, liaison->socket_path, liaison->uri);
    if (r == 0)
        r = sd_event_add_io(liaison->event, &liaison->uplink_source, liaison->uplink.socket,
                            EPOLLIN, on_broker, liaison);
    if (r < 0) {
        lose_broker(liaison);
        return 0;
    }
    say("serving the broker");
    liaison->broker_missed = false;
    liaison->retry_us = RETRY_MIN_US;
    for (size_t i = 0; i < liaison->vm_count; i++)
        report(liaison, &liaison->vms[i].domain);
    if (liaison->complete)
        report_complete(liaison);
    return 0;
}

static int on_stop(sd_event_source *source, const struct signalfd_siginfo *info, void *context)
{
    (void)info;
    (void)context;
    return sd_event_exit(sd_event_source_get_event(source), 0);
}

/* Before any thread is made: they inherit the mask. */
static void block_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static int set_up(struct liaison *liaison)
{
    int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = wake_fd < 0 ? -errno : sd_event_new(&liaison->event);

    if (r >= 0)
        r = sd_event_add_io(liaison->event, NULL, wake_fd, EPOLLIN, on_notes, liaison);
    if (r >= 0)
        r = sd_event_add_time_relative(liaison->event, &liaison->retry, CLOCK_MONOTONIC, 0, 1000,
                                       on_retry, liaison);
    if (r >= 0)
        r = sd_event_add_post(liaison->event, NULL, on_post, liaison);
    if (r >= 0)
        r = sd_event_add_signal(liaison->event, NULL, SIGTERM, on_stop, liaison);
    if (r >= 0)
        r = sd_event_add_signal(liaison->event, NULL, SIGINT, on_stop, liaison);
    if (r >= 0)
        r = jobs_new(liaison->event, answer, liaison, &liaison->jobs);
    if (r >= 0)
        r = driver_start();
    if (r >= 0)
        r = follower_new(liaison->uri, wake_fd, &liaison->follower);
    return r;
}

int liaison_run(const char *uri, const char *socket_path)
{
    struct liaison *liaison = calloc(1, sizeof(*liaison));

    if (!liaison)
        return -ENOMEM;
    liaison->uri = uri;
    liaison->socket_path = socket_path;
    liaison->retry_us = RETRY_MIN_US;
    liaison->uplink.socket = -1;
    block_signals();
    int r = set_up(liaison);
    if (r < 0) {
        say("cannot start: %s", strerror(-r));
        return r;
    }
    sd_notify(0, "READY=1");
    r = sd_event_loop(liaison->event);
    sd_notify(0, "STOPPING=1");
    /* Threads may be inside libvirt, for as long as it likes: all ends with the process. */
    return r;
}
