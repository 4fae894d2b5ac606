# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU's side of the ivshmem protocol, as strict as QEMU's own, and a vchand to speak it to."""

import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

from control_protocol import Connection
from vchanctl_case import BIN, need

MESSAGE = struct.Struct("<q")
HEADER = struct.Struct("<QIIQQQII16sQI")  # struct layout_region_header up to peer_count
MAGIC = 0x314e414843564d56
PEERS_AT, PEER_BYTES, REQUEST_AT = 4096, 256, 128
HOST = 0
EBUSY, ENOSPC = 16, 28


class Ended(Exception):
    """The server has closed."""


def is_readable(descriptor, timeout):
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


class Device:
    """What hw/misc/ivshmem.c keeps of its server; whatever that file would complain of fails here."""

    def __init__(self, path, vectors=16):
        self.vectors = vectors
        self.peers = {}  # number -> eventfds, in the order of the vectors
        self.id = self.version = self.memory = None
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.socket.settimeout(10)

    def close(self):
        self.socket.close()
        for number in list(self.peers):
            self.forget(number)
        if self.memory is not None:
            os.close(self.memory)
            self.memory = None

    def forget(self, number):
        for descriptor in self.peers.pop(number, []):
            os.close(descriptor)

    def message(self):
        """(value, descriptor or None). QEMU reads eight bytes at a time too."""
        data, descriptors, _, _ = socket.recv_fds(self.socket, MESSAGE.size, 4)
        if not data:
            raise Ended
        assert len(data) == MESSAGE.size and len(descriptors) <= 1, (data, descriptors)
        return MESSAGE.unpack(data)[0], descriptors[0] if descriptors else None

    def handshake(self):
        """Until QEMU's main loop would run again."""
        self.version, descriptor = self.message()
        if self.version != 0:
            return self
        assert descriptor is None
        self.id, descriptor = self.message()
        assert descriptor is None and 0 <= self.id <= 65535, self.id
        value, self.memory = self.message()
        assert value == -1 and self.memory is not None, (value, self.memory)
        return self

    def process(self):
        value, descriptor = self.message()
        assert 0 <= value <= 65535, value
        if descriptor is None:
            assert value != self.id and value in self.peers, f"invalid peer {value}"
            self.forget(value)
        else:
            eventfds = self.peers.setdefault(value, [])
            eventfds.append(descriptor)
            assert len(eventfds) <= self.vectors, f"too many eventfds for peer {value}"

    def pending(self, timeout=0.0):
        return is_readable(self.socket, timeout)

    def settle(self, *numbers, timeout=10):
        """Reads until it knows just these peers, itself and the host, all their vectors."""
        wanted = {HOST, self.id, *numbers}
        end = time.monotonic() + timeout
        while set(self.peers) != wanted or any(len(f) < self.vectors for f in self.peers.values()):
            assert self.pending(max(0, end - time.monotonic())), \
                f"{wanted} are expected, and these came: { {n: len(f) for n, f in self.peers.items()} }"
            self.process()
        return self

    def ring(self, number, vector):
        os.eventfd_write(self.peers[number][vector], 1)

    def heard(self, vector, timeout=2.0):
        """Was its own vector rung? It is not afterwards."""
        descriptor = self.peers[self.id][vector]
        if not is_readable(descriptor, timeout):
            return False
        os.eventfd_read(descriptor)
        return True

    def map(self):
        return mmap.mmap(self.memory, PEERS_AT + 64 * PEER_BYTES)

    def request_mailbox(self, number):
        """As an agent does; answered is then this number."""
        with self.map() as memory:
            struct.pack_into("<I", memory, PEERS_AT + self.id * PEER_BYTES + REQUEST_AT, number)
        self.ring(HOST, 0)

    def answered(self):
        with self.map() as memory:
            return struct.unpack_from("<I", memory, PEERS_AT + self.id * PEER_BYTES)[0]


def header_of(device):
    with device.map() as memory:
        return HEADER.unpack_from(memory)


def configuration(domains, vectors=16, extra=""):
    return (f"[broker]\nregion-size = 16M\n[guests]\nvectors = {vectors}\n{extra}" +
            "".join(f"[domain d{n}]\nid = {n}\n" for n in domains))


class IvshmemCase(unittest.TestCase):
    """A vchand of its own for each test, in its sandbox."""

    vectors = 16
    configuration = configuration((3, 4, 5))
    broker_options = {}  # of subprocess.Popen

    def setUp(self):
        need("vchand")
        directory = tempfile.TemporaryDirectory(prefix="vchan-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.log_path = os.path.join(self.directory, "log")
        self.start_broker()
        self.addCleanup(self.stop_broker)

    def configure(self, text):
        with open(os.path.join(self.directory, "vchand.conf"), "w", encoding="ascii") as file:
            file.write(text)

    def start_broker(self):
        self.configure(self.configuration)
        with open(self.log_path, "a", encoding="utf-8") as log:
            self.broker = subprocess.Popen(
                [os.path.join(BIN, "vchand"), "--config", os.path.join(self.directory, "vchand.conf"),
                 "--runtime-dir", self.directory, "--log-level", "debug"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self.broker_options)
        self.wait_until(lambda: self.log().count("ready: ") > 0, "vchand does not come up")

    def stop_broker(self, number=signal.SIGTERM):
        if self.broker.poll() is None:
            self.broker.send_signal(number)
        code = self.broker.wait(timeout=30)
        if number == signal.SIGTERM:
            self.assertEqual(code, 0, self.log())

    def reload(self, text):
        self.configure(text)
        count = self.log().count("configuration read again")
        self.broker.send_signal(signal.SIGHUP)
        self.wait_until(lambda: self.log().count("configuration read again") > count, "it is not read")

    def log(self):
        with open(self.log_path, encoding="utf-8") as file:
            return file.read()

    def wait_until(self, is_so, otherwise, seconds=20):
        end = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > end or self.broker.poll() is not None:
                self.fail(f"{otherwise}: {self.log()}")
            time.sleep(0.01)

    def path(self, domain=3, zone="default"):
        return os.path.join(self.directory, "guests", zone, f"d{domain}.sock")

    def device(self, domain=3, zone="default"):
        """A QEMU that has connected, and read nothing yet."""
        device = Device(self.path(domain, zone), self.vectors)
        self.addCleanup(device.close)
        return device

    def guest(self, domain=3, zone="default"):
        """One whose QEMU goes on running."""
        guest = self.device(domain, zone).handshake()
        self.assertEqual(guest.version, 0, self.log())
        return guest

    def connect(self, domain=0):
        connection = Connection(os.path.join(self.directory, "vchand.sock"), domain)
        self.addCleanup(connection.close)
        return connection

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.broker.pid}/fd"))

    def resident_kib(self):
        with open(f"/proc/{self.broker.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("RssAnon:"))

    def cpu_seconds(self):
        with open(f"/proc/{self.broker.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wake_ups(self):
        """Of the event loop."""
        with open(f"/proc/{self.broker.pid}/task/{self.broker.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))
