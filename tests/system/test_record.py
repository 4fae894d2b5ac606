#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A live broker is recorded under load, and its policy replayed; and simulated loads, which are the same twice."""

import json
import os
import re
import subprocess
import time
import unittest

from vchanctl_case import BIN, VchanctlCase, need

BENCH = os.path.join(BIN, "vchan-bench")


class BenchCase(VchanctlCase):
    def sim(self, *arguments):
        return subprocess.run([BENCH, "sim", *arguments], capture_output=True, text=True, timeout=120)

    def sim_json(self, *arguments):
        done = self.sim(*arguments, "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return json.loads(done.stdout)["sim"]


class Record(BenchCase):
    def setUp(self):
        super().setUp()
        self.trace = os.path.join(self.directory, "a.trace")

    def start_broker(self):
        broker = subprocess.Popen([os.path.join(BIN, "vchand")], env=self.environment, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(broker.wait)
        self.addCleanup(broker.terminate)
        deadline = time.monotonic() + 20
        while not os.path.exists(self.socket_path) and time.monotonic() < deadline:
            time.sleep(0.02)
        return broker

    def start_load(self, seconds):
        load = subprocess.Popen([BENCH, "load", "--socket", self.socket_path, "--seconds", str(seconds)],
                                env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
        self.addCleanup(load.wait)
        self.addCleanup(load.terminate)

    def record(self, *arguments):
        self.assertEqual(self.run_vchanctl("record", self.trace, *arguments), 0, self.err)
        self.assertRegex(self.err, r"^\d+ rounds, \d+ bytes\n$")

    def recorded(self):
        self.start_broker()
        recording = self.start("record", self.trace, "--seconds=3")
        self.start_load(2)
        _, said = recording.communicate(timeout=60)
        self.assertEqual(recording.returncode, 0, said)
        with open(self.trace) as file:
            return file.read()

    def test_replay_gives_the_decisions_of_the_live_broker(self):
        text = self.recorded()
        moves = len(re.findall("^decision .* refused=0", text, re.MULTILINE))
        self.assertGreater(moves, 2)
        replay = self.sim_json("--replay", self.trace)
        self.assertEqual(replay["rounds_different"], 0)
        self.assertEqual(replay["moves"], moves)
        self.assertGreater(replay["rounds"], 10)

    def test_replay_finds_a_planted_change(self):
        text = self.recorded()
        with open(self.trace, "w") as file:
            file.write(re.sub(r" pressure_percent=\d+", " pressure_percent=237", text))
        replay = self.sim("--replay", self.trace)
        self.assertEqual(replay.returncode, 1, replay.stdout)
        self.assertRegex(replay.stderr, r"a.trace:\d+: in this round, decision 1\n  recorded: .*\n  replayed: .*")
        self.assertIn("not the same decisions", replay.stdout)

    def test_replay_shows_what_another_policy_would_have_decided(self):
        self.recorded()
        replay = self.sim_json_of_other()
        self.assertGreater(replay["rounds_different"], 0)

    def sim_json_of_other(self):
        done = self.sim("--replay", self.trace, "--policy", "secure-ivshmem", "--json")
        self.assertEqual(done.returncode, 0)
        self.assertIn("active", done.stderr)
        return json.loads(done.stdout)["sim"]

    def test_recorded_load_is_simulated_under_every_policy(self):
        self.recorded()
        rows = self.sim_json("--trace", self.trace)["rows"]
        self.assertEqual([row["policy"] for row in rows], ["static", "secure-ivshmem", "default"])
        self.assertTrue(all(row["received_bytes_per_s"] > 0 for row in rows))

    def test_recording_ends_when_it_is_interrupted(self):
        self.start_broker()
        recording = self.start("record", self.trace)
        self.start_load(1)
        time.sleep(1)
        recording.terminate()
        recording.communicate(timeout=20)
        self.assertEqual(recording.returncode, 0)
        self.assertEqual(self.sim_json("--replay", self.trace)["rounds_different"], 0)

    def test_recording_ends_with_the_broker(self):
        broker = self.start_broker()
        recording = self.start("record", self.trace)
        self.start_load(1)
        time.sleep(1)
        broker.terminate()
        recording.communicate(timeout=20)
        self.assertEqual(recording.returncode, 0)

    def test_a_fifth_recording_is_refused_until_one_ends(self):
        self.start_broker()
        running = [self.start("record", os.path.join(self.directory, f"{i}.trace")) for i in range(4)]
        time.sleep(0.5)
        self.fail_with(1, "4 recordings run already", "record", self.trace)
        for process in running:
            process.terminate()
            process.communicate(timeout=20)
        deadline = time.monotonic() + 10
        while self.run_vchanctl("record", self.trace, "--seconds=0.1") != 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        self.record("--seconds=0.1")

    def test_reader_that_does_not_read_holds_up_nobody(self):
        self.start_broker()
        read_end, write_end = os.pipe()
        recording = self.start("record", "-", stdout=write_end)
        os.close(write_end)
        self.start_load(2)
        time.sleep(1)
        rounds = self.json("info")["rounds"]
        time.sleep(0.5)
        self.assertGreater(self.json("info")["rounds"], rounds)
        recording.kill()
        recording.communicate()
        os.close(read_end)

    def test_only_domain_0_may(self):
        self.start_broker()
        self.fail_with(1, "may not use RECORD", "record", self.trace,
                       environment={**self.environment, "VCHAN_DOMAIN": "3"})

    def test_bad_traces_are_refused_with_their_line(self):
        for text, said in (("", "a.trace:1: this is no trace"),
                           ("vchan-trace 1\nconfig policy=default\nring 5\n", 'a.trace:3: "ring" outside of a round'),
                           ("vchan-trace 7\n", "a.trace:1: a trace of version 7"),
                           ("vchan-trace 1\n", "there is no whole round in it")):
            with open(self.trace, "w") as file:
                file.write(text)
            for option in ("--replay", "--trace"):
                done = self.sim(option, self.trace)
                self.assertEqual(done.returncode, 1)
                if option == "--replay" or "whole" not in said:
                    self.assertIn(said, done.stderr)
        self.assertIn("No such file", self.sim("--replay", "/none").stderr)


class Simulator(BenchCase):
    MEASURED = ("round_p50_us", "round_max_us", "pressing_p50_us")

    def rows(self, *arguments):
        rows = self.sim_json("--rings", "200", "--seconds", "3", *arguments)["rows"]
        return [{key: value for key, value in row.items() if key not in self.MEASURED} for row in rows]

    def test_same_seed_gives_the_same_figures(self):
        first = self.rows()
        self.assertEqual(len(first), 15)
        self.assertEqual(self.rows(), first)
        self.assertNotEqual(self.rows("--seed", "2"), first)

    def test_constant_load_comes_to_rest(self):
        (row,) = self.rows("--load", "constant", "--policy", "default")
        self.assertEqual(row["late_moves"], 0)

    def test_default_policy_pays_on_bursts_and_costs_nothing_on_even_load(self):
        for load, most in (("bursty", 0.5), ("uniform", 1.05)):
            rows = self.sim_json("--rings", "1000", "--seconds", "20", "--load", load)["rows"]
            by_policy = {row["policy"]: row for row in rows}
            self.assertLessEqual(by_policy["default"]["stall_of_static"], most, load)
            self.assertGreaterEqual(by_policy["default"]["fairness"], 0.95, load)

    def test_table_is_written_as_comma_separated_values(self):
        path = os.path.join(self.directory, "a.csv")
        self.rows("--load", "bursty", "--csv", path)
        with open(path) as file:
            lines = file.read().splitlines()
        self.assertEqual(len(lines), 4)
        self.assertEqual({line.count(",") for line in lines}, {18})

    def test_wrong_arguments_are_refused(self):
        for arguments, said in ((("--policy", "best"), "default, static"), (("--load", "odd"), "bursty"),
                                (("--rings", "0"), "from 2 to 200000"), (("--region", "3X"), "size"), (("x",), "none")):
            done = self.sim(*arguments)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertIn(said, done.stderr)


if __name__ == "__main__":
    need("vchand", "vchanctl", "vchan-bench")
    unittest.main()
