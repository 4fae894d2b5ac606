#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vchanctl map and vchanctl history before a broker whose answers are known to the byte."""

import json
import re
import unittest

import control_protocol as proto
from control_protocol import ExtentInfo
from replies_case import K, RepliesCase, decision
from vchanctl_case import need


class Map(RepliesCase):
    def test_map(self):
        self.assertEqual(self.succeed("map", environment={**self.environment, "COLUMNS": "10"}), """\
1 MiB for data, 948 KiB free, the largest run 948 KiB, fragmentation 0.0%; one character is 4 KiB
ABcCCCCCCC
CCCCCCCCC
then 948 KiB free up to the end
   RING  OWNER  OFFSET    SIZE  KIND
A   0.1  host      0x0   4 KiB  ring
B   1.0  7      0x1000   4 KiB  ring
c   0.0  web    0x2000   4 KiB  old
C   0.0  web    0x3000  64 KiB  ring
""")

    def test_map_has_a_colour_for_each_domain_or_channel(self):
        coloured = self.succeed("map", "--color=always")
        web, host, other = 32, 31, 33  # by number: 0, 3, 7
        self.assertIn(f"\n\033[7;{host}mA\033[0m\033[7;{other}mB\033[0m\033[2;{web}mc\033[0m"
                      f"\033[7;{web}m{16 * 'C'}\033[0m\n", coloured)
        self.assertTrue(coloured.endswith(
            f"\033[7;{host}m host \033[0m \033[7;{web}m web \033[0m \033[7;{other}m 7 \033[0m \n"), coloured)
        by_channel = self.succeed("map", "--color=always", "--by=channel")
        self.assertIn("\033[7;31mA\033[0m\033[7;32mB\033[0m\033[2;31mc\033[0m\033[7;31mCC", by_channel)
        self.assertIn(" channel 1 ", by_channel)
        narrow = self.succeed("map", "--color=always", environment={**self.environment, "COLUMNS": "10"})
        self.assertIn(f"\033[7;{web}m{7 * 'C'}\033[0m\n\033[7;{web}m{9 * 'C'}\033[0m\n", narrow)
        plain = re.sub("\033\\[[0-9;]*m", "", coloured)
        self.assertEqual(plain.rsplit("\n", 2)[0] + "\n", self.succeed("map", "--color=never"))
        self.fail_with(2, "--by=port: it is domain or channel", "map", "--by=port")
        self.fail_with(2, "--color=sometimes: it is auto, always or never", "map", "--color=sometimes")

    def test_map_says_how_fragmented_the_free_memory_is(self):
        self.broker.list(proto.LIST_EXTENTS, [ExtentInfo(offset_bytes=0, size_bytes=24 * K),
                                              ExtentInfo(offset_bytes=24 * K, size_bytes=8 * K, kind=1),
                                              ExtentInfo(offset_bytes=32 * K, size_bytes=8 * K)])
        self.assertIn("32 KiB free, the largest run 24 KiB, fragmentation 25.0%;", self.succeed("map"))

    def test_map_in_json(self):
        picture = self.json("map")
        self.assertEqual((picture["data_bytes"], len(picture["extents"])), (K * K, 5))
        self.assertEqual(picture["extents"][2], {
            "offset_bytes": 8192, "size_bytes": 4096, "kind": "old", "zone": 0, "channel": 0, "ring": 0,
            "owner_domain": 3, "owner_domain_name": "web"})
        self.assertEqual(picture["extents"][4], {
            "offset_bytes": 0x13000, "size_bytes": K * K - 0x13000, "kind": "free", "zone": 0})

    def test_map_has_a_strip_for_each_zone(self):
        self.broker.list(proto.LIST_EXTENTS, [
            ExtentInfo(offset_bytes=0, size_bytes=8 * K, kind=1, channel=9, owner_domain=7, zone=1),
            ExtentInfo(offset_bytes=8 * K, size_bytes=56 * K, zone=1),
            ExtentInfo(offset_bytes=0, size_bytes=4 * K, kind=1, channel=0, ring=1, owner_domain=3),
            ExtentInfo(offset_bytes=4 * K, size_bytes=28 * K)])
        self.assertEqual(self.succeed("map"), """\
zone 0: 32 KiB for data, 28 KiB free, the largest run 28 KiB, fragmentation 0.0%; one character is 4 KiB
A
then 28 KiB free up to the end
   RING  OWNER  OFFSET   SIZE  KIND
A   0.1  web       0x0  4 KiB  ring

zone 1: 64 KiB for data, 56 KiB free, the largest run 56 KiB, fragmentation 0.0%; one character is 4 KiB
AA
then 56 KiB free up to the end
   RING  OWNER  OFFSET   SIZE  KIND
A   9.0  7         0x0  8 KiB  ring
""")
        self.assertEqual([(e["zone"], e["offset_bytes"]) for e in self.json("map")["extents"]],
                         [(0, 0), (0, 4 * K), (1, 0), (1, 8 * K)])

    def test_map_of_an_empty_section(self):
        self.broker.list(proto.LIST_EXTENTS, [ExtentInfo(size_bytes=K * K)])
        self.assertTrue(self.succeed("map").endswith("is 4 KiB\n1 MiB free up to the end\n"))


