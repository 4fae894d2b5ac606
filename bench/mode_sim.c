/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/mode_sim.c - policies in simulated time, over generated or recorded loads; and the replay
 * of a recording.
 */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/children.h"
#include "bench/mode.h"
#include "bench/report.h"
#include "bench/sim.h"
#include "bench/sim_load.h"
#include "bench/sim_trace.h"

#define RINGS_DEFAULT 1000u
#define RING_SHARE (64u << 10)
#define SECONDS_DEFAULT 20.0

static const struct report_column columns[] = {
    {"load", "load", 9, REPORT_TEXT},
    {"policy", "policy", 15, REPORT_TEXT},
    {"offered_bytes_per_s", "offered MB/s", 13, 1},
    {"received_bytes_per_s", "received MB/s", 13, 1},
    {"stall_s", "stalled s", 10, 3},
    {"late_stall_s", "late s", 9, 3},
    {"stall_of_static", "of static", 9, 3},
    {"moves", "moves", 8, 0},
    {"moves_per_s", "moves/s", 8, 1},
    {"late_moves", "late", 7, 0},
    {"compaction_moves", "compact", 7, 0},
    {"refused_moves", "no room", 7, 0},
    {"fairness", "Jain", 6, 3},
    {"used_mean_permille", "used", 5, 0},
    {"used_most_permille", "most", 5, 0},
    {"listed", "listed", 8, 0},
    {"round_p50_us", "round p50 us", 12, 1},
    {"round_max_us", "max us", 9, 1},
    {"pressing_p50_us", "pressing us", 11, 1},
};

#define COLUMNS (sizeof(columns) / sizeof(columns[0]))

static void write_csv(FILE *csv, const struct report_cell cells[COLUMNS])
{
    for (size_t i = 0; i < COLUMNS; i++) {
        if (columns[i].digits == REPORT_TEXT)
            fprintf(csv, "%s", cells[i].text);
        else if (isfinite(cells[i].number))
            fprintf(csv, "%.*f", columns[i].digits, cells[i].number);
        fputc(i + 1 < COLUMNS ? ',' : '\n', csv);
    }
}

/* With the line of names. */
static FILE *open_csv(const char *path)
{
    FILE *csv = path ? fopen(path, "we") : NULL;

    if (path && !csv)
        children_fail("sim: %s: %s", path, strerror(errno));
    for (size_t i = 0; csv && i < COLUMNS; i++)
        fprintf(csv, "%s%c", columns[i].key, i + 1 < COLUMNS ? ',' : '\n');
    return csv;
}

/* What is compared: each policy's figures follow those of static, when that is among them. */
struct comparison {
    struct report *report;
    FILE *csv; /* NULL: none */
    const char *load;
    double seconds;
    uint64_t region_bytes;
    double static_stall_seconds; /* NAN: not known */
};

static void report_result(const struct comparison *comparison, const struct policy *policy,
                          const struct sim_result *result)
{
    double seconds = comparison->seconds, region = (double)comparison->region_bytes;

    const struct report_cell cells[COLUMNS] = {
        {.text = comparison->load},
        {.text = policy->name},
        {.number = result->offered_bytes / seconds / 1e6},
        {.number = result->received_bytes / seconds / 1e6},
        {.number = result->stall_seconds},
        {.number = result->late_stall_seconds},
        {.number = result->stall_seconds / comparison->static_stall_seconds},
        {.number = (double)result->moves},
        {.number = (double)result->moves / seconds},
        {.number = (double)result->late_moves},
        {.number = (double)result->compaction_moves},
        {.number = (double)result->refused_moves},
        {.number = result->fairness},
        {.number = result->used_bytes_mean / region * 1000},
        {.number = (double)result->used_bytes_most / region * 1000},
        {.number = result->listed_mean},
        {.number = histogram_quantile_ns(&result->round_ns, 0.5) / 1e3},
        {.number = histogram_most_ns(&result->round_ns) / 1e3},
        {.number = histogram_quantile_ns(&result->pressing_ns, 0.5) / 1e3},
    };

    report_row(comparison->report, cells);
    if (comparison->csv)
        write_csv(comparison->csv, cells);
}

static void run_one(struct comparison *comparison, struct sim_setup *setup,
                    const struct policy *policy)
{
    struct sim_result *result = malloc(sizeof(*result));

    if (!result)
        children_fail("sim: out of memory");
    setup->policy = policy;
    int r = sim_run(setup, result);
    if (r == -ENOSPC)
        children_fail("sim: %zu rings do not fit into %llu bytes", setup->ring_count,
                      (unsigned long long)setup->region_bytes);
    if (r < 0)
        children_fail("sim: %s", strerror(-r));
    if (policy->plan == policy_static_plan)
        comparison->static_stall_seconds = result->stall_seconds;
    report_result(comparison, policy, result);
    free(result);
}

