/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/vm_result.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/children.h"

struct vm_slice *vm_result_add(struct vm_result *result, unsigned policy, double seconds)
{
    struct vm_slice *slice = calloc(1, sizeof(*slice));
    void *grown = realloc(result->slices, (result->count + 1) * sizeof(struct vm_slice *));

    if (grown)
        result->slices = grown;
    if (!slice || !grown) {
        free(slice);
        return NULL;
    }
    slice->policy = policy;
    slice->seconds = seconds;
    result->slices[result->count++] = slice;
    return slice;
}

void vm_result_deinit(struct vm_result *result)
{
    for (size_t i = 0; i < result->count; i++)
        free(result->slices[i]);
    free(result->slices);
    *result = (struct vm_result){0};
}

bool vm_slice_take(struct vm_slice *slice, const char *line, unsigned flows)
{
    struct vm_flow_figures figures;
    unsigned id;
    size_t bucket;
    uint64_t count;

    if (sscanf(line, "sent %u %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &id,
               &figures.sent_bytes, &figures.stalls, &figures.stall_ns,
               &figures.generations) == 5 &&
        id < flows) {
        figures.received_bytes = slice->flows[id].received_bytes;
        slice->flows[id] = figures;
        return true;
    }
    if (sscanf(line, "received %u %" SCNu64, &id, &count) == 2 && id < flows) {
        slice->flows[id].received_bytes = count;
        return true;
    }
    if (sscanf(line, "times %zu %" SCNu64, &bucket, &count) != 2 || bucket >= HISTOGRAM_BUCKETS)
        return false;
    slice->times.buckets[bucket] += count;
    slice->times.count += count;
    slice->times.most = UINT64_MAX; /* the buckets' edges are all we know */
    return true;
}

/* What the histogram holds is ns already. */
static double quantile_us(const struct histogram *times, double fraction)
{
    return histogram_quantile_ns(times, fraction) * measure_ticks_per_ns() / 1000;
}

struct sums {
    double seconds, bytes, stalls, stall_seconds, generations;
    double flow_bytes[VM_PLAN_FLOWS_MAX];
    double flow_stall_seconds[VM_PLAN_FLOWS_MAX];
    struct histogram times;
};

static void sum_policy(const struct vm_result *result, unsigned flows, unsigned policy,
                       struct sums *sums)
{
    memset(sums, 0, sizeof(*sums));
    for (size_t i = 0; i < result->count; i++) {
        const struct vm_slice *slice = result->slices[i];
        if (slice->policy != policy)
            continue;
        sums->seconds += slice->seconds;
        histogram_merge(&sums->times, &slice->times);
        for (unsigned f = 0; f < flows; f++) {
            const struct vm_flow_figures *figures = &slice->flows[f];
            sums->bytes += (double)figures->received_bytes;
            sums->stalls += (double)figures->stalls;
            sums->stall_seconds += (double)figures->stall_ns / 1e9;
            sums->generations += (double)figures->generations;
            sums->flow_bytes[f] += (double)figures->received_bytes;
            sums->flow_stall_seconds[f] += (double)figures->stall_ns / 1e9;
        }
    }
}

static void report_policies(const struct vm_result *result, unsigned flows, char *const *policies,
                            unsigned count, struct report *report)
{
    static const struct report_column columns[] = {
        {"policy", "policy", 16, REPORT_TEXT},   {"mib_per_s", "MiB/s", 10, 1},
        {"stalled_percent", "stalled %", 10, 2}, {"stalls_per_s", "stalls/s", 10, 1},
        {"rebalances_per_s", "moves/s", 10, 1},  {"write_p50_us", "p50 us", 10, 1},
        {"write_p99_us", "p99 us", 10, 1},       {"write_p999_us", "p99.9 us", 10, 1},
    };
    static struct sums sums;

    report_table(report, "policies", columns, sizeof(columns) / sizeof(columns[0]));
    for (unsigned policy = 0; policy < count; policy++) {
        sum_policy(result, flows, policy, &sums);
        report_row(report, (const struct report_cell[]){
                               {.text = policies[policy]},
                               {.number = sums.bytes / 1048576 / sums.seconds},
                               {.number = 100 * sums.stall_seconds / (sums.seconds * flows)},
                               {.number = sums.stalls / sums.seconds},
                               {.number = sums.generations / sums.seconds},
                               {.number = quantile_us(&sums.times, 0.5)},
                               {.number = quantile_us(&sums.times, 0.99)},
                               {.number = quantile_us(&sums.times, 0.999)},
                           });
    }
    report_table_end(report);
}

