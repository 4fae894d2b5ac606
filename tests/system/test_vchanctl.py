#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vchanctl with a real vchand: every command, what a wrong command line gets, and the shell's completion."""

import ctypes
import os
import signal
import socket
import subprocess
import time
import unittest

import control_protocol as proto
from broker_case import CONFIGURATION, K, BrokerCase, TrafficCase
from vchanctl_case import BIN, SOURCE, VchanctlCase, need

class Listing(BrokerCase):
    def test_a_channel_is_listed_while_it_is_open(self):
        number, server, client = self.open_channel()
        channel, = self.json("list")["channels"]
        pid = os.getpid()
        self.assertEqual(
            {key: channel[key] for key in ("channel", "server_domain_name", "client_domain_name", "port", "state",
                                           "server_pid", "client_pid", "server_ring_bytes")},
            {"channel": number, "server_domain_name": "web", "client_domain_name": "db", "port": 5000,
             "state": "connected", "server_pid": pid, "client_pid": pid, "server_ring_bytes": 4096})
        self.assertRegex(self.succeed("list"), rf"(?m)^ *{number}  web     db      5000  connected +{pid} +{pid} ")
        client.close()
        self.wait_until(lambda: "client gone" in self.succeed("list"), "the client's end stays")
        self.assertTrue(self.json("list")["channels"][0]["client_gone"])
        server.close()
        self.wait_until(lambda: self.json("list") == {"channels": []}, "the channel stays")

    def test_a_server_without_a_client_waits(self):
        server = self.connect(3)
        server.open_channel(4, 1, proto.OPEN_SERVER)
        channel, = self.json("list")["channels"]
        self.assertEqual((channel["state"], channel["client_pid"]), ("waiting", 0))

    def test_a_domain_sees_its_own_channels_only(self):
        self.open_channel(3, 4, 1)
        self.open_channel(5, 4, 2)
        ports = lambda domain: [c["port"] for c in self.json(
            "list", environment={**self.environment, "VCHAN_DOMAIN": domain})["channels"]]
        self.assertEqual((sorted(ports("0")), ports("3"), sorted(ports("4")), ports("9")), ([1, 2], [1], [1, 2], []))

    def test_lists_longer_than_a_message_are_whole(self):
        for port in range(170):
            self.connect(3).open_channel(4, port, proto.OPEN_SERVER)
        channels = self.json("list")["channels"]
        self.assertEqual(sorted(c["port"] for c in channels), list(range(170)))
        self.assertEqual([c["channel"] for c in channels], sorted(c["channel"] for c in channels))
        rings = self.json("stats")["rings"]
        self.assertEqual(len({(r["channel"], r["ring"]) for r in rings}), 340)
        extents = [e for e in self.json("map")["extents"] if e["kind"] == "ring"]
        self.assertEqual(len(extents), 340)
        self.assertEqual(self.json("info")["channels"], 170)

    def test_domains_have_names_and_quotas(self):
        self.open_channel()
        domains = {d["domain"]: d for d in self.json("domains")["domains"]}
        self.assertEqual((domains[3]["name"], domains[4]["name"]), ("web", "db"))
        self.assertEqual((domains[3]["bytes_held"], domains[3]["channels"], domains[3]["state"]),
                         (4096, 1, "running"))
        self.assertEqual((domains[3]["quota_bytes"], domains[4]["quota_bytes"]), (0, 8 * K * K))
        self.assertRegex(self.succeed("domains"), r"(?m)^ +4  db +running +1 +1 +4 KiB +8 MiB$")

    def test_info_counts(self):
        before = self.json("info")
        self.open_channel()
        after = self.json("info")
        self.assertEqual(after["channels"] - before["channels"], 1)
        self.assertEqual(before["free_bytes"] - after["free_bytes"], 8192)
        self.assertEqual(after["region_bytes"], 32 * K * K)
        self.assertIn("32 MiB", self.succeed("info"))

    def test_the_map_shows_where_the_rings_are(self):
        number, *_ = self.open_channel(receive_min=64 * K, send_min=4 * K)
        extents = {e["ring"]: e for e in self.json("map")["extents"] if e["kind"] == "ring"}
        self.assertEqual((extents[0]["owner_domain_name"], extents[0]["size_bytes"]), ("web", 4 * K))
        self.assertEqual((extents[1]["owner_domain_name"], extents[1]["size_bytes"]), ("db", 64 * K))
        strip = self.succeed("map")
        self.assertEqual((strip.count("A" * 16) + strip.count("B" * 16), strip.count(f"{number}.1")), (1, 1))

    def test_watch_goes_on_until_it_is_ended(self):
        self.open_channel()
        process = self.start("list", "--json", "--watch=0.05")
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        self.assertEqual(process.returncode, -signal.SIGINT)
        self.assertEqual([line.count('"state":"connected"') for line in lines], [1, 1, 1])

    def test_watch_ends_with_3_when_the_broker_ends(self):
        process = self.start("info", "--watch=0.05")
        process.stdout.readline()
        self.broker.terminate()
        _, err = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 3)
        self.assertIn("no broker at", err)


