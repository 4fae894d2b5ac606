/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/mode_rebalance.c - does moving memory pay? The same loads on the same memory under one
 * policy after the other.
 *
 * A slice is one load under one policy, with a broker of its own, new processes and new channels.
 * The slices of all policies take turns, round after round, each round beginning with another
 * policy, so that what else the machine does hits all alike; policies are compared within a round,
 * and what is reported is the median of the rounds. What counts is the last 80% of a slice.
 */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/children.h"
#include "bench/measure.h"
#include "bench/mode.h"
#include "bench/private_broker.h"
#include "bench/rebalance_load.h"
#include "bench/rebalance_watch.h"
#include "ring/order.h"

#define SECONDS 10.0
#define ROUNDS 3u
#define CHANNELS 16u
#define REGION_BYTES ((size_t)8 << 20)
#define ROUNDS_MAX 64u
#define NAMES_MAX 8u
#define LOOK_MS 100u
#define TRACE_MS 20u
#define COUNTS_FROM 0.2 /* of a slice */

struct wishes {
    double seconds; /* a slice */
    unsigned rounds;
    unsigned channels;
    size_t region_bytes;
    const char *policies[NAMES_MAX];
    unsigned policies_count;
    const struct rebalance_load *loads[NAMES_MAX];
    unsigned loads_count;
    FILE *csv, *trace, *history; /* NULL: none */
};

/* What one slice came to. */
struct slice {
    double mb_per_s;
    double stall_percent; /* of the writers' time */
    double p50_us, p99_us, p999_us;
    double jain;
    double moves; /* in the time that counts */
    double moves_per_s;
    double used_mb, resident_mb, apart_mb;
};

enum {
    OPTION_SECONDS = 1,
    OPTION_ROUNDS,
    OPTION_CHANNELS,
    OPTION_REGION,
    OPTION_LOADS,
    OPTION_POLICIES,
    OPTION_CSV,
    OPTION_TRACE,
    OPTION_HISTORY,
    OPTION_HELP,
};

static void print_help(void)
{
    fputs("usage: vchan-bench rebalance [...]\n"
          "\n"
          "Runs each load under each policy, in turn, on real channels of a broker of its own.\n"
          "\n"
          "  --seconds S           of a slice, of which the last 80% count (10)\n"
          "  --rounds N            of which the medians are reported (3)\n"
          "  --channels N          each has two streams (16)\n"
          "  --region SIZE         a power of two, such as 16M (8M)\n"
          "  --loads NAME,...      bursty, skewed, uniform, constant (all)\n"
          "  --policies NAME,...   the first is what the others are compared with\n"
          "                        (static,secure-ivshmem,default)\n"
          "  --csv FILE            a line for each slice\n"
          "  --trace FILE          rings, bytes and stalls every 20 ms\n"
          "  --history FILE        what the brokers decided, and why\n"
          "  --json                one JSON object on standard output\n"
          "  --help                this\n",
          stdout);
}

static _Noreturn void complain(const char *what, const char *value)
{
    fprintf(stderr, "vchan-bench: rebalance: %s '%s'\n", what, value);
    exit(2);
}

static double parse_number(const char *option, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);

    if (*end == 'M')
        value *= 1 << 20, end++;
    if (*end || end == text || !(value >= least && value <= most))
        complain(option, text);
    return value;
}

static const struct rebalance_load *find_load(const char *name)
{
    const struct rebalance_load *load;

    for (size_t i = 0; (load = rebalance_load_at(i)); i++)
        if (strcmp(load->name, name) == 0)
            return load;
    complain("there is no load", name);
}

static void parse_names(char *list, int option, struct wishes *wishes)
{
    char *item;
    unsigned count = 0;

    while ((item = strsep(&list, ","))) {
        if (count == NAMES_MAX)
            complain("too many names, from", item);
        if (option == OPTION_LOADS)
            wishes->loads[count++] = find_load(item);
        else
            wishes->policies[count++] = item;
    }
    *(option == OPTION_LOADS ? &wishes->loads_count : &wishes->policies_count) = count;
}

