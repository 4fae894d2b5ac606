#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vchanctl before a broker whose answers are known to the byte: what is shown of them, what is asked, and
what a broker that breaks the rules can do to it (nothing)."""

import errno
import json
import os
import pty
import re
import struct
import time
import unittest

import control_protocol as proto
from control_protocol import BrokerInfo, ChannelInfo, Decision, DomainInfo, ExtentInfo, RingInfo, RingSet, ScriptedBroker
from replies_case import CHANNELS, DOMAINS, INFO, RINGS, K, RepliesCase, S, decision
from vchanctl_case import need


class WhatIsShown(RepliesCase):
    def test_list_names_the_ends_and_joins_the_rings(self):
        self.assertEqual(self.succeed("list"), """\
CHANNEL  SERVER  CLIENT  PORT  STATE                   SERVER-PID  CLIENT-PID    AGE  SERVER-RING  CLIENT-RING  SERVER-SENT  CLIENT-SENT
      0  web     host    5000  connected                      811         812  1.5 s       64 KiB        4 KiB        3 MiB            0
      1  7       web       80  waiting                        900           -  1m30s        4 KiB            0            0            0
      2  host    web        1  closed: Protocol error           -           -      0            0            0            0            0
""")

    def test_list_in_json(self):
        channels = self.json("list")["channels"]
        self.assertEqual([c["channel"] for c in channels], [0, 1, 2])
        self.assertEqual(channels[0], {
            "channel": 0, "incarnation": 1, "server_domain": 3, "server_domain_name": "web", "server_pid": 811,
            "client_domain": 0, "client_domain_name": "host", "client_pid": 812, "port": 5000,
            "state": "connected", "server_gone": False, "client_gone": False, "reason_errno": 0, "zone": 0,
            "age_ns": 1500000000, "server_ring_bytes": 65536, "client_ring_bytes": 4096,
            "server_bytes_sent": 3 * K * K, "client_bytes_sent": 0})
        self.assertIsNone(channels[1]["server_domain_name"])
        self.assertEqual((channels[2]["reason_errno"], channels[2]["client_gone"]), (errno.EPROTO, True))

    def test_domains(self):
        self.assertEqual(self.succeed("domains"), """\
DOMAIN  NAME  STATE       CONNECTIONS  CHANNELS    HELD  QUOTA
     0  host  running               4         2   8 KiB  1 MiB
     3  web   running               1         2  68 KiB   none
     7  -     configured            0         0       0   none
""")
        domains = self.json("domains")["domains"]
        self.assertEqual(domains[0], {
            "domain": 0, "name": "host", "state": "running", "connections": 4, "channels": 2, "bytes_held": 8192,
            "quota_bytes": 1048576, "uuid": "00010203-0405-0607-0809-0a0b0c0d0e0f"})
        self.assertEqual((domains[2]["name"], domains[2]["uuid"]), (None, None))

    def test_stats_of_all_rings(self):
        self.assertEqual(self.succeed("stats"), """\
RING  SENDER  RECEIVER  PORT    SIZE  GEN     HELD    HIGH   SENT   OPS  STALLS  STALLED  SLEEPS  BELLS   IDLE  FLAGS
 0.0  web     host      5000  64 KiB    4  1.5 KiB  60 KiB  3 MiB  1.2M      12   3.4 ms      15     11    2 s  stalled moving
 0.1  host    web       5000   4 KiB    1        0       0      0     0       0        0       0      0  never  -
 1.0  7       web         80   4 KiB    1        0       0      0     0       0        0       0      0      0  -
memory: 76 KiB in use, 96 KiB resident, of 1 MiB for data
""")

    def test_stats_of_one_channel_have_everything(self):
        out = self.succeed("stats", "0")
        self.assertEqual(out.split("\n\n")[0], """\
