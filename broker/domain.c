/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/domain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ring/order.h"

/* Fixed: growing would need a thread of liburcu's, and a few hundred domains are many. */
#define TABLE_BUCKETS 1024u

static unsigned long hash(uint32_t number)
{
    return number; /* small and dense: they spread by themselves */
}

static int matches(struct cds_lfht_node *node, const void *number)
{
    return caa_container_of(node, struct domain, node)->number == *(const uint32_t *)number;
}

static void free_record(struct rcu_head *head)
{
    rcu_acquire();
    free(caa_container_of(head, struct domain, rcu));
}

int domains_init(struct domains *domains)
{
    domains->table = cds_lfht_new(TABLE_BUCKETS, TABLE_BUCKETS, TABLE_BUCKETS, 0, NULL);
    return domains->table ? 0 : -ENOMEM;
}

void domains_deinit(struct domains *domains)
{
    struct cds_lfht_iter iterator;
    struct domain *domain;

    if (!domains->table)
        return;
    rcu_enter();
    for (domain = domains_first(domains, &iterator); domain;
         domain = domains_next(domains, &iterator))
        if (cds_lfht_del(domains->table, &domain->node) == 0)
            call_rcu(&domain->rcu, free_record);
    rcu_leave();
    cds_lfht_destroy(domains->table, NULL);
    domains->table = NULL;
}

struct domain *domains_find(const struct domains *domains, uint32_t number)
{
    struct cds_lfht_iter iterator;

    cds_lfht_lookup(domains->table, hash(number), matches, &number, &iterator);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(&iterator);
    rcu_acquire();
    return node ? caa_container_of(node, struct domain, node) : NULL;
}

int domains_check(const struct domains *domains, uint32_t number)
{
    if (number == PROTO_DOMAIN_HOST || domain_set_has(&domains->local, number))
        return 0;
    rcu_enter();
    const struct domain *domain = domains_find(domains, number);
    int r = domain && (domain->configured || domain->hypervisor) ? -EHOSTDOWN : -ENOENT;
    if (domain && domain->guests > 0)
        r = 0;
    rcu_leave();
    return r;
}

bool domains_has_guest(const struct domains *domains, uint32_t number)
{
    rcu_enter();
    const struct domain *domain = domains_find(domains, number);
    bool has = domain && order_load_plain(&domain->guests) > 0;
    rcu_leave();
    return has;
}

/* In the place of old, if that is not NULL. */
static int put(struct domains *domains, const struct domain *like, struct domain *old,
               struct domain **out)
{
    struct domain *domain = malloc(sizeof(*domain));

    if (!domain)
        return -ENOMEM;
    *domain = *like;
    cds_lfht_node_init(&domain->node);
    rcu_enter();
    rcu_release();
    cds_lfht_add_replace(domains->table, hash(domain->number), matches, &domain->number,
                         &domain->node);
    rcu_leave();
    if (old)
        call_rcu(&old->rcu, free_record);
    else
        domains->count++;
    if (out)
        *out = domain;
    return 0;
}

static bool has_uuid(const uint8_t uuid[16])
{
    static const uint8_t none[16];

    return memcmp(uuid, none, sizeof(none)) != 0;
}

int domains_configure(struct domains *domains, uint32_t number, const char *name,
                      const uint8_t uuid[16])
{
    struct domain *old = domains_find(domains, number);
    struct domain domain = {.number = number};

    if (old)
        domain = *old;
    domain.configured = true;
    snprintf(domain.name, sizeof(domain.name), "%s", name);
    if (!domain.hypervisor || has_uuid(uuid))
        memcpy(domain.uuid, uuid, sizeof(domain.uuid));
    return put(domains, &domain, old, NULL);
}

int domains_report(struct domains *domains, uint32_t number, const char *name,
                   const uint8_t uuid[16], uint32_t state)
{
    struct domain *old = domains_find(domains, number);
    struct domain domain = {.number = number};
    struct domain *replacement;

    if (state == 0 && !old)
        return 0;
    if (old)
        domain = *old;
    domain.hypervisor = state;
    if (!domain.configured)
        snprintf(domain.name, sizeof(domain.name), "%s", state ? name : "");
    memcpy(domain.uuid, uuid, sizeof(domain.uuid));
    int r = put(domains, &domain, old, &replacement);
    if (r == 0)
        domains_settle(domains, replacement);
    return r;
}

int domains_forget_configured(struct domains *domains)
{
    /* Replacing while walking is allowed, but would visit the replacements too: by number, then. */
    for (uint32_t number = 0; number <= PROTO_DOMAIN_MAX; number++) {
        struct domain *old = domains_find(domains, number);
        if (!old || !old->configured)
            continue;
        struct domain domain = *old;
        struct domain *replacement;
        domain.configured = false;
        domain.quota_bytes = 0;
        if (!domain.hypervisor) {
            memset(domain.name, 0, sizeof(domain.name));
            memset(domain.uuid, 0, sizeof(domain.uuid));
        }
        if (put(domains, &domain, old, &replacement) < 0)
            return -ENOMEM;
        domains_settle(domains, replacement);
    }
    return 0;
}

int domains_need(struct domains *domains, uint32_t number, struct domain **out)
{
    struct domain *domain = domains_find(domains, number);

    if (domain) {
        *out = domain;
        return 0;
    }
    return put(domains, &(struct domain){.number = number}, NULL, out);
}

void domains_settle(struct domains *domains, struct domain *domain)
{
    if (domain->configured || domain->connections > 0 || domain->channels > 0 ||
        domain->quota_bytes > 0 || domain->guests > 0 || domain->hypervisor)
        return;
    rcu_enter();
    cds_lfht_del(domains->table, &domain->node);
    rcu_leave();
    call_rcu(&domain->rcu, free_record);
    domains->count--;
}

static struct domain *at(struct cds_lfht_iter *iterator)
{
    struct cds_lfht_node *node = cds_lfht_iter_get_node(iterator);

    rcu_acquire();
    return node ? caa_container_of(node, struct domain, node) : NULL;
}

struct domain *domains_first(const struct domains *domains, struct cds_lfht_iter *iterator)
{
    cds_lfht_first(domains->table, iterator);
    return at(iterator);
}

struct domain *domains_next(const struct domains *domains, struct cds_lfht_iter *iterator)
{
    cds_lfht_next(domains->table, iterator);
    return at(iterator);
}