static FILE *open_file(const char *path)
{
    FILE *file = fopen(path, "we");

    if (!file)
        complain(strerror(errno), path);
    return file;
}

static void parse(const struct mode_options *options, struct wishes *wishes)
{
    static const struct option table[] = {
        {"seconds", required_argument, NULL, OPTION_SECONDS},
        {"rounds", required_argument, NULL, OPTION_ROUNDS},
        {"channels", required_argument, NULL, OPTION_CHANNELS},
        {"region", required_argument, NULL, OPTION_REGION},
        {"loads", required_argument, NULL, OPTION_LOADS},
        {"policies", required_argument, NULL, OPTION_POLICIES},
        {"csv", required_argument, NULL, OPTION_CSV},
        {"trace", required_argument, NULL, OPTION_TRACE},
        {"history", required_argument, NULL, OPTION_HISTORY},
        {"help", no_argument, NULL, OPTION_HELP},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(options->arguments_count, options->arguments, "", table, NULL)) !=
           -1) {
        switch (option) {
        case OPTION_SECONDS:
            wishes->seconds = parse_number("--seconds", optarg, 0.5, 3600);
            break;
        case OPTION_ROUNDS:
            wishes->rounds = (unsigned)parse_number("--rounds", optarg, 1, ROUNDS_MAX);
            break;
        case OPTION_CHANNELS:
            wishes->channels = (unsigned)parse_number("--channels", optarg, 4, LOAD_CHANNELS_MAX);
            break;
        case OPTION_REGION:
            wishes->region_bytes = (size_t)parse_number("--region", optarg, 1 << 20, 1u << 30);
            if (wishes->region_bytes & (wishes->region_bytes - 1))
                complain("--region takes a power of two, not", optarg);
            break;
        case OPTION_LOADS:
        case OPTION_POLICIES:
            parse_names(optarg, option, wishes);
            break;
        case OPTION_CSV:
            wishes->csv = open_file(optarg);
            break;
        case OPTION_TRACE:
            wishes->trace = open_file(optarg);
            break;
        case OPTION_HISTORY:
            wishes->history = open_file(optarg);
            break;
        case OPTION_HELP:
            print_help();
            exit(0);
        default:
            exit(2);
        }
    }
    if (optind < options->arguments_count)
        complain("takes no argument, like", options->arguments[optind]);
}

static _Noreturn void other_side(struct rebalance_side *side)
{
    rebalance_side_open(side);
    rebalance_side_join(side, rebalance_side_start(side));
    /* It goes with its handles: what is left in them is not counted. */
    _exit(0);
}

/* (sum x)^2 / (n * sum x^2): R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness and
 * Discrimination for Resource Allocation in Shared Computer Systems", 1984. */
static double jain_of_group(const struct rebalance_shared *shared, const double *got,
                            unsigned streams, unsigned group)
{
    double sum = 0, squares = 0, count = 0;

    for (unsigned i = 0; i < streams; i++) {
        if (shared->rates[i].group != group)
            continue;
        sum += got[i];
        squares += got[i] * got[i];
        count++;
    }
    return squares > 0 ? sum * sum / (count * squares) : NAN;
}

/* The least of the groups, of what each stream got of what it offered. */
static double least_jain(const struct rebalance_shared *shared, const double *got, unsigned streams)
{
    double least = 1;

    for (unsigned group = 0; group < 3; group++)
        least = fmin(least, jain_of_group(shared, got, streams, group)); /* fmin passes over NAN */
    return least;
}