ring 0.0, port 5000, the server sends, connected
  sender        domain web, pid 811
  receiver      domain host, pid 812
  memory        64 KiB at 0x3000, generation 4, resized 3 times
  old memory    4 KiB, being drained
  limits        min 4 KiB, max 1 MiB, weight 100
  held          1.5 KiB, at most 60 KiB
  sent          3 MiB in 1.2M operations
  received      3 MiB in 1000 operations
  stalls        12, 3.4 ms in all
  sleeps        sender 7, receiver 8
  doorbells     sender 5, receiver 6
  last activity 2 s ago
  flags         stalled moving""")
        self.assertIn("last activity never\n", out)
        self.assertEqual(out.count("\nring ") + out.startswith("ring "), 2)

    def test_verbose_stats_have_a_block_for_each_ring(self):
        self.assertEqual(len(re.findall("^ring ", self.succeed("stats", "-v"), re.M)), 3)

    def test_stats_by_the_servers_domain_and_port(self):
        for which in "web:5000", "3:5000":
            self.assertEqual([(r["channel"], r["ring"]) for r in self.json("stats", which)["rings"]],
                             [(0, 0), (0, 1)])

    def test_stats_in_json(self):
        ring = self.json("stats", "0")["rings"][0]
        self.assertEqual(ring, {
            "channel": 0, "ring": 0, "incarnation": 1, "port": 5000, "state": "connected", "sender_domain": 3,
            "sender_domain_name": "web", "sender_pid": 811, "receiver_domain": 0,
            "receiver_domain_name": "host", "receiver_pid": 812, "generation": 4, "offset_bytes": 12288,
            "size_bytes": 65536, "old_size_bytes": 4096, "min_bytes": 4096, "max_bytes": 1048576, "weight": 100,
            "bytes_held": 1536, "high_water_bytes": 61440, "bytes_sent": 3145728, "bytes_received": 3144192,
            "operations_sent": 1234567, "operations_received": 1000, "stalls": 12, "stall_ns": 3400000,
            "sender_sleeps": 7, "receiver_sleeps": 8, "sender_doorbells": 5, "receiver_doorbells": 6,
            "resizes": 3, "idle_ns": 2 * S, "stalled": True, "moving": True, "pinned": False})
        self.assertIsNone(self.json("stats", "0")["rings"][1]["idle_ns"])
        self.assertEqual(self.json("stats")["memory"], {"region_bytes": 2 * K * K, "data_bytes": K * K,
                                                        "used_bytes": 76 * K, "resident_bytes": 96 * K})

    def test_info(self):
        self.assertEqual(self.succeed("info"), """\
version        0.1.0
policy         default
uptime         4m05s
region         2 MiB, 1 MiB of it for data
free           948 KiB, the largest run 900 KiB
fragmentation  5.1%
in use         76 KiB
resident       96 KiB
domains        3
channels       3 of at most 1024
connections    5
opened         9 ends, 4 closed
rebalancing    10 rounds, 4 moves, 3 grace periods
pinned         1 rings whose old memory an end keeps
""")
        info = self.json("info")
        self.assertEqual((info["fragmentation_permille"], info["moves"]), (51, 4))
        self.assertEqual((info["used_bytes"], len(info)), (76 * K, 21))

    def test_info_of_several_zones_says_what_is_a_sum(self):
        self.broker.answers[proto.BROKER_INFO] = lambda body: INFO._replace(zones=2).pack()
        self.assertIn("""\
