/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/mode_vm.c - many virtual machines at once: real guests, a load among them and the host, and
 * the broker's policies in turn in one run.
 *
 * The guests boot once. Then slices: one of each policy, again and again, so that what the machine
 * does besides falls on all of them. The broker changes its policy while everything goes on; a
 * second of each slice is for the rings to find their places and is not counted.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/children.h"
#include "bench/measure.h"
#include "bench/mode.h"
#include "bench/private_broker.h"
#include "bench/vm_link.h"
#include "bench/vm_plan.h"
#include "bench/vm_result.h"

#define BOOT_MS 60000
#define HEAR_MS 60000
#define SETTLE_MS 1000u
#define SLICE_MS 4000u

struct vm_bench {
    unsigned guests;
    const char *profile;
    double seconds;
    const char *image, *source, *output, *region;
    char *policies[VM_POLICIES_MAX];
    unsigned policy_count;
    const char *accel;
    struct vm_plan plan;
    struct private_broker broker;
    struct vm_link links[VM_GUESTS_MAX + 1];
    char names[VM_GUESTS_MAX + 1][16];
    struct vm_result result;
};

static void print_help(void)
{
    printf("usage: vchan-bench vm [--guests N] [--profile steady|bursty|mixed] [...]\n"
           "\n"
           "  --guests N        how many to boot, 1 to %u (2)\n"
           "  --profile NAME    steady, bursty or mixed (bursty); see vchan-bench(1)\n"
           "  --policies A,B    policies to compare in turn (static,default)\n"
           "  --seconds S       how long to measure, all in all (32)\n"
           "  --region SIZE     memory that all rings share (2M)\n"
           "  --output DIR      vm.csv, vm.gnuplot and plots (SVG and PNG) go there\n"
           "  --image DIR       what packaging/guest-image made (default: make it)\n"
           "  --source DIR      where packaging/ is (default: two above this program)\n"
           "  --json            one JSON object on standard output\n",
           VM_GUESTS_MAX);
}

static void split_policies(struct vm_bench *bench, char *list)
{
    char *name;

    bench->policy_count = 0;
    while ((name = strsep(&list, ","))) {
        if (bench->policy_count == VM_POLICIES_MAX)
            children_fail("vm: at most %u policies", VM_POLICIES_MAX);
        bench->policies[bench->policy_count++] = name;
    }
}

static int parse(struct vm_bench *bench, int argc, char **argv)
{
    enum { GUESTS = 1, PROFILE, POLICIES, SECONDS, REGION, OUTPUT, IMAGE, SOURCE, HELP };
    static const struct option table[] = {
        {"guests", required_argument, NULL, GUESTS},
        {"profile", required_argument, NULL, PROFILE},
        {"policies", required_argument, NULL, POLICIES},
        {"seconds", required_argument, NULL, SECONDS},
        {"region", required_argument, NULL, REGION},
        {"output", required_argument, NULL, OUTPUT},
        {"image", required_argument, NULL, IMAGE},
        {"source", required_argument, NULL, SOURCE},
        {"help", no_argument, NULL, HELP},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
        switch (option) {
        case GUESTS:
            bench->guests = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case PROFILE:
            bench->profile = optarg;
            break;
        case POLICIES:
            split_policies(bench, optarg);
            break;
        case SECONDS:
            bench->seconds = strtod(optarg, NULL);
            break;
        case REGION:
            bench->region = optarg;
            break;
        case OUTPUT:
            bench->output = optarg;
            break;
        case IMAGE:
            bench->image = optarg;
            break;
        case SOURCE:
            bench->source = optarg;
            break;
        case HELP:
            print_help();
            exit(0);
        default:
            return 2;
        }
    }
    if (optind < argc || bench->guests < 1 || bench->guests > VM_GUESTS_MAX ||
        !(bench->seconds > 0 && bench->seconds < 1e6) ||
        !vm_plan_make(&bench->plan, bench->guests, bench->profile)) {
        fprintf(stderr, "vchan-bench vm: wrong arguments; see vchan-bench vm --help\n");
        return 2;
    }
    return 0;
}

static void format(char *text, size_t bytes, const char *directory, const char *name)
{
    if (snprintf(text, bytes, "%s/%s", directory, name) >= (int)bytes)
        children_fail("%s: too long a path", directory);
}