static void evaluate(const struct rebalance_watch *watch, const struct rebalance_seen *from,
                     const struct rebalance_seen *until, struct slice *slice)
{
    const struct rebalance_shared *shared = watch->side->shared;
    const unsigned streams = 2 * watch->side->channels;
    const double seconds = (double)(until->at_ns - from->at_ns) * 1e-9;
    const double from_s = (double)(from->at_ns - shared->start_ns) * 1e-9;
    struct histogram *writes = calloc(1, sizeof(*writes));
    double got[LOAD_STREAMS_MAX], bytes = 0, stall_ns = 0;

    if (!writes)
        children_fail("out of memory");
    for (unsigned i = 0; i < streams; i++) {
        const double offered = rebalance_load_due(&shared->rates[i], from_s + seconds) -
                               rebalance_load_due(&shared->rates[i], from_s);
        const double read = (double)(until->streams[i].read_bytes - from->streams[i].read_bytes);
        got[i] = read / offered;
        bytes += read;
        stall_ns += (double)(until->streams[i].stall_ns - from->streams[i].stall_ns);
        histogram_merge(writes, &shared->writes[i]);
    }
    *slice = (struct slice){
        .mb_per_s = bytes / seconds * 1e-6,
        .stall_percent = stall_ns * 1e-9 / seconds / streams * 100,
        .p50_us = histogram_quantile_ns(writes, 0.5) * 1e-3,
        .p99_us = histogram_quantile_ns(writes, 0.99) * 1e-3,
        .p999_us = histogram_quantile_ns(writes, 0.999) * 1e-3,
        .jain = least_jain(shared, got, streams),
        .moves = (double)(until->broker.moves - from->broker.moves),
        .moves_per_s = (double)(until->broker.moves - from->broker.moves) / seconds,
        .used_mb = watch->used_bytes / (double)watch->looks * 1e-6,
        .resident_mb = watch->resident_bytes / (double)watch->looks * 1e-6,
        .apart_mb = watch->apart_bytes * 1e-6,
    };
    free(writes);
}

static void set_times(struct rebalance_shared *shared, double seconds)
{
    const uint64_t start_ns = measure_now_ns() + 50000000u;

    shared->from_ns = start_ns + (uint64_t)(COUNTS_FROM * seconds * 1e9);
    shared->until_ns = start_ns + (uint64_t)(seconds * 1e9);
    order_store_release(&shared->start_ns, start_ns);
}

/* Runs the load, with all channels open, and looks on. */
static void run_load(const struct wishes *wishes, struct rebalance_side *side,
                     const char *socket_path, struct slice *slice)
{
    struct rebalance_seen *seen = calloc(2, sizeof(*seen));
    struct rebalance_threads *threads = rebalance_side_start(side);
    struct rebalance_watch watch;
    const unsigned every_ms = wishes->trace ? TRACE_MS : LOOK_MS;

    if (!seen)
        children_fail("out of memory");
    rebalance_watch_open(&watch, side, socket_path);
    watch.trace = wishes->trace;
    set_times(side->shared, wishes->seconds);
    const uint64_t start_ns = side->shared->start_ns;
    rebalance_watch_until(&watch, start_ns, side->shared->from_ns, every_ms);
    rebalance_watch_look(&watch, &seen[0]);
    rebalance_watch_begin(&watch);
    rebalance_watch_until(&watch, start_ns, side->shared->until_ns, every_ms);
    rebalance_watch_look(&watch, &seen[1]);
    rebalance_side_join(side, threads);
    if (watch.looks == 0 || seen[1].at_ns <= seen[0].at_ns)
        children_fail("rebalance: the machine was too busy to look at a slice even once");
    evaluate(&watch, &seen[0], &seen[1], slice);
    if (wishes->history)
        rebalance_watch_history(&watch, wishes->history);
    rebalance_watch_close(&watch);
    free(seen);
}

