# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of vchanctl share: running it, and a run-time directory that goes with the test."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

BIN = os.environ.get("VCHAN_BIN") or os.path.join(os.path.dirname(__file__), "../../build/bin")
SOURCE = os.environ.get("VCHAN_SOURCE") or os.path.join(os.path.dirname(__file__), "../..")
VCHANCTL = os.path.join(BIN, "vchanctl")


def need(*programs):
    """Ends the test as skipped when one of the programs is not built."""
    for program in programs:
        if not os.access(os.path.join(BIN, program), os.X_OK):
            print(f"{program} is not in {BIN}")
            sys.exit(77)


class VchanctlCase(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="vchanctl-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.socket_path = os.path.join(self.directory, "vchand.sock")
        self.environment = {
            **{key: value for key, value in os.environ.items()
               if key not in ("VCHAN_DOMAIN", "NO_COLOR", "COLUMNS", "POSIXLY_CORRECT")},
            "VCHAN_RUNTIME_DIR": self.directory, "TZ": "UTC", "LC_ALL": "C.UTF-8", "TERM": "xterm",
        }

    def start(self, *arguments, **options):
        return subprocess.Popen([VCHANCTL, *arguments], env=options.pop("environment", self.environment),
                                stdin=subprocess.DEVNULL, stdout=options.pop("stdout", subprocess.PIPE),
                                stderr=subprocess.PIPE, text=True, **options)

    def run_vchanctl(self, *arguments, **options):
        process = self.start(*arguments, **options)
        self.out, self.err = process.communicate(timeout=60)
        return process.returncode

    def succeed(self, *arguments, **options):
        code = self.run_vchanctl(*arguments, **options)
        self.assertEqual((code, self.err), (0, ""), f"{arguments}: {self.out}{self.err}")
        return self.out

    def fail_with(self, code, pattern, *arguments, **options):
        self.assertEqual(self.run_vchanctl(*arguments, **options), code, f"{arguments}: {self.out}{self.err}")
        self.assertRegex(self.err, pattern)
        self.assertEqual(self.out, "")

    def json(self, *arguments, **options):
        return json.loads(self.succeed("--json", *arguments, **options))
