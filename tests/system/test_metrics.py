#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The metrics of a real vchand: are they OpenMetrics, are they true, and what can those who ask do to the
broker (nothing). Also: does the memory of the region follow what is in use."""

import http.client
import json
import os
import re
import resource
import shutil
import socket
import stat
import subprocess
import time
import unittest

import openmetrics
from broker_case import BIN, CONFIGURATION, K, BrokerCase, TrafficCase
from vchanctl_case import SOURCE, need

RINGS_MAX = 1000
CONNECTIONS_MAX = 16
IDLE_S = 5
CONNECTION_S = 20


class UnixHttp(http.client.HTTPConnection):
    def __init__(self, path, timeout=20):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def free_port(family=socket.AF_INET, host="127.0.0.1"):
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


class MetricsCase(BrokerCase):
    def setUp(self):
        super().setUp()
        self.metrics_path = os.path.join(self.directory, "metrics.sock")

    def request(self, method="GET", url="/metrics", connection=None, **arguments):
        connection = connection or UnixHttp(self.metrics_path)
        try:
            connection.request(method, url, **arguments)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def scrape(self, connection=None):
        """What is told now: an answer is given again for a quarter of a second."""
        time.sleep(0.3)
        response, body = self.request(connection=connection)
        self.assertEqual((response.status, response.getheader("Content-Type")), (200, openmetrics.CONTENT_TYPE))
        return openmetrics.parse(body)

    def value(self, families, family, **labels):
        """Of the one sample of the family with these labels, among others."""
        wanted = {(key, str(value)) for key, value in labels.items()}
        found = [value for pairs, value in families[family].samples.items() if wanted <= set(pairs)]
        self.assertEqual(len(found), 1, f"{family} {labels}: {families[family].samples}")
        return found[0]


class Checker(unittest.TestCase):
    """A check that cannot fail is none."""

    GOOD = b'# TYPE a_bytes counter\n# UNIT a_bytes bytes\n# HELP a_bytes A.\na_bytes_total{b="c\\n\\"\\\\"} 1.5\n# EOF\n'

    def test_what_is_right_is_read(self):
        family = openmetrics.parse(self.GOOD)["a_bytes"]
        self.assertEqual((family.type, family.unit, family.samples), ("counter", "bytes", {(("b", 'c\n"\\'),): 1.5}))

    def test_what_is_wrong_is_refused(self):
        for old, new in ((b"# EOF\n", b""), (b"# EOF\n", b"# EOF"), (b"# EOF\n", b"\n# EOF\n"),
                         (b"# UNIT a_bytes bytes", b"# UNIT a_bytes byte"), (b"_total", b""),
                         (b'"} 1', b'",} 1'), (b'\\"', b'\\x'), (b'{b', b'{b="d",b'), (b"1.5", b"-1"),
                         (b"1.5", b"many"), (b"counter", b"count"), (b"# TYPE a_bytes counter\n", b""),
                         (b"# HELP a_bytes A.\n", b""), (b"\na_bytes_total", b"\nother_total"),
                         (b"# EOF", b'a_bytes_total{b="c\\n\\"\\\\"} 2\n# EOF'),
                         (b"# EOF", b"# TYPE a_bytes gauge\n# EOF"), (b"# EOF", b"# HELP a_bytes B.\n# EOF"),
                         (b"c\\n", b"\xff")):
            text = self.GOOD.replace(old, new, 1)
            self.assertNotEqual(text, self.GOOD)
            with self.assertRaises(ValueError, msg=text):
                openmetrics.parse(text)


class WhatIsTold(MetricsCase):
    configuration = CONFIGURATION + "[domain a-name-with.dots]\nid = 9\n"

    def test_an_idle_broker_tells_openmetrics(self):
        families = self.scrape()
        self.assertEqual(dict(next(iter(families["vchan_broker"].samples)))["policy"], "default")
        self.assertEqual(self.value(families, "vchan_rings"), 0)
        self.assertEqual(self.value(families, "vchan_domain_quota_bytes", name="db"), 8 * K * K)
        self.assertEqual(self.value(families, "vchan_domain_held_bytes", domain=9, name="a-name-with.dots"), 0)
        self.assertEqual(self.value(families, "vchan_zone_region_bytes", zone="default"), 32 * K * K)
        self.assertGreater(self.value(families, "vchan_uptime_seconds"), 0)

    def test_the_figures_are_those_of_vchanctl(self):
        number, *_ = self.open_channel(receive_min=64 * K)
        self.succeed("set", "ring", f"{number}.0", "size=1M", "min=1M")
        self.wait_until(lambda: not self.ring(number, 0)["moving"], "the ring goes on moving")
        families, info = self.scrape(), self.json("info")
        for name, key in (("vchan_channels", "channels"), ("vchan_channels_max", "channels_max"),
                          ("vchan_ends_opened", "opens"), ("vchan_rebalance_moves", "moves"),
                          ("vchan_zone_free_bytes", "free_bytes"),
                          ("vchan_zone_data_bytes", "data_bytes"), ("vchan_zone_resident_bytes", "resident_bytes"),
                          ("vchan_zone_largest_free_bytes", "largest_free_bytes")):
            self.assertEqual(self.value(families, name), info[key], name)
        ring = self.ring(number, 0)
        labels = {"channel": number, "ring": 0, "sender": "web", "receiver": "db", "port": 5000, "zone": "default"}
        self.assertEqual(self.value(families, "vchan_ring_size_bytes", **labels), K * K)
        self.assertEqual(self.value(families, "vchan_ring_size_bytes", channel=number, ring=1), 64 * K)
        self.assertEqual(self.value(families, "vchan_ring_resizes", **labels), ring["resizes"])
        self.assertEqual(self.value(families, "vchan_domain_held_bytes", name="web"), K * K)
        self.assertEqual(self.value(families, "vchan_domain_channels", name="db"), 1)
        self.assertAlmostEqual(self.value(families, "vchan_zone_fragmentation_ratio"),
                               1 - info["largest_free_bytes"] / info["free_bytes"], places=3)

    def test_series_of_a_closed_channel_end(self):
        _, server, client = self.open_channel()
        self.assertEqual(len(self.scrape()["vchan_ring_size_bytes"].samples), 2)
        server.close()
        client.close()
        self.wait_until(lambda: self.json("list") == {"channels": []}, "the channel stays")
        self.assertEqual(self.scrape()["vchan_ring_size_bytes"].samples, {})

    def test_of_many_rings_a_thousand_are_told(self):
        for port in range(RINGS_MAX // 2 + 3):
            self.connect(3).open_channel(4, port, 1)
        families = self.scrape()
        self.assertEqual(len(families["vchan_ring_size_bytes"].samples), RINGS_MAX)
        self.assertEqual(self.value(families, "vchan_rings"), RINGS_MAX + 6)
        self.assertEqual(self.value(families, "vchan_rings_left_out"), 6)

    def told(self):
        return {name + {"counter": "_total", "info": "_info"}.get(family.type, "")
                for name, family in self.scrape().items()}

    def test_the_manual_lists_what_is_told_and_nothing_else(self):
        with open(os.path.join(SOURCE, "docs/man/vchand.8"), encoding="utf-8") as file:
            self.assertEqual(set(re.findall(r"\bvchan_\w+", file.read())), self.told())

    def test_grafana_shows_only_what_is_told(self):
        with open(os.path.join(SOURCE, "packaging/grafana/vchan.json"), encoding="utf-8") as file:
            dashboard = json.load(file)
        queries = []

        def collect(node):
            if isinstance(node, dict):
                queries.extend(value for key, value in node.items()
                               if key in ("expr", "query", "definition") and isinstance(value, str))
                node = list(node.values())
            for child in node if isinstance(node, list) else []:
                collect(child)
        collect(dashboard)
        used = set(re.findall(r"\bvchan_\w+", " ".join(queries)))
        self.assertGreater(len(used), 20)
        self.assertEqual(used - self.told(), set())


class Traffic(MetricsCase, TrafficCase):
    def test_counters_are_those_of_the_traffic(self):
        server, _ = self.open_ends()
        self.library.libvchan_send(server, b"x" * 1000, 1000)
        families = self.scrape()
        self.assertEqual(self.value(families, "vchan_ring_sent_bytes", sender="web", ring=0), 1000)
        self.assertEqual(self.value(families, "vchan_ring_held_bytes", sender="web", ring=0), 1000)
        self.assertEqual(self.value(families, "vchan_ring_sent_operations", sender="web", ring=0), 1)
        self.assertEqual(self.value(families, "vchan_ring_sent_bytes", sender="db", ring=1), 0)

    def test_the_rings_that_sent_most_are_those_told(self):
        for port in range(1000, 1000 + RINGS_MAX // 2 + 2):
            self.connect(5).open_channel(6, port, 1)
        server, _ = self.open_ends()  # it has the highest number
        self.library.libvchan_send(server, b"x" * 1000, 1000)
        families = self.scrape()
        self.assertGreater(self.value(families, "vchan_rings_left_out"), 0)
        self.assertEqual(self.value(families, "vchan_ring_sent_bytes", sender="web", ring=0), 1000)


class Http(MetricsCase):
    @property
    def configuration(self):
        self.port = free_port()
        return CONFIGURATION + f"[metrics]\nhttp = 127.0.0.1:{self.port}\n"

    def loopback(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def test_both_ways_tell_the_same(self):
        self.assertEqual(set(self.scrape()), set(self.scrape(self.loopback())))

    def test_other_pages_and_methods_are_refused(self):
        for method, url, status in (("GET", "/", 404), ("GET", "/metrics/", 404), ("GET", "//metrics", 404),
                                    ("GET", "/metrics?x=y", 200), ("POST", "/metrics", 405),
                                    ("HEAD", "/metrics", 405), ("DELETE", "/metrics", 405), ("PUT", "/x", 404)):
            for connection in self.loopback(), None:
                response, _ = self.request(method, url, connection)
                self.assertEqual(response.status, status, (method, url))
                if status == 405:
                    self.assertEqual(response.getheader("Allow"), "GET")
        self.assertEqual(self.json("info")["zones"], 1)

    def test_the_socket_is_for_those_who_may_use_the_broker(self):
        modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (self.metrics_path, self.socket_path)]
        self.assertEqual(modes[0], modes[1])

    def test_it_listens_on_loopback_alone(self):
        with open("/proc/net/tcp", encoding="ascii") as file:
            listening = [line.split()[1] for line in file if line.split()[3] == "0A"]
        self.assertEqual([address.split(":")[0] for address in listening if int(address.split(":")[1], 16) == self.port],
                         ["0100007F"])

    def test_the_socket_goes_with_the_broker(self):
        self.assertTrue(os.path.exists(self.metrics_path))
        self.stop_broker()
        self.assertFalse(os.path.exists(self.metrics_path))

    def test_prometheus_own_tool_has_nothing_to_say(self):
        if not shutil.which("promtool"):
            self.skipTest("promtool is not installed")
        _, body = self.request()
        result = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
        self.assertEqual(result.returncode, 0, result.stderr + result.stdout)


class HttpOfVersion6(MetricsCase):
    @property
    def configuration(self):
        try:
            self.port = free_port(socket.AF_INET6, "::1")
        except OSError:
            self.skipTest("there is no [::1] here")
        return CONFIGURATION + f"[metrics]\nhttp = [::1]:{self.port}\n"

    def test_it_is_served(self):
        self.scrape(http.client.HTTPConnection("::1", self.port, timeout=20))


class Hostile(MetricsCase):
    """Whoever may connect may do this."""

    def connect_raw(self):
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.settimeout(30)
        connection.connect(self.metrics_path)
        return connection

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.broker.pid}/fd"))

    def test_those_who_say_nothing_are_sent_away_and_others_are_served(self):
        before = self.descriptors()
        silent = [self.connect_raw() for _ in range(2 * CONNECTIONS_MAX - 1)]
        start = time.monotonic()
        self.assertEqual(self.json("info")["zones"], 1)
        self.assertLess(time.monotonic() - start, 1)
        self.assertLessEqual(self.descriptors(), before + CONNECTIONS_MAX + 2)
        self.assertEqual(silent[0].recv(1), b"")
        self.assertLess(time.monotonic() - start, IDLE_S + 3)
        self.assertEqual(self.value(self.scrape(), "vchan_rings"), 0)
        self.assertEqual(silent[-1].recv(1), b"")
        for connection in silent:
            connection.close()
        self.wait_until(lambda: self.descriptors() <= before, "descriptors are kept")

    def test_those_who_speak_byte_by_byte_are_sent_away_too(self):
        connection, start = self.connect_raw(), time.monotonic()
        connection.settimeout(1)
        with self.assertRaises((BrokenPipeError, ConnectionResetError, EOFError)):
            for byte in b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 3600:
                connection.send(bytes([byte]))
                try:
                    if not connection.recv(1):
                        raise EOFError
                except TimeoutError:
                    pass
                self.assertLess(time.monotonic() - start, CONNECTION_S + 3)
        self.assertGreater(time.monotonic() - start, CONNECTION_S - 3)

    def test_rubbish_and_endless_headers_are_refused(self):
        for text in (b"\0" * 9000, b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 20000, b"GET /" + b"a" * 100000,
                     b"\r\n" * 10000, b"GET /metrics\r\n\r\n", b"POST /metrics HTTP/1.1\r\nHost: x\r\n"
                     b"Content-Length: 99999999999999999999\r\n\r\n"):
            connection = self.connect_raw()
            try:
                connection.sendall(text)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                pass
            connection.close()
        self.assertEqual(self.value(self.scrape(), "vchan_rings"), 0)

    def test_a_reader_that_does_not_read_holds_nobody_up(self):
        for port in range(300):
            self.connect(3).open_channel(4, port, 1)
        for _ in range(4):
            self.connect_raw().sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        start = time.monotonic()
        self.scrape()
        self.assertEqual(self.json("info")["channels"], 300)
        self.assertLess(time.monotonic() - start, 3)

    def seconds(self):
        """Of CPU that the broker has used."""
        with open(f"/proc/{self.broker.pid}/stat", encoding="ascii") as file:
            return sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    def test_without_a_free_descriptor_nobody_is_let_in_and_nothing_spins(self):
        used = {int(name) for name in os.listdir(f"/proc/{self.broker.pid}/fd")}
        free = next(number for number in range(len(used) + 1) if number not in used)
        limits = resource.prlimit(self.broker.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.broker.pid, resource.RLIMIT_NOFILE, (free, limits[1]))
        waiting = self.connect_raw()
        before = self.seconds()
        time.sleep(2)
        self.assertLess(self.seconds() - before, 0.3)
        resource.prlimit(self.broker.pid, resource.RLIMIT_NOFILE, limits)
        waiting.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIn(b"200 OK", waiting.recv(100))

    def test_a_broker_that_is_asked_in_a_hurry_answers_from_memory(self):
        for port in range(400):
            self.connect(3).open_channel(4, port, 1)
        bodies = {self.request()[1] for _ in range(60)}
        self.assertLess(len(bodies), 30)
        self.assertLess(self.seconds(), 20)


class Configured(MetricsCase):
    def check(self, text):
        path = os.path.join(self.directory, "check.conf")
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return subprocess.run([os.path.join(BIN, "vchand"), "--check-config", "-c", path], capture_output=True,
                              text=True, check=False, env=self.environment)

    def test_addresses_beyond_loopback_are_refused(self):
        for address in ("0.0.0.0:9777", "192.168.1.1:9777", "[::]:9777", "localhost:9777", "127.0.0.1", ":9777",
                        "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.2:80", "[::1]"):
            result = self.check(f"[metrics]\nhttp = {address}\n")
            self.assertEqual(result.returncode, 2, address)
            self.assertRegex(result.stderr, r"check.conf:2: http: .*loopback address")
        for address in "127.0.0.1:9777", "[::1]:9777":
            self.assertEqual(self.check(f"[metrics]\nhttp = {address}\n").returncode, 0)


class SwitchedOff(MetricsCase):
    configuration = CONFIGURATION + "[metrics]\nsocket = no\n"

    def test_there_is_no_socket(self):
        self.assertFalse(os.path.exists(self.metrics_path))
        self.assertEqual(self.json("info")["zones"], 1)


class PortTaken(MetricsCase):
    @property
    def configuration(self):
        self.holder = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.holder.close)
        return CONFIGURATION + f"[metrics]\nhttp = 127.0.0.1:{self.holder.getsockname()[1]}\n"

    def test_the_broker_serves_without_and_says_so(self):
        self.assertEqual(self.json("info")["zones"], 1)
        self.scrape()
        self.log.seek(0)
        self.assertRegex(self.log.read(), r"warning: no metrics on http://127\.0\.0\.1:\d+: Address already in use")


class Resident(BrokerCase):
    """The host spends memory on what is in use: data, a page a channel, the header. Nothing else stays."""

    def assert_resident_follows(self):
        def figures():
            info = self.json("info")
            used = info["data_bytes"] - info["free_bytes"]
            return used, info["resident_bytes"] - used - (info["channels"] + 1) * 4 * K

        self.wait_until(lambda: 0 <= figures()[1] <= 64 * K,
                        f"in use and resident beyond that, after 20 s: {figures()}")
        return figures()[0]

    def test_resident_memory_follows_what_is_in_use(self):
        self.assertEqual(self.assert_resident_follows(), 0)
        channels = [self.open_channel(3, 5, port) for port in range(20)]
        self.assert_resident_follows()
        for number, *_ in channels:
            self.succeed("set", "ring", f"{number}.0", "size=1M", "min=1M")
        self.wait_until(lambda: all(r["size_bytes"] == K * K for r in self.json("stats")["rings"] if r["ring"] == 0),
                        "the rings do not grow")
        self.assertGreaterEqual(self.assert_resident_follows(), 20 * K * K)
        for number, *_ in channels:
            self.succeed("set", "ring", f"{number}.0", "min=4K", "size=4K")
        self.wait_until(lambda: self.assert_resident_follows() <= 20 * 2 * 4 * K, "the rings do not shrink")
        for _, server, client in channels:
            server.close()
            client.close()
        self.wait_until(lambda: self.assert_resident_follows() == 0, "memory of closed channels stays")


if __name__ == "__main__":
    need("vchanctl", "vchand")
    unittest.main()
