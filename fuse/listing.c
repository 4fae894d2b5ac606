/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/listing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/mount.h"

/* The broker is asked nothing that it could not know: it is the socket that is not there. */
static int no_broker(int error)
{
    return error == -ENOENT ? -ECONNREFUSED : error;
}

struct search {
    const char *text;
    int domain; /* in: of the number asked for, -1: a name; out: of the name */
    bool found;
};

static int match_domain(const struct vchan_domain_item *item, void *context)
{
    struct search *search = context;

    if (search->domain >= 0) {
        search->found |= item->domain == search->domain;
    } else if (!search->found && strcmp(item->name, search->text) == 0) {
        search->found = true;
        search->domain = item->domain;
    }
    return 0;
}

static int pass_channel(const struct vchan_channel_item *item, void *context)
{
    (void)item;
    (void)context;
    return 0;
}

int listing_find_domain(const struct mount *mount, const char *text, struct name *out)
{
    struct search search = {.text = text, .domain = -1};
    bool by_number = name_parse_domain(text, &search.domain);

    if (!by_number && !name_is_usable(text))
        return -ENOENT;
    int r = vchan_each_domain(&mount->options, match_domain, &search);
    if (r < 0)
        return no_broker(r);
    if (!search.found && by_number && search.domain != mount->options.local_domain) {
        struct vchan_options as_that = mount->options;
        as_that.local_domain = search.domain;
        search.found = vchan_each_channel(&as_that, 0, pass_channel, NULL) != -ENOENT;
    } else if (by_number) {
        search.found = true;
    }
    *out = (struct name){.kind = NAME_DOMAIN, .domain = search.domain, .variant = !by_number};
    return search.found ? 0 : -ENOENT;
}

static int add(struct listing *listing, const struct name *name, const char *text)
{
    if (listing->count == listing->room) {
        size_t room = listing->room ? listing->room * 2 : 16;
        struct listing_entry *entries = reallocarray(listing->entries, room, sizeof(*entries));
        if (!entries)
            return -ENOMEM;
        listing->entries = entries;
        listing->room = room;
    }
    struct listing_entry *entry = &listing->entries[listing->count++];
    entry->name = *name;
    snprintf(entry->text, sizeof(entry->text), "%s", text);
    return 0;
}

struct walk {
    struct listing *listing;
    int local_domain;
    int domain; /* a domain's directory: whose */
};

static int add_domain(const struct vchan_domain_item *item, void *context)
{
    struct walk *walk = context;
    bool by_name = name_is_usable(item->name);
    struct name name = {.kind = NAME_DOMAIN, .domain = item->domain, .variant = by_name};
    char number[16];

    if (!by_name && !item->running && item->domain != walk->local_domain)
        return 0;
    snprintf(number, sizeof(number), "%d", item->domain);
    return add(walk->listing, &name, by_name ? item->name : number);
}

/* A channel's peer: the broker lists every domain that has a channel, but perhaps listed it before
 * the channel came. */
static int add_peer(const struct vchan_channel_item *item, void *context)
{
    struct walk *walk = context;
    struct name name = {.kind = NAME_DOMAIN, .domain = item->server_domain};
    char number[16];

    if (name.domain == walk->local_domain)
        name.domain = item->client_domain;
    for (size_t i = 0; i < walk->listing->count; i++)
        if (walk->listing->entries[i].name.kind == NAME_DOMAIN
            && walk->listing->entries[i].name.domain == name.domain)
            return 0;
    snprintf(number, sizeof(number), "%d", name.domain);
    return add(walk->listing, &name, number);
}

static int add_port(const struct vchan_channel_item *item, void *context)
{
    struct walk *walk = context;
    int peer =
        item->server_domain == walk->local_domain ? item->client_domain : item->server_domain;
    struct name name = {.kind = NAME_PORT, .domain = walk->domain, .port = item->port};
    char text[NAMES_TEXT_BYTES];

    if (peer != walk->domain)
        return 0;
    /* One name for both, when each of the two domains serves the port to the other. */
    for (size_t i = 0; i < walk->listing->count; i++)
        if (walk->listing->entries[i].name.kind == NAME_PORT
            && walk->listing->entries[i].name.port == item->port)
            return 0;
    snprintf(text, sizeof(text), "%d", item->port);
    int r = add(walk->listing, &name, text);
    if (r < 0)
        return r;
    name.kind = NAME_PORT_STATS;
    snprintf(text, sizeof(text), "%d." NAMES_STATS, item->port);
    return add(walk->listing, &name, text);
}

static int fill(const struct mount *mount, const struct name *directory, struct listing *listing)
{
    struct walk walk = {.listing = listing,
                        .local_domain = mount->options.local_domain,
                        .domain = directory->domain};
    struct name stats = {.kind = NAME_DOMAIN_STATS, .domain = directory->domain};
    struct name root = {.kind = NAME_ROOT};
    bool is_root = directory->kind == NAME_ROOT;

    if (is_root)
        stats = (struct name){.kind = NAME_ALL_STATS};
    int r = add(listing, directory, ".");
    if (r == 0)
        r = add(listing, &root, "..");
    if (r == 0)
        r = add(listing, &stats, NAMES_STATS);
    if (r == 0 && is_root)
        r = no_broker(vchan_each_domain(&mount->options, add_domain, &walk));
    if (r == 0)
        r = no_broker(vchan_each_channel(&mount->options, 0, is_root ? add_peer : add_port, &walk));
    return r;
}

int listing_new(const struct mount *mount, const struct name *directory, struct listing **out)
{
    struct listing *listing = calloc(1, sizeof(*listing));
    int r = listing ? fill(mount, directory, listing) : -ENOMEM;

    if (r < 0) {
        listing_free(listing);
        return r;
    }
    *out = listing;
    return 0;
}

void listing_free(struct listing *listing)
{
    if (listing)
        free(listing->entries);
    free(listing);
}

void listing_reply(const struct listing *listing, fuse_req_t req, size_t size, size_t from)
{
    char *buffer = malloc(size);
    size_t used = 0;

    if (!buffer) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    for (size_t i = from; i < listing->count; i++) {
        const struct listing_entry *entry = &listing->entries[i];
        struct stat attributes;
        name_attributes(&entry->name, true, &attributes);
        size_t need = fuse_add_direntry(req, buffer + used, size - used, entry->text, &attributes,
                                        (off_t)i + 1);
        if (need > size - used)
            break;
        used += need;
    }
    fuse_reply_buf(req, buffer, used);
    free(buffer);
}