class Zones(BrokerCase):
    configuration = CONFIGURATION + """\
[zone shop]
members = 3, 4
region-size = 4M
[zone office]
members = 5, 6
region-size = 2M
"""

    def test_the_map_keeps_the_zones_apart(self):
        self.open_channel(3, 4)
        self.open_channel(5, 6)
        picture = self.json("map")
        ends = []
        for zone, owners in (0, {3, 4}), (1, {5, 6}):
            extents = [e for e in picture["extents"] if e["zone"] == zone]
            self.assertEqual({e["owner_domain"] for e in extents if e["kind"] == "ring"}, owners)
            end = 0
            for extent in extents:
                self.assertEqual(extent["offset_bytes"], end)
                end += extent["size_bytes"]
            ends.append(end)
        self.assertEqual(sum(ends), picture["data_bytes"])
        self.assertGreater(ends[0], ends[1])
        shop, office = self.succeed("map").split("\n\n")
        self.assertRegex(shop, r"\Azone 0: [^\n]+ for data, (?s:.)* web (?s:.)* db ")
        self.assertRegex(office, r"\Azone 1: [^\n]+ for data, (?s:.)* 5 (?s:.)* 6 ")
        self.assertEqual(["#" in part for part in (shop, office)], [False, False])

    def test_info_says_that_memory_is_the_sum_of_the_zones(self):
        info = self.json("info")
        self.assertEqual((info["zones"], info["region_bytes"]), (2, 6 * K * K))
        self.assertLess(info["largest_free_bytes"], 4 * K * K)
        self.assertRegex(self.succeed("info"), r"zones +2, of which these are the sums:\nregion +6 MiB, ")


class Statistics(TrafficCase):
    def test_bytes_and_occupancy_are_those_of_the_traffic(self):
        server, client = self.open_ends()
        self.assertEqual(self.library.libvchan_send(server, b"x" * 1000, ctypes.c_size_t(1000)), 1000)
        buffer = ctypes.create_string_buffer(400)
        self.assertEqual(self.library.libvchan_recv(client, buffer, ctypes.c_size_t(400)), 400)
        ring = self.json("stats", "web:7")["rings"][0]
        self.assertEqual((ring["bytes_sent"], ring["bytes_received"], ring["bytes_held"]), (1000, 400, 600))
        self.assertEqual((ring["operations_sent"], ring["operations_received"]), (1, 1))
        self.assertEqual(self.json("list")["channels"][0]["server_bytes_sent"], 1000)

    def test_watched_stats_have_the_rate(self):
        server, client = self.open_ends()
        process = self.start("stats", "3:7", "--json", "--watch=0.3")
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.assertNotIn("bytes_per_second", process.stdout.readline())
        buffer = ctypes.create_string_buffer(1000)
        self.library.libvchan_send(server, buffer, ctypes.c_size_t(1000))
        self.library.libvchan_recv(client, buffer, ctypes.c_size_t(1000))
        self.assertRegex(process.stdout.readline(), r'"bytes_per_second":[1-9]')


