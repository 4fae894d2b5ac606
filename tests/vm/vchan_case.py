# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of vchan between real guests share.

    host (0), web (5), db (6), mail (7): all in one zone
"""

import itertools
import os
import sys

from guest_case import BIN, CANNOT, IMAGE, PROGRAMS

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
    for path in [*PROGRAMS, *(os.path.join(BIN, name) for name in ("vchand", "vchanctl", "vchanfs", "vchan-agent", *names))]:
        if not os.access(path, os.X_OK):
            print(f"{path} is not built")
            sys.exit(CANNOT)
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        print("there is no /dev/fuse that this user may use")
        sys.exit(CANNOT)


class Host(host.Host):
    def __init__(self, configuration=CONFIGURATION):
        super().__init__(BIN, IMAGE, configuration)
        self.environment["PATH"] = f"{os.path.dirname(PROGRAMS[0])}:{self.environment['PATH']}"

    def say(self, guest, port):
        """A word to the guest and one back, through files, show that it works."""
        reader = guest.start_command(f"cat /mnt/vchan/0/{port}")
        self.check(f"echo there >files/{guest.name}/{port}")
        heard = reader.wait()
        sender = guest.start_command(f"echo back >/mnt/vchan/0/{port + 1}")
        answer = self.check(f"cat files/{guest.name}/{port + 1}")
        said = sender.wait()
        if (heard, answer, said) != ((0, b"there\n", b""), "back", (0, b"", b"")):
            guest.complain(f"{heard} {answer!r} {said}")

    def wait_sent(self, sender, port, count):
        """Until this domain has sent so many bytes, at least, to that port."""
        def sent():
            return sum(ring["bytes_sent"] for ring in self.json("stats")["rings"]
                       if (ring["sender_domain_name"], ring["port"]) == (sender, port))
        wait_until(lambda: sent() >= count, lambda: f"{sent()} bytes have been sent")

    def wait_channels(self, count=0):
        """Until there are so many."""
        wait_until(lambda: len(self.channels()) == count, self.channels)


class Flow:
    """Numbers that run from a guest to the host through a file, as fast as they can; the host checks each."""

    numbers = itertools.count()

    def __init__(self, at, guest, port):
        self.guest = guest
        self.progress = os.path.join(at.directory, f"flow{next(self.numbers)}")
        self.receiver = at.start(f"exec numbers --check <files/{guest.name}/{port} >{self.progress}")
        self.sender = guest.start_command(f"exec numbers >/mnt/vchan/0/{port}")
        self.goes_on()

    def count(self):
        try:
            with open(self.progress, encoding="ascii") as file:
                lines = file.read().split("\n")[:-1]
        except FileNotFoundError:
            return 0
        if lines and lines[-1].startswith("WRONG"):
            raise AssertionError(f"from {self.guest.name}: {lines[-1]}")
        return int(lines[-1].split()[0]) if lines else 0

    def goes_on(self, limit_s=30):
        """256 KiB more arrive, and are right."""
        before = self.count()
        wait_until(lambda: self.count() >= before + 32768, lambda: f"only {self.count() - before} numbers more", limit_s)

    def stop(self):
        """The sender is killed; the rest arrives, and then the end."""
        self.sender.kill()
        self.ended()

    def ended(self, limit_s=30):
        """Waits for the receiver, which has to see the end."""
        status = self.receiver.wait(limit_s)
        self.count()
        if status not in (0, 1):
            raise AssertionError(f"the receiver has ended with {status}")
