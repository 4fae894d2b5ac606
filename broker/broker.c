/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/broker.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "broker/connection.h"
#include "broker/history.h"
#include "broker/hypervisor.h"
#include "broker/inspector.h"
#include "broker/metrics.h"
#include "broker/mover.h"
#include "broker/rebalancer.h"
#include "broker/reload.h"
#include "broker/sandbox.h"
#include "ring/order.h"

/* Descriptors of the broker's own, with room to spare. */
#define DESCRIPTORS_OWN 64u

uint64_t broker_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void count_end(struct broker *broker, const struct channel *channel, unsigned end,
                      int change)
{
    const uint32_t number = end == CHANNEL_SERVER ? channel->key.server_domain
                                                  : channel->key.client_domain;
    struct domain *domain;

    if (domains_need(&broker->domains, number, &domain) < 0)
        return;
    order_store_plain(&domain->channels, domain->channels + (uint32_t)change);
    domains_settle(&broker->domains, domain);
}

void broker_channel_joined(struct broker *broker, struct channel *channel, unsigned end)
{
    order_store_plain(&broker->opens, broker->opens + 1);
    count_end(broker, channel, end, 1);
    if (end == CHANNEL_CLIENT)
        for (unsigned ring = 0; ring < 2; ring++) /* traffic is to be expected */
            rebalancer_doorbells(broker->rebalancer, channel->number, ring);
    log_debug(&broker->log,
              "channel %u: server domain %u, client domain %u, port %u: the %s has come (pid %u)",
              channel->number, channel->key.server_domain, channel->key.client_domain,
              channel->key.port, end == CHANNEL_SERVER ? "server" : "client",
              channel->end[end].pid);
}

void broker_channel_left(struct broker *broker, struct channel *channel, unsigned end)
{
    order_store_plain(&broker->closes, broker->closes + 1);
    count_end(broker, channel, end, -1);
    if (channel_detach(channel, end)) {
        log_debug(&broker->log, "channel %u: freed", channel->number);
        mover_forget(broker->mover, channel);
        channel_free(channel);
    }
}

int broker_quota_set(struct broker *broker, uint32_t number, uint64_t quota_bytes)
{
    struct domain *domain;

    if (domains_check(&broker->domains, number) == -ENOENT)
        return -ENOENT;
    if (!zone_is_whole(quota_bytes))
        return -EINVAL;
    for (uint32_t i = 0; i < broker->zone_count; i++) {
        int r = allocator_quota_set(broker->zones[i]->allocator, number,
                                    quota_bytes / LAYOUT_BLOCK_BYTES);
        if (r < 0)
            return r;
    }
    int r = domains_need(&broker->domains, number, &domain);
    if (r < 0)
        return r;
    order_store_plain(&domain->quota_bytes, quota_bytes);
    domains_settle(&broker->domains, domain);
    return 0;
}

static int on_retired(sd_event_source *source, int descriptor, uint32_t events, void *context)
{
    struct broker *broker = context;

    (void)source;
    (void)descriptor;
    (void)events;
    channels_reap(&broker->channels);
    return 0;
}

static int on_stop(sd_event_source *source, const struct signalfd_siginfo *info, void *context)
{
    struct broker *broker = context;

    (void)source;
    log_notice(&broker->log, "stopping: signal %u from pid %u", info->ssi_signo, info->ssi_pid);
    return sd_event_exit(broker->event, 0);
}

/* Descriptors: one a connection, two a channel; two a vector of each domain that may be attached,
 * and as many as that for its connection and its socket. */
static void raise_descriptor_limit(struct broker *broker)
{
    const uint64_t wanted = broker->config.connections + 2ull * broker->channels_max +
                            2ull * broker->config.domain_count *
                                (broker->config.guest_vectors + 1) +
                            DESCRIPTORS_OWN;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < wanted)
        log_warning(&broker->log,
                    "this process may have %llu open files, and %llu are needed for all "
                    "connections and channels: "
                    "raise LimitNOFILE=, or lower connections= and channels=",
                    (unsigned long long)limit.rlim_cur, (unsigned long long)wanted);
}