class History(RepliesCase):
    def test_history(self):
        self.assertEqual(self.succeed("history"), """\
TIME                     RING  SENDER  RECEIVER  PORT  FROM             TO                TRIGGER   OUTCOME      TOOK  WHY
2001-09-09 01:46:40.001   0.0  web     host      5000  4 KiB at 0x2000  64 KiB at 0x3000  pressure  done       8.2 ms  stalled 12 times in 1 s
2001-09-09 01:46:40.002   0.0  web     host      5000  4 KiB at 0x2000  -                 pressure  refused         -  stalled 12 times in 1 s
2001-09-09 01:46:40.003   0.0  web     host      5000  4 KiB at 0x2000  64 KiB at 0x3000  pressure  published       -  stalled 12 times in 1 s
""")

    def test_history_shows_the_last_so_many(self):
        self.history(*[decision(n) for n in range(1, 31)])
        numbers = lambda *options: [d["number"] for d in self.json("history", *options)["decisions"]]
        self.assertEqual(numbers(), list(range(11, 31)))
        self.assertEqual(numbers("-n", "2"), [29, 30])
        self.assertEqual(numbers("--lines=0"), list(range(1, 31)))

    def test_history_of_one_channel_or_outcome(self):
        self.history(decision(1), decision(2, 4), decision(3, channel=1, ring=1, port=80, receiver_domain=7),
                     decision(4, 4, channel=1), decision(5))
        numbers = lambda *options: [d["number"] for d in self.json("history", *options)["decisions"]]
        self.assertEqual(numbers("1"), [3, 4])
        self.assertEqual(numbers("web:5000"), [1, 2, 4, 5])
        self.assertEqual(numbers("7:80"), [3])
        self.assertEqual(numbers("--outcome=refused"), [2, 4])
        self.assertEqual(numbers("--outcome=refused", "-n1"), [4])
        self.assertEqual(numbers("--outcome=done", "0"), [1, 5])
        self.fail_with(2, "--outcome=lost: it is published, done or refused", "history", "--outcome=lost")
        self.fail_with(2, "x: not a channel number", "history", "x")
        process = self.start("history", "--follow", "--outcome=refused", "--json")
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.assertEqual([json.loads(process.stdout.readline())["number"] for _ in range(2)], [2, 4])

    def test_history_in_json(self):
        done, refused, _ = self.json("history")["decisions"]
        self.assertEqual(done, {
            "number": 1, "time_ns": 10**18 + 10**6, "time": "2001-09-09T01:46:40.001Z", "channel": 0, "ring": 0,
            "sender_domain": 3, "sender_domain_name": "web", "receiver_domain": 0,
            "receiver_domain_name": "host", "port": 5000, "generation": 2, "from_offset": 8192,
            "from_bytes": 4096, "to_offset": 12288, "to_bytes": 65536, "trigger": "pressure", "outcome": "done",
            "reason": "stalled 12 times in 1 s", "took_ns": 8200000})
        self.assertIsNone(refused["took_ns"])

    def test_followed_history_goes_on_with_what_is_new_or_done(self):
        process = self.start("history", "--follow", "-n", "1")
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        line = "2001-09-09 01:46:40.00%d  0.0 web->host:5000  4 KiB at 0x2000 -> 64 KiB at 0x3000  pressure %s\n"
        self.assertEqual(process.stdout.readline(), line % (3, "published: stalled 12 times in 1 s"))
        self.history(decision(1), decision(2, 4), decision(3), decision(4))
        self.assertEqual(process.stdout.readline(), line % (3, "done in 8.2 ms: stalled 12 times in 1 s"))
        self.assertEqual(process.stdout.readline(), line % (4, "done in 8.2 ms: stalled 12 times in 1 s"))

    def test_followed_history_in_json_is_a_decision_a_line(self):
        process = self.start("history", "-f", "--json")
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.assertEqual([json.loads(process.stdout.readline())["number"] for _ in range(3)], [1, 2, 3])



if __name__ == "__main__":
    need("vchanctl")
    unittest.main()
