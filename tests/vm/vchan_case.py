# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of vchan between real guests share.

    host (0), web (5), db (6), mail (7): all in one zone
"""

import os
import sys

from guest_case import BIN, CANNOT, IMAGE

import host

CONFIGURATION = """\
[broker]
region-size = 64M
[domain host]
id = 0
[domain web]
id = 5
[domain db]
id = 6
[domain mail]
id = 7
"""
DOMAINS = {"host": 0, "web": 5, "db": 6, "mail": 7}
wait_until = host.wait_until


def need_programs(*names):
    """Ends the test as skipped when one is not built, or the host has no FUSE."""
    for name in ("vchand", "vchanctl", "vchanfs", "vchan-agent", *names):
        if not os.access(os.path.join(BIN, name), os.X_OK):
            print(f"{name} is not in {BIN}")
            sys.exit(CANNOT)
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        print("there is no /dev/fuse that this user may use")
        sys.exit(CANNOT)


class Host(host.Host):
    def __init__(self, configuration=CONFIGURATION):
        super().__init__(BIN, IMAGE, configuration)