static int add_zone(struct broker *broker, const char *name, const struct domain_set *members,
                    uint64_t region_bytes, uint64_t channels)
{
    const uint32_t features = order_grace_period_works() ? 0 : LAYOUT_FEATURE_MARK_FENCE;
    const uint32_t count = config_channels_for(channels, region_bytes);
    struct zone **zones = realloc(broker->zones, (broker->zone_count + 1) * sizeof(*zones));

    if (!zones)
        return -ENOMEM;
    broker->zones = zones;
    int r = zone_new(name, broker->zone_count, broker->channels_max, members, region_bytes, count,
                     features, &zones[broker->zone_count]);
    if (r < 0) {
        log_error(&broker->log, "zone %s: cannot make a region of %llu bytes with %u channels: %s",
                  name, (unsigned long long)region_bytes, count, strerror(-r));
        return r;
    }
    broker->zone_count++;
    broker->channels_max += count;
    log_info(&broker->log, "zone %s: a region of %llu bytes, %u channels%s", name,
             (unsigned long long)region_bytes, count,
             features & LAYOUT_FEATURE_MARK_FENCE ? ", ends fence (the kernel refuses membarrier)"
                                                  : "");
    return 0;
}

static int make_zones(struct broker *broker)
{
    const struct config *config = &broker->config;
    struct domain_set everybody;
    int r = 0;

    memset(&everybody, 0xff, sizeof(everybody));
    if (config->zone_count == 0)
        r = add_zone(broker, "default", &everybody, config->region_bytes, config->channels);
    for (size_t i = 0; i < config->zone_count && r == 0; i++)
        r = add_zone(broker, config->zones[i].name, &config->zones[i].members,
                     config->zones[i].region_bytes, config->zones[i].channels);
    return r;
}

static int add_sources(struct broker *broker)
{
    int r = crowd_open(broker);

    if (r >= 0)
        r = sd_event_add_io(broker->event, NULL, broker->channels.retired.event_fd, EPOLLIN,
                            on_retired, broker);
    if (r >= 0)
        r = sd_event_add_signal(broker->event, NULL, SIGTERM, on_stop, broker);
    if (r >= 0)
        r = sd_event_add_signal(broker->event, NULL, SIGINT, on_stop, broker);
    if (r >= 0)
        r = sd_event_add_signal(broker->event, NULL, SIGHUP, reload_on_signal, broker);
    if (r >= 0)
        r = sd_event_set_watchdog(broker->event, true);
    return r < 0 ? r : 0;
}

static int make_tables(struct broker *broker)
{
    int r = domains_init(&broker->domains);

    if (r == 0)
        r = channels_init(&broker->channels, broker->channels_max);
    if (r == 0)
        r = guests_init(&broker->guests, broker->zone_count);
    if (r == 0)
        r = reload_apply_domains(broker, &broker->config);
    return r;
}

/* Those who look at rings and move them; no thread yet. */
static int make_movers(struct broker *broker)
{
    broker->policy = policy_find(broker->config.policy_name);
    const struct rebalancer_setup looks = {
        .channels = &broker->channels,
        .domains = &broker->domains,
        .zones = broker->zones,
        .zone_count = broker->zone_count,
        .channels_max = broker->channels_max,
        .policy = broker->policy,
        .config = &broker->config.policy,
    };
    int r = history_new(&broker->history);

    if (r == 0)
        r = rebalancer_new(&looks, &broker->rebalancer);
    if (r < 0)
        return r;
    const struct mover_setup moves = {
        .event = broker->event,
        .channels = &broker->channels,
        .history = broker->history,
        .rebalancer = broker->rebalancer,
        .log = &broker->log,
    };
    return mover_new(&moves, &broker->mover);
}

/* Before any thread is made: they inherit the mask, and signals come to the event loop alone. */
static void block_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static int init_all(struct broker *broker, const char *runtime_directory)
{
    block_signals();
    rcu_register_thread();
    broker->barrier_works = order_register();
    /* The socket comes first: a second broker must not get as far as making regions. */
    int r = listener_init(&broker->listener, &broker->config, runtime_directory, &broker->log);
    if (r < 0)
        return r;
    r = make_zones(broker);
    if (r < 0)
        return r;
    raise_descriptor_limit(broker);
    r = make_tables(broker);
    if (r == 0)
        r = sd_event_new(&broker->event);
    if (r >= 0)
        r = make_movers(broker);
    if (r >= 0)
        r = hypervisor_new(broker, &broker->hypervisor);
    if (r >= 0)
        r = add_sources(broker);
    if (r >= 0)
        r = guest_sockets_open(broker, runtime_directory);
    if (r < 0)
        log_error(&broker->log, "cannot start: %s", strerror(-r));
    return r;
}

