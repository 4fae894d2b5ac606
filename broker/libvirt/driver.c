/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/libvirt/driver.h"

#include <errno.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/guest.h"

/* A libvirtd that is stopped is noticed after this many seconds, three times. */
#define KEEPALIVE_S 5
#define KEEPALIVE_COUNT 3

/* Somebody waits for a device to go. */
struct removal {
    struct removal *next; /* owner: driver.removals */
    uint8_t uuid[16];
    const char *alias;
    int result; /* 1: not yet; 0: it has gone; -EBUSY: the guest refused; -ENOTCONN */
};

#define CALLBACKS 4

struct driver {
    virConnectPtr connect;
    const struct driver_listener *listener;
    uint32_t users; /* atomic: the last one closes the connection */
    uint32_t pins;  /* atomic: that, and callbacks that libvirt may still be in: the last frees */
    int callbacks[CALLBACKS];
    pthread_mutex_t lock; /* of removals */
    pthread_cond_t changed;
    struct removal *removals;
};

/* Libvirt prints its errors itself unless it is told not to; they come back in `error`. */
static void be_quiet(void *context, virErrorPtr error)
{
    (void)context;
    (void)error;
}

static void *run_events(void *context)
{
    (void)context;
    for (;;)
        if (virEventRunDefaultImpl() < 0)
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    return NULL;
}

int driver_start(void)
{
    pthread_t thread;

    if (virInitialize() < 0 || virEventRegisterDefaultImpl() < 0)
        return -EIO;
    virSetErrorFunc(NULL, be_quiet);
    if (pthread_create(&thread, NULL, run_events, NULL) != 0)
        return -EIO;
    pthread_detach(thread);
    return 0;
}

static int fail(int err, char *error)
{
    const virError *last = virGetLastError();

    snprintf(error, DRIVER_ERROR_BYTES, "%s",
             last && last->message ? last->message : "libvirt does not say why");
    return err;
}

static int on_lifecycle(virConnectPtr connect, virDomainPtr domain, int event, int detail,
                        void *context)
{
    const struct driver *driver = context;
    uint8_t uuid[VIR_UUID_BUFLEN];

    (void)connect;
    (void)event;
    (void)detail;
    if (virDomainGetUUID(domain, uuid) == 0)
        driver->listener->changed(driver->listener->context, uuid);
    return 0;
}

static void finish_removal(struct driver *driver, virDomainPtr domain, const char *alias,
                           int result)
{
    uint8_t uuid[VIR_UUID_BUFLEN];

    if (virDomainGetUUID(domain, uuid) < 0)
        return;
    pthread_mutex_lock(&driver->lock);
    for (struct removal *removal = driver->removals; removal; removal = removal->next)
        if (memcmp(removal->uuid, uuid, sizeof(removal->uuid)) == 0 &&
            strcmp(removal->alias, alias) == 0)
            removal->result = result;
    pthread_cond_broadcast(&driver->changed);
    pthread_mutex_unlock(&driver->lock);
}

static void on_removed(virConnectPtr connect, virDomainPtr domain, const char *alias, void *context)
{
    struct driver *driver = context;
    uint8_t uuid[VIR_UUID_BUFLEN];

    (void)connect;
    finish_removal(driver, domain, alias, 0);
    if (virDomainGetUUID(domain, uuid) == 0)
        driver->listener->changed(driver->listener->context, uuid);
}

static void on_removal_failed(virConnectPtr connect, virDomainPtr domain, const char *alias,
                              void *context)
{
    (void)connect;
    finish_removal(context, domain, alias, -EBUSY);
}

static void on_added(virConnectPtr connect, virDomainPtr domain, const char *alias, void *context)
{
    (void)alias;
    on_lifecycle(connect, domain, 0, 0, context);
}

static void on_closed(virConnectPtr connect, int reason, void *context)
{
    struct driver *driver = context;

    (void)connect;
    (void)reason;
    pthread_mutex_lock(&driver->lock);
    for (struct removal *removal = driver->removals; removal; removal = removal->next)
        if (removal->result > 0)
            removal->result = -ENOTCONN;
    pthread_cond_broadcast(&driver->changed);
    pthread_mutex_unlock(&driver->lock);
    driver->listener->closed(driver->listener->context);
}

