#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The broker's side of the hypervisor's helper, which here is this test: numbers and names, requests and their ends."""

import errno
import os
import socket
import struct
import subprocess
import unittest
import uuid

import control_protocol as protocol
from control_protocol import (DOMAIN_ATTACH, DOMAIN_DETACH, DOMAIN_DEVICE, DOMAIN_SHOW, HYPERVISOR_DOMAIN, HYPERVISOR_DONE,
                              HYPERVISOR_SERVE, LIST_DOMAINS)
from vchanctl_case import BIN, VchanctlCase, need

DEFINED, RUNNING, PAUSED, GONE, UNKNOWN = range(1, 6)
ATTACH, DETACH, SHOW, ATTACH_UNCHECKED = range(1, 5)
EVENT_HYPERVISOR = 0x8004
FORCE = 1
NAMED = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
CONFIGURATION = f"""\
[broker]
region-size = 16M
[guests]
first-id = 300
vectors = 8
[domain web]
id = 5
[domain db]
id = 301
uuid = {NAMED}
[zone shop]
members = 5, 301-400
region-size = 16M
[zone back]
members = 5
region-size = 32M
"""
Device = protocol.record("Device", "IIQ16s64s64s112s", "domain vectors region_bytes uuid name zone socket")


def text(field):
    return field.split(b"\0")[0].decode()


class Helper(protocol.Connection):
    def __init__(self, path):
        super().__init__(path, 0)
        self.events = []

    def receive(self):
        """Replies; events are kept."""
        while True:
            data = self.socket.recv(protocol.MESSAGE_BYTES_MAX)
            if not data:
                raise ConnectionResetError("the broker has closed")
            identity = protocol.HEADER.unpack_from(data)[0]
            if identity != EVENT_HYPERVISOR:
                break
            self.events.append(data)
        err, _ = protocol.ERROR.unpack_from(data, protocol.HEADER.size)
        if err:
            raise OSError(-err, os.strerror(-err))
        return data[protocol.HEADER.size + protocol.ERROR.size:]

    def serve(self, name="test"):
        self.call(HYPERVISOR_SERVE, struct.pack("=64s", name.encode()))

    def report(self, name, state=RUNNING, identity=None):
        """The number that the domain has; its UUID comes from its name."""
        identity = uuid.UUID(identity) if identity else uuid.uuid5(uuid.NAMESPACE_DNS, name)
        return struct.unpack("=II", self.call(HYPERVISOR_DOMAIN, struct.pack("=16s64sII", identity.bytes, name.encode(), state, 0)))[0]

    def next_request(self):
        """(number, action, device)."""
        data = self.events.pop(0) if self.events else self.socket.recv(protocol.MESSAGE_BYTES_MAX)
        request, action = struct.unpack_from("=II", data, protocol.HEADER.size)
        return request, action, Device.unpack(data[protocol.HEADER.size + 8:])

    def done(self, request, err, words):
        self.call(HYPERVISOR_DONE, struct.pack("=IiII4096s", request, -err, len(words), 0, words.encode()))


def request(domain, zone="", flags=0):
    return struct.pack("=64s64sII", domain.encode(), zone.encode(), flags, 0)