static void report_flows(const struct vm_result *result, const struct vm_plan *plan,
                         char *const *policies, unsigned count, struct report *report)
{
    static const struct report_column columns[] = {
        {"policy", "policy", 16, REPORT_TEXT},
        {"from", "from", 6, 0},
        {"to", "to", 6, 0},
        {"port", "port", 8, 0},
        {"mib_per_s", "MiB/s", 10, 2},
        {"stalled_percent", "stalled %", 10, 2},
    };
    static struct sums sums;

    report_table(report, "flows", columns, sizeof(columns) / sizeof(columns[0]));
    for (unsigned policy = 0; policy < count; policy++) {
        sum_policy(result, plan->count, policy, &sums);
        for (unsigned f = 0; f < plan->count; f++)
            report_row(report, (const struct report_cell[]){
                                   {.text = policies[policy]},
                                   {.number = plan->flows[f].from},
                                   {.number = plan->flows[f].to},
                                   {.number = plan->flows[f].port},
                                   {.number = sums.flow_bytes[f] / 1048576 / sums.seconds},
                                   {.number = 100 * sums.flow_stall_seconds[f] / sums.seconds},
                               });
    }
    report_table_end(report);
}

void vm_result_report(const struct vm_result *result, const struct vm_plan *plan,
                      char *const *policies, unsigned policy_count, struct report *report)
{
    report_policies(result, plan->count, policies, policy_count, report);
    report_flows(result, plan, policies, policy_count, report);
}

static FILE *make(const char *directory, const char *name)
{
    char path[PATH_MAX];
    FILE *file = NULL;

    if (snprintf(path, sizeof(path), "%s/%s", directory, name) < (int)sizeof(path))
        file = fopen(path, "we");
    if (!file)
        fprintf(stderr, "vchan-bench: %s/%s: %s\n", directory, name, strerror(errno));
    return file;
}

static void write_csv(const struct vm_result *result, const struct vm_plan *plan,
                      char *const *policies, const char *accel, FILE *file)
{
    fprintf(file, "slice,accelerator,policy,seconds,from,to,port,sent_bytes,received_bytes,stalls,"
                  "stall_ns,rebalances,slice_write_p50_us,slice_write_p99_us,"
                  "slice_write_p999_us\n");
    for (size_t i = 0; i < result->count; i++) {
        const struct vm_slice *slice = result->slices[i];
        for (unsigned f = 0; f < plan->count; f++) {
            const struct vm_flow_figures *figures = &slice->flows[f];
            const struct vm_flow *flow = &plan->flows[f];
            fprintf(file, "%zu,%s,%s,%.3f,%u,%u,%u,%" PRIu64 ",%" PRIu64, i, accel,
                    policies[slice->policy], slice->seconds, flow->from, flow->to, flow->port,
                    figures->sent_bytes, figures->received_bytes);
            fprintf(file, ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%.1f,%.1f,%.1f\n", figures->stalls,
                    figures->stall_ns, figures->generations, quantile_us(&slice->times, 0.5),
                    quantile_us(&slice->times, 0.99), quantile_us(&slice->times, 0.999));
        }
    }
}

/* One row for each slice, one column for each policy, so that gnuplot draws bars of two colours. */
static void write_series(const struct vm_result *result, const struct vm_plan *plan,
                         unsigned policy_count, FILE *file, const char *name,
                         double (*figure)(const struct vm_slice *slice, unsigned flows))
{
    fprintf(file, "$%s << END\n", name);
    for (size_t i = 0; i + policy_count <= result->count; i += policy_count) {
        fprintf(file, "%zu", i / policy_count + 1);
        for (unsigned policy = 0; policy < policy_count; policy++)
            fprintf(file, " %.3f", figure(result->slices[i + policy], plan->count));
        fputc('\n', file);
    }
    fputs("END\n", file);
}

