/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vchan-libvirt: tells the broker which VMs there are, and attaches their ivshmem devices.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/libvirt/liaison.h"

#define URI_DEFAULT "qemu:///system"

static const char help[] =
    "Usage: vchan-libvirt [OPTION]...\n"
    "Tells vchand which domains libvirt has and what they do, and attaches and detaches\n"
    "their shared-memory devices when vchanctl asks for it.\n"
    "\n"
    "  -c, --connect URI        libvirt's hypervisor (default: " URI_DEFAULT ")\n"
    "  -s, --socket PATH        the broker's socket (default: vchand.sock in\n"
    "                           $VCHAN_RUNTIME_DIR, or in /run/vchand)\n"
    "  -V, --version            print the version, and end\n"
    "  -h, --help               print this, and end\n"
    "\n"
    "It waits for a libvirtd and for a broker that are not there, and for those that go.\n"
    "SIGTERM and SIGINT end it. Exit status: 0 ended as asked, 1 failed, 2 wrong arguments.\n";

enum { EXIT_WRONG = 2 };

static const struct option options[] = {
    {"connect", required_argument, NULL, 'c'},
    {"socket", required_argument, NULL, 's'},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

int main(int argc, char **argv)
{
    const char *uri = URI_DEFAULT, *socket_path = NULL;
    int option;

    while ((option = getopt_long(argc, argv, "c:s:Vh", options, NULL)) >= 0) {
        switch (option) {
        case 'c':
            uri = optarg;
            break;
        case 's':
            socket_path = optarg;
            break;
        case 'V':
            printf("vchan-libvirt %s\n", VCHAN_VERSION);
            return EXIT_SUCCESS;
        case 'h':
            fputs(help, stdout);
            return EXIT_SUCCESS;
        default:
            fputs("Try \"vchan-libvirt --help\".\n", stderr);
            return EXIT_WRONG;
        }
    }
    if (optind < argc) {
        fputs("vchan-libvirt: it takes no arguments but options; try \"vchan-libvirt --help\"\n",
              stderr);
        return EXIT_WRONG;
    }
    /* Not exit: its handlers would clean up under threads that are inside libvirt. */
    _exit(liaison_run(uri, socket_path) < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}