class HypervisorTest(VchanctlCase):
    def setUp(self):
        super().setUp()
        path = os.path.join(self.directory, "vchand.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(CONFIGURATION)
        self.config = path
        with open(os.path.join(self.directory, "log"), "wb") as log:
            self.broker = subprocess.Popen([os.path.join(BIN, "vchand"), "-c", path], env=self.environment, stderr=log)
        self.addCleanup(self.broker.wait)
        self.addCleanup(self.broker.terminate)
        while self.run_vchanctl("info"):
            self.assertIsNone(self.broker.poll())
        self.helper = self.connect()
        self.helper.serve()

    def connect(self):
        connection = Helper(self.socket_path)
        self.addCleanup(connection.close)
        return connection

    def ask(self, command, *arguments):
        """A connection that has asked and waits."""
        asker = self.connect()
        asker.send(command, request(*arguments))
        return asker

    def assert_errno(self, number, call, *arguments):
        with self.assertRaises(OSError) as caught:
            call(*arguments)
        self.assertEqual(caught.exception.errno, number, caught.exception)

    def explain(self, connection):
        data = connection.call(protocol.EXPLAIN)
        return text(data[8:])

    def state(self, number):
        for one in self.json("domain", "list")["domains"]:
            if one["domain"] == number:
                return one["libvirt"]
        return "not listed"

    def name(self, number):
        return next(one["name"] for one in self.json("domain", "list")["domains"] if one["domain"] == number)

    # Who may

    def test_there_is_one_helper(self):
        second = self.connect()
        self.assert_errno(errno.EBUSY, second.serve)
        self.assertIn(f"pid {os.getpid()}", self.explain(second))
        self.helper.close()
        self.wait(lambda: second.serve() or True)

    def wait(self, condition):
        for _ in range(200):
            try:
                if condition():
                    return
            except OSError:
                pass
        self.fail("it does not come")

    def test_other_domains_are_no_helpers(self):
        other = protocol.Connection(self.socket_path, 7)
        self.addCleanup(other.close)
        self.assert_errno(errno.EPERM, other.call, HYPERVISOR_SERVE, bytes(64))
        self.assert_errno(errno.EPERM, other.call, DOMAIN_ATTACH, request("web"))

    def test_who_did_not_say_so_reports_nothing(self):
        self.assert_errno(errno.EPERM, self.connect().report, "web")

    # Numbers and names

    def test_numbers_come_from_sections_by_uuid_then_by_name_then_from_first_id_on(self):
        self.assertEqual(self.helper.report("anything", identity=NAMED), 301)
        self.assertEqual(self.helper.report("web"), 5)
        self.assertEqual(self.helper.report("db"), 300)  # the section has another UUID
        self.assertEqual(self.helper.report("one"), 302)
        self.assertEqual((self.name(301), self.name(5), self.name(300)), ("db", "web", "db-300"))

    def test_a_number_stays_with_its_uuid(self):
        number = self.helper.report("one")
        self.helper.report("one", GONE)
        self.assertEqual(self.state(number), "not listed")
        self.assertEqual(self.helper.report("two"), number + 2)  # 301 is a section's
        self.assertEqual(self.helper.report("one", DEFINED), number)
        self.assertEqual(self.helper.report("uno", RUNNING, str(uuid.uuid5(uuid.NAMESPACE_DNS, "one"))), number)
        self.assertEqual((self.name(number), self.state(number)), ("uno", "running"))

    def test_a_section_goes_to_whoever_has_its_name_now(self):
        self.assertEqual(self.helper.report("web"), 5)
        other = str(uuid.uuid4())
        self.assertEqual(self.helper.report("web", RUNNING, other), 300)
        self.helper.report("web", GONE)
        third = str(uuid.uuid4())
        self.assertEqual(self.helper.report("web", RUNNING, third), 5)

    def test_names_become_harmless_and_stay_different(self):
        names = {}
        for given in ("a/../b", "a b", "a_b", "12", ".x", "x" * 63, "x" * 62 + "/", "\x1b[31m", "é"):
            number = self.helper.report(given)
            names[given] = self.name(number)
            self.assertRegex(names[given], r"^[A-Za-z_][A-Za-z0-9._-]*$")
        self.assertEqual(len(set(names.values())), len(names), names)
        self.assertEqual(names["12"], "vm-12")
        asker = self.ask(DOMAIN_SHOW, "a b")
        self.assertEqual(text(self.helper.next_request()[2].name), names["a b"])
        asker.close()

    def test_a_domain_that_is_known_has_a_socket_and_one_that_is_gone_has_none(self):
        self.helper.report("one")
        number = self.helper.report("three")
        path = text(Device.unpack(self.connect().call(DOMAIN_DEVICE, request("three", "shop"))).socket)
        self.assertEqual(path, os.path.join(self.directory, "guests/shop/three.sock"))
        self.assertTrue(os.path.exists(path))
        self.helper.report("three", GONE)
        self.assertFalse(os.path.exists(path))
        self.assertEqual(self.state(number), "not listed")

    def test_a_helper_that_goes_leaves_unknown_states_and_its_successor_sweeps(self):
        one, two = self.helper.report("one"), self.helper.report("two")
        self.helper.close()
        self.wait(lambda: self.state(one) == "unknown")
        self.helper = self.connect()
        self.helper.serve()
        self.assertEqual(self.helper.report("two", PAUSED), two)
        self.assertEqual(self.state(one), "unknown")
        self.helper.serve()
        self.assertEqual((self.state(one), self.state(two)), ("not listed", "paused"))

    def test_a_new_configuration_renames_and_renumbers(self):
        one, web = self.helper.report("one"), self.helper.report("web")
        self.assertEqual(one, 300)
        with open(self.config, "a", encoding="utf-8") as file:
            file.write("[domain one]\nid = 9\n[domain usurper]\nid = 300\n")
        self.broker.send_signal(1)
        self.wait(lambda: self.name(9) == "one")
        self.wait(lambda: self.state(9) == "running")
        self.assertEqual((self.name(300), self.state(300), self.state(web)), ("usurper", None, "running"))

    # The device

    def test_the_device_is_described(self):
        number = self.helper.report("web")
        device = Device.unpack(self.connect().call(DOMAIN_DEVICE, request(str(number), "back")))
        self.assertEqual((device.domain, device.vectors, device.region_bytes), (5, 8, 32 << 20))
        self.assertEqual((text(device.name), text(device.zone)), ("web", "back"))
        self.assertEqual(uuid.UUID(bytes=device.uuid), uuid.uuid5(uuid.NAMESPACE_DNS, "web"))

    def test_a_zone_has_to_be_said_where_there_are_several_and_must_be_right(self):
        self.helper.report("web")
        self.helper.report("far")  # 300: in no zone
        asker = self.connect()
        for zone, number, words in (("", errno.EINVAL, "shop, back"), ("nix", errno.ENOENT, "no zone")):
            self.assert_errno(number, asker.call, DOMAIN_DEVICE, request("web", zone))
            self.assertIn(words, self.explain(asker))
        self.assert_errno(errno.EPERM, asker.call, DOMAIN_DEVICE, request("far"))
        self.assert_errno(errno.ENOENT, asker.call, DOMAIN_DEVICE, request("nix"))
        self.assertIn("web (5)", self.explain(asker))
        self.assert_errno(errno.ENOENT, asker.call, DOMAIN_DEVICE, request("17"))  # local, no VM

    # Requests

    def test_requests_are_answered_in_any_order(self):
        self.helper.report("web")
        askers = [self.ask(command, "web", "shop", flags)
                  for command, flags in ((DOMAIN_ATTACH, 0), (DOMAIN_DETACH, 0), (DOMAIN_SHOW, 0), (DOMAIN_ATTACH, FORCE))]
        requests = [self.helper.next_request() for _ in askers]
        self.assertEqual(sorted(action for _, action, _ in requests), [ATTACH, DETACH, SHOW, ATTACH_UNCHECKED])
        for number, action, device in reversed(requests):
            self.assertEqual((device.domain, text(device.zone)), (5, "shop"))
            self.helper.done(number, errno.ENOSPC if action == DETACH else 0, f"done {action}\nand more")
        for asker, action in zip(askers, (ATTACH, DETACH, SHOW, ATTACH_UNCHECKED)):
            if action == DETACH:
                self.assert_errno(errno.ENOSPC, asker.receive)
                self.assertEqual(self.explain(asker), "done 2\nand more")
            else:
                self.assertEqual(text(asker.receive()[8:]), f"done {action}\nand more")

    def test_who_asked_may_go(self):
        self.helper.report("web")
        asker = self.ask(DOMAIN_SHOW, "web", "shop")
        number = self.helper.next_request()[0]
        asker.close()
        self.helper.done(number, 0, "nobody hears it")
        self.helper.done(number, 0, "nor that")
        self.assertEqual(self.state(5), "running")

    def test_a_helper_that_goes_ends_its_requests(self):
        self.helper.report("web")
        asker = self.ask(DOMAIN_ATTACH, "web", "shop")
        self.helper.next_request()
        self.helper.close()
        self.assert_errno(errno.ECONNABORTED, asker.receive)
        self.assertIn("has gone before it answered", self.explain(asker))
        self.assert_errno(errno.ENOTCONN, asker.call, DOMAIN_ATTACH, request("web", "shop"))
        self.assertIn("systemctl start vchan-libvirt", self.explain(asker))

    def test_one_client_has_so_many_requests_and_no_more(self):
        self.helper.report("web")
        asker = self.connect()
        for _ in range(17):
            asker.send(DOMAIN_SHOW, request("web", "shop"))
        self.assert_errno(errno.EBUSY, asker.receive)
        for _ in range(16):
            self.helper.done(self.helper.next_request()[0], 0, "shown")
        for _ in range(16):
            self.assertEqual(text(asker.receive()[8:]), "shown")

    def test_a_malformed_report_is_refused(self):
        good = struct.pack("=16s64sII", bytes(range(16)), b"x", RUNNING, 0)
        for bad in (good[:-1], struct.pack("=16s64sII", bytes(16), b"", RUNNING, 0), struct.pack("=16s64sII", bytes(16), b"x", 9, 0),
                    struct.pack("=16s64sII", bytes(16), b"x" * 64, RUNNING, 0)):
            self.assert_errno(errno.EINVAL, self.helper.call, HYPERVISOR_DOMAIN, bad)
        self.assert_errno(errno.EINVAL, self.helper.call, HYPERVISOR_DONE, struct.pack("=IiII4096s", 1, 5, 0, 0, b""))
        self.assertEqual(self.helper.report("web"), 5)

    def test_a_helper_that_does_not_read_is_given_up(self):
        self.helper.report("web")
        self.helper.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        askers = [self.connect() for _ in range(16)]
        for asker in askers:
            for _ in range(16):
                asker.send(DOMAIN_SHOW, request("web", "shop"))
        self.assertIn(self.state(5), ("running", "unknown"))
        self.assertIsNone(self.broker.poll())


if __name__ == "__main__":
    need("vchand", "vchanctl")
    unittest.main(verbosity=2)