class Steering(BrokerCase):
    def test_the_limits_of_a_ring_can_be_set(self):
        number, *_ = self.open_channel()
        self.succeed("set", "ring", f"{number}:client", "min=8K", "max=2M", "weight=250")
        ring = self.ring(number, 1)
        self.assertEqual((ring["min_bytes"], ring["max_bytes"], ring["weight"]), (8192, 2 * K * K, 250))
        self.assertEqual(self.ring(number, 0)["weight"], 100)

    def test_the_size_of_a_ring_can_be_set_and_history_tells(self):
        number, *_ = self.open_channel()
        self.succeed("set", "ring", f"{number}.0", "size=256K", "min=256K")
        self.wait_until(lambda: self.ring(number, 0)["size_bytes"] == 256 * K, "the ring keeps its size")
        moves = [d for d in self.json("history")["decisions"]
                 if (d["channel"], d["ring"], d["to_bytes"]) == (number, 0, 256 * K)]
        self.assertTrue(moves)
        self.assertEqual((moves[-1]["from_bytes"], moves[-1]["trigger"]), (4 * K, "command"))
        self.assertTrue(moves[-1]["reason"])
        self.assertIn(f" {number}.0 ", self.succeed("history"))

    def test_a_size_that_cannot_be_is_refused_with_a_reason(self):
        number, *_ = self.open_channel()
        self.fail_with(1, rf"^vchanctl: cannot set ring {number}\.0: (Invalid argument|No space left on device): .+\n$",
                       "set", "ring", f"{number}.0", "size=1T")
        self.assertEqual(self.ring(number, 0)["size_bytes"], 4096)

    def test_a_channel_that_is_not_there_cannot_be_set(self):
        self.fail_with(1, "cannot set ring 77.0: No such file or directory", "set", "ring", "77.0", "weight=5")

    def test_quotas_can_be_set_by_name(self):
        self.succeed("set", "domain", "web", "quota=2M")
        quota = lambda: {d["domain"]: d["quota_bytes"] for d in self.json("domains")["domains"]}[3]
        self.assertEqual(quota(), 2 * K * K)
        self.succeed("set", "domain", "3", "quota=none")
        self.assertEqual(quota(), 0)

    def test_domains_that_are_not_there(self):
        self.fail_with(1, "no domain has the name nobody: see vchanctl domains", "set", "domain", "nobody",
                       "quota=1M")
        self.fail_with(1, "there is no domain 30000", "set", "domain", "30000", "quota=1M")
        self.fail_with(1, "there is no domain 30000", "list",
                       environment={**self.environment, "VCHAN_DOMAIN": "30000"})

    def test_rebalance_prints_its_plan(self):
        self.open_channel()
        for options in ["--dry-run"], []:
            plan = self.json("rebalance", *options)
            self.assertEqual(plan["dry_run"], bool(options))
            self.assertIsInstance(plan["decisions"], list)
            self.succeed("rebalance", *options)

    def test_channels_that_are_not_there_have_no_stats(self):
        self.open_channel()
        for which in "77", "web:1", "db:5000", "9:5000":
            self.fail_with(1, f"no channel is known as {which}: see vchanctl list", "stats", which)
        self.fail_with(1, "nobody:5000", "stats", "nobody:5000")

    def test_only_domain_0_may_steer(self):
        number, *_ = self.open_channel()
        for command in (["map"], ["history"], ["rebalance"], ["set", "ring", f"{number}.0", "weight=1"],
                        ["set", "domain", "web", "quota=1M"]):
            self.fail_with(1, "(?s)not permitted.*You are domain 3 here", *command,
                           environment={**self.environment, "VCHAN_DOMAIN": "3"})