static double throughput(const struct vm_slice *slice, unsigned flows)
{
    double bytes = 0;

    for (unsigned f = 0; f < flows; f++)
        bytes += (double)slice->flows[f].received_bytes;
    return bytes / 1048576 / slice->seconds;
}

static double stalled(const struct vm_slice *slice, unsigned flows)
{
    double seconds = 0;

    for (unsigned f = 0; f < flows; f++)
        seconds += (double)slice->flows[f].stall_ns / 1e9;
    return 100 * seconds / (slice->seconds * flows);
}

static double tail(const struct vm_slice *slice, unsigned flows)
{
    (void)flows;
    return quantile_us(&slice->times, 0.99);
}

static void write_plot(const struct vm_result *result, const struct vm_plan *plan,
                       char *const *policies, unsigned policy_count, const char *accel, FILE *file)
{
    static const struct {
        const char *name, *title;
        double (*figure)(const struct vm_slice *slice, unsigned flows);
    } plots[] = {
        {"throughput", "throughput of all channels (MiB/s)", throughput},
        {"stalled", "senders' time stalled (%)", stalled},
        {"tail", "p99 of a write (us)", tail},
    };

    for (size_t i = 0; i < 3; i++)
        write_series(result, plan, policy_count, file, plots[i].name, plots[i].figure);
    fprintf(file,
            "do for [kind in \"svg png\"] {\n"
            "if (kind eq \"svg\") { set terminal svg size 1200,420 font 'sans,12' } else "
            "{ set terminal pngcairo size 1200,420 font 'sans,10' }\n"
            "set output 'vm.' . kind\n"
            "set multiplot layout 1,3 title '%u guests under %s, policies in turn'\n"
            "set style data histogram\nset style fill solid 0.8\nset yrange [0:*]\n"
            "set xlabel 'round'\nset key top left\n",
            plan->guests, accel);
    for (size_t i = 0; i < 3; i++) {
        fprintf(file, "set title \"%s\"\nplot ", plots[i].title);
        for (unsigned policy = 0; policy < policy_count; policy++)
            fprintf(file, "%s$%s using %u:xtic(1) title '%s'", policy ? ", " : "", plots[i].name,
                    policy + 2, policies[policy]);
        fputc('\n', file);
    }
    fputs("unset multiplot\n}\n", file);
}

static int draw(const char *directory)
{
    char command[PATH_MAX + 64];

    if (snprintf(command, sizeof(command), "cd '%s' && exec gnuplot vm.gnuplot", directory) >=
        (int)sizeof(command))
        return -1;
    const char *const argv[] = {"/bin/sh", "-c", command, NULL};
    pid_t pid = children_spawn("gnuplot", -1, argv, NULL);
    children_may_end(pid);
    if (children_wait(pid) == 0)
        return 0;
    fprintf(stderr,
            "vchan-bench: no plots: gnuplot failed or is not installed; later: cd %s && "
            "gnuplot vm.gnuplot\n",
            directory);
    return 0;
}

int vm_result_directory(const char *directory)
{
    if ((mkdir(directory, 0777) < 0 && errno != EEXIST) || access(directory, W_OK | X_OK) < 0) {
        fprintf(stderr, "vchan-bench: %s: %s\n", directory, strerror(errno));
        return -1;
    }
    return 0;
}

int vm_result_write(const struct vm_result *result, const struct vm_plan *plan,
                    char *const *policies, unsigned policy_count, const char *directory,
                    const char *accel)
{
    FILE *file = make(directory, "vm.csv");
    if (!file)
        return -1;
    write_csv(result, plan, policies, accel, file);
    fclose(file);
    file = make(directory, "vm.gnuplot");
    if (!file)
        return -1;
    write_plot(result, plan, policies, policy_count, accel, file);
    fclose(file);
    return draw(directory);
}