zones          2, of which these are the sums:
region         2 MiB, 1 MiB of it for data
free           948 KiB, the largest run of any zone 900 KiB
fragmentation  5.1% in the worst zone
""", self.succeed("info"))
        self.assertEqual(self.json("info")["zones"], 2)

    def rebalance(self, *decisions, following=0):
        self.broker.answers[proto.REBALANCE] = lambda body: (
            proto.LIST_REPLY.pack(len(decisions), Decision.SIZE, following) + b"".join(d.pack() for d in decisions))

    def test_rebalance_asks_for_what_it_says(self):
        self.rebalance(decision(1, 1))
        self.assertIn("planned", self.succeed("rebalance", "--dry-run"))
        self.succeed("rebalance")
        self.assertEqual([struct.unpack("=II", body) for body in self.bodies(proto.REBALANCE)], [(1, 0), (0, 0)])

    def test_rebalance_without_decisions_says_so(self):
        self.rebalance()
        self.assertEqual(self.succeed("rebalance", "--dry-run"), "nothing would be changed\n")
        self.assertEqual(self.succeed("rebalance"), "nothing to change\n")
        self.assertEqual(self.json("rebalance"), {"dry_run": False, "more": False, "decisions": []})

    def test_rebalance_says_when_there_is_more(self):
        self.rebalance(decision(1), following=2)
        self.assertIn("and more: see vchanctl history", self.succeed("rebalance"))
        self.assertTrue(self.json("rebalance", "--dry-run")["more"])

    def test_set_ring_sends_each_field(self):
        out = self.succeed("set", "ring", "0:server", "min=8K", "max=1.5M", "size=64KiB", "weight=200")
        self.assertEqual(RingSet.unpack(self.bodies(proto.RING_SET)[0]),
                         RingSet(channel=0, ring=0, fields=15, weight=200, min_bytes=8192, max_bytes=1572864,
                                 size_bytes=65536))
        self.assertEqual(out, "ring 0.0: size 64 KiB, min 4 KiB, max 1 MiB, weight 100\n")

    def test_set_ring_takes_each_way_to_name_a_ring(self):
        for name, ring in ("0.0", 0), ("0.1", 1), ("0:server", 0), ("0:client", 1):
            self.assertEqual(self.json("set", "ring", name, "weight=1")["ring"]["ring"], ring)
            self.assertEqual(RingSet.unpack(self.bodies(proto.RING_SET)[-1]).ring, ring)

    def test_set_domain_by_name_and_number(self):
        self.assertEqual(self.succeed("set", "domain", "web", "quota=16M"), "domain web: quota 16 MiB\n")
        self.assertEqual(self.succeed("set", "domain", "9", "quota=none"), "domain 9: quota none\n")
        self.assertEqual(self.json("set", "domain", "0", "quota=0"), {"domain": {"domain": 0, "quota_bytes": 0}})
        self.assertEqual([struct.unpack("=IIQ", body) for body in self.bodies(proto.DOMAIN_SET)],
                         [(3, 0, 16 * K * K), (9, 0, 0), (0, 0, 0)])

    def test_a_broker_with_nothing_open(self):
        for command in proto.LIST_DOMAINS, proto.LIST_CHANNELS, proto.LIST_RINGS, proto.LIST_HISTORY:
            self.broker.list(command, [])
        for command, key in (("list", "channels"), ("domains", "domains"), ("stats", "rings"),
                             ("history", "decisions")):
            self.assertEqual(self.succeed(command).count("\n"), 2 if command == "stats" else 1)
            self.assertEqual(self.json(command)[key], [])

    def test_version_tells_both(self):
        self.assertRegex(self.succeed("version"), r"^vchanctl \S+ \(control protocol 2\)\nvchand 0\.1\.0\n$")
        self.assertEqual(self.json("version")["broker_version"], "0.1.0")

    def test_options_may_stand_anywhere(self):
        for arguments in (["--json", "list"], ["list", "--json"], ["-j", "--", "list"]):
            for environment in self.environment, {**self.environment, "POSIXLY_CORRECT": "1"}:
                self.assertIn("channels", json.loads(self.succeed(*arguments, environment=environment)))

    def test_the_domain_comes_from_the_environment(self):
        self.succeed("domains", environment={**self.environment, "VCHAN_DOMAIN": "3"})
        self.assertEqual(struct.unpack("=IIII", self.bodies(proto.HELLO)[0])[0], 3)


class Watching(RepliesCase):
    def lines_of(self, *arguments):
        process = self.start(*arguments)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process.stdout

    def test_blocks_are_separated_by_a_line(self):
        stream = self.lines_of("domains", "--watch=0.05")
        block = [stream.readline() for _ in range(4)]
        self.assertTrue(block[0].startswith("DOMAIN"))
        self.assertRegex(stream.readline(), r"^---- \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}$")
        self.assertEqual([stream.readline() for _ in range(4)], block)

    def test_json_is_one_object_a_line(self):
        for command in "list", "domains", "stats", "info", "map", "history":
            stream = self.lines_of(command, "--json", "--watch=0.05")
            first, second = json.loads(stream.readline()), json.loads(stream.readline())
            self.assertEqual(first.keys(), second.keys())

    def test_stats_have_rates_from_the_second_sample_on(self):
        def rings(body):
            rings.sent += 100000
            return (proto.LIST_REPLY.pack(1, RingInfo.SIZE, 0) +
                    RINGS[0]._replace(bytes_sent=rings.sent, operations_sent=rings.sent // 100).pack())
        rings.sent = 0
        self.broker.answers[proto.LIST_RINGS] = rings
        stream = self.lines_of("stats", "--json", "-w0.2")
        first, second = (json.loads(stream.readline())["rings"][0] for _ in range(2))
        self.assertNotIn("bytes_per_second", first)
        self.assertTrue(50000 < second["bytes_per_second"] <= 500500, second["bytes_per_second"])
        self.assertAlmostEqual(second["operations_per_second"], second["bytes_per_second"] / 100, delta=2)

    def test_a_channel_that_is_opened_anew_has_no_rate_yet(self):
        def rings(body):
            rings.incarnation += 1
            return (proto.LIST_REPLY.pack(1, RingInfo.SIZE, 0) +
                    RINGS[0]._replace(incarnation=rings.incarnation).pack())
        rings.incarnation = 0
        self.broker.answers[proto.LIST_RINGS] = rings
        stream = self.lines_of("stats", "--json", "--watch=0.05")
        for _ in range(3):
            self.assertNotIn("bytes_per_second", json.loads(stream.readline())["rings"][0])

    def test_it_ends_with_3_when_the_broker_goes(self):
        asked = []
        def info(body):
            asked.append(1)
            return INFO.pack() if len(asked) < 3 else ScriptedBroker.Raw(b"")
        self.broker.answers[proto.BROKER_INFO] = info
        self.assertEqual(self.run_vchanctl("info", "--watch=0.05"), 3)
        self.assertIn("it closed the connection", self.err)
        self.assertEqual(self.out.count("policy"), 2)

    def on_terminal(self, *arguments, seconds=0.5, **environment):
        master, slave = pty.openpty()
        process = self.start(*arguments, stdout=slave, environment={**self.environment, **environment})
        os.close(slave)
        time.sleep(seconds)
        process.terminate()
        output = b""
        try:
            while part := os.read(master, 65536):
                output += part
        except OSError:  # a terminal without a user has ended
            pass
        os.close(master)
        process.communicate()
        return output.decode()

    def test_a_terminal_is_cleared_for_each_sample(self):
        output = self.on_terminal("info", "--watch=0.1")
        self.assertGreater(output.count("\033[H\033[2J"), 1)

    def test_colours_only_on_a_terminal_that_wants_them(self):
        self.assertIn("\033[1m", self.on_terminal("domains"))
        self.assertIn("\033[7;", self.on_terminal("map"))
        for environment in {"NO_COLOR": "1"}, {"TERM": "dumb"}:
            self.assertNotIn("\033", self.on_terminal("map", **environment))
        self.assertNotIn("\033", self.succeed("map"))


class BadBrokers(RepliesCase):
    def test_the_brokers_sentence_is_shown(self):
        self.broker.answers[proto.RING_SET] = lambda body: -errno.ENOSPC
        self.broker.sentence = b"domain web holds 900 KiB of 1 MiB"
        self.fail_with(1, "^vchanctl: cannot set ring 0.0: No space left on device: domain web holds 900 KiB of"
                          " 1 MiB\n$", "set", "ring", "0.0", "size=1M")

    def test_each_command_that_is_refused_ends_with_1(self):
        for id_, *command in ((proto.LIST_CHANNELS, "list"), (proto.LIST_DOMAINS, "domains"),
                              (proto.LIST_RINGS, "stats"), (proto.BROKER_INFO, "info"),
                              (proto.LIST_HISTORY, "history"), (proto.LIST_HISTORY, "history", "-f"),
                              (proto.REBALANCE, "rebalance"), (proto.LIST_EXTENTS, "map"),
                              (proto.DOMAIN_SET, "set", "domain", "web", "quota=1")):
            kept = self.broker.answers.get(id_)
            self.broker.answers[id_] = lambda body: -errno.EPERM
            self.fail_with(1, "Operation not permitted", *command)
            self.broker.answers[id_] = kept

    def test_a_refused_domain_is_told_who_it_is(self):
        self.broker.answers[proto.LIST_EXTENTS] = lambda body: -errno.EPERM
        self.broker.answers[proto.HELLO] = lambda body: struct.pack("=II64s", 3, 0, b"web")
        self.fail_with(1, "You are domain 3 here", "map", environment={**self.environment, "VCHAN_DOMAIN": "3"})

    def test_a_sentence_cannot_write_to_the_terminal(self):
        self.broker.answers[proto.BROKER_INFO] = lambda body: -errno.EPERM
        self.broker.sentence = b"\033[2Jhello\xff\n" + b"x" * 499
        self.fail_with(1, r"\?\[2Jhello\?\nx+\n$", "info")

    def test_names_cannot_break_a_table_or_json(self):
        self.broker.list(proto.LIST_DOMAINS, [DomainInfo(domain=3, name=b"a\033]0;\x07\n\xe2\x82" + b"b" * 60)])
        self.assertNotRegex(self.succeed("domains"), "[\033\x07]")
        self.assertTrue(self.json("domains")["domains"][0]["name"].startswith("a?]0;????b"))

    def test_a_list_without_an_end_ends(self):
        self.broker.answers[proto.LIST_DOMAINS] = lambda body: proto.LIST_REPLY.pack(0, DomainInfo.SIZE, 1)
        self.fail_with(1, "cannot list the domains: ", "domains")

    def test_a_list_of_one_domain_again_and_again_ends(self):
        page = proto.LIST_REPLY.pack(130, DomainInfo.SIZE, 7) + DOMAINS[0].pack() * 130
        self.broker.answers[proto.LIST_DOMAINS] = lambda body: page
        self.fail_with(1, "cannot list the domains: ", "domains")

    def test_what_a_list_repeats_is_shown_once(self):
        self.broker.list(proto.LIST_DOMAINS, DOMAINS + DOMAINS)
        self.assertEqual(len(self.json("domains")["domains"]), 3)

    def test_longer_items_of_a_newer_broker_are_understood(self):
        body = b"".join(d.pack() + b"newer..." for d in DOMAINS)
        self.broker.answers[proto.LIST_DOMAINS] = lambda _: proto.LIST_REPLY.pack(
            3, DomainInfo.SIZE + 8, 0) + body
        self.assertEqual([d["domain"] for d in self.json("domains")["domains"]], [0, 3, 7])

    def test_replies_of_the_wrong_shape_end_with_3(self):
        raw = ScriptedBroker.Raw
        header = proto.HEADER.pack
        for name, answer in {
            "short list": lambda body: b"1234",
            "more items than bytes": lambda body: proto.LIST_REPLY.pack(2, DomainInfo.SIZE, 0) + DOMAINS[0].pack(),
            "fewer items than bytes": lambda body: proto.LIST_REPLY.pack(0, DomainInfo.SIZE, 0) + DOMAINS[0].pack(),
            "a product past 32 bits": lambda body: proto.LIST_REPLY.pack(1 << 31, 1 << 31, 0),
            "items too small": lambda body: proto.LIST_REPLY.pack(1, 8, 0) + bytes(8),
            "items of no size": lambda body: proto.LIST_REPLY.pack(proto.ANY, 0, 0),
            "positive error": lambda body: 5,
            "error that is no errno": lambda body: -70000,
            "another seq": lambda body: raw(header(proto.LIST_DOMAINS, 8, 99) + bytes(8)),
            "another id": lambda body: raw(header(proto.HELLO, 8, 3) + bytes(8)),
            "no proto_error": lambda body: raw(header(proto.LIST_DOMAINS, 0, 3)),
            "half a header": lambda body: raw(b"\x08\0"),
            "a size that lies": lambda body: raw(header(proto.LIST_DOMAINS, 900, 3) + bytes(8)),
            "oversized": lambda body: raw(header(proto.LIST_DOMAINS, 20000, 3) + bytes(20000)),
        }.items():
            with self.subTest(name):
                self.broker.answers[proto.LIST_DOMAINS] = answer
                self.fail_with(3, "does not speak vchan's protocol", "domains")

    def test_info_of_another_size_ends_with_3(self):
        for body in INFO.pack() + b"1", INFO.pack()[:-1], b"":
            self.broker.answers[proto.BROKER_INFO] = lambda _: body
            self.fail_with(3, "does not speak", "info")

    def test_a_broker_of_another_version_is_refused(self):
        for version in 1, 3:
            self.broker.answers[proto.GET_VERSION] = lambda body: struct.pack("=IIQ", version, 16384, 0)
            self.fail_with(1, "different versions", "list")
        self.broker.answers[proto.GET_VERSION] = lambda body: -errno.EPROTONOSUPPORT
        self.fail_with(1, "different versions", "list")

    def test_a_broker_that_refuses_the_domain_is_quoted(self):
        self.broker.answers[proto.HELLO] = lambda body: -errno.EPERM
        self.broker.sentence = b"domain 0 is not for uid 1000"
        self.fail_with(1, "not permitted: domain 0 is not for uid 1000", "list")

    def test_a_silent_broker_is_given_up(self):
        self.broker.answers[proto.GET_VERSION] = lambda body: None
        before = time.monotonic()
        self.fail_with(3, "did not answer within 5 seconds", "list")
        self.assertLess(time.monotonic() - before, 20)

    def test_a_broker_that_hangs_up_is_gone(self):
        self.broker.answers[proto.HELLO] = lambda body: ScriptedBroker.Raw(b"")
        self.fail_with(3, "it closed the connection", "list")

    def test_rubbish_in_every_field_is_survived(self):
        rubbish = b"\xff" * 4096
        for command, record in ((proto.LIST_DOMAINS, DomainInfo), (proto.LIST_CHANNELS, ChannelInfo),
                                (proto.LIST_RINGS, RingInfo), (proto.LIST_EXTENTS, ExtentInfo),
                                (proto.LIST_HISTORY, Decision)):
            self.broker.answers[command] = lambda body, record=record: (
                proto.LIST_REPLY.pack(1, record.SIZE, 0) + rubbish[:record.SIZE])
        self.broker.answers[proto.BROKER_INFO] = lambda body: rubbish[:BrokerInfo.SIZE]
        for command in "list", "domains", "stats", "info", "history", "map":
            self.succeed(command)
            self.json(command)
        self.succeed("stats", "-v")


if __name__ == "__main__":
    need("vchanctl")
    unittest.main()
