/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/domain.h - the actions of `vchanctl domain`, each an exit code.
 */
#ifndef VCHAN_CLIENT_CTL_DOMAIN_H
#define VCHAN_CLIENT_CTL_DOMAIN_H

#include "client/ctl/ctl.h"
#include "proto/guest.h"

/* Longer than the broker waits for vchan-libvirt, which waits for libvirt and the guest. */
#define DOMAIN_WAIT_S 75u

/* The VMs that the broker knows, with their devices. */
int domain_list(struct ctl *ctl);

/* What to put into the domain's definition. */
int domain_xml(struct ctl *ctl, const char *name);

/* The request that the command line makes; an exit code, CTL_USAGE when a name is too long. */
int domain_request(const struct ctl *ctl, const char *name, struct proto_domain_request *request);

/* DOMAIN_ATTACH, _DETACH or _SHOW: the text that came back, clean. 0 or -errno. */
int domain_ask(struct ctl *ctl, uint16_t id, const struct proto_domain_request *request,
               struct proto_text *text);

/* What libvirt says of a domain (PROTO_HYPERVISOR_*), in a word. */
const char *domain_state_word(uint32_t state);

/* All guests, sorted by domain and zone; texts are clean. As broker_link_list. */
int domain_guests(struct broker_link *link, struct broker_items *guests);

#endif
