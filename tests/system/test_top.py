#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vchanctl top: what stands on the screen of a real terminal (tmux's), with a real broker and with one that
says it has 10,000 rings; and its lines where there is no terminal."""

import errno
import fcntl
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import unittest

import control_protocol as proto
from broker_case import K, BrokerCase, TrafficCase
from control_protocol import BrokerInfo, Decision, DomainInfo, RingInfo, ScriptedBroker
from vchanctl_case import VCHANCTL, VchanctlCase, need


class Terminal:
    """A terminal of tmux in which one vchanctl runs."""

    def __init__(self, case, *arguments, size=(120, 30), **environment):
        self.case = case
        self.socket = os.path.join(case.directory, f"tmux-{id(self):x}")
        environment = {**case.environment, **environment}
        words = ["env", "-i", *(f"{key}={environment[key]}" for key in
                                ("VCHAN_RUNTIME_DIR", "LC_ALL", "TZ", "PATH", "VCHAN_DOMAIN", "NO_COLOR",
                                 "ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS") if key in environment),
                 "TERM=" + environment.get("TOP_TERM", "screen-256color"), VCHANCTL, "top", *arguments]
        self.tmux("-u", "-f", "/dev/null", "new-session", "-d", "-x", str(size[0]), "-y", str(size[1]),
                  f"{shlex.join(words)}; echo code=$?; exec sleep 600")
        case.addCleanup(self.tmux, "kill-server", check=False)

    def tmux(self, *arguments, check=True):
        return subprocess.run(["tmux", "-S", self.socket, *arguments], check=check, capture_output=True, text=True,
                              env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"}).stdout

    def screen(self):
        return self.tmux("capture-pane", "-p").rstrip("\n").split("\n")

    def type(self, *keys):
        self.tmux("send-keys", *keys)

    def resize(self, width, height):
        self.tmux("resize-window", "-x", str(width), "-y", str(height))

    def wait(self, pattern, seconds=10, missing=False):
        """Until the pattern is on the screen (missing: no longer is); returns the screen."""
        end = time.monotonic() + seconds
        while True:
            screen = self.screen()
            if bool(re.search(pattern, "\n".join(screen), re.MULTILINE)) != missing:
                return screen
            if time.monotonic() > end:
                self.case.fail(f"{pattern!r} is {'' if missing else 'not '}there:\n" + "\n".join(screen))
            time.sleep(0.05)

    def rings(self):
        """The first words of the lines between the titles of rings and moves."""
        screen = self.screen()
        first = next(i for i, line in enumerate(screen) if line.strip().startswith("RING "))
        last = next((i for i, line in enumerate(screen) if line.startswith("MOVES")), len(screen))
        return [line.split()[0] for line in screen[first + 1:last] if line.strip()]


class OnATerminal(BrokerCase):
    def test_header_rings_and_moves_are_there(self):
        number, *_ = self.open_channel()
        self.succeed("set", "ring", f"{number}.0", "size=1M", "min=1M")
        terminal = Terminal(self, "--interval=0.2")
        terminal.wait(r"-> 1 MiB  done in [0-9.]+ [mu]?s \(command\): .")
        screen = "\n".join(terminal.wait(r"\.\d/s\), moves"))
        self.assertRegex(screen, r"\Avchan \d\d:\d\d:\d\d\.\d+  up [0-9.]+ \S+  policy default  broker \d")
        self.assertRegex(screen, r"(?m)^channels 1, rings 2, stalled 0, sent ")
        self.assertRegex(screen, r"(?m)^memory \[= *\] 1 MiB used, 22\.9 MiB free, 1 MiB resident of 32 MiB, largest run")
        self.assertRegex(screen, rf"(?m)^ +{number}\.0 web +db +5000 +0 +0 +0\.0 +0\.0 +0 +1 MiB +4\.2% =+$")
        self.assertRegex(screen, rf"(?m)^ +{number}\.1 db +web +5000 .* 4 KiB +0\.0% =$")
        self.assertRegex(screen, rf"(?m)^\d\d:\d\d:\d\d\.\d+  {number}\.0 web->db:5000  4 KiB -> 1 MiB  done in ")

    def test_q_gives_the_terminal_back(self):
        terminal = Terminal(self)
        terminal.wait("^MOVES: none yet")
        terminal.type("q")
        screen = terminal.wait("code=0")
        self.assertEqual([line for line in screen if "rounds" in line], [])

    def test_signals_give_the_terminal_back_too(self):
        terminal = Terminal(self)
        terminal.wait("^MOVES: none yet")
        terminal.type("C-c")
        terminal.wait("code=0")

    def test_keys_sort_reverse_filter_and_pause(self):
        first, *_ = self.open_channel(3, 4, 1)
        second, *_ = self.open_channel(5, 4, 2)
        self.succeed("set", "ring", f"{second}.1", "size=64K", "min=64K")
        terminal = Terminal(self, "--interval=0.1")
        terminal.wait("64 KiB")
        terminal.type("z")
        terminal.wait("^by size: 1-4 of 4 rings")
        self.assertEqual(terminal.rings(), [f"{second}.1", f"{first}.0", f"{first}.1", f"{second}.0"])
        terminal.type("r")
        terminal.wait("^by size, least first")
        self.assertEqual(terminal.rings()[-1], f"{second}.1")
        terminal.type("r", "d", "web", "Enter")
        terminal.wait(r"^by size, domain web: 1-2 of 2 \(4 in all\) rings")
        self.assertEqual(terminal.rings(), [f"{first}.0", f"{first}.1"])
        terminal.type("d", "nobody", "Enter")
        terminal.wait("^nobody: no such domain")
        terminal.type("d", "5x", "BSpace", "Enter")
        terminal.wait(r"^by size, domain 5: 1-2 of 2 \(4")
        terminal.type("d", "Enter", "s")
        terminal.wait("^by stalls: 1-4 of 4 rings")
        terminal.type("p")
        paused = terminal.wait("PAUSED")
        time.sleep(0.5)
        self.assertEqual(terminal.screen(), paused)
        terminal.type("p", "?")
        terminal.wait("^q +quit")
        terminal.type("?")
        terminal.wait("^q +quit", missing=True)

    def test_options_set_what_keys_set(self):
        self.open_channel(3, 4, 1)
        self.open_channel(5, 4, 2)
        terminal = Terminal(self, "--sort=held", "--domain=web")
        terminal.wait(r"^by held, domain web: 1-2 of 2 \(4 in all\) rings")

    def test_it_waits_for_a_broker_that_goes_and_comes(self):
        self.open_channel()
        terminal = Terminal(self, "--interval=0.2")
        terminal.wait("rings 2,")
        self.stop_broker()
        screen = "\n".join(terminal.wait("NO BROKER"))
        self.assertIn(f"{self.socket_path}: ", screen)
        terminal.wait("No such file or directory|Connection refused|Connection reset")
        terminal.wait("trying again every 0.2 s")
        self.start_broker()
        terminal.wait("rings 0, stalled 0")
        terminal.wait("NO BROKER", missing=True)
        terminal.type("q")
        terminal.wait("code=0")

    def test_a_broker_that_hangs_does_not_hold_up_the_keys(self):
        terminal = Terminal(self, "--interval=0.1")
        terminal.wait("^MOVES: none yet")
        self.broker.send_signal(signal.SIGSTOP)
        try:
            time.sleep(0.5)
            terminal.type("z")
            terminal.wait("^by size", seconds=2)
            terminal.type("q")
            terminal.wait("code=0", seconds=2)
        finally:
            self.broker.send_signal(signal.SIGCONT)

    def test_any_size_of_the_terminal_will_do(self):
        for port in range(20):
            self.open_channel(3, 4, port)
        terminal = Terminal(self, "--interval=0.1")
        terminal.wait("of 40 rings")
        for width, height in (200, 60), (300, 10), (80, 24), (60, 12), (40, 8), (30, 5), (20, 3), (5, 2), (1, 1), (80, 24):
            terminal.resize(width, height)
            time.sleep(0.3)
            self.assertNotIn("code=", "\n".join(terminal.screen()))
        screen = terminal.wait("of 40 rings")
        self.assertEqual(len(terminal.rings()), int(re.search(r": 1-(\d+) of", "\n".join(screen))[1]))
        terminal.type("End")
        terminal.wait(r"-40 of 40 rings")
        terminal.type("Home", "Down", "Down")
        terminal.wait(r": 3-\d+ of 40 rings")
        terminal.type("NPage", "PPage", "Up")
        terminal.wait(r": 2-\d+ of 40 rings")

    def test_another_domain_sees_its_own_and_no_moves(self):
        self.open_channel(3, 4, 1)
        self.open_channel(5, 6, 2)
        terminal = Terminal(self, VCHAN_DOMAIN="4")
        terminal.wait("^MOVES: only domain 0 may see them")
        self.assertEqual(len(terminal.rings()), 2)

    def test_without_a_known_terminal_it_prints_lines(self):
        if not os.environ.get("VCHAN_SANITIZE"):  # ncurses leaks when it does not know the terminal
            terminal = Terminal(self, "--count=1", TOP_TERM="no-such-terminal")
            terminal.wait("code=0")
            self.assertIn("MOVES: none yet", terminal.screen())
        terminal = Terminal(self, "--count=2", "--interval=0.1", TOP_TERM="dumb")
        terminal.wait("code=0")
        self.assertEqual(terminal.screen().count("MOVES: none yet"), 2)

    def test_count_ends_it(self):
        terminal = Terminal(self, "--count=2", "--interval=0.1")
        terminal.wait("code=0")


class WithTraffic(TrafficCase):
    def test_the_busiest_ring_comes_first_with_its_rate_and_stall(self):
        quiet, *_ = self.open_channel(3, 4, 9)
        self.succeed("rebalance")
        server, _ = self.open_ends()
        number = next(c["channel"] for c in self.json("list")["channels"] if c["port"] == 7)
        self.succeed("set", "ring", f"{number}.0", "max=4K")
        terminal = Terminal(self, "--interval=0.3")
        terminal.wait("of 4 rings")
        self.library.libvchan_write(server, b"x" * 4000, 4000)
        terminal.wait(rf"^ +{number}\.0 web +db +7 +[1-9]", seconds=3)
        self.assertEqual(terminal.rings()[0], f"{number}.0")
        screen = "\n".join(terminal.wait(rf"^ +{number}\.0 .* 3\.9 KiB +4 KiB +0\.0% #+=?$"))
        self.assertIn(f" {quiet}.0 web", screen)


def big_broker(path, count):
    """A broker with that many rings, whose answers are made beforehand."""
    broker = ScriptedBroker(path)
    rings = [RingInfo(channel=i // 2, ring=i % 2, sender_domain=i % 50, receiver_domain=50, port=i, channel_state=2,
                      generation=1, size_bytes=4 * K * (1 + i % 64), bytes_held=K * (i % 5), bytes_sent=i * 1000)
             for i in range(count)]
    per_page = (proto.MESSAGE_BYTES_MAX - 32) // RingInfo.SIZE
    pages = {}
    for start in range(0, count, per_page):
        part = rings[start:start + per_page]
        following = start + per_page if start + per_page < count else 0
        pages[start] = (proto.LIST_REPLY.pack(len(part), RingInfo.SIZE, following) +
                        b"".join(ring.pack() for ring in part))
    broker.answers[proto.LIST_RINGS] = lambda body: pages[proto.LIST.unpack(body)[0]]
    broker.list(proto.LIST_DOMAINS, [DomainInfo(domain=i, name=f"døm{i}".encode()) for i in range(51)])
    broker.list(proto.LIST_HISTORY, [Decision(number=1, outcome=4, trigger=b"period", reason="für nichts".encode())])
    info = BrokerInfo(version=b"0.1.0", policy=b"default", region_bytes=2**30, data_bytes=2**30, free_bytes=2**29,
                      largest_free_bytes=2**28, resident_bytes=2**29, channels=count // 2)
    broker.answers[proto.BROKER_INFO] = lambda body: info.pack()
    return broker


class ManyRings(VchanctlCase):
    COUNT = 10000

    def setUp(self):
        super().setUp()
        self.addCleanup(big_broker(self.socket_path, self.COUNT).close)

    def test_ten_thousand_rings_do_not_make_it_lag(self):
        terminal = Terminal(self, "--interval=0.2")
        terminal.wait(f"of {self.COUNT} rings")
        self.assertEqual(terminal.rings()[0], f"{self.COUNT // 2 - 1}.1")
        for key, text in (("z", "by size"), ("b", "by held"), ("t", "by traffic"), ("End", f"-{self.COUNT} of")):
            start = time.monotonic()
            terminal.type(key)
            terminal.wait(text, seconds=2)
            self.assertLess(time.monotonic() - start, 1)

    def on_pty(self, size, seconds):
        """What it writes to a terminal on which nothing changes but the time."""
        pid, master = pty.fork()
        if pid == 0:
            os.execve(VCHANCTL, [VCHANCTL, "top", "--interval=0.2"], self.environment)
        self.addCleanup(os.close, master)
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        parts, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([master], [], [], left)[0]:
                parts.append((time.monotonic() - (end - seconds), os.read(master, 65536)))
        os.write(master, b"q")
        with self.assertRaises(OSError):  # the terminal's end
            while os.read(master, 65536):
                pass
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        return parts

    def test_it_writes_only_what_has_changed(self):
        parts = self.on_pty((40, 120), 4)
        later = b"".join(data for when, data in parts if when > 2)
        self.assertNotIn(b"\033[2J", later)
        self.assertNotIn(b"\033[J", later)
        # 40 lines of 120 columns are 4800 bytes a sample, and there are five a second.
        self.assertGreater(len(later), 10)
        self.assertLess(len(later), 2000)

    def test_other_locales_get_what_they_can_show(self):
        terminal = Terminal(self, LC_ALL="C.UTF-8")
        terminal.wait(" døm49 ")
        terminal.wait("für nichts")
        terminal = Terminal(self, LC_ALL="C")
        terminal.wait(r" d\?m49 ")
        terminal.wait(r"f\?r nichts")

    def test_columns_stay_aligned_with_such_names(self):
        terminal = Terminal(self)
        screen = terminal.wait(" døm49 ")
        title = next(line for line in screen if line.strip().startswith("RING "))
        row = next(line for line in screen if "døm49" in line)
        self.assertEqual(row.index("døm49"), title.index("SENDER"))
        self.assertEqual(row.index("døm50"), title.index("RECEIVER"))


class Lines(BrokerCase):
    def test_plain_is_a_block_a_sample(self):
        number, *_ = self.open_channel()
        out = self.succeed("top", "--plain", "--count=2", "--interval=0.1")
        self.assertEqual(out.count("\nchannels 1, rings 2"), 2)
        self.assertRegex(out, rf"(?m)^ +{number}\.0 web +db +5000 +- +- +4 KiB =+$")
        self.assertRegex(out, rf"(?m)^ +{number}\.0 web +db +5000 +0 +0\.0 +4 KiB =+$")
        self.assertEqual([line for line in out.split("\n") if len(line) > 80 or line.endswith(" ")], [])
        self.assertNotIn("\033", out)

    def test_where_there_is_no_terminal_it_is_plain(self):
        self.assertIn("MOVES: none yet", self.succeed("top", "--count=1"))

    def test_lines_bound_the_rings(self):
        for port in range(15):
            self.open_channel(3, 4, port)
        self.assertIn("1-20 of 30 rings", self.succeed("top", "--count=1"))
        self.assertIn("1-30 of 30 rings", self.succeed("top", "--count=1", "--lines=0"))
        self.assertIn("1-3 of 30 rings", self.succeed("top", "--count=1", "--lines=3"))

    def test_json_is_an_object_a_sample(self):
        number, *_ = self.open_channel()
        self.succeed("set", "ring", f"{number}.1", "size=64K", "min=64K")
        samples = [json.loads(line) for line in
                   self.succeed("top", "--json", "--count=2", "--interval=0.1", "--sort=size").splitlines()]
        self.assertEqual([s["error"] for s in samples], [0, 0])
        self.assertEqual([(r["channel"], r["ring"]) for r in samples[0]["rings"]], [(number, 1), (number, 0)])
        self.assertNotIn("bytes_per_second", samples[0]["rings"][0])
        self.assertEqual(samples[1]["rings"][0]["stall_permille"], 0)
        self.assertEqual(samples[1]["decisions"][-1]["to_bytes"], 64 * K)

    def test_a_broker_that_goes_is_waited_for(self):
        process = self.start("top", "--json", "--interval=0.1")
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.assertEqual(json.loads(process.stdout.readline())["error"], 0)
        self.stop_broker()
        while json.loads(process.stdout.readline())["error"] not in (errno.ENOENT, errno.ECONNREFUSED):
            pass
        self.start_broker()
        while json.loads(process.stdout.readline())["error"] != 0:
            pass

    def test_wrong_options_are_refused(self):
        self.fail_with(2, "--sort=name: it is traffic, stalls, size or held", "top", "--sort=name")
        self.fail_with(2, "--count=0: a number from 1", "top", "--count=0")
        self.fail_with(2, "--interval=0.01: seconds from 0.05 to 86400", "top", "--interval=0.01")
        self.fail_with(2, "top does not take --watch", "top", "--watch")
        self.fail_with(2, "info does not take --plain", "info", "--plain")
        self.fail_with(1, "nobody", "top", "--domain=nobody")


if __name__ == "__main__":
    need("vchanctl", "vchand")
    if not shutil.which("tmux"):
        print("tmux is not installed")
        sys.exit(77)
    unittest.main()
