#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""./demo --vms: two virtual machines and the host talk through vchan; who types what is shown. 1 when anything went wrong.

usage: demo.py PROGRAMS IMAGE: the directory of vchan's programs, and what packaging/guest-image made of them.
"""

import re
import signal
import sys
import time

import commands
import machine
from host import Host, wait_until

CONFIGURATION = """\
[broker]
region-size = 64M
[domain host]
id = 0
[domain web]
id = 5
[domain db]
id = 6
"""


class Wrong(Exception):
    pass


class Place:
    """The host or a guest: where something is typed, and heard."""

    def __init__(self, name, prompt, where):
        self.name = name
        self.prompt = prompt
        self.where = where

    def show(self, text, more=""):
        bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
        print(f"{self.name:>5} {self.prompt} {bold}{text}{plain}{more}", flush=True)

    def echo(self, output):
        for line in output.rstrip("\n").split("\n") if output else []:
            print(f"{self.name:>5} | {line}", flush=True)

    def type(self, text, limit_s=60):
        """Runs a command to its end; what it said."""
        self.show(text)
        return self.end(self.launch(text), limit_s)

    def behind(self, text):
        """Starts a command that waits for others; end() hears it out."""
        self.show(text, " &")
        return self.launch(text)

    def launch(self, text):
        started = self.where.start(text) if isinstance(self.where, Host) else self.where.start_command(text)
        if isinstance(self.where, Host):
            started.stdin.close()
            started.stdin = None
        else:
            started.close_input()
        return started

    def end(self, started, limit_s=60):
        if isinstance(self.where, Host):
            out, err = started.communicate(timeout=limit_s)
            status = started.returncode
        else:
            status, out, err = started.wait(limit_s)
        out = out.decode(errors="replace")
        self.echo(out + err.decode(errors="replace"))
        if status != 0:
            raise Wrong(f"in {self.name}, that ended with status {status}")
        return out


def expect(what, pattern, text):
    if not re.search(pattern, text):
        raise Wrong(f"{what}: {pattern!r} is not in {text!r}")


def say(text):
    print(f"\n{text}", flush=True)


def boot(host):
    reason = machine.why_no_kvm()
    say("1. Two virtual machines, web and db, " + (f"under TCG ({reason})." if reason else "under KVM."))
    for name in ("web", "db"):
        print(f" host $ packaging/guest-run --name {name} --socket {host.socket(name)}", flush=True)
    begin = time.monotonic()
    guests = host.boot("web", "db")
    print(f"Both are up and attached after {time.monotonic() - begin:.1f} s: real kernels, a vchan-agent and vchanfs in each.")
    places = [Place("host", "$", host), *(Place(guest.name, "#", guest) for guest in guests)]
    listing = places[0].type("vchanctl domains")
    for name in ("web", "db"):
        expect("the domains", rf"(?m) {name} +running ", listing)
    return places


def words(host, web, db):
    say("2. Words through files: from db to web, and from the host to web. In web, /mnt/vchan/db/5000 is\n"
        "   port 5000 of db.")
    reader = web.behind("cat /mnt/vchan/db/5000")
    db.type("echo 'hello from db' > /mnt/vchan/web/5000")
    expect("the word from db", "^hello from db\n$", web.end(reader))
    reader = web.behind("cat /mnt/vchan/0/5000")
    host.type("echo 'hello from the host' > files/web/5000")
    expect("the word from the host", "^hello from the host\n$", web.end(reader))


def programs(web, db):
    say("3. Two libvchan programs (examples/): a server in web, its client in db.")
    server = web.behind("echo-server 6 7000")
    answers = db.type("echo-client 5 7000 some words there and back")
    web.end(server)
    expect("the answers", r'(sent "(.*)", got back "\2"\n){5}', answers)


def bulk(host, web, db):
    say("4. 16 MiB from db to web, in bulk. Meanwhile the broker gives the ring more memory; the checksums must be the same.")
    reader = web.behind("sha256sum < /mnt/vchan/db/5001")
    db.type("head -c 16m /dev/urandom > bulk && sha256sum < bulk")
    db.type("dd if=bulk of=/mnt/vchan/web/5001 bs=64k")
    sums = [web.end(reader), db.launch("sha256sum < bulk").wait().stdout.decode()]
    expect("the checksums", "^" + re.escape(sums[0]) + "$", sums[1])
    history = host.type("vchanctl history | grep done | tail -n 3")
    expect("the history", " db +web +5001 ", history)


def death(host, web, db):
    say("5. web dies in the middle, as if its QEMU had crashed. db reads what was sent, then the end; web's memory is free.")
    reader = db.behind("cat /mnt/vchan/web/5002")
    web.behind("(echo 'last words'; sleep 1000) > /mnt/vchan/db/5002")
    wait_until(lambda: "last words" in bytes(reader.output).decode(), "the last words")
    host.show("kill -9 QEMU-OF-WEB")
    web.where.kill()
    expect("the last words", "^last words\n$", db.end(reader))
    wait_until(lambda: not host.where.channels(), "channels are left")
    host.type("vchanctl list")
    reader = db.behind("cat /mnt/vchan/0/5003")
    host.type("echo 'db goes on' > files/db/5003")
    expect("the word to db", "^db goes on\n$", db.end(reader))


def play(host):
    host.mount()
    print(f"The broker runs in {host.directory}; the host's files are in files/ there.")
    places = boot(host)
    words(*places)
    programs(*places[1:])
    bulk(*places)
    death(*places)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    host = Host(sys.argv[1], sys.argv[2], CONFIGURATION)
    try:
        play(host)
    except (Wrong, AssertionError, TimeoutError, RuntimeError, commands.Lost, OSError) as problem:
        print(f"WRONG: {problem}\n\nThe broker's log ends with:\n" + "\n".join(host.log().splitlines()[-20:]))
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; cleaning up")
        return 130
    finally:
        host.close()
    say("All of it came out as it should.")
    return 0


sys.exit(main())
