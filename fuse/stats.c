/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/stats.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuse/mount.h"

struct walk {
    FILE *stream;
    int local_domain;
    struct name name;
    int channels; /* written so far */
};

static void write_row(FILE *stream, const struct vchan_channel_item *item, int sender)
{
    const struct vchan_direction_statistics *ring = &item->ring[sender];

    fprintf(stream, "%6d %6d %10d %-9s %6d %10" PRIu64 " %10" PRIu64 " %10" PRIu64,
            item->server_domain, item->client_domain, item->port,
            item->connected ? "connected" : "waiting",
            sender == 0 ? item->server_domain : item->client_domain, ring->generation,
            ring->size_bytes, ring->held_bytes);
    fprintf(stream,
            " %14" PRIu64 " %14" PRIu64 " %10" PRIu64 " %10" PRIu64 " %8" PRIu64 " %9" PRIu64 "\n",
            ring->bytes_written, ring->bytes_read, ring->writes, ring->reads, ring->stalls,
            ring->stall_ns / 1000000u);
}

static void write_heading(FILE *stream)
{
    fprintf(stream, "%6s %6s %10s %-9s %6s %10s %10s %10s %14s %14s %10s %10s %8s %9s\n", "server",
            "client", "port", "state", "sender", "generation", "size", "held", "written", "read",
            "writes", "reads", "stalls", "stall_ms");
}

static void write_ring(FILE *stream, const char *who, const struct vchan_direction_statistics *ring)
{
    const struct {
        const char *key;
        uint64_t value;
    } figures[] = {
        {"generation", ring->generation},
        {"size_bytes", ring->size_bytes},
        {"held_bytes", ring->held_bytes},
        {"bytes_written", ring->bytes_written},
        {"bytes_read", ring->bytes_read},
        {"writes", ring->writes},
        {"reads", ring->reads},
        {"stalls", ring->stalls},
        {"stall_ns", ring->stall_ns},
        {"writer_sleeps", ring->writer_sleeps},
        {"reader_sleeps", ring->reader_sleeps},
        {"writer_doorbells", ring->writer_doorbells},
        {"reader_doorbells", ring->reader_doorbells},
    };

    for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++)
        fprintf(stream, "%s.%s %" PRIu64 "\n", who, figures[i].key, figures[i].value);
}

static int write_channel(const struct vchan_channel_item *item, void *context)
{
    struct walk *walk = context;
    int peer =
        item->server_domain == walk->local_domain ? item->client_domain : item->server_domain;

    if (walk->name.kind != NAME_ALL_STATS && peer != walk->name.domain)
        return 0;
    if (walk->name.kind != NAME_PORT_STATS) {
        write_row(walk->stream, item, 0);
        write_row(walk->stream, item, 1);
        return 0;
    }
    if (item->port != walk->name.port)
        return 0;
    fprintf(walk->stream, "%schannel %" PRIu32 "\nserver %d\nclient %d\nport %d\nstate %s\n",
            walk->channels > 0 ? "\n" : "", item->number, item->server_domain, item->client_domain,
            item->port, item->connected ? "connected" : "waiting");
    write_ring(walk->stream, "server", &item->ring[0]);
    write_ring(walk->stream, "client", &item->ring[1]);
    walk->channels++;
    return 0;
}

int stats_new(const struct mount *mount, const struct name *name, struct stats_text **out)
{
    struct stats_text *text = calloc(1, sizeof(*text));
    struct walk walk = {.local_domain = mount->options.local_domain, .name = *name};

    if (text)
        walk.stream = open_memstream(&text->data, &text->size);
    if (!walk.stream) {
        stats_free(text);
        return -ENOMEM;
    }
    if (name->kind != NAME_PORT_STATS)
        write_heading(walk.stream);
    int r = vchan_each_channel(&mount->options, 0, write_channel, &walk);
    if (r == -ENOENT) /* the broker's socket */
        r = -ECONNREFUSED;
    if (fclose(walk.stream) != 0 && r == 0)
        r = -ENOMEM;
    if (r == 0 && name->kind == NAME_PORT_STATS && walk.channels == 0)
        r = -ENOENT;
    if (r < 0)
        stats_free(text);
    else
        *out = text;
    return r;
}

void stats_free(struct stats_text *text)
{
    if (text)
        free(text->data);
    free(text);
}
