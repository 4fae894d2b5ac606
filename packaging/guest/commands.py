# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commands in a guest, from the host: the asking side of packaging/guest/wire.h."""

import collections
import os
import signal
import socket
import struct
import threading
import time

HEADER = struct.Struct("<IHHI")
HELLO, START, INPUT, INPUT_END, SIGNAL, STARTED, OUTPUT, ERRORS, ENDED = range(1, 10)
NONCE_BYTES = 16
FRAME_BYTES_MAX = 64 * 1024

Result = collections.namedtuple("Result", "status stdout stderr")


class Lost(Exception):
    """The connection to the guest has ended: it was reset, killed, or has ended itself."""


def connected(path):
    """A socket that is connected to one in the file system."""
    stream = socket.socket(socket.AF_UNIX)
    try:
        stream.connect(path)
    except OSError:
        stream.close()
        raise
    return stream


class Command:
    """One that runs, or has run, in the guest. Output is kept as bytes; status is None while it runs."""

    def __init__(self, channel, number, text):
        self.channel = channel
        self.number = number
        self.text = text
        self.process = None
        self.status = None
        self.output = bytearray()
        self.errors = bytearray()

    def __str__(self):
        return f"`{self.text}`"

    def write(self, data):
        for begin in range(0, len(data), FRAME_BYTES_MAX):
            self.channel.send(self.number, INPUT, data[begin:begin + FRAME_BYTES_MAX])

    def close_input(self):
        self.channel.send(self.number, INPUT_END)

    def signal(self, number=signal.SIGTERM):
        """To the command and what it started."""
        self.channel.send(self.number, SIGNAL, struct.pack("<i", number))

    def kill(self):
        self.signal(signal.SIGKILL)

    def wait(self, limit_s=30):
        """Its Result, once it has ended."""
        self.channel.wait_until(lambda: self.status is not None, limit_s, lambda: f"{self} does not end; {self.heard()}")
        return Result(self.status, bytes(self.output), bytes(self.errors))

    def wait_for(self, text, limit_s=30):
        """Until its output, standard or error, holds these bytes."""
        self.channel.wait_until(lambda: text in self.output or text in self.errors or self.status is not None, limit_s,
                                lambda: f"{self} does not say {text!r}; {self.heard()}")
        if text not in self.output and text not in self.errors:
            raise AssertionError(f"{self} has ended with {self.status} without saying {text!r}; {self.heard()}")

    def heard(self):
        return f"it said {bytes(self.output[-300:])!r} and {bytes(self.errors[-300:])!r}"


class Channel:
    """The connection. Any thread may use it; one of its own reads it, whatever the others do."""

    def __init__(self, path):
        self.changed = threading.Condition()
        self.commands = {}
        self.last = 0
        self.end = None
        self.ready = False
        self.nonce = os.urandom(NONCE_BYTES)
        self.socket = connected(path)
        self.sending = threading.Lock()
        self.send(0, HELLO, self.nonce)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.reader.join()
        self.socket.close()

    def send(self, number, kind, data=b""):
        try:
            with self.sending:
                self.socket.sendall(HEADER.pack(number, kind, 0, len(data)) + data)
        except OSError as error:
            raise Lost(str(error)) from error

    def start(self, text):
        with self.changed:
            self.last += 1
            command = self.commands[self.last] = Command(self, self.last, text)
        self.send(command.number, START, text.encode())
        return command

    def wait_until(self, condition, limit_s, why):
        deadline = time.monotonic() + limit_s
        with self.changed:
            while not condition():
                if self.end is not None:
                    raise Lost(f"{why()}: {self.end}")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"after {limit_s} s, {why()}")
                self.changed.wait(left)

    def wait_ready(self, limit_s):
        self.wait_until(lambda: self.ready, limit_s, lambda: "the guest takes no commands")

    def read(self):
        received = bytearray()
        try:
            while data := self.socket.recv(1 << 20):
                received += data
                with self.changed:
                    self.take(received)
                    self.changed.notify_all()
            end = "the connection has ended"
        except OSError as error:
            end = str(error)
        with self.changed:
            self.end = end
            self.changed.notify_all()

    def take(self, received):
        """Handles the whole frames. What came before the answer to our HELLO was meant for a predecessor."""
        if not self.ready:
            found = received.find(self.nonce)
            if found < 0:
                return
            del received[:found + NONCE_BYTES]
            self.ready = True
        while len(received) >= HEADER.size:
            number, kind, _, size = HEADER.unpack_from(received)
            if len(received) < HEADER.size + size:
                return
            self.handle(self.commands.get(number), kind, bytes(received[HEADER.size:HEADER.size + size]))
            del received[:HEADER.size + size]

    @staticmethod
    def handle(command, kind, data):
        if command is None:
            return
        if kind == OUTPUT:
            command.output += data
        elif kind == ERRORS:
            command.errors += data
        elif kind == STARTED:
            command.process = struct.unpack("<i", data)[0]
        elif kind == ENDED:
            command.status = struct.unpack("<i", data)[0]