static void run_slice(const struct wishes *wishes, const struct rebalance_load *load,
                      const char *policy, struct slice *slice)
{
    struct rebalance_side *side = calloc(1, sizeof(*side));
    struct rebalance_shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const unsigned streams = 2 * wishes->channels;
    const double share = (double)wishes->region_bytes / streams / (LOAD_READ_MS * 1e-3);
    struct private_broker broker;
    char config[256];

    if (!side || shared == MAP_FAILED)
        children_fail("out of memory");
    for (unsigned i = 0; i < streams; i++)
        shared->rates[i] = rebalance_load_rate(load, i, streams, share);
    snprintf(config, sizeof(config), "[broker]\nregion-size = %zu\nchannels = %u\npolicy = %s\n",
             wishes->region_bytes, LOAD_CHANNELS_MAX, policy);
    private_broker_start_configured(&broker, config);
    *side = (struct rebalance_side){
        .channels = wishes->channels, .socket_path = broker.socket_path, .shared = shared};
    pid_t other = children_fork("the other side", -1);
    if (other == 0) {
        side->side = 1;
        other_side(side);
    }
    rebalance_side_open(side);
    while (order_load_acquire(&shared->ready) < 2)
        usleep(1000);
    children_may_end(other);
    run_load(wishes, side, broker.socket_path, slice);
    if (children_wait(other) != 0)
        children_fail("rebalance: the other side failed");
    for (unsigned i = 0; i < side->channels; i++)
        vchan_close(side->handles[i]);
    private_broker_stop(&broker);
    munmap(shared, sizeof(*shared));
    free(side);
}

static void write_csv(FILE *csv, unsigned round, const char *load, const char *policy,
                      const struct slice *slice)
{
    fprintf(csv, "%u,%s,%s,%.3f,%.3f,%.1f,%.1f,%.1f,%.4f,%.0f,%.2f,%.3f,%.3f,%.3f\n", round, load,
            policy, slice->mb_per_s, slice->stall_percent, slice->p50_us, slice->p99_us,
            slice->p999_us, slice->jain, slice->moves, slice->moves_per_s, slice->used_mb,
            slice->resident_mb, slice->apart_mb);
    fflush(csv);
}

/* Of one load and policy, all rounds; [0] is the first policy's. */
struct outcome {
    struct slice slices[ROUNDS_MAX];
};

static double median_of(const struct outcome *outcome, unsigned rounds, size_t offset)
{
    double values[ROUNDS_MAX];

    for (unsigned i = 0; i < rounds; i++)
        memcpy(&values[i], (const char *)&outcome->slices[i] + offset, sizeof(values[i]));
    return measure_median(values, rounds);
}

/* The median of the rounds' ratios to the base; NAN where the base has nothing. */
static double ratio_of(const struct outcome *outcome, const struct outcome *base, unsigned rounds,
                       size_t offset)
{
    double values[ROUNDS_MAX];
    unsigned count = 0;

    for (unsigned i = 0; i < rounds; i++) {
        double above, below;
        memcpy(&above, (const char *)&outcome->slices[i] + offset, sizeof(above));
        memcpy(&below, (const char *)&base->slices[i] + offset, sizeof(below));
        if (below > 0)
            values[count++] = above / below;
    }
    return measure_median(values, count);
}

static void report_outcome(struct report *report, const struct wishes *wishes, const char *load,
                           const char *policy, const struct outcome *outcome,
                           const struct outcome *base)
{
    const unsigned rounds = wishes->rounds;
#define MEDIAN(field) {.number = median_of(outcome, rounds, offsetof(struct slice, field))}
    report_row(
        report,
        (struct report_cell[]){
            {.text = load},
            {.text = policy},
            MEDIAN(mb_per_s),
            MEDIAN(stall_percent),
            {.number = ratio_of(outcome, base, rounds, offsetof(struct slice, mb_per_s))},
            {.number = ratio_of(outcome, base, rounds, offsetof(struct slice, stall_percent))},
            MEDIAN(p50_us),
            MEDIAN(p99_us),
            MEDIAN(p999_us),
            MEDIAN(jain),
            MEDIAN(moves),
            MEDIAN(moves_per_s),
            MEDIAN(used_mb),
            MEDIAN(resident_mb),
            MEDIAN(apart_mb),
        });
#undef MEDIAN
}