/* build/bin/vchan-bench lies two below the source. */
static const char *find_source(void)
{
    static char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

    path[n > 0 ? n : 0] = 0;
    for (int i = 0; i < 3; i++) {
        char *slash = strrchr(path, '/');
        if (slash)
            *slash = 0;
    }
    return path;
}

/* Its exit status, or ends the benchmark; its output goes to ours only when it fails. */
static int run(const char *what, const char *const *argv)
{
    char text[4096];
    size_t held = 0;
    ssize_t n;
    int output;

    pid_t pid = children_spawn(what, -1, argv, &output);
    children_may_end(pid);
    while ((n = read(output, text + held, sizeof(text) - held)) != 0) {
        if (n < 0 && errno != EINTR)
            break;
        held = n > 0 && held + (size_t)n < sizeof(text) ? held + (size_t)n : 0;
    }
    close(output);
    int status = children_wait(pid);
    if (status != 0)
        fprintf(stderr, "%.*s", (int)held, text);
    return status;
}

/* The small guest with this program in it. 77: there cannot be one here. */
static int make_image(struct vm_bench *bench)
{
    static char image[PATH_MAX];
    char tool[PATH_MAX], program[PATH_MAX], build[PATH_MAX];

    if (!bench->source)
        bench->source = find_source();
    format(tool, sizeof(tool), bench->source, "packaging/guest-image");
    if (access(tool, X_OK) < 0) {
        fprintf(stderr, "vchan-bench vm: there is no %s; say where with --source\n", tool);
        return 2;
    }
    if (bench->image)
        return 0;
    ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    program[n > 0 ? n : 0] = 0;
    snprintf(build, sizeof(build), "%s", program);
    for (int i = 0; i < 2; i++)
        *strrchr(build, '/') = 0;
    format(image, sizeof(image), build, "guest-bench");
    bench->image = image;
    const char *const argv[] = {tool,       "--quiet", "--build", build,
                                "--output", image,     program,   NULL};
    return run("guest-image", argv);
}

static void write_config(const struct vm_bench *bench, const char *policy, char *text, size_t bytes)
{
    int n = snprintf(text, bytes,
                     "[broker]\nregion-size = %s\nchannels = 48\npolicy = %s\n"
                     "[local]\ndomains = 0\n",
                     bench->region, policy);

    for (unsigned i = 1; i <= bench->guests && n >= 0 && (size_t)n < bytes; i++)
        n += snprintf(text + n, bytes - (size_t)n, "[domain guest%u]\nid = %u\n", i, i);
    if (n < 0 || (size_t)n >= bytes)
        children_fail("vm: too long a configuration");
}

/* A socket of a guest in the broker's directory. */
static void guest_path(const struct vm_bench *bench, unsigned number, const char *folder,
                       const char *ending, char path[PATH_MAX])
{
    if (snprintf(path, PATH_MAX, "%s/%s%s%s", bench->broker.directory, folder, bench->names[number],
                 ending) >= PATH_MAX)
        children_fail("%s: too long a path", bench->broker.directory);
}

static void boot(struct vm_bench *bench, unsigned number)
{
    char tool[PATH_MAX], socket[PATH_MAX], commands[PATH_MAX];
    char *name = bench->names[number];

    format(tool, sizeof(tool), bench->source, "packaging/guest-run");
    snprintf(name, sizeof(bench->names[number]), "guest%u", number);
    guest_path(bench, number, "guests/default/", ".sock", socket);
    guest_path(bench, number, "", ".commands", commands);
    children_remove_at_end(socket);
    children_remove_at_end(commands);
    const char *const argv[] = {tool,         "--name",  name,         "--socket",   socket,
                                "--commands", commands,  "--image",    bench->image, "--memory",
                                "192",        "--accel", bench->accel, "--no-shell", NULL};
    children_spawn(name, -1, argv, NULL);
}