/* static first: the others are compared with it. */
static void run_policies(struct comparison *comparison, struct sim_setup *setup, const char *name)
{
    static const char *const order[POLICY_COUNT] = {"static", "secure-ivshmem", "default"};

    for (size_t i = 0; i < POLICY_COUNT; i++)
        if (strcmp(name, "all") == 0 || strcmp(name, order[i]) == 0)
            run_one(comparison, setup, policy_find(order[i]));
}

/* The command line. */
struct options {
    const char *policy, *load;
    const char *trace_path, *replay_path;
    uint64_t region_bytes, seed;
    size_t rings;
    double seconds;
    const char *csv_path;
};

static void run_load(struct report *report, const struct options *options, const char *load,
                     struct sim_setup *setup, FILE *csv)
{
    struct sim_demand *demands = calloc(setup->ring_count, sizeof(*demands));
    struct comparison comparison = {.report = report,
                                    .csv = csv,
                                    .load = load,
                                    .seconds = setup->seconds,
                                    .region_bytes = setup->region_bytes,
                                    .static_stall_seconds = NAN};

    if (!demands)
        children_fail("sim: out of memory");
    sim_load_make(load, setup->region_bytes, setup->ring_count, demands);
    setup->demands = demands;
    run_policies(&comparison, setup, options->policy);
    free(demands);
}

static void run_loads(struct report *report, const struct options *options, struct sim_setup *setup)
{
    static const char *const all[] = {"constant", "uniform", "bursty", "skewed", "mixed"};
    FILE *csv = open_csv(options->csv_path);

    setup->ring_count = options->rings;
    setup->region_bytes = options->region_bytes;
    setup->seconds = options->seconds;
    report_number(report, "rings", (double)setup->ring_count, 0, "");
    report_number(report, "region_bytes", (double)setup->region_bytes, 0, "");
    report_number(report, "seconds", setup->seconds, 3, "simulated");
    report_number(report, "seed", (double)setup->seed, 0, "");
    report_table(report, "rows", columns, COLUMNS);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (strcmp(options->load, "all") == 0 || strcmp(options->load, all[i]) == 0)
            run_load(report, options, all[i], setup, csv);
    report_table_end(report);
    if (csv && fclose(csv) != 0)
        children_fail("sim: %s: %s", options->csv_path, strerror(errno));
}

/* The load of a recording: all rings at their minimum in the recorded region. */
static void run_trace(struct report *report, const struct options *options, struct sim_setup *setup)
{
    struct sim_trace_load load;
    FILE *csv = open_csv(options->csv_path);

    sim_trace_load(options->trace_path, &load);
    struct comparison comparison = {.report = report,
                                    .csv = csv,
                                    .load = "trace",
                                    .seconds = load.seconds,
                                    .region_bytes = options->region_bytes ? options->region_bytes
                                                                          : load.region_bytes,
                                    .static_stall_seconds = NAN};
    setup->config = &load.config;
    setup->demands = load.demands;
    setup->ring_count = load.ring_count;
    setup->region_bytes = comparison.region_bytes;
    setup->seconds = load.seconds;
    report_number(report, "rings", (double)setup->ring_count, 0, "");
    report_number(report, "region_bytes", (double)setup->region_bytes, 0, "");
    report_number(report, "seconds", setup->seconds, 3, "recorded");
    report_table(report, "rows", columns, COLUMNS);
    run_policies(&comparison, setup, options->policy);
    report_table_end(report);
    sim_trace_load_deinit(&load);
    if (csv && fclose(csv) != 0)
        children_fail("sim: %s: %s", options->csv_path, strerror(errno));
}

static void print_help(FILE *out)
{
    fputs("usage: vchan-bench sim [--policy NAME] [--load NAME | --trace FILE] [...]\n"
          "       vchan-bench sim --replay FILE [--policy NAME]\n"
          "\n"
          "Runs policies over many rings in simulated time, and prints how each fared.\n"
          "\n"
          "  --policy NAME    default, static, secure-ivshmem, or all (all)\n"
          "  --load NAME      constant, uniform, bursty, skewed, mixed, or all (all)\n"
          "  --rings N        how many, 2 to 200000 (1000)\n"
          "  --region SIZE    that they share, such as 64M (64K a ring)\n"
          "  --seconds S      to simulate (20)\n"
          "  --seed N         of the random numbers (1)\n"
          "  --trace FILE     the load is that of a recording (vchanctl record)\n"
          "  --replay FILE    gives the policy what a recording says it was given: exit status 1\n"
          "                   if it decides otherwise than the broker did\n"
          "  --csv FILE       writes the table there, too, as comma-separated values\n"
          "  --json           one JSON object on standard output\n"
          "  --help           this\n",
          out);
}

