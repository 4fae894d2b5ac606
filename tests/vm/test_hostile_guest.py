#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that writes rubbish, floods, or stops for a while harms nobody but itself.

web (5) is the one that does it (tests/vm/vandal.c, with root in the guest and around vchan-agent); db (6) is in its zone, mail (7)
and the local domain 100 are in another one. Streams with checksums flow meanwhile; rubbish over the data of others in the shared
zone is the one thing that a member can do, so there only the streams of the other zone are held against the broker.
"""

import hashlib
import os
import threading
import time
import unittest

from guest_case import BUILD, need
from vchan_case import Host, end, need_programs, wait_until

CONFIGURATION = """\
[broker]
region-size = 16M
[local]
domains = 0, 100
[domain web]
id = 5
[domain db]
id = 6
[domain mail]
id = 7
[zone shared]
members = web, db
[zone apart]
members = mail, 100
"""
ZONES = {"web": "shared", "db": "shared", "mail": "apart"}
TOOLS = os.path.join(BUILD, "tests/vm")
VANDAL_SECONDS = 2
PORT = 7000
BLOCK = 65536


class ZonedHost(Host):
    def socket(self, domain):
        return os.path.join(self.directory, "guests", ZONES[domain], f"{domain}.sock")


class Stream:
    """Bytes from the host to a reader that prints their checksum, for as long as something else goes on."""

    def __init__(self, path, reader):
        self.path = path
        self.reader = reader
        self.sum = hashlib.sha256()
        self.sent_bytes = 0
        self.error = None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.send, daemon=True)
        self.thread.start()

    def send(self):
        try:
            with open(self.path, "wb", buffering=0) as file:
                while not self.stop.is_set():
                    block = os.urandom(BLOCK)
                    self.sum.update(block)
                    at = 0
                    while at < BLOCK:
                        at += file.write(block[at:])
                    self.sent_bytes += BLOCK
                    time.sleep(0.005)
        except OSError as error:
            self.error = error

    def finish(self):
        """What the reader makes of it and what was sent, both as text."""
        self.stop.set()
        self.thread.join(30)
        return self.reader().split()[0], self.sum.hexdigest()


class HostileGuestTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.host = ZonedHost(CONFIGURATION)
        cls.addClassCleanup(cls.host.close)
        cls.host.mount()
        cls.local_files = os.path.join(cls.host.directory, "files100")
        os.mkdir(cls.local_files)
        cls.local = cls.host.daemon("env", "VCHAN_DOMAIN=100", "vchanfs", "-f", cls.local_files)
        wait_until(lambda: os.path.ismount(cls.local_files), cls.host.log)
        cls.web, cls.db, cls.mail = cls.host.boot("web", "db", "mail")
        cls.port = PORT

    def stream_to(self, guest, domain):
        self.port += 1
        type(self).port = self.port
        reading = guest.start_command(f"sha256sum </mnt/vchan/0/{self.port}")

        def checksum():
            result = reading.wait(60)
            self.assertEqual(result.status, 0, result)
            return result.stdout.decode()
        return Stream(f"{self.host.files}/{domain}/{self.port}", checksum)

    def stream_to_local(self):
        self.port += 1
        type(self).port = self.port
        reading = self.host.start(f"sha256sum <{self.local_files}/0/{self.port}")
        return Stream(f"{self.host.files}/100/{self.port}", lambda: reading.communicate(timeout=60)[0].decode())

    def streams(self, shared):
        found = {"mail": self.stream_to(self.mail, 7), "local": self.stream_to_local()}
        if shared:
            found["db"] = self.stream_to(self.db, 6)
        for name, stream in found.items():
            wait_until(lambda stream=stream: stream.sent_bytes > 0 or stream.error, f"a stream to {name}")
        return found

    def open_channels_of_web(self):
        """Two, so that it has pages and extents of its own; their ends on the host must not hang either."""
        self.port += 2
        type(self).port = self.port
        ends = [self.host.start(f"timeout 60 cat {self.host.files}/5/{port}") for port in (self.port, self.port - 1)]
        for port in (self.port, self.port - 1):
            self.web.start_command(f"(echo hello; sleep 60) >/mnt/vchan/0/{port}")
        wait_until(lambda: sum(c["connected"] if "connected" in c else c["state"] == "connected" for c in self.host.channels()
                               if 5 in (c["server_domain"], c["client_domain"])) >= 2, "two channels of web")
        return ends

    def let_loose(self, what):
        """The vandal, in web, in place of its agent."""
        self.web.push("/tmp/vandal", open(os.path.join(TOOLS, "vchan-vandal"), "rb").read(), mode=0o755)
        self.web.run("killall -9 vchan-agent vchanfs; for d in /sys/bus/pci/drivers/vfio-pci/0000:*; do"
                     " echo ${d##*/} >/sys/bus/pci/drivers/vfio-pci/unbind; done")
        done = self.web.run(f"/tmp/vandal {what} {VANDAL_SECONDS}", limit_s=60)
        self.assertEqual(done.status, 0, done)
        self.assertIn(b"domain 5", done.stdout)

    def assert_answers(self):
        """The broker, at once."""
        begun = time.monotonic()
        self.host.json("info")
        self.assertLess(time.monotonic() - begun, 2)

    def go_through(self, what, shared=True):
        streams = self.streams(shared)
        ends = self.open_channels_of_web()
        sent = {name: stream.sent_bytes for name, stream in streams.items()}
        self.let_loose(what)
        self.assert_answers()
        for name, stream in streams.items():
            self.assertIsNone(stream.error, name)
            wait_until(lambda name=name, stream=stream: stream.sent_bytes > sent[name], f"{name} goes on")
            received, expected = stream.finish()
            self.assertEqual(received, expected, name)
        self.assertIsNone(self.host.broker.poll(), self.host.log()[-2000:])
        # A guest that is started anew is as good as any.
        self.web.reset()
        self.web.rebooted()
        self.host.wait_attached(self.web)
        for child in ends:
            child.wait(30)
        self.assertEqual(self.round_trip(), "back")

    def round_trip(self):
        self.port += 1
        type(self).port = self.port
        reading = self.host.start(f"cat {self.host.files}/5/{self.port}")
        self.web.check(f"echo back >/mnt/vchan/0/{self.port}")
        return reading.communicate(timeout=30)[0].decode().strip()

    def test_rubbish_over_the_header(self):
        self.go_through("header")

    def test_rubbish_over_the_table_of_peers(self):
        self.go_through("peers")

    def test_rubbish_over_its_mailbox(self):
        self.go_through("mailbox")

    def test_rubbish_over_its_own_control_pages(self):
        self.go_through("own")

    def test_rubbish_over_the_whole_control_section(self):
        self.go_through("pages", shared=False)
        self.restart_db()

    def test_rubbish_over_the_whole_region(self):
        self.go_through("region", shared=False)
        self.restart_db()

    def test_a_flood_of_requests_for_mailboxes(self):
        self.go_through("request")

    def test_a_flood_of_doorbells(self):
        self.go_through("doorbells")

    def restart_db(self):
        """It is in the zone that was spoilt."""
        self.db.reset()
        self.db.rebooted()
        self.host.wait_attached(self.db)

    def test_a_flood_of_control_requests(self):
        streams = self.streams(shared=True)
        flood = self.web.start_command("for i in 1 2 3 4 5 6 7 8; do (while :; do vchanctl list; done) >/dev/null 2>&1 & done;"
                                       f" sleep {VANDAL_SECONDS * 2}; kill $(jobs -p); killall vchanctl")
        for _ in range(5):
            self.assert_answers()
            time.sleep(0.3)
        flood.wait(60)
        for name, stream in streams.items():
            received, expected = stream.finish()
            self.assertEqual(received, expected, name)

    def test_a_guest_that_stops_in_the_middle_of_an_operation_and_comes_back(self):
        """Its ring is pinned, which the broker says; others are resized meanwhile; nothing is lost."""
        self.port += 1
        type(self).port = self.port
        self.web.push("/tmp/holder", open(os.path.join(TOOLS, "vchan-holder"), "rb").read(), mode=0o755)
        reading = self.host.start(f"cat {self.host.files}/5/{self.port}")
        wait_until(lambda: self.port in [c["port"] for c in self.host.channels()], "the host's end")
        holder = self.web.start_command(f"/tmp/holder 0 {self.port}")
        holder.wait_for(b"holding")
        streams = self.streams(shared=True)
        self.web.pause()
        try:
            rings = self.host.json("stats")["rings"]
            mine = [ring for ring in rings if ring["port"] == self.port and ring["sender_domain"] == 5]
            others = [ring for ring in rings if ring["port"] != self.port and ring["sender_domain"] == 0]
            self.assertEqual(len(mine), 1)
            self.host.vchanctl("set", "ring", f"{mine[0]['channel']}:{mine[0]['ring']}", "size=64K")
            for round_number in range(10):
                for ring in others:
                    size = "64K" if round_number % 2 else "128K"
                    self.host.vchanctl("set", "ring", f"{ring['channel']}:{ring['ring']}", f"size={size}")
                time.sleep(0.3)
            self.assert_answers()
            pinned = [ring for ring in self.host.json("stats")["rings"] if ring["port"] == self.port]
            self.assertTrue(any(ring.get("pinned") or "pinned" in ring.get("flags", []) for ring in pinned), pinned)
        finally:
            self.web.resume()
        holder.write(b"go on\n")
        self.assertEqual(holder.wait(30).status, 0)
        self.assertEqual(reading.communicate(timeout=30)[0], b"before\nwithin\nafter\n")
        for name, stream in streams.items():
            received, expected = stream.finish()
            self.assertEqual(received, expected, name)


if __name__ == "__main__":
    need()
    need_programs()
    unittest.main(verbosity=2)
