/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/reload.h"

#include <errno.h>
#include <string.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>

#include "broker/broker.h"
#include "broker/hypervisor.h"
#include "broker/rebalancer.h"
#include "ring/order.h"

/* What the configuration says about domains, into the tables. */
int reload_apply_domains(struct broker *broker, const struct config *config)
{
    if (config->local_enable)
        broker->domains.local = config->local_domains;
    else
        broker->domains.local = (struct domain_set){0};
    for (size_t i = 0; i < config->domain_count; i++) {
        const struct config_domain *domain = &config->domains[i];
        int r = domains_configure(&broker->domains, (uint32_t)domain->id, domain->name,
                                  domain->uuid);
        if (r == 0)
            r = broker_quota_set(broker, (uint32_t)domain->id, domain->quota_bytes);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Can be changed while running? */
static bool same_shape(const struct config *a, const struct config *b)
{
    bool same = a->region_bytes == b->region_bytes && a->channels == b->channels &&
                a->zone_count == b->zone_count && a->socket_mode == b->socket_mode &&
                strcmp(a->socket_group, b->socket_group) == 0 && a->sandbox == b->sandbox &&
                strcmp(a->metrics_socket, b->metrics_socket) == 0 &&
                strcmp(a->metrics_http, b->metrics_http) == 0 &&
                a->guest_socket_mode == b->guest_socket_mode &&
                strcmp(a->guest_socket_group, b->guest_socket_group) == 0;

    for (size_t i = 0; same && i < a->zone_count; i++)
        same = strcmp(a->zones[i].name, b->zones[i].name) == 0 &&
               a->zones[i].region_bytes == b->zones[i].region_bytes &&
               a->zones[i].channels == b->zones[i].channels &&
               memcmp(&a->zones[i].members, &b->zones[i].members, sizeof(a->zones[i].members)) == 0;
    return same;
}

static void reload(struct broker *broker, struct config *config)
{
    if (!same_shape(&broker->config, config))
        log_warning(&broker->log,
                    "zones, regions, sockets and sandbox change only when vchand is started anew");
    /* Quotas of domains that are no longer named end with their names. */
    for (size_t i = 0; i < broker->config.domain_count; i++)
        broker_quota_set(broker, (uint32_t)broker->config.domains[i].id, 0);
    int r = domains_forget_configured(&broker->domains);
    if (r == 0)
        r = reload_apply_domains(broker, config);
    if (r < 0)
        log_error(&broker->log, "the configuration is applied in part only: %s", strerror(-r));
    if (rebalancer_configure(broker->rebalancer, policy_find(config->policy_name),
                             &config->policy) < 0)
        log_error(&broker->log, "[rebalance] is not applied: out of memory");
    order_store_plain(&broker->policy, policy_find(config->policy_name));
    config_deinit(&broker->config);
    broker->config = *config;
    broker->log.level = (int)config->log_level;
    guest_sockets_reload(broker, &broker->config);
    hypervisor_reloaded(broker);
    log_notice(&broker->log, "configuration read again");
}

int reload_on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *context)
{
    struct broker *broker = context;
    char error[CONFIG_ERROR_BYTES];
    struct config config;

    (void)source;
    (void)info;
    if (!broker->config_path) {
        log_notice(&broker->log, "SIGHUP: there is no configuration file to read again");
        return 0;
    }
    sd_notify(0, "RELOADING=1");
    config_init(&config);
    if (config_read(&config, broker->config_path, error) < 0) {
        log_error(&broker->log, "%s; going on as before", error);
        config_deinit(&config);
    } else {
        reload(broker, &config);
    }
    sd_notify(0, "READY=1");
    return 0;
}
