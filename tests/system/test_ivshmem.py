#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ivshmem server: what a QEMU is sent, who hears of whom, and where it connects."""

import datetime
import grp
import os
import resource
import signal
import socket
import stat
import struct
import unittest

import control_protocol as proto
from ivshmem_case import (EBUSY, ENOSPC, HOST, MAGIC, Ended, IvshmemCase, configuration, header_of)


SO_TIMESTAMPNS = 35


class Handshake(IvshmemCase):
    def test_version_number_region_then_the_host_and_itself(self):
        device = self.device()
        self.assertEqual(device.message(), (0, None))
        self.assertEqual(device.message(), (1, None))
        value, memory = device.message()
        self.assertEqual(value, -1)
        self.assertEqual(os.fstat(memory).st_size, 16 << 20)
        device.memory = memory
        order = [device.message() for _ in range(32)]
        self.assertEqual([value for value, _ in order], [HOST] * 16 + [1] * 16)
        for _, descriptor in order:
            os.close(descriptor)
        self.assertFalse(device.pending(0.2))

    def test_qemu_is_known_by_its_pid(self):
        self.guest()
        self.assertIn(f"domain 3 in zone default: attached as peer 1 (QEMU pid {os.getpid()}, 16 vectors)",
                      self.log())

    def test_region_has_its_header_though_a_guest_wrote_over_it(self):
        first = self.guest()
        self.assertEqual(header_of(first)[0], MAGIC)
        with first.map() as memory:
            memory[:128] = bytes(128)
        second = self.guest(4)
        magic, version, _, size, *_ = header_of(second)
        self.assertEqual((magic, version, size), (MAGIC, 2, 16 << 20))

    def test_three_messages_come_before_hundreds_of_clients_are_served(self):
        """All knocked while the broker could not look; the VM waits, the clients do not mind."""
        self.broker.send_signal(signal.SIGSTOP)
        clients = [self.knocking_client() for _ in range(400)]
        device = self.device()
        self.broker.send_signal(signal.SIGCONT)
        self.assertEqual(device.handshake().version, 0)
        line = next(line for line in self.log().splitlines() if "attached as peer" in line)
        attached = datetime.datetime.fromisoformat(line[:23]).timestamp()
        # In the turn that it was stopped in, the broker may have had some others to serve.
        self.assertLess(sum(self.answered_at(client) < attached for client in clients), 200)

    def knocking_client(self):
        """It will know when the broker's answer to its first message was sent."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(client.close)
        client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        client.connect(os.path.join(self.directory, "vchand.sock"))
        client.send(proto.HEADER.pack(proto.GET_VERSION, 8, 1) +
                    struct.pack("=II", proto.VERSION, proto.BYTE_ORDER))
        client.settimeout(10)
        return client

    def answered_at(self, client):
        data, control, _, _ = client.recvmsg(100, 100)
        self.assertTrue(data)
        seconds, nanoseconds = struct.unpack("=qq", control[0][2])
        return seconds + nanoseconds / 1e9


class Peers(IvshmemCase):
    def test_guests_hear_of_each_other_as_they_come_and_go(self):
        a = self.guest(3).settle()
        b = self.guest(4).settle(a.id)
        a.settle(b.id)
        c = self.guest(5).settle(a.id, b.id)
        a.settle(b.id, c.id)
        b.settle(a.id, c.id)
        b.close()
        a.settle(c.id)
        c.settle(a.id)
        self.assertEqual({a.id, b.id, c.id}, {1, 2, 3})

    def test_doorbell_goes_to_the_vector_of_the_peer_it_names(self):
        a, b = self.guest(3), self.guest(4)
        a.settle(b.id)
        b.settle(a.id)
        for vector in range(16):
            a.ring(b.id, vector)
            self.assertTrue(b.heard(vector))
        b.ring(a.id, 5)
        self.assertTrue(a.heard(5))
        self.assertFalse(any(b.heard(v, 0) or a.heard(v, 0) for v in range(16)))

    def test_each_guest_has_the_host_to_itself(self):
        a, b = self.guest(3), self.guest(4)
        a.settle(b.id)
        b.settle(a.id)
        for vector in range(1, 15):
            os.eventfd_write(a.peers[HOST][vector], 1)
            with self.assertRaises(BlockingIOError):
                os.eventfd_read(b.peers[HOST][vector])
            self.assertEqual(os.eventfd_read(a.peers[HOST][vector]), 1)

    def test_ring_for_the_host_gets_a_mailbox(self):
        a, b = self.guest(3).settle(), self.guest(4)
        a.settle(b.id)
        a.request_mailbox(7)
        self.assertTrue(a.heard(0))
        self.assertEqual(a.answered(), 7)
        # The next with that number must not find what this one left.
        b.close()
        a.close()
        again = self.guest()
        while again.id != a.id:
            again.close()
            again = self.guest()
        self.assertEqual(again.answered(), 0)

    def test_number_rests_before_it_is_given_again(self):
        numbers = []
        for _ in range(70):
            guest = self.guest()
            numbers.append(guest.id)
            guest.close()
            self.wait_until(lambda n=len(numbers): self.log().count("detached, peer") == n, "it stays")
        self.assertEqual(numbers, [*range(1, 64), *range(1, 8)])

    def test_domain_counts_as_running_while_it_is_attached(self):
        def guests():
            cursor = struct.pack("=QII", 0, proto.ANY, 0)
            reply = connection.call(proto.LIST_DOMAINS, cursor)
            count, size, _ = proto.LIST_REPLY.unpack_from(reply)
            items = [proto.DomainInfo.unpack(reply[proto.LIST_REPLY.size + i * size:][:size])
                     for i in range(count)]
            return next(item.guests for item in items if item.domain == 3)
        connection = self.connect()
        self.assertEqual(guests(), 0)
        guest = self.guest()
        self.assertEqual(guests(), 1)
        guest.close()
        self.wait_until(lambda: guests() == 0, "it stays")


class Crowd(IvshmemCase):
    vectors = 4
    configuration = configuration(range(1, 65), 4)

    def test_all_numbers_are_in_use_and_one_more_is_refused(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < 20000:
            self.skipTest(f"{hard} open files are too few for 63 devices")
        resource.setrlimit(resource.RLIMIT_NOFILE, (20000, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        guests = [self.guest(n) for n in range(1, 64)]
        numbers = {guest.id for guest in guests}
        self.assertEqual(numbers, set(range(1, 64)))
        for guest in guests:
            guest.settle(*(numbers - {guest.id}))
        self.assertEqual(self.device(64).handshake().version, -ENOSPC)
        self.assertRegex(self.log(), "domain 64 .* refused: all numbers .* are in use; detach another domain")
        for source, target in ((0, 62), (62, 0), (31, 32)):
            guests[source].ring(guests[target].id, 3)
            self.assertTrue(guests[target].heard(3))
        guests[9].close()
        self.assertEqual(self.guest(64).id, 10)


class Refused(IvshmemCase):
    def test_second_device_fails_and_keeps_its_connection(self):
        first = self.guest().settle()
        second = self.device().handshake()
        self.assertEqual(second.version, -EBUSY)
        self.assertRegex(self.log(), r"domain 3 in zone default: the device of QEMU pid \d+ was refused, as "
                                     r"QEMU pid \d+ has one \(peer 1\): .* take one of them out")
        # QEMU would spin, had we closed: chardev-add may be long before device_add.
        self.assertFalse(second.pending(0.3))
        self.assertFalse(first.pending())
        first.close()
        self.assertEqual(self.guest().id, 2)

    def test_domain_that_is_started_anew_is_not_taken_for_a_second(self):
        for _ in range(20):
            first = self.guest()
            self.broker.send_signal(signal.SIGSTOP)
            first.close()
            second = self.device()
            self.broker.send_signal(signal.SIGCONT)
            self.assertEqual(second.handshake().version, 0)
            second.close()

    def test_refused_ones_do_not_pile_up(self):
        first = self.guest()
        before = self.descriptors()
        refused = []
        for _ in range(15):
            refused.append(self.device())
            self.assertEqual(refused[-1].handshake().version, -EBUSY)
        self.assertLessEqual(self.descriptors(), before + 8)
        with self.assertRaises(Ended):
            refused[0].message()
        for device in refused:
            device.close()
        self.wait_until(lambda: self.descriptors() == before, "they stay open")
        self.assertFalse(first.settle().pending())


class Zones(IvshmemCase):
    configuration = configuration((3, 4)) + "[zone red]\nmembers = d3, d4\n[zone blue]\nmembers = d3\n"

    def test_device_in_each_zone_with_that_zones_region_and_peers(self):
        red, other, blue = self.guest(3, "red"), self.guest(4, "red"), self.guest(3, "blue")
        red.settle(other.id)
        other.settle(red.id)
        blue.settle()
        self.assertEqual((red.id, other.id, blue.id), (1, 2, 1))
        self.assertNotEqual(header_of(red)[8], header_of(blue)[8])
        blue.close()
        self.assertFalse(red.pending(0.2))

    def test_socket_is_in_the_zones_of_its_domain_only(self):
        self.assertTrue(os.path.exists(self.path(4, "red")))
        self.assertFalse(os.path.exists(self.path(4, "blue")))


class Sockets(IvshmemCase):
    configuration = configuration((0, 3, 4))
    broker_options = {"umask": 0o077}

    def modes(self, domain=3):
        status = os.lstat(self.path(domain))
        return stat.S_IMODE(status.st_mode), status.st_gid

    def test_mode_guards_them_and_nobody_else_writes_their_directories(self):
        self.assertEqual(self.modes(), (0o660, os.getegid()))
        for directory in "guests", "guests/default":
            status = os.lstat(os.path.join(self.directory, directory))
            self.assertEqual((stat.S_IMODE(status.st_mode), status.st_uid), (0o755, os.geteuid()))

    def test_host_needs_none(self):
        self.assertFalse(os.path.exists(self.path(0)))

    def test_they_go_with_the_broker(self):
        guest = self.guest().settle()
        self.stop_broker()
        self.assertFalse(os.path.exists(os.path.join(self.directory, "guests")))
        with self.assertRaises(Ended):
            guest.message()

    def test_what_a_killed_broker_left_is_replaced_or_removed(self):
        self.stop_broker(signal.SIGKILL)
        self.assertTrue(os.path.exists(self.path(4)))
        os.unlink(self.log_path)
        self.configuration = configuration((3,))
        self.start_broker()
        self.guest()
        self.assertFalse(os.path.exists(self.path(4)))

    def test_reload_makes_and_removes_them(self):
        guest = self.guest(4)
        self.reload(configuration((3, 6)))
        self.assertFalse(os.path.exists(self.path(4)))
        self.assertEqual(self.modes(6)[0], 0o660)
        new = self.guest(6).settle(guest.id)
        guest.settle(new.id)
        self.reload(configuration((3, 6)).replace("d6", "d7"))
        self.assertFalse(os.path.exists(self.path(6)))
        self.assertEqual(self.device(7).handshake().version, -EBUSY)

    def test_names_that_change_hands_at_a_reload_do_not_meet(self):
        text = configuration((3, 4))
        self.reload(text.replace("d3", "x").replace("d4", "d3").replace("x", "d4"))
        self.guest(3)
        self.assertIn("domain 4 in zone default: attached", self.log())


class Guarded(IvshmemCase):
    group = grp.getgrgid(os.getgroups()[-1] if os.getgroups() else os.getegid())
    configuration = configuration((3,), extra=f"socket-mode = 0600\nsocket-group = {group.gr_name}\n")

    def test_mode_and_group_are_as_configured(self):
        status = os.lstat(self.path())
        self.assertEqual((stat.S_IMODE(status.st_mode), status.st_gid), (0o600, self.group.gr_gid))


class LongPath(IvshmemCase):
    name = "n" * 63
    configuration = configuration((3,)) + f"[domain {name}]\nid = 9\n"

    def setUp(self):
        super().setUp()
        self.stop_broker()
        self.directory = os.path.join(self.directory, "long" * 6)
        os.mkdir(self.directory)
        os.unlink(self.log_path)
        self.start_broker()

    def test_path_that_is_too_long_is_explained_and_the_others_are_served(self):
        self.guest(3)
        self.assertRegex(self.log(), "domain 9 in zone default: QEMU cannot connect: the path of a socket has "
                                     "at most 107 characters, .* use shorter names, or a shorter run-time")


class Directories(IvshmemCase):
    def test_directory_that_others_may_write_is_not_used(self):
        self.stop_broker()
        os.makedirs(os.path.join(self.directory, "guests/default"))
        os.chmod(os.path.join(self.directory, "guests/default"), 0o777)
        open(os.path.join(self.directory, "guests/default/keep"), "w", encoding="ascii").close()
        os.unlink(self.log_path)
        self.start_broker()
        self.assertFalse(os.path.exists(self.path()))
        self.assertRegex(self.log(), "guests/default: it must be a directory that only its owner may write")


if __name__ == "__main__":
    unittest.main()