static void unpin(void *context)
{
    struct driver *driver = context;

    /* As in driver_drop. */
    if (__atomic_sub_fetch(&driver->pins, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    pthread_cond_destroy(&driver->changed);
    pthread_mutex_destroy(&driver->lock);
    free(driver);
}

static int listen_to(struct driver *driver, unsigned index, int event,
                     virConnectDomainEventGenericCallback callback)
{
    __atomic_fetch_add(&driver->pins, 1, __ATOMIC_RELAXED);
    driver->callbacks[index] =
        virConnectDomainEventRegisterAny(driver->connect, NULL, event, callback, driver, unpin);
    if (driver->callbacks[index] >= 0)
        return 0;
    unpin(driver);
    return -EIO;
}

static int listen_to_all(struct driver *driver)
{
    int r = listen_to(driver, 0, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                      VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle));

    if (r < 0)
        return r;
    /* Drivers without device hot-plug do not know these; nor do they detach. */
    listen_to(driver, 1, VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, VIR_DOMAIN_EVENT_CALLBACK(on_removed));
    listen_to(driver, 2, VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED,
              VIR_DOMAIN_EVENT_CALLBACK(on_removal_failed));
    listen_to(driver, 3, VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, VIR_DOMAIN_EVENT_CALLBACK(on_added));
    /* Local drivers cannot close and have no keep-alive: both fail, and that is fine. */
    __atomic_fetch_add(&driver->pins, 1, __ATOMIC_RELAXED);
    if (virConnectRegisterCloseCallback(driver->connect, on_closed, driver, unpin) < 0)
        unpin(driver);
    virConnectSetKeepAlive(driver->connect, KEEPALIVE_S, KEEPALIVE_COUNT);
    return 0;
}

static void init_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

int driver_open(const char *uri, const struct driver_listener *listener, struct driver **out,
                char *error)
{
    struct driver *driver = calloc(1, sizeof(*driver));

    if (!driver) {
        snprintf(error, DRIVER_ERROR_BYTES, "out of memory");
        return -ENOMEM;
    }
    driver->listener = listener;
    driver->users = 1;
    driver->pins = 1;
    for (unsigned i = 0; i < CALLBACKS; i++)
        driver->callbacks[i] = -1;
    pthread_mutex_init(&driver->lock, NULL);
    init_condition(&driver->changed);
    driver->connect = virConnectOpen(uri);
    if (!driver->connect || listen_to_all(driver) < 0) {
        fail(-ENOTCONN, error);
        driver_drop(driver);
        return -ENOTCONN;
    }
    *out = driver;
    return 0;
}

struct driver *driver_hold(struct driver *driver)
{
    __atomic_fetch_add(&driver->users, 1, __ATOMIC_RELAXED);
    return driver;
}

void driver_drop(struct driver *driver)
{
    /* Release: what this user did is done before the last one closes it; acquire: it sees that. */
    if (!driver || __atomic_sub_fetch(&driver->users, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    if (driver->connect) {
        virConnectUnregisterCloseCallback(driver->connect, on_closed);
        for (unsigned i = 0; i < CALLBACKS; i++)
            if (driver->callbacks[i] >= 0)
                virConnectDomainEventDeregisterAny(driver->connect, driver->callbacks[i]);
        virConnectClose(driver->connect);
    }
    unpin(driver);
}

static uint32_t state_of(virDomainPtr domain)
{
    int state, reason;

    if (virDomainGetState(domain, &state, &reason, 0) < 0)
        return virGetLastErrorCode() == VIR_ERR_NO_DOMAIN ? PROTO_HYPERVISOR_GONE
                                                          : PROTO_HYPERVISOR_UNKNOWN;
    switch (state) {
    case VIR_DOMAIN_RUNNING:
    case VIR_DOMAIN_BLOCKED:
    case VIR_DOMAIN_SHUTDOWN: /* it is about to end, and still runs */
        return PROTO_HYPERVISOR_RUNNING;
    case VIR_DOMAIN_PAUSED:
    case VIR_DOMAIN_PMSUSPENDED:
        return PROTO_HYPERVISOR_PAUSED;
    default:
        return PROTO_HYPERVISOR_DEFINED;
    }
}

static int describe(virDomainPtr domain, struct driver_domain *out)
{
    const char *name = virDomainGetName(domain);

    *out = (struct driver_domain){0};
    if (!name || virDomainGetUUID(domain, out->uuid) < 0)
        return -EIO;
    snprintf(out->name, sizeof(out->name), "%s", name);
    out->state = state_of(domain);
    return 0;
}

int driver_list(struct driver *driver, struct driver_domain **domains, size_t *count, char *error)
{
    virDomainPtr *all;
    int n = virConnectListAllDomains(driver->connect, &all, 0);

    if (n < 0)
        return fail(-EIO, error);
    *count = 0;
    *domains = calloc((size_t)n + 1, sizeof(**domains));
    for (int i = 0; i < n; i++) {
        if (*domains && describe(all[i], &(*domains)[*count]) == 0)
            (*count)++;
        virDomainFree(all[i]);
    }
    free(all);
    if (*domains)
        return 0;
    snprintf(error, DRIVER_ERROR_BYTES, "out of memory");
    return -ENOMEM;
}

static int find(struct driver *driver, const uint8_t uuid[16], const char *name, virDomainPtr *out,
                char *error)
{
    static const uint8_t none[VIR_UUID_BUFLEN];

    *out = memcmp(uuid, none, sizeof(none)) == 0 && name
               ? virDomainLookupByName(driver->connect, name)
               : virDomainLookupByUUID(driver->connect, uuid);
    if (*out)
        return 0;
    return fail(virGetLastErrorCode() == VIR_ERR_NO_DOMAIN ? -ENOENT : -EIO, error);
}

int driver_look(struct driver *driver, const uint8_t uuid[16], const char *name,
                struct driver_domain *out, char *error)
{
    virDomainPtr domain;
    int r = find(driver, uuid, name, &domain, error);

    if (r < 0)
        return r;
    r = describe(domain, out);
    if (r < 0)
        fail(r, error);
    else if (out->state == PROTO_HYPERVISOR_GONE)
        r = -ENOENT;
    virDomainFree(domain);
    return r;
}

int driver_xml(struct driver *driver, const uint8_t uuid[16], char **xml, char *error)
{
    virDomainPtr domain;
    int r = find(driver, uuid, NULL, &domain, error);

    if (r < 0)
        return r;
    *xml = virDomainGetXMLDesc(domain, 0);
    if (!*xml)
        r = fail(-EIO, error);
    virDomainFree(domain);
    return r;
}

int driver_attach(struct driver *driver, const uint8_t uuid[16], const char *device_xml,
                  char *error)
{
    virDomainPtr domain;
    int r = find(driver, uuid, NULL, &domain, error);

    if (r < 0)
        return r;
    if (virDomainAttachDeviceFlags(domain, device_xml, VIR_DOMAIN_AFFECT_LIVE) < 0)
        r = fail(-EIO, error);
    virDomainFree(domain);
    return r;
}

static void add_removal(struct driver *driver, struct removal *removal)
{
    pthread_mutex_lock(&driver->lock);
    removal->next = driver->removals;
    driver->removals = removal;
    pthread_mutex_unlock(&driver->lock);
}

/* 0, or how it failed. Takes it out of the list. */
static int wait_for_removal(struct driver *driver, struct removal *removal, unsigned wait_ms)
{
    struct timespec deadline;
    int r = 0;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += wait_ms / 1000;
    deadline.tv_nsec += (long)(wait_ms % 1000) * 1000000;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_nsec -= 1000000000;
        deadline.tv_sec++;
    }
    pthread_mutex_lock(&driver->lock);
    while (removal->result > 0 && r == 0 && wait_ms > 0)
        r = pthread_cond_timedwait(&driver->changed, &driver->lock, &deadline);
    for (struct removal **at = &driver->removals; *at; at = &(*at)->next)
        if (*at == removal) {
            *at = removal->next;
            break;
        }
    r = removal->result > 0 ? -ETIMEDOUT : removal->result;
    pthread_mutex_unlock(&driver->lock);
    return r;
}

int driver_detach(struct driver *driver, const uint8_t uuid[16], const char *alias,
                  unsigned wait_ms, char *error)
{
    struct removal removal = {.alias = alias, .result = 1};
    virDomainPtr domain;
    int r = find(driver, uuid, NULL, &domain, error);

    if (r < 0)
        return r;
    memcpy(removal.uuid, uuid, sizeof(removal.uuid));
    /* Before the request: the device may be gone before it returns. */
    add_removal(driver, &removal);
    if (virDomainDetachDeviceAlias(domain, alias, VIR_DOMAIN_AFFECT_LIVE) < 0) {
        r = fail(-EIO, error);
        wait_for_removal(driver, &removal, 0);
    } else {
        error[0] = '\0';
        r = wait_for_removal(driver, &removal, wait_ms);
    }
    virDomainFree(domain);
    return r;
}
