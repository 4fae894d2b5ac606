# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests with real guests share: the image, made when something in it is new, and guests that are ended after each test."""

import os
import subprocess
import sys
import unittest

BIN = os.environ.get("VCHAN_BIN") or os.path.join(os.path.dirname(__file__), "../../build/bin")
BUILD = os.path.dirname(os.path.abspath(BIN))
SOURCE = os.path.abspath(os.environ.get("VCHAN_SOURCE") or os.path.join(os.path.dirname(__file__), "../.."))
IMAGE = os.path.join(BUILD, "tests/vm/image")
PROGRAMS = [os.path.join(BUILD, "tests/vm", name) for name in ("holder", "numbers", "rubbish", "simple_pump")]
CANNOT = 77

sys.path.insert(0, os.path.join(SOURCE, "packaging/guest"))

import machine  # noqa: E402
from guest import Guest  # noqa: E402


def need():
    """Ends the test as skipped where no guest can run; else the image is there afterwards."""
    reason = machine.missing()
    if not reason:
        make = [os.path.join(SOURCE, "packaging/guest-image"), "--quiet", "--build", BUILD, "--output", IMAGE]
        made = subprocess.run([*make, *filter(os.path.exists, PROGRAMS)],
                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if made.returncode == CANNOT:
            reason = made.stderr.strip()
        elif made.returncode:
            sys.exit(made.stderr.strip() or f"guest-image: {made.returncode}")
    if reason:
        print(reason)
        sys.exit(CANNOT)


class GuestCase(unittest.TestCase):
    def start(self, name, **options):
        """A guest that boots; it is ended with the test."""
        guest = Guest(name, IMAGE, **options)
        self.addCleanup(guest.close)
        guest.start()
        return guest

    def boot(self, *names, **options):
        """Guests that are up; one, or a list when there are several names. They boot side by side."""
        guests = [self.start(name, **options) for name in names]
        for guest in guests:
            guest.wait_up()
        return guests[0] if len(guests) == 1 else guests