int broker_init(struct broker *broker, struct config *config, const char *config_path,
                const char *runtime_directory)
{
    *broker = (struct broker){
        .config = *config,
        .started_ns = broker_now_ns(),
        .listener = {.descriptor = -1, .lock = -1},
    };
    *config = (struct config){0};
    log_init(&broker->log, (int)broker->config.log_level);
    CDS_INIT_LIST_HEAD(&broker->connections);
    CDS_INIT_LIST_HEAD(&broker->doomed);
    waitlist_init(&broker->waitlist);
    crowd_init(&broker->crowd);
    guest_sockets_init(&broker->guest_sockets);
    ivshmem_init(&broker->ivshmem);
    int r = config_path && !(broker->config_path = strdup(config_path))
              ? -ENOMEM
              : init_all(broker, runtime_directory);
    if (r < 0)
        broker_deinit(broker);
    return r;
}

/* The ends go on without us: what is in their rings can still be read, and this page is the last
 * that they hear. */
static void end_channels(struct broker *broker)
{
    struct cds_lfht_iter iterator;
    struct connection *connection, *next;
    struct channel *channel;

    if (!broker->channels.by_number)
        return;
    rcu_enter();
    for (channel = channels_first(&broker->channels, &iterator); channel;
         channel = channels_next(&broker->channels, &iterator)) {
        channel_close(channel, 0, LAYOUT_GONE_SERVER | LAYOUT_GONE_CLIENT);
        for (unsigned end = 0; end < 2; end++)
            if (channel->end[end].connection)
                channel->end[end].connection->state = CONNECTION_READY;
        channel_abandon(channel);
    }
    rcu_leave();
    cds_list_for_each_entry_safe(connection, next, &broker->connections, link)
        connection_doom(connection, NULL);
    connection_free_doomed(broker);
}

void broker_deinit(struct broker *broker)
{
    inspector_free(broker->inspector);
    metrics_free(broker->metrics);
    guest_sockets_close(broker); /* while we hold the lock */
    listener_deinit(&broker->listener);
    if (broker->rebalancer)
        rebalancer_stop(broker->rebalancer);
    mover_free(broker->mover);
    broker->mover = NULL;
    end_channels(broker);
    ivshmem_deinit(broker);
    hypervisor_free(broker->hypervisor);
    broker->hypervisor = NULL;
    crowd_deinit(&broker->crowd);
    rebalancer_free(broker->rebalancer);
    /* All records that were given to call_rcu, before the tables and regions they point to. */
    rcu_finish();
    domains_deinit(&broker->domains);
    guests_deinit(&broker->guests);
    channels_deinit(&broker->channels);
    history_free(broker->history);
    for (uint32_t i = 0; i < broker->zone_count; i++)
        zone_free(broker->zones[i]);
    free(broker->zones);
    sd_event_unref(broker->event);
    config_deinit(&broker->config);
    free(broker->config_path);
    rcu_finish();
    rcu_unregister_thread();
    *broker = (struct broker){0};
}

int broker_start_threads(struct broker *broker)
{
    int r = inspector_new(broker, &broker->inspector);

    if (r == 0)
        r = rebalancer_start(broker->rebalancer, mover_mailbox(broker->mover));
    if (r == 0)
        r = metrics_new(broker, &broker->metrics);
    if (r < 0)
        log_error(&broker->log, "cannot start a thread: %s", strerror(-r));
    get_default_call_rcu_data(); /* starts liburcu's thread, which the sandbox would not */
    return r;
}

int broker_run(struct broker *broker)
{
    int r = broker_start_threads(broker);

    if (r < 0)
        return r;
    r = sandbox_enter(&broker->log, broker->config.sandbox);
    if (r < 0)
        return r;
    if (broker->listener.socket_path)
        log_notice(&broker->log, "ready: %s", broker->listener.socket_path);
    else
        log_notice(&broker->log, "ready: on the service manager's socket");
    sd_notifyf(0, "READY=1\nSTATUS=Serving %u zones, up to %u channels.", broker->zone_count,
               broker->channels_max);
    r = sd_event_loop(broker->event);
    sd_notify(0, "STOPPING=1");
    if (r < 0)
        log_error(&broker->log, "the event loop failed: %s", strerror(-r));
    return r;
}
