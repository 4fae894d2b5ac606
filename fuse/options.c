/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuse/names.h"

#define EXIT_USAGE 2

static const char help[] =
    "Usage: vchanfs [options] MOUNTPOINT\n"
    "Shows the vchan channels of one domain as files: MOUNTPOINT/DOMAIN/PORT.\n"
    "\n"
    "  --domain N        whose channels (default: $VCHAN_DOMAIN, else 0, the host)\n"
    "  --socket PATH     the broker's socket (default: $VCHAN_RUNTIME_DIR/vchand.sock,\n"
    "                    /run/vchand/vchand.sock without that)\n"
    "  -f, --foreground  stay in the foreground\n"
    "  -d, --debug       the same, and print each request\n"
    "  -o OPTION,...     domain=N, socket=PATH, allow_other (all users may use the files),\n"
    "                    and libfuse's: auto_unmount, default_permissions, ro, ...\n"
    "  -h, --help        this\n"
    "  -V, --version     the version\n"
    "\n"
    "Unmount with umount MOUNTPOINT or fusermount3 -u MOUNTPOINT.\n";

static int parse_domain(const char *text, const char *where, int *domain)
{
    if (name_parse_domain(text, domain))
        return 0;
    fprintf(stderr, "vchanfs: %s: '%s' is not a domain number (0 to %d)\n", where, text,
            NAMES_DOMAIN_MAX);
    return EXIT_USAGE + 1;
}

static int set_string(char **to, const char *value)
{
    free(*to);
    *to = strdup(value);
    if (*to)
        return 0;
    fprintf(stderr, "vchanfs: out of memory\n");
    return EXIT_FAILURE + 1;
}

static int add_fuse_option(struct options *options, const char *option)
{
    char *joined = NULL;

    if (asprintf(&joined, "%s,%s", options->fuse_options, option) < 0) {
        fprintf(stderr, "vchanfs: out of memory\n");
        return EXIT_FAILURE + 1;
    }
    free(options->fuse_options);
    options->fuse_options = joined;
    return 0;
}

/* One of those between the commas of -o. */
static int parse_mount_option(struct options *options, const char *option)
{
    if (strncmp(option, "domain=", 7) == 0)
        return parse_domain(option + 7, "-o domain", &options->domain);
    if (strncmp(option, "socket=", 7) == 0)
        return set_string(&options->socket_path, option + 7);
    if (strcmp(option, "allow_other") == 0)
        options->for_all_users = true;
    return add_fuse_option(options, option);
}

static int parse_mount_options(struct options *options, char *list)
{
    char *rest = NULL;
    int r = 0;

    for (char *option = strtok_r(list, ",", &rest); option && r == 0;
         option = strtok_r(NULL, ",", &rest))
        r = parse_mount_option(options, option);
    return r;
}

static int parse_option(struct options *options, int option)
{
    switch (option) {
    case 'D':
        return parse_domain(optarg, "--domain", &options->domain);
    case 'S':
        return set_string(&options->socket_path, optarg);
    case 'o':
        return parse_mount_options(options, optarg);
    case 'd':
        options->debug = true;
        options->foreground = true;
        return 0;
    case 'f':
        options->foreground = true;
        return 0;
    case 'h':
        fputs(help, stdout);
        return EXIT_SUCCESS + 1;
    case 'V':
        printf("vchanfs %s\n", VCHAN_VERSION);
        return EXIT_SUCCESS + 1;
    default:
        fprintf(stderr, "Try 'vchanfs --help'.\n");
        return EXIT_USAGE + 1;
    }
}

/* The program leaves its directory when it goes into the background. */
static int make_absolute(char **path)
{
    char directory[PATH_MAX];
    char *absolute = NULL;

    if (!*path || **path == '/')
        return 0;
    if (!getcwd(directory, sizeof(directory))
        || asprintf(&absolute, "%s/%s", directory, *path) < 0) {
        fprintf(stderr, "vchanfs: %s: %s\n", *path, strerror(errno));
        return EXIT_FAILURE + 1;
    }
    free(*path);
    *path = absolute;
    return 0;
}

static int parse_all(struct options *options, int argc, char **argv)
{
    static const struct option long_options[] = {
        {"domain", required_argument, NULL, 'D'},
        {"socket", required_argument, NULL, 'S'},
        {"foreground", no_argument, NULL, 'f'},
        {"debug", no_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    const char *domain = getenv("VCHAN_DOMAIN");
    int option, r = 0;

    if (domain && *domain)
        r = parse_domain(domain, "VCHAN_DOMAIN", &options->domain);
    while (r == 0 && (option = getopt_long(argc, argv, "D:S:o:dfhV", long_options, NULL)) != -1)
        r = parse_option(options, option);
    if (r != 0)
        return r;
    if (argc - optind != 1) {
        fprintf(stderr, "vchanfs: %s\nTry 'vchanfs --help'.\n",
                optind < argc ? "more than one mountpoint" : "no mountpoint given");
        return EXIT_USAGE + 1;
    }
    r = set_string(&options->mountpoint, argv[optind]);
    if (r == 0)
        r = make_absolute(&options->mountpoint);
    return r == 0 ? make_absolute(&options->socket_path) : r;
}

int options_parse(struct options *options, int argc, char **argv)
{
    *options = (struct options){.domain = 0};
    int r = set_string(&options->fuse_options, "fsname=vchan,subtype=vchanfs");

    if (r == 0)
        r = parse_all(options, argc, argv);
    if (r != 0)
        options_free(options);
    return r;
}

void options_free(struct options *options)
{
    free(options->mountpoint);
    free(options->socket_path);
    free(options->fuse_options);
    *options = (struct options){.domain = 0};
}
