#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""packaging/guest-image and packaging/guest-run, as people use them."""

import os
import subprocess
import tempfile
import time
import unittest

from guest_case import BUILD, CANNOT, IMAGE, SOURCE, need

MAKE = os.path.join(SOURCE, "packaging/guest-image")
RUN = os.path.join(SOURCE, "packaging/guest-run")


class ImageTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="vchan-image-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def call(self, *command, **options):
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, **options)

    def make(self, output, *more, **options):
        return self.call(MAKE, "--build", BUILD, "--output", os.path.join(self.directory, output), *more, **options)

    def content(self, *names):
        with open(os.path.join(self.directory, *names), "rb") as file:
            return file.read()

    def test_the_same_input_makes_the_same_bytes(self):
        for name in ("first", "second"):
            self.assertEqual(self.make(name).returncode, 0)
        self.assertEqual(self.content("first", "initrd"), self.content("second", "initrd"))
        self.assertLess(len(self.content("first", "initrd")), 16 << 20)

    def test_it_is_made_again_only_for_what_is_new(self):
        program = os.path.join(self.directory, "greet")
        for text, said in (("one", "MiB with "), ("one", "up to date"), ("another", "MiB with ")):
            if said != "up to date":
                with open(program, "w", encoding="ascii") as file:
                    file.write(f"#!/bin/sh\necho {text}\n")
            result = self.make("image", program)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertIn(said, result.stdout)
            self.assertIn(text.encode(), self.content("image", "initrd"))

    def test_a_program_that_is_not_there_is_named(self):
        result = self.make("image", "/absent/program")
        self.assertEqual((result.returncode, result.stderr), (1, "guest-image: /absent/program: there is no such file\n"))

    def test_a_directory_without_programs_says_build_first(self):
        result = self.call(MAKE, "--build", self.directory)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, "is not built; build first")

    def test_no_kernel_to_be_had_is_told_from_failure(self):
        tools = os.path.join(self.directory, "tools")
        os.mkdir(tools)
        for name in ("apt-cache", "apt-get"):
            with open(os.path.join(tools, name), "w", encoding="ascii") as file:
                file.write("#!/bin/sh\necho 'E: no network' >&2; exit 100\n")
            os.chmod(os.path.join(tools, name), 0o755)
        result = self.make("image", "--cache", os.path.join(self.directory, "cache"),
                           env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"})
        self.assertEqual(result.returncode, CANNOT)
        self.assertIn("no network", result.stderr)
        self.assertFalse(os.path.exists(os.path.join(self.directory, "image/initrd")))


class RunTest(unittest.TestCase):
    def test_a_shell_on_the_console_ends_the_guest(self):
        guest = subprocess.Popen([RUN, "--image", IMAGE, "--name", "hand", "--bare"], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(guest.kill)
        heard = b""
        deadline = time.monotonic() + 60
        while b"This is hand" not in heard:
            self.assertLess(time.monotonic(), deadline)
            heard += os.read(guest.stdout.fileno(), 65536)
        out, _ = guest.communicate(b"echo $((6 * 7)) of $(hostname)\nexit\n", 60)
        self.assertIn(b"\n42 of hand", (heard + out).replace(b"\r", b""))
        self.assertEqual(guest.returncode, 0)

    def test_print_shows_a_device_for_each_socket(self):
        result = subprocess.run([RUN, "--print", "--socket", "/a.sock", "--socket", "/b.sock", "--vectors", "4"],
                                capture_output=True, text=True, check=True)
        for number, path in ((1, "/a.sock"), (2, "/b.sock")):
            self.assertIn(f"socket,id=ivshmem{number},path={path} ", result.stdout)
            self.assertIn(f"ivshmem-doorbell,id=vchan{number},bus=port{number},chardev=ivshmem{number},vectors=4 ", result.stdout)

    def test_what_is_missing_is_named(self):
        for options, reason in ((["--image", "/absent"], "/absent/vmlinuz; make it with packaging/guest-image"),
                                (["--image", IMAGE, "--socket", "/absent.sock"], "/absent.sock: No such file.*does the server run"),
                                (["--image", IMAGE, "--socket", "/etc/passwd"], "/etc/passwd is not a socket")):
            result = subprocess.run([RUN, *options], capture_output=True, text=True, check=False)
            self.assertEqual(result.returncode, 1)
            self.assertRegex(result.stderr, reason)


if __name__ == "__main__":
    need()
    unittest.main()