static void report_all(struct report *report, const struct wishes *wishes,
                       struct outcome outcomes[NAMES_MAX][NAMES_MAX])
{
    static const struct report_column columns[] = {
        {"load", "load", 9, REPORT_TEXT},
        {"policy", "policy", 15, REPORT_TEXT},
        {"mb_per_s", "MB/s", 7, 1},
        {"stall_percent", "stall %", 8, 2},
        {"throughput_ratio", "MB/s x", 7, 3},
        {"stall_ratio", "stall x", 8, 3},
        {"p50_us", "p50 us", 7, 1},
        {"p99_us", "p99 us", 9, 1},
        {"p99_9_us", "p99.9 us", 9, 1},
        {"jain", "Jain", 6, 3},
        {"moves", "moves", 6, 0},
        {"moves_per_s", "/s", 6, 1},
        {"used_mb", "used", 6, 2},
        {"resident_mb", "resid.", 6, 2},
        {"apart_mb", "apart", 6, 2},
    };
    report_table(report, "loads", columns, sizeof(columns) / sizeof(columns[0]));
    for (unsigned l = 0; l < wishes->loads_count; l++)
        for (unsigned p = 0; p < wishes->policies_count; p++)
            report_outcome(report, wishes, wishes->loads[l]->name, wishes->policies[p],
                           &outcomes[l][p], &outcomes[l][0]);
    report_table_end(report);
}

static void run_rounds(const struct wishes *wishes, struct outcome outcomes[NAMES_MAX][NAMES_MAX])
{
    for (unsigned round = 0; round < wishes->rounds; round++)
        for (unsigned l = 0; l < wishes->loads_count; l++)
            for (unsigned turn = 0; turn < wishes->policies_count; turn++) {
                const unsigned p = (turn + round) % wishes->policies_count;
                struct slice *slice = &outcomes[l][p].slices[round];
                run_slice(wishes, wishes->loads[l], wishes->policies[p], slice);
                if (wishes->csv)
                    write_csv(wishes->csv, round, wishes->loads[l]->name, wishes->policies[p],
                              slice);
            }
}

static void close_file(FILE *file, const char *what)
{
    if (file && fclose(file) != 0)
        children_fail("rebalance: %s: %s", what, strerror(errno));
}

int mode_rebalance(struct report *report, const struct mode_options *options)
{
    struct wishes wishes = {
        .seconds = SECONDS,
        .rounds = ROUNDS,
        .channels = CHANNELS,
        .region_bytes = REGION_BYTES,
        .policies = {"static", "secure-ivshmem", "default"},
        .policies_count = 3,
    };
    struct outcome(*outcomes)[NAMES_MAX] = calloc(NAMES_MAX, sizeof(*outcomes));

    if (!outcomes)
        children_fail("out of memory");
    while (rebalance_load_at(wishes.loads_count)) {
        wishes.loads[wishes.loads_count] = rebalance_load_at(wishes.loads_count);
        wishes.loads_count++;
    }
    parse(options, &wishes);
    measure_ticks_per_ns();
    if (wishes.csv)
        fprintf(wishes.csv, "round,load,policy,mb_per_s,stall_percent,p50_us,p99_us,p99_9_us,jain,"
                            "moves,moves_per_s,used_mb,resident_mb,apart_mb\n");
    if (wishes.trace)
        rebalance_watch_head(wishes.trace);
    if (wishes.history)
        rebalance_watch_history_head(wishes.history);
    report_number(report, "seconds", wishes.seconds, 1, "s a slice, of which the last 80% count");
    report_number(report, "rounds", wishes.rounds, 0, "");
    report_number(report, "streams", 2 * wishes.channels, 0, "");
    report_number(report, "region_bytes", (double)wishes.region_bytes, 0, "bytes");
    report_text(report, "compared_with", wishes.policies[0]);
    run_rounds(&wishes, outcomes);
    report_all(report, &wishes, outcomes);
    close_file(wishes.csv, "--csv");
    close_file(wishes.trace, "--trace");
    close_file(wishes.history, "--history");
    free(outcomes);
    return 0;
}
