# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU's monitor, as far as small test guests need it: commands with their answers, and waiting for events."""

import json
import time

import commands


class Refused(Exception):
    """QEMU answered with an error."""


class Monitor:
    def __init__(self, path, limit_s=10):
        self.limit_s = limit_s
        self.events = []
        self.received = b""
        self.socket = commands.connected(path)
        self.next_message(time.monotonic() + limit_s)  # the greeting
        self.ask("qmp_capabilities")

    def close(self):
        self.socket.close()

    def next_message(self, deadline):
        while b"\n" not in self.received:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("QEMU does not answer")
            self.socket.settimeout(left)
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("QEMU has ended")
            self.received += data
        line, self.received = self.received.split(b"\n", 1)
        return json.loads(line)

    def ask(self, name, **arguments):
        """What QEMU returns."""
        self.socket.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        deadline = time.monotonic() + self.limit_s
        while True:
            message = self.next_message(deadline)
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise Refused(f"{name}: {message['error']['desc']}")
            else:
                return message["return"]

    def wait_for(self, name, limit_s=None, **data):
        """The event of this name and data, which may have come already; events before it are forgotten."""
        deadline = time.monotonic() + (limit_s or self.limit_s)
        while True:
            while self.events:
                event = self.events.pop(0)
                if event["event"] == name and data.items() <= event.get("data", {}).items():
                    return event
            try:
                message = self.next_message(deadline)
            except TimeoutError as error:
                raise TimeoutError(f"no event {name} {data}") from error
            if "event" in message:
                self.events.append(message)
