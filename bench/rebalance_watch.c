/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/rebalance_watch.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "bench/children.h"

#define PATIENCE_MS 10000

static void call(struct rebalance_watch *watch, uint16_t id, const void *body, size_t bytes,
                 struct proto_message *message)
{
    struct patience patience = {.timeout_ms = PATIENCE_MS};
    int r = connection_call(&watch->connection, id, body, bytes, message, &patience);

    if (r < 0)
        children_fail("rebalance: the broker does not answer: %s", strerror(-r));
}

void rebalance_watch_open(struct rebalance_watch *watch, const struct rebalance_side *side,
                          const char *socket_path)
{
    *watch = (struct rebalance_watch){.side = side};
    int r = connection_open(&watch->connection, socket_path);
    if (r == 0)
        r = connection_greet(&watch->connection, PROTO_DOMAIN_HOST);
    if (r < 0)
        children_fail("rebalance: the broker does not answer: %s", strerror(-r));
    struct rebalance_seen seen;
    rebalance_watch_look(watch, &seen);
    watch->control_bytes = (double)seen.broker.resident_bytes -
                           (double)(seen.broker.data_bytes - seen.broker.free_bytes);
}

void rebalance_watch_close(struct rebalance_watch *watch)
{
    connection_close(&watch->connection);
}

static struct stream_seen seen_of(const struct vchan_direction_statistics *direction)
{
    return (struct stream_seen){.size_bytes = direction->size_bytes,
                                .written_bytes = direction->bytes_written,
                                .read_bytes = direction->bytes_read,
                                .stall_ns = direction->stall_ns};
}

void rebalance_watch_look(struct rebalance_watch *watch, struct rebalance_seen *seen)
{
    struct vchan_statistics statistics;
    struct proto_message message;

    call(watch, PROTO_BROKER_INFO, NULL, 0, &message);
    memcpy(&seen->broker, connection_body(&message), sizeof(seen->broker));
    proto_message_close(&message);
    for (unsigned i = 0; i < watch->side->channels; i++) {
        vchan_statistics(watch->side->handles[i], &statistics);
        seen->streams[2 * i] = seen_of(&statistics.sending);
        seen->streams[2 * i + 1] = seen_of(&statistics.receiving);
    }
    seen->at_ns = measure_now_ns();
}

void rebalance_watch_head(FILE *trace)
{
    fprintf(trace, "ms,stream,size_bytes,written_bytes,read_bytes,stall_us\n");
}

static void trace_look(const struct rebalance_watch *watch, const struct rebalance_seen *seen,
                       uint64_t start_ns)
{
    const double ms = ((double)seen->at_ns - (double)start_ns) * 1e-6;

    for (unsigned i = 0; i < 2 * watch->side->channels; i++) {
        const struct stream_seen *stream = &seen->streams[i];
        fprintf(watch->trace, "%.1f,%u,%llu,%llu,%llu,%llu\n", ms, i,
                (unsigned long long)stream->size_bytes, (unsigned long long)stream->written_bytes,
                (unsigned long long)stream->read_bytes,
                (unsigned long long)(stream->stall_ns / 1000));
    }
    /* Of all: what is used, what the host spends on it, and the moves. */
    fprintf(watch->trace, "%.1f,all,%llu,%llu,%llu,0\n", ms,
            (unsigned long long)(seen->broker.data_bytes - seen->broker.free_bytes),
            (unsigned long long)seen->broker.resident_bytes,
            (unsigned long long)seen->broker.moves);
}

void rebalance_watch_begin(struct rebalance_watch *watch)
{
    watch->looks = 0;
    watch->resident_bytes = watch->used_bytes = watch->apart_bytes = 0;
}

void rebalance_watch_until(struct rebalance_watch *watch, uint64_t start_ns, uint64_t until_ns,
                           unsigned every_ms)
{
    struct rebalance_seen seen;

    while (measure_now_ns() < until_ns) {
        rebalance_watch_look(watch, &seen);
        if (watch->trace)
            trace_look(watch, &seen, start_ns);
        const double used = (double)(seen.broker.data_bytes - seen.broker.free_bytes);
        const double resident = (double)seen.broker.resident_bytes;
        watch->looks++;
        watch->resident_bytes += resident;
        watch->used_bytes += used;
        watch->apart_bytes = fmax(watch->apart_bytes, fabs(resident - used - watch->control_bytes));
        /* A look may itself take until the end. */
        const uint64_t now_ns = measure_now_ns(), next_ns = now_ns + every_ms * 1000000ull;
        const uint64_t wake_ns = next_ns < until_ns ? next_ns : until_ns;
        if (wake_ns > now_ns)
            usleep((useconds_t)((wake_ns - now_ns) / 1000 + 1));
    }
}

static void write_decision(const struct proto_decision *decision, FILE *out)
{
    fprintf(out, "%llu,%llu,%u,%u,%s,%llu,%llu,%llu,%s,\"%s\"\n",
            (unsigned long long)decision->number, (unsigned long long)(decision->time_ns / 1000),
            decision->port, decision->ring,
            decision->outcome == PROTO_OUTCOME_REFUSED ? "refused" : "moved",
            (unsigned long long)decision->from_bytes, (unsigned long long)decision->to_bytes,
            (unsigned long long)(decision->took_ns / 1000), decision->trigger, decision->reason);
}

void rebalance_watch_history_head(FILE *out)
{
    fprintf(out, "number,time_us,port,ring,outcome,from_bytes,to_bytes,took_us,trigger,reason\n");
}

void rebalance_watch_history(struct rebalance_watch *watch, FILE *out)
{
    struct proto_list request = {.channel = PROTO_ANY};
    struct proto_message message;

    do {
        call(watch, PROTO_LIST_HISTORY, &request, sizeof(request), &message);
        const struct proto_list_reply *reply = connection_body(&message);
        const struct proto_decision *decisions = (const void *)(reply + 1);
        for (uint32_t i = 0; i < reply->count; i++)
            write_decision(&decisions[i], out);
        request.cursor = reply->next;
        proto_message_close(&message);
    } while (request.cursor != 0);
}