static _Noreturn void complain(const char *option, const char *value, const char *allowed)
{
    fprintf(stderr, "vchan-bench: sim: %s '%s': allowed is %s; see vchan-bench sim --help\n",
            option, value, allowed);
    exit(2);
}

static double parse_number(const char *option, const char *text, double least, double most)
{
    char *end, allowed[64];
    double value = strtod(text, &end);

    if (*end || end == text || !(value >= least && value <= most)) {
        snprintf(allowed, sizeof(allowed), "a number from %.15g to %.15g", least, most);
        complain(option, text, allowed);
    }
    return value;
}

/* With K, M, G. */
static uint64_t parse_size(const char *option, const char *text)
{
    static const char units[] = "KMG";
    char *end;
    double value = strtod(text, &end);
    const char *unit = *end ? strchr(units, *end) : NULL;

    if (unit)
        end++;
    for (; unit && unit >= units; unit--)
        value *= 1024;
    if (*end || end == text || !(value >= 1 << 20 && value <= 1e14))
        complain(option, text, "a size from 1M to 90000G");
    return (uint64_t)value / 4096 * 4096;
}

static void parse(int argc, char **argv, struct options *options)
{
    enum { POLICY = 1, LOAD, RINGS, REGION, DURATION, SEED, TRACE, REPLAY, CSV, HELP };
    static const struct option table[] = {
        {"policy", required_argument, NULL, POLICY},
        {"load", required_argument, NULL, LOAD},
        {"rings", required_argument, NULL, RINGS},
        {"region", required_argument, NULL, REGION},
        {"seconds", required_argument, NULL, DURATION},
        {"seed", required_argument, NULL, SEED},
        {"trace", required_argument, NULL, TRACE},
        {"replay", required_argument, NULL, REPLAY},
        {"csv", required_argument, NULL, CSV},
        {"help", no_argument, NULL, HELP},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "h", table, NULL)) != -1) {
        switch (option) {
        case POLICY:
            if (strcmp(optarg, "all") != 0 && !policy_find(optarg))
                complain("--policy", optarg, "default, static, secure-ivshmem, all");
            options->policy = optarg;
            break;
        case LOAD:
            if (strcmp(optarg, "all") != 0 && !sim_load_known(optarg))
                complain("--load", optarg, "constant, uniform, bursty, skewed, mixed, all");
            options->load = optarg;
            break;
        case RINGS:
            options->rings = (size_t)parse_number("--rings", optarg, 2, 200000);
            break;
        case REGION:
            options->region_bytes = parse_size("--region", optarg);
            break;
        case DURATION:
            options->seconds = parse_number("--seconds", optarg, 0.1, 86400);
            break;
        case SEED:
            options->seed = (uint64_t)parse_number("--seed", optarg, 1, 1e15);
            break;
        case TRACE:
            options->trace_path = optarg;
            break;
        case REPLAY:
            options->replay_path = optarg;
            break;
        case CSV:
            options->csv_path = optarg;
            break;
        case HELP:
        case 'h':
            print_help(stdout);
            exit(0);
        default:
            exit(2);
        }
    }
    if (optind < argc)
        complain("argument", argv[optind], "none");
    if (options->replay_path && options->policy && strcmp(options->policy, "all") == 0)
        complain("--policy", "all", "one policy at a time with --replay");
}

int mode_sim(struct report *report, const struct mode_options *arguments)
{
    struct options options = {
        .load = "all", .rings = RINGS_DEFAULT, .seconds = SECONDS_DEFAULT, .seed = 1};
    struct policy_config config;
    struct sim_setup setup = {.config = &config};

    parse(arguments->arguments_count, arguments->arguments, &options);
    if (options.replay_path)
        return sim_trace_replay(report, options.replay_path,
                                options.policy ? policy_find(options.policy) : NULL);
    if (!options.policy)
        options.policy = "all";
    setup.seed = options.seed;
    if (options.trace_path) {
        run_trace(report, &options, &setup);
        return 0;
    }
    if (!options.region_bytes)
        options.region_bytes = options.rings * (uint64_t)RING_SHARE;
    policy_config_init(&config);
    run_loads(report, &options, &setup);
    return 0;
}
