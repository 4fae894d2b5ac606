# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker on this host with small test guests (packaging/guest/guest.py) around it: for tests and demonstrations."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

from guest import Guest
from machine import DIES_WITH_US

ZONE = "default"


def wait_until(condition, what, limit_s=30):
    """Its first true value."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {limit_s} s, not yet: {what() if callable(what) else what}")
        time.sleep(0.01)
    return value


def end(child, limit_s=10):
    """Ends a process and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(limit_s)
    except subprocess.TimeoutExpired:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


class Host:
    """The host's side: vchand in a directory of its own, vchanfs, and programs that use them.

    programs: the directory of vchan's. image: what packaging/guest-image made.
    """

    def __init__(self, programs, image, configuration):
        self.programs = programs
        self.image = image
        self.directory = tempfile.mkdtemp(prefix="vchan-vm-")
        self.files = os.path.join(self.directory, "files")
        self.log_path = os.path.join(self.directory, "log")
        self.environment = {**{key: value for key, value in os.environ.items() if key != "VCHAN_DOMAIN"},
                            "VCHAN_RUNTIME_DIR": self.directory, "LC_ALL": "C.UTF-8",
                            "PATH": f"{programs}:{programs}/examples:{os.environ['PATH']}"}
        self.children = []
        self.guests = []
        with open(os.path.join(self.directory, "vchand.conf"), "w", encoding="utf-8") as file:
            file.write(configuration)
        try:
            self.broker = self.start_broker()
        except BaseException:
            self.close()
            raise

    def start_broker(self):
        broker = self.daemon(os.path.join(self.programs, "vchand"), "-c", "vchand.conf")
        wait_until(lambda: self.vchanctl("info").returncode == 0 or broker.poll() is not None, self.log)
        if broker.poll() is not None:
            raise AssertionError(f"vchand has ended with {broker.returncode}: {self.log()}")
        return broker

    def mount(self):
        os.mkdir(self.files)
        daemon = self.daemon(os.path.join(self.programs, "vchanfs"), "-f", self.files)
        wait_until(lambda: os.path.ismount(self.files) or daemon.poll() is not None, self.log)
        if daemon.poll() is not None:
            raise AssertionError(f"vchanfs has ended with {daemon.returncode}: {self.log()}")

    def daemon(self, *command):
        with open(self.log_path, "ab") as log:
            child = subprocess.Popen([*DIES_WITH_US, *command], cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL,
                                     stdout=log, stderr=log, start_new_session=True)
        self.children.append(child)
        return child

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def run(self, command, stdin=b"", limit_s=60, domain=0):
        """A shell's text on the host, to its end."""
        child = self.start(command, domain=domain)
        try:
            out, err = child.communicate(stdin, limit_s)
        except subprocess.TimeoutExpired as error:
            end(child)
            out, err = child.communicate()
            raise AssertionError(f"after {limit_s} s, `{command}` has not ended: {out[-300:]!r} {err[-300:]!r}") from error
        return subprocess.CompletedProcess(command, child.returncode, out, err)

    def check(self, command, stdin=b"", limit_s=60):
        """Standard output, as text without its last newline, of what has to succeed."""
        result = self.run(command, stdin, limit_s)
        if result.returncode:
            raise AssertionError(f"`{command}` on the host has ended with {result.returncode}: "
                                 f"{result.stdout!r} {result.stderr!r}; log:\n{self.log()[-2000:]}")
        return result.stdout.decode(errors="replace").rstrip("\n")

    def start(self, command, domain=0):
        """A shell's text on the host, in a session of its own."""
        child = subprocess.Popen([*DIES_WITH_US, "sh", "-c", command], cwd=self.directory,
                                 env={**self.environment, "VCHAN_DOMAIN": str(domain)},
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        self.children.append(child)
        return child

    def vchanctl(self, *arguments):
        return subprocess.run([os.path.join(self.programs, "vchanctl"), *arguments], env=self.environment, capture_output=True,
                              text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)

    def json(self, *arguments):
        result = self.vchanctl("--json", *arguments)
        if result.returncode:
            raise AssertionError(f"vchanctl {arguments}: {result.stderr}; log:\n{self.log()[-2000:]}")
        return json.loads(result.stdout)

    def channels(self):
        return self.json("list")["channels"]

    def socket(self, domain):
        return os.path.join(self.directory, "guests", ZONE, f"{domain}.sock")

    # Guests

    def start_guest(self, name, device=True, **options):
        """One that boots; its agent may not have attached."""
        guest = Guest(name, self.image, sockets=[self.socket(name)] if device else [], **options)
        self.guests.append(guest)
        guest.start()
        return guest

    def boot(self, *names, **options):
        """Guests that are up, attached, and have their files; one, or a list. They boot side by side."""
        guests = [self.start_guest(name, **options) for name in names]
        for guest in guests:
            guest.wait_up()
            if options.get("device", True):
                self.wait_attached(guest)
        return guests[0] if len(guests) == 1 else guests

    @staticmethod
    def wait_attached(guest, limit_s=30):
        """Until programs in the guest can use the broker, and its files are there."""
        try:
            guest.wait_until("vchanctl info && grep -q ' /mnt/vchan fuse' /proc/mounts", limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\nagent: {guest.run('cat /run/*.log; dmesg | tail -n 5').stdout.decode()}") from error

    def close(self):
        for guest in self.guests:
            guest.close()
        for child in reversed(self.children):
            end(child)
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream:
                    stream.close()
        if os.path.ismount(self.files):
            subprocess.run(["umount", "-l", self.files], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
