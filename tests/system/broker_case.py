# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests with a real vchand share: one for each test, channels without programs, and ends that
carry bytes."""

import contextlib
import ctypes
import os
import subprocess
import time

import control_protocol as proto
from control_protocol import Connection
from vchanctl_case import BIN, VchanctlCase

K = 1024
CONFIGURATION = """\
[broker]
region-size = 32M
[domain web]
id = 3
[domain db]
id = 4
quota = 8M
"""


class BrokerCase(VchanctlCase):
    """A vchand of its own for each test."""

    configuration = CONFIGURATION

    def setUp(self):
        super().setUp()
        configuration = os.path.join(self.directory, "vchand.conf")
        with open(configuration, "w", encoding="ascii") as file:
            file.write(self.configuration)
        self.log = open(os.path.join(self.directory, "log"), "w+", encoding="utf-8")
        self.addCleanup(self.log.close)
        self.arguments = ["--config", configuration]
        self.broker = None
        self.addCleanup(self.stop_broker)
        self.start_broker()

    def start_broker(self):
        self.broker = subprocess.Popen([os.path.join(BIN, "vchand"), *self.arguments],
                                       env=self.environment, stdin=subprocess.DEVNULL,
                                       stdout=self.log, stderr=self.log)
        self.wait_until(lambda: self.run_vchanctl("info") == 0, "vchand does not come up")

    def stop_broker(self):
        if self.broker is None:
            return
        if self.broker.poll() is None:
            self.broker.terminate()
        code = self.broker.wait(timeout=30)
        self.log.seek(0)
        self.assertEqual(code, 0, self.log.read())

    def wait_until(self, is_so, otherwise):
        end = time.monotonic() + 20
        while not is_so():
            if time.monotonic() > end or self.broker.poll() is not None:
                self.log.seek(0)
                self.fail(f"{otherwise}: {self.log.read()}")
            time.sleep(0.05)

    def connect(self, domain):
        connection = Connection(self.socket_path, domain)
        self.addCleanup(connection.close)
        return connection

    def open_channel(self, server=3, client=4, port=5000, **minima):
        """Returns (number, connection of the server, connection of the client)."""
        ends = self.connect(server), self.connect(client)
        number = ends[0].open_channel(client, port, proto.OPEN_SERVER, **minima)
        self.assertEqual(ends[1].open_channel(server, port, proto.OPEN_CLIENT), number)
        return number, *ends

    def ring(self, number, ring):
        return self.json("stats", str(number))["rings"][ring]


class TrafficCase(BrokerCase):
    """With ends of channels in this process."""

    def setUp(self):
        super().setUp()
        if os.environ.get("VCHAN_SANITIZE"):
            self.skipTest("Python cannot load a library that is built with a sanitizer")
        path = os.path.join(os.environ.get("VCHAN_LIB") or os.path.join(BIN, "../lib"), "libvchan-kvm.so")
        if not os.path.exists(path):
            self.skipTest(f"{path} is not built")
        self.library = ctypes.CDLL(path, use_errno=True)
        for name in "server_init", "client_init":
            function = getattr(self.library, "libvchan_" + name)
            function.restype = ctypes.c_void_p
        self.library.libvchan_server_init.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t]

    @contextlib.contextmanager
    def playing(self, domain):
        kept = {key: os.environ.get(key) for key in ("VCHAN_DOMAIN", "VCHAN_RUNTIME_DIR")}
        os.environ.update(VCHAN_DOMAIN=str(domain), VCHAN_RUNTIME_DIR=self.directory)
        yield
        for key, value in kept.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})

    def open_ends(self):
        """(server, client) handles of a channel from web to db, port 7."""
        with self.playing(3):
            server = ctypes.c_void_p(self.library.libvchan_server_init(4, 7, 4096, 4096))
        with self.playing(4):
            client = ctypes.c_void_p(self.library.libvchan_client_init(3, 7))
        for handle in server, client:
            self.assertTrue(handle.value, os.strerror(ctypes.get_errno()))
            self.addCleanup(self.library.libvchan_close, handle)
        return server, client
