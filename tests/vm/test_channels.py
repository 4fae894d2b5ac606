#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Channels between the host and real guests: as files and by libvchan, with the rings resized under them."""

import hashlib
import itertools
import os
import re
import time
import unittest

from guest_case import need
from vchan_case import DOMAINS, Host, need_programs, wait_until

BULK_BYTES = 8 << 20


class ChannelsTest(unittest.TestCase):
    """Each case has ports of its own; all of them share the host and two guests, which they leave as they were."""

    ports = itertools.count(5000)

    @classmethod
    def setUpClass(cls):
        cls.host = Host()
        cls.addClassCleanup(cls.host.close)
        cls.host.mount()
        cls.web, cls.db = cls.host.boot("web", "db")

    def setUp(self):
        self.port = next(self.ports)

    def tearDown(self):
        for guest in (self.web, self.db):
            guest.end_commands()
        wait_until(lambda: not self.host.channels(), lambda: f"channels are left: {self.host.channels()}")

    def path(self, at, peer):
        """The file of this case's port, on the host or in a guest."""
        return f"{self.host.files if at is self.host else '/mnt/vchan'}/{peer}/{self.port}"

    def start(self, at, text):
        return at.start(text) if at is self.host else at.start_command(text)

    @staticmethod
    def ended(running, limit_s=60):
        """(status, output, errors)"""
        if hasattr(running, "communicate"):
            out, err = running.communicate(timeout=limit_s)
            return running.returncode, out, err
        return running.wait(limit_s)

    def say(self, sender, receiver, names):
        """A word from one to the other; names: what they call each other."""
        reader = self.start(receiver, f"cat {self.path(receiver, names[0])}")
        self.assertEqual(self.ended(self.start(sender, f"echo 'hello, {names[1]}' >{self.path(sender, names[1])}")), (0, b"", b""))
        self.assertEqual(self.ended(reader), (0, f"hello, {names[1]}\n".encode(), b""))

    def test_the_agents_are_attached(self):
        listing = self.host.check("vchanctl domains")
        for name in ("web", "db"):
            self.assertRegex(listing, rf"(?m) {name} +running ")
        for guest in (self.web, self.db):
            self.assertIn("vchand", guest.check("vchanctl version"))

    def test_a_word_from_the_host_to_a_guest(self):
        self.say(self.host, self.web, ("0", "web"))

    def test_a_word_from_a_guest_to_the_host(self):
        self.say(self.web, self.host, ("web", "0"))

    def test_a_word_from_guest_to_guest(self):
        self.say(self.web, self.db, ("5", "6"))

    def test_a_guest_may_be_called_by_its_name_in_a_guest(self):
        self.say(self.db, self.web, ("db", "web"))

    def both_ways(self, first, second, names):
        """Both send bulk at once through one channel, whose rings are resized all the while."""
        commands = []
        for at, peer in ((first, names[1]), (second, names[0])):
            directory = self.host.directory if at is self.host else "/tmp"
            sent = f"{directory}/sent{self.port}{peer}"
            commands.append((at, f"head -c {BULK_BYTES} /dev/urandom >{sent}; sha256sum <{sent}; exec 3<>{self.path(at, peer)}; "
                                 f"cat {sent} >&3 & head -c {BULK_BYTES} <&3 | sha256sum; wait; rm {sent}"))
        running = [self.start(*command) for command in commands]
        resized = self.resize_until(lambda: not any(self.is_running(one) for one in running))
        results = [self.ended(one) for one in running]
        sums = [re.findall(rb"[0-9a-f]{64}", out) for _, out, _ in results]
        self.assertEqual([status for status, _, _ in results], [0, 0], results)
        self.assertEqual(sums[0], sums[1][::-1], results)
        self.assertNotEqual(sums[0][0], hashlib.sha256(b"").hexdigest().encode())
        self.assertGreater(resized, 10)

    @staticmethod
    def is_running(running):
        return running.poll() is None if hasattr(running, "poll") else running.status is None

    def resize_until(self, condition, limit_s=120):
        """Resizes all rings there are, as fast as it goes; how often it did."""
        sizes = itertools.cycle(["4K", "256K", "16K", "1M", "64K", "12K"])
        count = 0
        deadline = time.monotonic() + limit_s
        while not condition():
            self.assertLess(time.monotonic(), deadline, lambda: self.host.check("vchanctl stats"))
            for channel in self.host.channels():
                for ring in "01":
                    done = self.host.vchanctl("set", "ring", f"{channel['channel']}.{ring}", f"size={next(sizes)}")
                    count += done.returncode == 0
        return count

    def test_bulk_both_ways_between_host_and_guest_while_resized(self):
        self.both_ways(self.host, self.web, ("0", "web"))

    def test_bulk_both_ways_between_guests_while_resized(self):
        self.both_ways(self.web, self.db, ("web", "db"))

    def copy_spans(self, sender, receiver, names):
        """Bulk by the native API (examples/span-copy); the receiver serves."""
        directory = self.host.directory if sender is self.host else "/tmp"
        source = f"{directory}/source{self.port}"
        receiving = self.start(receiver, f"span-copy receive {DOMAINS[names[0]]} {self.port} | sha256sum")
        sent = self.ended(self.start(sender, f"head -c {BULK_BYTES} /dev/urandom >{source}; sha256sum <{source}; "
                                             f"span-copy send {DOMAINS[names[1]]} {self.port} <{source} && rm {source}"))
        received = self.ended(receiving)
        self.assertEqual((sent[0], received[0]), (0, 0), (sent, received))
        self.assertEqual(sent[1].split()[0], received[1].split()[0])

    def test_a_program_on_the_host_to_one_in_a_guest(self):
        self.copy_spans(self.host, self.web, ("host", "web"))

    def test_a_program_in_a_guest_to_one_on_the_host(self):
        self.copy_spans(self.db, self.host, ("db", "host"))

    def test_a_program_in_a_guest_to_one_in_another(self):
        self.copy_spans(self.web, self.db, ("web", "db"))

    def test_a_libvchan_server_in_a_guest_and_its_client_in_another(self):
        server = self.web.start_command(f"echo-server 6 {self.port}")
        answers = self.db.check(f"echo-client 5 {self.port} some words there and back")
        self.assertEqual(len(re.findall(r'(?m)^sent "(.*)", got back "\1"$', answers)), 5, answers)
        self.assertEqual(server.wait().status, 0)

    def test_a_libvchan_client_on_the_host_finds_a_server_in_a_guest(self):
        server = self.db.start_command(f"echo-server 0 {self.port}")
        answers = self.host.check(f"echo-client 6 {self.port} a word or two")
        self.assertEqual(len(re.findall(r'(?m)^sent "(.*)", got back "\1"$', answers)), 4, answers)
        self.assertEqual(server.wait().status, 0)

    def test_more_ends_than_vectors_are_all_woken(self):
        """Each reader sleeps before its word is sent."""
        ports = range(20000, 20000 + 40)
        readers = [self.web.start_command(f"cat /mnt/vchan/db/{port}") for port in ports]
        wait_until(lambda: len(self.host.channels()) == len(ports), lambda: self.host.channels())
        writers = [self.db.start_command(f"exec 3>/mnt/vchan/web/{port}; read go; echo {port} >&3") for port in ports]
        wait_until(lambda: [one["state"] for one in self.host.channels()] == ["connected"] * len(ports),
                   lambda: self.host.channels())
        time.sleep(0.2)
        for writer in reversed(writers):
            writer.write(b"go\n")
        for writer, reader, port in zip(writers, readers, ports):
            self.assertEqual(writer.wait().status, 0)
            self.assertEqual(reader.wait(), (0, f"{port}\n".encode(), b""))

    def test_nobody_on_the_host_plays_a_domain_that_a_guest_is(self):
        result = self.host.run(f"echo-server 0 {self.port}", domain=5)
        self.assertNotEqual(result.returncode, 0)

    def test_a_guest_may_not_resize(self):
        result = self.web.run("vchanctl set domain 6 quota=1M")
        self.assertNotEqual(result.status, 0)
        self.assertIn(b"Operation not permitted", result.stderr)

    def test_a_guest_that_is_idle_uses_no_processor(self):
        reader = self.web.start_command(f"cat /mnt/vchan/db/{self.port}")
        writer = self.db.start_command(f"cat >/mnt/vchan/web/{self.port}")
        writer.write(b"a word\n")
        reader.wait_for(b"a word\n")
        time.sleep(0.5)
        used = [self.cpu_s(guest) for guest in (self.web, self.db)]
        time.sleep(2)
        for guest, before in zip((self.web, self.db), used):
            self.assertLess(self.cpu_s(guest) - before, 0.4, f"{guest.name} in 2 s")
        writer.close_input()
        self.assertEqual(reader.wait().status, 0)

    @staticmethod
    def cpu_s(guest):
        with open(f"/proc/{guest.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    need_programs("examples/span-copy", "examples/echo-server", "examples/echo-client")
    need()
    unittest.main()
