# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of vchanfs share: a broker, a mount for each of two domains, and a watchdog that lets no test hang."""

import contextlib
import errno
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

BIN = os.environ.get("VCHAN_BIN") or os.path.join(os.path.dirname(__file__), "../../build/bin")
LIB = os.environ.get("VCHAN_LIB") or os.path.join(os.path.dirname(__file__), "../../build/lib")
SANITIZED = bool(os.environ.get("VCHAN_SANITIZE"))
LIMIT_S = 60  # for one test
SOON_S = 30   # for one step of it
CONFIGURATION = """\
[domain host]
id = 0
[domain web]
id = 5
[domain db]
id = 6
"""


def need():
    """Ends the test as skipped where there can be no mount."""
    reason = None
    for program in ("vchanfs", "vchand"):
        if not os.access(os.path.join(BIN, program), os.X_OK):
            reason = f"{program} is not in {BIN}"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        reason = "there is no /dev/fuse that this user may use"
    elif os.geteuid() != 0 and not shutil.which("fusermount3"):
        reason = "mounting needs root or fusermount3"
    if reason:
        print(reason)
        sys.exit(77)


def wait_until(condition, what, limit_s=SOON_S):
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.005)


def unmount(path, *options):
    if os.geteuid() == 0:
        command = ["umount", *options, path]
    else:
        command = ["fusermount3", "-u", *(["-z"] if "-l" in options else []), path]
    return subprocess.run(command, capture_output=True, text=True, timeout=SOON_S, check=False)


def is_mounted(path):
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        return any(line.split()[1] == path for line in mounts)


class Mount:
    """A vchanfs in the foreground."""

    def __init__(self, directory, name, domain):
        self.path = os.path.join(directory, name)
        self.log_path = f"{self.path}.log"
        os.mkdir(self.path)
        with open(self.log_path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [os.path.join(BIN, "vchanfs"), "-f", "--domain", str(domain),
                 "--socket", os.path.join(directory, "vchand.sock"), self.path],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: is_mounted(self.path) or self.process.poll() is not None, "mount")
        if self.process.poll() is not None:
            raise RuntimeError(self.log())

    def log(self):
        with open(self.log_path, encoding="utf-8") as log:
            return log.read()

    def end(self):
        """Told to end; its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(SOON_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self):
        self.process.kill()
        self.process.wait()
        unmount(self.path, "-l")

    def status(self, key):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(key + ":"))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


class Broker:
    def __init__(self, directory):
        configuration = os.path.join(directory, "vchand.conf")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(CONFIGURATION)
        self.socket_path = os.path.join(directory, "vchand.sock")
        with open(os.path.join(directory, "vchand.log"), "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [os.path.join(BIN, "vchand"), "--config", configuration, "--runtime-dir", directory],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: self.answers() or self.process.poll() is not None, "vchand")

    def answers(self):
        """Its socket is there before it listens."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            try:
                client.connect(self.socket_path)
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        return True

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(SOON_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class MountCase(unittest.TestCase):
    """host is domain 0's mount, web domain 5's: host/5/PORT and web/0/PORT are the two ends of one channel."""

    ports = itertools.count(1000)

    def setUp(self):
        self.children = []
        self.mounts = []
        self.directory = tempfile.mkdtemp(prefix="vchanfs-")
        self.addCleanup(self.clean)
        self.watchdog = threading.Timer(LIMIT_S, self.give_up)
        self.watchdog.start()
        self.broker = Broker(self.directory)
        self.host = self.mount("host", 0)
        self.web = self.mount("web", 5)

    def mount(self, name, domain):
        mount = Mount(self.directory, name, domain)
        self.mounts.append(mount)
        return mount

    def give_up(self):
        """Nothing waits for a mount whose server is dead."""
        print(f"{self.id()}: more than {LIMIT_S} s, its mounts are killed", file=sys.stderr)
        for mount in self.mounts:
            mount.process.kill()
        for child in self.children:
            child.kill()

    def clean(self):
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.communicate()
        codes = [mount.end() if mount.process.returncode is None else 0 for mount in self.mounts]
        self.broker.end()
        self.watchdog.cancel()
        logs = "".join(mount.log() for mount in self.mounts)
        for mount in self.mounts:
            if is_mounted(mount.path):
                unmount(mount.path, "-l")
        shutil.rmtree(self.directory)
        self.assertEqual(codes, [0] * len(codes), logs)
        self.assertNotIn("Sanitizer", logs)

    def pair(self):
        """The two names of a channel that nobody has used."""
        port = next(self.ports)
        return f"{self.host.path}/5/{port}", f"{self.web.path}/0/{port}"

    def open_pair(self, host_flags=os.O_RDWR, web_flags=os.O_RDWR):
        """Both ends, connected and blocking."""
        host, web = self.pair()
        first = self.open(host, host_flags | (os.O_NONBLOCK if host_flags == os.O_RDWR else 0))
        second = self.open(web, web_flags)
        os.set_blocking(first, True)
        return first, second

    def open(self, path, flags):
        fd = os.open(path, flags)
        self.addCleanup(self.close, fd)
        return fd

    def close(self, fd):
        """Unless the test has done so."""
        with contextlib.suppress(OSError):
            os.close(fd)

    def start(self, *command, stdin=subprocess.DEVNULL, **options):
        child = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        self.children.append(child)
        return child

    def shell(self, script, *arguments):
        return self.start("sh", "-c", script, "sh", *arguments)

    def finish(self, child, code=0):
        """Its output, once it has ended with that code."""
        out, err = child.communicate(timeout=SOON_S)
        self.assertEqual(child.returncode, code, err.decode())
        return out

    def in_thread(self, function, *arguments):
        """Started; call the result for what the function returns or raises."""
        outcome = {}

        def run():
            try:
                outcome["value"] = function(*arguments)
            except BaseException as error:  # pylint: disable=broad-except
                outcome["error"] = error

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def result():
            thread.join(SOON_S)
            self.assertFalse(thread.is_alive(), f"{function} still waits")
            if "error" in outcome:
                raise outcome["error"]
            return outcome["value"]

        result.thread = thread
        return result

    def assert_errno(self, number, function, *arguments):
        with self.assertRaises(OSError) as caught:
            function(*arguments)
        self.assertEqual(errno.errorcode[caught.exception.errno], errno.errorcode[number])

    def assert_blocked(self, child):
        """In a call on a file; where the kernel does not tell which call it is in, it sleeps."""
        def waits():
            self.assertIsNone(child.poll())
            with open(f"/proc/{child.pid}/stat", encoding="utf-8") as stat:
                sleeps = stat.read().rpartition(")")[2].split()[0] == "S"
            with open(f"/proc/{child.pid}/wchan", encoding="utf-8") as wchan:
                where = wchan.read()
            return sleeps and ("fuse" in where or "request_wait" in where or where in ("", "0"))
        wait_until(waits, "the child is not blocked in a file")

    def fill(self, fd):
        """Until no byte fits; how many did."""
        os.set_blocking(fd, False)
        count = 0
        idle_since = time.monotonic()
        while time.monotonic() - idle_since < 0.3:  # the broker may give the ring more memory
            try:
                count += os.write(fd, bytes(65536))
                idle_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        os.set_blocking(fd, True)
        return count


def read_exactly(fd, count):
    data = bytearray()
    while len(data) < count:
        piece = os.read(fd, min(count - len(data), 1 << 20))
        if not piece:
            break
        data += piece
    return bytes(data)


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]