class CommandLine(VchanctlCase):
    def test_wrong_command_lines_get_2_and_a_reason(self):
        for pattern, *arguments in (
                ("^Usage: vchanctl ", ),
                ("lst: no such command", "lst"),
                ("unrecognized option '--jason'", "list", "--jason"),
                ("invalid option -- 'x'", "list", "-x"),
                ("requires an argument", "list", "--socket"),
                ("list: one argument too many: 5", "list", "5"),
                ("stats: one argument too many: 6", "stats", "5", "6"),
                ("list does not take --follow", "list", "--follow"),
                ("info does not take --lines", "info", "-n", "5"),
                ("map does not take --dry-run", "map", "--dry-run"),
                ("history does not take --verbose", "history", "-v"),
                ("rebalance does not take --watch", "rebalance", "--watch"),
                ("exclude each other", "history", "--watch", "--follow"),
                ("--watch=fast: seconds from 0.05", "list", "--watch=fast"),
                ("--watch=0: seconds", "list", "--watch=0"),
                ("--lines=-1: a number", "history", "-n", "-1"),
                ("--lines=: a number", "history", "--lines="),
                ("set: say what", "set"),
                ("set zone: what is set is a ring or a domain", "set", "zone"),
                ("say which ring", "set", "ring"),
                ("say which ring", "set", "ring", "3.0"),
                ("3: not a ring; rings are CHANNEL.0", "set", "ring", "3", "min=1K"),
                ("3.2: not a ring", "set", "ring", "3.2", "min=1K"),
                (".0: not a ring", "set", "ring", ".0", "min=1K"),
                ("99999999999.0: not a ring", "set", "ring", "99999999999.0", "min=1K"),
                ("min: not a setting of a ring", "set", "ring", "3.0", "min"),
                ("colour=1: not a setting of a ring", "set", "ring", "3.0", "colour=1"),
                ("min=: not a size", "set", "ring", "3.0", "min="),
                ("max=1Q: not a size", "set", "ring", "3.0", "max=1Q"),
                ("size=-4K: not a size", "set", "ring", "3.0", "size=-4K"),
                ("min=99999999T: too large", "set", "ring", "3.0", "min=99999999T"),
                ("weight=0: a weight is from 1 to 1000", "set", "ring", "3.0", "weight=0"),
                ("weight=1001: a weight", "set", "ring", "3.0", "weight=1001"),
                ("min=2K: set twice", "set", "ring", "3.0", "min=1K", "min=2K"),
                ("minimum is larger than the maximum", "set", "ring", "3.0", "min=2M", "max=1M"),
                ("say which domain", "set", "domain", "web"),
                ("say which domain", "set", "domain", "web", "quota=1M", "quota=2M"),
                ("limit=1M: not a setting of a domain", "set", "domain", "web", "limit=1M"),
                ("quota=much: not a size", "set", "domain", "web", "quota=much"),
                ("nothing: no such command", "help", "nothing"),
                ("one argument too many: stats", "help", "list", "stats")):
            with self.subTest(arguments):
                self.fail_with(2, pattern, *arguments)

    def test_a_domain_that_is_no_number_gets_2(self):
        for domain in "web", "-1", "32752", "0x3":
            self.fail_with(2, f"VCHAN_DOMAIN={domain}: a domain is a number from 0 to 32751", "list",
                           environment={**self.environment, "VCHAN_DOMAIN": domain})

    def test_without_a_broker_every_command_gets_3_and_what_to_do(self):
        for command in ("list", "domains", "stats", "info", "history", "history -f", "rebalance", "map",
                        "set ring 0.0 weight=1", "set domain web quota=1M", "list --watch"):
            self.fail_with(3, f"^vchanctl: no broker at {self.socket_path}: No such file or directory\n"
                              f"Start one with: VCHAN_RUNTIME_DIR={self.directory} vchand\n", *command.split())

    def test_the_socket_that_is_meant_is_named(self):
        self.fail_with(3, "no broker at /nowhere/at/all: ", "list", "--socket", "/nowhere/at/all")
        self.fail_with(3, "File name too long", "list", "--socket", "/" + "x" * 200)

    def test_what_is_left_of_a_dead_broker_is_no_broker(self):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self.socket_path)
        listener.close()
        self.fail_with(3, "Connection refused", "list")

    def test_another_programs_socket_is_no_broker(self):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(listener.close)
        listener.bind(self.socket_path)
        listener.listen()
        self.fail_with(3, "wrong type for socket", "list")

    def test_version_needs_no_broker(self):
        self.assertRegex(self.succeed("version"), r"^vchanctl \d+\.\d+\.\d+ \(control protocol 2\)\n$")
        self.assertIsNone(self.json("version")["broker_version"])
        self.assertRegex(self.succeed("--version"), r"^vchanctl \d+\.\d+\.\d+\n$")

    def test_each_command_has_help_that_fits_a_terminal(self):
        usage = self.succeed("help")
        self.assertEqual(self.succeed("--help"), usage)
        self.assertEqual(self.succeed("help", "help"), usage)
        for command in "list domains stats info top map history rebalance set version".split():
            self.assertIn(f"\n  {command} ", usage)
            text = self.succeed("help", command)
            self.assertEqual(self.succeed(command, "--help"), text)
            self.assertTrue(text.startswith(f"Usage: vchanctl {command} "))
            self.assertIn("JSON: {", text)
            body = text.split("\n", 1)[1] + usage.split("\n", 1)[1]
            self.assertEqual([line for line in body.split("\n") if len(line) > 80], [])

    def test_a_reader_that_leaves_early_is_no_error(self):
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        process = self.start("help", stdout=writer, restore_signals=False)
        _, err = process.communicate(timeout=20)
        self.assertEqual((process.returncode, err), (-signal.SIGPIPE, ""))

    def test_a_full_disk_is_an_error(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            self.assertEqual(self.run_vchanctl("help", stdout=full), 1)
        self.assertEqual(self.err, "vchanctl: cannot write the output: No space left on device\n")


class Completion(BrokerCase):
    SCRIPT = """
        source /usr/share/bash-completion/bash_completion
        source "$SOURCE/packaging/vchanctl.bash"
        COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMP_KEY=9
        compopt() { :; }  # there is no line editor here
        # as readline does it: the characters of COMP_WORDBREAKS are words of their own
        mapfile -t COMP_WORDS < <(grep -oE '[^ =:]+|[=:]+' <<<"$1")
        [[ $1 == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _vchanctl vchanctl "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """

    def setUp(self):
        if not os.path.exists("/usr/share/bash-completion/bash_completion"):
            self.skipTest("bash-completion is not installed")
        super().setUp()
        self.environment.update(SOURCE=SOURCE, PATH=BIN + os.pathsep + os.environ["PATH"])

    def complete(self, line):
        result = subprocess.run(["bash", "--norc", "-c", self.SCRIPT, "bash", line], env=self.environment,
                                capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(result.stderr, "")
        return result.stdout.split()

    def test_commands_and_options(self):
        self.assertEqual(self.complete("vchanctl re"), ["rebalance", "record"])
        self.assertEqual(self.complete("vchanctl --json do"), ["domains", "domain", "doctor"])
        self.assertEqual(self.complete("vchanctl help hi"), ["history"])
        self.assertEqual(self.complete("vchanctl rebalance --d"), ["--dry-run"])
        self.assertEqual(self.complete("vchanctl list --f"), [])
        self.assertIn("version", self.complete("vchanctl "))
        self.assertEqual(self.complete("vchanctl set ring 0.0 w"), ["weight="])
        self.assertEqual(self.complete("vchanctl top --p"), ["--plain"])

    def test_what_options_take(self):
        self.assertEqual(self.complete("vchanctl top --sort s"), ["stalls", "size"])
        self.assertEqual(self.complete("vchanctl top --sort=tr"), ["traffic"])
        self.assertEqual(self.complete("vchanctl history --outcome="), ["published", "done", "refused"])
        self.assertEqual(self.complete("vchanctl map --by c"), ["channel"])
        self.assertEqual(self.complete("vchanctl top --domain w"), ["web"])
        self.assertEqual(self.complete("vchanctl --color=n"), ["never"])
        self.assertEqual(self.complete("vchanctl top --sort size --pl"), ["--plain"])

    def test_channels_come_from_the_broker(self):
        number, *_ = self.open_channel()
        self.assertEqual(sorted(self.complete("vchanctl stats ")), [str(number), "web:5000"])
        self.assertEqual(self.complete("vchanctl stats web:"), ["5000"])
        self.assertEqual(sorted(self.complete("vchanctl set ring ")),
                         sorted(f"{number}{end}" for end in (".0", ".1", ":server", ":client")))

    def test_domains_come_from_the_broker(self):
        self.assertEqual(sorted(self.complete("vchanctl set domain ")), ["0", "3", "4", "db", "web"])
        self.assertEqual(self.complete("vchanctl set domain web "), ["quota="])

    def test_the_socket_on_the_line_is_asked(self):
        self.environment["VCHAN_RUNTIME_DIR"] = "/nowhere"
        self.assertEqual(self.complete("vchanctl set domain w"), [])
        self.assertEqual(self.complete(f"vchanctl --socket {self.socket_path} set domain w"), ["web"])
        self.assertEqual(self.complete(f"vchanctl --socket={self.socket_path} set domain w"), ["web"])


if __name__ == "__main__":
    need("vchanctl", "vchand")
    unittest.main()
