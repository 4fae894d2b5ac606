#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vchanfs: the tree that it shows, its statistics, how it starts and ends, and what becomes of its files then."""

import errno
import os
import signal
import subprocess
import unittest

from vchanfs_case import (BIN, SOON_S, Broker, MountCase, is_mounted, need, read_exactly, unmount,
                          wait_until)

VCHANFS = os.path.join(BIN, "vchanfs")


class TreeCase(MountCase):
    def test_named_domains_are_listed_by_name(self):
        self.assertEqual(sorted(os.listdir(self.host.path)), ["db", "host", "stats", "web"])
        self.assertTrue(os.path.isdir(f"{self.host.path}/web"))
        self.assertEqual(os.listdir(f"{self.host.path}/web"), ["stats"])

    def test_other_known_domains_are_there_though_not_listed(self):
        for number in ("0", "5", "6", "7", "255"):
            self.assertEqual(os.listdir(f"{self.host.path}/{number}"), ["stats"], number)

    def test_a_domain_with_a_channel_is_listed(self):
        self.open(f"{self.host.path}/9/1", os.O_RDONLY | os.O_NONBLOCK)
        self.assertEqual(sorted(os.listdir(self.host.path)), ["9", "db", "host", "stats", "web"])

    def test_ports_are_listed_while_they_are_in_use(self):
        host, web = self.pair()
        port = os.path.basename(host)
        fd = self.open(host, os.O_RDWR | os.O_NONBLOCK)
        for directory in (f"{self.host.path}/5", f"{self.host.path}/web", os.path.dirname(web)):
            self.assertEqual(sorted(os.listdir(directory)), sorted([port, f"{port}.stats", "stats"]))
        self.assertEqual(os.listdir(f"{self.host.path}/6"), ["stats"])
        os.close(fd)
        wait_until(lambda: os.listdir(f"{self.host.path}/5") == ["stats"], "the port stays")

    def test_what_names_nothing_is_not_there(self):
        for name in ("300", "32752", "65536", "-1", "05", "+5", "5x", "nobody", "5/2147483648", "5/-1", "5/007",
                     "5/port", "5/1.stat", "5/1.stats", "5/.stats", "web/1 "):
            self.assert_errno(errno.ENOENT, os.stat, f"{self.host.path}/{name}")
            self.assert_errno(errno.ENOENT, os.open, f"{self.host.path}/{name}", os.O_RDONLY | os.O_NONBLOCK)

    def test_the_largest_port_is_a_port(self):
        self.open(f"{self.host.path}/5/2147483647", os.O_RDONLY | os.O_NONBLOCK)
        self.assertIn("2147483647", os.listdir(f"{self.web.path}/0"))

    def test_nobody_makes_or_removes_names(self):
        host, _ = self.pair()
        for function, *arguments in ((os.mkdir, f"{self.host.path}/new"), (os.mkdir, f"{self.host.path}/5/new"),
                                     (os.unlink, host), (os.rmdir, f"{self.host.path}/5"),
                                     (os.rename, host, f"{host}1"), (os.link, host, f"{self.host.path}/5/x"),
                                     (os.symlink, "x", f"{self.host.path}/5/x"), (os.chmod, host, 0o600),
                                     (os.mkfifo, f"{self.host.path}/5/x"),
                                     (os.open, f"{self.host.path}/5/x", os.O_CREAT | os.O_WRONLY)):
            self.assert_errno(errno.EPERM, function, *arguments)

    def test_truncation_and_times_are_accepted_and_mean_nothing(self):
        host, web = self.pair()
        os.truncate(host, 100)
        os.utime(host)
        self.assertEqual(os.stat(host).st_size, 0)
        reader = self.open(web, os.O_RDONLY | os.O_NONBLOCK)
        fd = self.open(host, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.ftruncate(fd, 0)
        os.fsync(fd)
        os.write(fd, b"x")
        self.assertEqual(read_exactly(reader, 1), b"x")

    def test_there_are_no_positions(self):
        fd, peer = self.open_pair()
        os.write(peer, b"stream")
        self.assert_errno(errno.ESPIPE, os.lseek, fd, 0, os.SEEK_SET)
        self.assert_errno(errno.ESPIPE, os.pread, fd, 1, 0)
        self.assert_errno(errno.ESPIPE, os.pwrite, fd, b"x", 0)
        self.assertEqual(os.read(fd, 10), b"stream")


class StatsCase(MountCase):
    def figures(self, path):
        with open(path, encoding="utf-8") as file:
            return dict(line.split(maxsplit=1) for line in file.read().splitlines())

    def test_a_port_tells_its_figures(self):
        host, web = self.pair()
        first = self.open(host, os.O_RDWR | os.O_NONBLOCK)
        self.assertEqual(self.figures(f"{host}.stats")["state"], "waiting")
        second = self.open(web, os.O_RDWR)
        os.write(second, bytes(1000))
        read_exactly(first, 300)
        for path in (host, web):
            figures = self.figures(f"{path}.stats")
            self.assertEqual({key: figures[key] for key in ("server", "client", "port", "state")},
                             {"server": "0", "client": "5", "port": os.path.basename(host), "state": "connected"})
            self.assertEqual((figures["client.bytes_written"], figures["client.bytes_read"]), ("1000", "300"))
            self.assertEqual(figures["server.bytes_written"], "0")
            self.assertGreaterEqual(int(figures["client.size_bytes"]), 4096)

    def test_a_table_has_a_line_for_each_ring(self):
        self.open_pair()
        self.open(f"{self.host.path}/6/1", os.O_RDONLY | os.O_NONBLOCK)
        for path, rows in (("stats", 4), ("5/stats", 2), ("web/stats", 2), ("6/stats", 2), ("7/stats", 0)):
            with open(f"{self.host.path}/{path}", encoding="utf-8") as file:
                heading, *lines = file.read().splitlines()
            self.assertEqual(heading.split()[:5], ["server", "client", "port", "state", "sender"])
            self.assertEqual(len(lines), rows, path)
            self.assertTrue(all(len(line.split()) == len(heading.split()) for line in lines))

    def test_a_stats_file_stays_as_it_was_opened(self):
        with open(f"{self.host.path}/stats", "rb") as file:
            before = file.read()
            self.open(f"{self.host.path}/6/1", os.O_RDONLY | os.O_NONBLOCK)
            file.seek(10)
            self.assertEqual(file.read(), before[10:])

    def test_stats_are_read_only(self):
        self.assert_errno(errno.EACCES, os.open, f"{self.host.path}/stats", os.O_WRONLY)
        self.assert_errno(errno.EACCES, os.open, f"{self.host.path}/5/stats", os.O_RDWR)


class EndCase(MountCase):
    def test_a_busy_mount_stays_and_a_free_one_goes(self):
        host, _ = self.pair()
        fd = self.open(host, os.O_RDONLY | os.O_NONBLOCK)
        self.assertNotEqual(unmount(self.host.path).returncode, 0)
        os.close(fd)
        wait_until(lambda: unmount(self.host.path).returncode == 0, "umount")
        self.assertEqual(self.host.process.wait(SOON_S), 0)

    def test_a_lazy_unmount_lets_open_files_finish(self):
        host, web = self.open_pair()
        self.assertEqual(unmount(self.host.path, "-l").returncode, 0)
        os.write(host, b"finish")
        self.assertEqual(os.read(web, 10), b"finish")
        self.assertIsNone(self.host.process.poll())
        os.close(host)
        self.assertEqual(self.host.process.wait(SOON_S), 0)
        self.assertEqual(os.read(web, 10), b"")

    def test_a_signal_ends_it_though_it_is_busy(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            mount = self.mount(f"busy{number}", 0)
            port = next(self.ports)
            fd = self.open(f"{mount.path}/5/{port}", os.O_RDWR | os.O_NONBLOCK)
            os.set_blocking(fd, True)
            peer = self.open(f"{self.web.path}/0/{port}", os.O_RDWR)
            reader = self.in_thread(os.read, fd, 10)
            opener = self.start("cat", f"{mount.path}/5/{next(self.ports)}")
            self.assert_blocked(opener)
            os.write(fd, b"before the end")
            mount.process.send_signal(number)
            self.assertEqual(mount.process.wait(SOON_S), 0)
            self.assertFalse(is_mounted(mount.path))
            self.assert_errno(errno.ENOTCONN, reader)
            self.finish(opener, 1)
            self.assertEqual(read_exactly(peer, 100), b"before the end")

    def test_a_killed_vchanfs_is_an_end_of_file_for_the_peer(self):
        host, web = self.open_pair()
        os.write(host, b"last words")
        reader = self.in_thread(os.read, host, 10)
        self.host.process.kill()
        self.host.process.wait()
        self.assertEqual(read_exactly(web, 100), b"last words")
        with self.assertRaises(OSError):
            reader()
        self.assert_errno(errno.ENOTCONN, os.listdir, self.host.path)
        again = subprocess.run([VCHANFS, "--socket", self.broker.socket_path, self.host.path],
                               capture_output=True, text=True, timeout=SOON_S, check=False)
        self.assertEqual(again.returncode, 1)
        self.assertIn(f"umount -l {self.host.path}", again.stderr)
        os.close(host)
        self.assertEqual(unmount(self.host.path, "-l").returncode, 0)

    def test_files_outlive_the_broker(self):
        host, web = self.open_pair()
        self.broker.process.kill()
        self.broker.process.wait()
        for size in (1, 3000, 1):
            os.write(host, bytes(size))
            self.assertEqual(read_exactly(web, size), bytes(size))
        self.assert_errno(errno.ECONNREFUSED, os.open, f"{self.host.path}/5/1", os.O_RDONLY | os.O_NONBLOCK)
        self.assert_errno(errno.ECONNREFUSED, os.listdir, self.host.path)

    def test_who_waits_for_a_peer_hears_that_the_broker_ended(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            waiting = [self.start("cat", self.pair()[0]), self.shell('exec echo lost > "$1"', self.pair()[0])]
            opened = self.open(self.pair()[0], os.O_RDWR | os.O_NONBLOCK)
            self.assert_errno(errno.EAGAIN, os.read, opened, 1)
            os.set_blocking(opened, True)
            reader = self.in_thread(os.read, opened, 1)
            for child in waiting:
                self.assert_blocked(child)
            wait_until(lambda: len(os.listdir(f"{self.host.path}/5")) == 7, "not all are served")
            self.broker.process.send_signal(number)
            self.broker.process.wait(SOON_S)
            for child in waiting:
                _, errors = child.communicate(timeout=SOON_S)
                self.assertNotEqual(child.returncode, 0)
                self.assertRegex(errors.decode(), os.strerror(errno.ENOTCONN) + "|[Cc]annot (create|open)")
            self.assert_errno(errno.ENOTCONN, reader)
            self.assert_errno(errno.ENOTCONN, os.write, opened, b"x")
            self.broker = Broker(self.directory)

    def test_a_peer_that_came_and_went_at_once_is_an_end_of_file(self):
        for _ in range(50):
            host, web = self.pair()
            cat = self.start("cat", host)
            os.close(os.open(web, os.O_WRONLY))
            self.assertEqual(self.finish(cat), b"")

    def test_a_new_broker_is_found(self):
        self.broker.end()
        self.broker = Broker(self.directory)
        host, web = self.open_pair()
        os.write(host, b"again")
        self.assertEqual(os.read(web, 10), b"again")


class CommandLineCase(MountCase):
    def vchanfs(self, *arguments, **environment):
        return subprocess.run([VCHANFS, *arguments], capture_output=True, text=True, timeout=SOON_S, check=False,
                              env={**os.environ, **environment})

    def assert_refused(self, code, pattern, *arguments, **environment):
        result = self.vchanfs(*arguments, **environment)
        self.assertEqual((result.returncode, result.stdout), (code, ""))
        self.assertRegex(result.stderr, pattern)

    def test_it_goes_into_the_background_once_mounted(self):
        path = os.path.join(self.directory, "background")
        os.mkdir(path)
        result = subprocess.run([VCHANFS, "--domain=7", "background"], cwd=self.directory, timeout=SOON_S,
                                capture_output=True, check=False,
                                env={**os.environ, "VCHAN_RUNTIME_DIR": self.directory})
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        self.assertTrue(is_mounted(path))
        cat = self.start("cat", f"{self.host.path}/7/1")
        self.finish(self.shell('echo from 7 > "$1"', f"{path}/0/1"))
        self.assertEqual(self.finish(cat), b"from 7\n")
        self.assertEqual(unmount(path).returncode, 0)

    @unittest.skipUnless(os.geteuid() == 0, "only root may always mount for other users")
    def test_mount_options_say_the_same(self):
        path = os.path.join(self.directory, "options")
        os.mkdir(path)
        result = self.vchanfs("-o", f"domain=7,socket={self.broker.socket_path}", "-o", "allow_other", path,
                              VCHAN_DOMAIN="8")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.open(f"{path}/0/1", os.O_RDONLY | os.O_NONBLOCK)
        self.assertIn("1", os.listdir(f"{self.host.path}/7"))
        self.assertEqual(os.stat(f"{path}/0/1").st_mode & 0o777, 0o666)
        self.assertEqual(os.stat(f"{self.host.path}/7/1").st_mode & 0o777, 0o600)
        unmount(path, "-l")

    def test_help_and_version(self):
        self.assertIn("--domain", self.vchanfs("--help").stdout)
        self.assertRegex(self.vchanfs("--version").stdout, r"^vchanfs \d+\.\d+\.\d+\n$")

    def test_a_wrong_command_line_is_explained(self):
        self.assert_refused(2, "no mountpoint")
        self.assert_refused(2, "more than one mountpoint", "a", "b")
        self.assert_refused(2, "'web' is not a domain number", "--domain", "web", self.directory)
        self.assert_refused(2, "'70000' is not a domain number", "-o", "domain=70000", self.directory)
        self.assert_refused(2, "VCHAN_DOMAIN: '-1' is not", self.directory, VCHAN_DOMAIN="-1")
        self.assert_refused(2, "--help", "--nonsense", self.directory)

    def test_what_prevents_a_mount_is_explained(self):
        empty = os.path.join(self.directory, "empty")
        os.mkdir(empty)
        missing = os.path.join(self.directory, "missing")
        at = ("--socket", self.broker.socket_path)
        self.assert_refused(1, "no such directory", *at, missing)
        self.assert_refused(1, "not a directory", *at, self.host.log_path)
        self.assert_refused(1, "mounted there already", *at, self.host.path)
        self.assert_refused(1, "is vchand running", "--socket", missing, empty)
        self.assert_refused(1, "is vchand running", empty, VCHAN_RUNTIME_DIR=empty)
        self.assert_refused(1, "as domain 300", "--domain", "300", *at, empty)
        self.assertFalse(is_mounted(empty))


if __name__ == "__main__":
    need()
    unittest.main()