static void tell_flows(struct vm_bench *bench)
{
    for (unsigned i = 0; i < bench->plan.count; i++) {
        const struct vm_flow *flow = &bench->plan.flows[i];
        vm_link_say(&bench->links[flow->from], "send %u %u %u %s %u %u %u %u", i, flow->to,
                    flow->port, flow->from_serves ? "server" : "client", flow->chunk_bytes,
                    flow->on_us, flow->off_us, flow->kibs);
        vm_link_say(&bench->links[flow->to], "receive %u %u %u %s %u", i, flow->from, flow->port,
                    flow->from_serves ? "client" : "server", flow->visit_us);
    }
    for (unsigned domain = 0; domain <= bench->guests; domain++)
        vm_link_say(&bench->links[domain], "connect");
    for (unsigned domain = 0; domain <= bench->guests; domain++) {
        char line[VM_LINE_BYTES];
        vm_link_hear(&bench->links[domain], line, HEAR_MS);
        if (strcmp(line, "connected") != 0)
            children_fail("%s: \"%s\" instead of connected", bench->links[domain].name, line);
    }
}

/* All workers at once; what they answer goes to the result, if there is one. */
static void slice(struct vm_bench *bench, unsigned ms, struct vm_slice *result)
{
    char line[VM_LINE_BYTES];

    for (unsigned domain = 0; domain <= bench->guests; domain++)
        vm_link_say(&bench->links[domain], "slice %u", ms);
    for (unsigned domain = 0; domain <= bench->guests; domain++) {
        for (;;) {
            vm_link_hear(&bench->links[domain], line, (int)ms + HEAR_MS);
            if (strcmp(line, "done") == 0)
                break;
            if (result && !vm_slice_take(result, line, bench->plan.count))
                children_fail("%s: what is \"%s\"?", bench->links[domain].name, line);
        }
    }
}

static void measure(struct vm_bench *bench)
{
    char config[4096];
    unsigned rounds = (unsigned)ceil(bench->seconds * 1000 / SLICE_MS / bench->policy_count);

    for (unsigned round = 0; round < rounds; round++)
        for (unsigned policy = 0; policy < bench->policy_count; policy++) {
            write_config(bench, bench->policies[policy], config, sizeof(config));
            private_broker_reconfigure(&bench->broker, config, bench->policies[policy]);
            slice(bench, SETTLE_MS, NULL);
            struct vm_slice *result = vm_result_add(&bench->result, policy, SLICE_MS / 1e3);
            if (!result)
                children_fail("vm: out of memory");
            slice(bench, SLICE_MS, result);
        }
}

static const char *choose_accel(void)
{
    bool kvm = access("/sys/module/kvm_pvm", F_OK) < 0 && access("/dev/kvm", R_OK | W_OK) == 0;

    return kvm ? "kvm" : "tcg";
}

int mode_vm(struct report *report, const struct mode_options *options)
{
    static struct vm_bench bench = {
        .guests = 2, .profile = "bursty", .seconds = 32, .region = "2M"};
    static char standard[] = "static,default";
    char config[4096];

    split_policies(&bench, standard);
    int r = parse(&bench, options->arguments_count, options->arguments);
    /* Before the measurement, which would be lost otherwise. */
    if (r == 0 && bench.output && vm_result_directory(bench.output) < 0)
        r = 1;
    if (r == 0)
        r = make_image(&bench);
    if (r != 0)
        return r;
    bench.accel = choose_accel();
    report_text(report, "accelerator", strcmp(bench.accel, "kvm") == 0 ? "KVM" : "TCG");
    report_number(report, "guests", bench.guests, 0, "");
    report_text(report, "profile", bench.profile);
    report_text(report, "region", bench.region);
    write_config(&bench, bench.policies[0], config, sizeof(config));
    private_broker_start_configured(&bench.broker, config);
    for (unsigned i = 1; i <= bench.guests; i++)
        boot(&bench, i);
    vm_link_host(&bench.links[0], "host");
    for (unsigned i = 1; i <= bench.guests; i++) {
        char path[PATH_MAX];
        guest_path(&bench, i, "", ".commands", path);
        vm_link_guest(&bench.links[i], bench.names[i], path, "exec vchan-bench vm-worker", BOOT_MS);
    }
    tell_flows(&bench);
    measure(&bench);
    vm_result_report(&bench.result, &bench.plan, bench.policies, bench.policy_count, report);
    r = bench.output ? vm_result_write(&bench.result, &bench.plan, bench.policies,
                                       bench.policy_count, bench.output, bench.accel)
                     : 0;
    vm_result_deinit(&bench.result);
    return r < 0 ? 1 : 0;
}
