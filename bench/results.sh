#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Measures everything, or takes what was measured before, and writes the tables of bench/README.md.
#
#     bench/results.sh [RESULTS.json]
#
# Without an argument: runs build/bin/vchan-bench all --json (VCHAN_BIN names another directory), some minutes, on a quiet machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
results=${1:-$work/results.json}
if [ $# -eq 0 ]; then
    "${VCHAN_BIN:-$here/../build/bin}/vchan-bench" all --json >"$results"
fi
[ -s "$results" ] && jq -e .machine "$results" >/dev/null || { echo "$results: no results of vchan-bench all --json" >&2; exit 1; }

# Functions for all tables. A size's rows of one subject: those of the class that most of its slices were in.
cat >"$work/tables.jq" <<'E2'
def size: if . >= 1048576 then "\(. / 1048576) MiB" elif . >= 1024 then "\(. / 1024) KiB" else "\(.) B" end;
def round_to($digits): if . == null then "-" else . * pow(10; $digits) | round / pow(10; $digits) | tostring end;
def row: "| " + join(" | ") + " |";
def rule: map("---") | row;
def sizes($rows): [$rows[].bytes] | unique;
def find($rows; $bytes; $subject): [$rows[] | select(.bytes == $bytes and .subject == $subject)] | max_by(.slices);
def best($rows; $bytes; $names; $key): [$names[] as $n | find($rows; $bytes; $n) | .[$key] // empty] | max;
def least($rows; $bytes; $names; $key): [$names[] as $n | find($rows; $bytes; $n) | .[$key] // empty] | min;

def machine: .machine | "\(.cpu), \(.cpus_online) CPUs, Linux \(.kernel), gcc \(.compiler)";

def ring_table: .ring as $r
  | (["message", "ideal MB/s", "ring MB/s", "ratio", "of rounds", "ideal us", "ring us", "ratio", "of rounds", "class"] | row, rule),
    (sizes($r.throughput)[] as $b
     | find($r.throughput; $b; "ring") as $t | find($r.round_trip; $b; "ring") as $l
     | [($b | size), (find($r.throughput; $b; "ideal").mb_per_s | round_to(0)), ($t.mb_per_s | round_to(0)),
        ($t.ratio | round_to(3)), ($t.ratio_rounds | tostring),
        (find($r.round_trip; $b; "ideal").us | round_to(2)), ($l.us | round_to(2)), ($l.ratio | round_to(3)),
        ($l.ratio_rounds | tostring), $t.class] | row);

def channel_table($rows; $key; $digits): ([$rows[].subject] | unique) as $present
  | (["vchan", "libvchan", "unix", "unix 1M", "pipe", "pipe 1M", "ucx tag", "ucx stream"]
     | map(select(. as $n | $present | index($n)))) as $names
  | (["message"] + $names | row, rule),
    (sizes($rows)[] as $b
     | [($b | size)] + [$names[] as $n | find($rows; $b; $n)[$key] | round_to($digits)] | row);

def latency_table: .latency as $l
  | (["", "spinning, us", "sleeping p50, us", "sleeping p99, us"] | row, rule),
    (["ideal ring", "ring", "libvchan", "vchan", "unix", "pipe"][] as $n
     | [$l.sleeping[] | select(.subject == $n)] as $s
     | [$n, (find($l.spinning.round_trip; 64; $n).us | round_to(2)), ($s[0].p50_us | round_to(1)),
        ($s[0].p99_us | round_to(1))] | row);

def resize_table: .resize as $r
  | (["writes", "p50 us", "p99 us", "p99.9 us", "p99.99 us", "max us", "count"] | row, rule),
    ($r.pauses[] | [.writes, (.p50_us | round_to(3)), (.p99_us | round_to(3)), (.p99_9_us | round_to(3)),
                    (.p99_99_us | round_to(3)), (.max_us | round_to(0)), (.count | tostring)] | row),
    "",
    "\($r.cycles) generations (\($r.grows) grew, \($r.shrinks) shrank, \($r.moves) moved only), \($r.cycles_per_s) a second; " +
    "\($r.hit_permille) per mille of the writes met one; \($r.verified_bytes) bytes, all compared.";

def alloc_table: (["extents", "allocate ns", "release ns", "resize ns", "find ns", "plan ns"] | row, rule),
  (.alloc.rows[] | [.extents, .allocate_ns, .release_ns, .resize_ns, .find_ns, .plan_ns | round_to(0)] | row);

def targets_table: .ring as $r | .channel as $c | .latency as $l | .open as $o | .resize as $z
  | ["unix", "unix 1M"] as $unix | (["pipe", "pipe 1M", "ucx tag", "ucx stream"] + $unix) as $others
  | [["ring, throughput from 4 KiB up, least ratio", ">= 0.95",
      ([sizes($r.throughput)[] | select(. >= 4096) as $b | find($r.throughput; $b; "ring").ratio] | min | round_to(3))],
     ["ring, throughput at 16 B, ratio", ">= 0.6", (find($r.throughput; 16; "ring").ratio | round_to(3))],
     ["ring, round trip, greatest ratio", "<= 1.15",
      ([sizes($r.round_trip)[] as $b | find($r.round_trip; $b; "ring").ratio] | max | round_to(3))],
     ["libvchan at 64 B, times AF_UNIX", ">= 20",
      (find($c.throughput; 64; "libvchan").mb_per_s / best($c.throughput; 64; $unix; "mb_per_s") | round_to(0))],
     ["channel, throughput, least lead over AF_UNIX, pipe and UCX", "> 1",
      ([sizes($c.throughput)[] as $b | best($c.throughput; $b; ["vchan", "libvchan"]; "mb_per_s") /
        best($c.throughput; $b; $others; "mb_per_s")] | min | round_to(2))],
     ["channel, round trip, least lead over them", "> 1",
      ([sizes($c.round_trip)[] as $b | least($c.round_trip; $b; $others; "us") /
        least($c.round_trip; $b; ["vchan", "libvchan"]; "us")] | min | round_to(2))],
     ["libvchan, spinning 64 B round trip, us", "< 1", (find($l.spinning.round_trip; 64; "libvchan").us | round_to(2))],
     ["resizing, increase of the writer's p99.9, us", "<= 1", ($z.p99_9_increase_us | round_to(3))],
     ["open with \($o.channels) channels, p99, us", "< 1000", ($o.open_p99_us | round_to(0))],
     ["idle broker and \($o.channels) idle channels, % of a CPU", "< 1", ($o.idle_cpu_percent | round_to(2))]]
  | (["what", "target", "measured"] | row, rule), (.[] | row);
E2

table() {
    jq -r -L "$work" "include \"tables\"; $1" "$results"
}

table machine >"$work/machine"
table targets_table >"$work/targets"
table ring_table >"$work/ring"
table 'channel_table(.channel.throughput; "mb_per_s"; 0)' >"$work/throughput"
table 'channel_table(.channel.round_trip; "us"; 2)' >"$work/round-trip"
table latency_table >"$work/latency"
table resize_table >"$work/resize"
table alloc_table >"$work/alloc"
jq -r '"Channels open: \(.open.channels). Opens a second, client ends: \(.open.opens_per_s); server ends: \(.open.serves_per_s).
Opening: p50 \(.open.open_p50_us) us, p99 \(.open.open_p99_us) us, at most \(.open.open_max_us) us; closing: p50
\(.open.close_p50_us) us. Idle for \(.open.idle_seconds) s: broker \(.open.idle_broker_cpu_percent)%, server ends
\(.open.idle_servers_cpu_percent)%, client ends \(.open.idle_clients_cpu_percent)% of a CPU."' "$results" >"$work/open"
jq -r '"Probe (cache line there and back): p10 \(.ring.probe_p10_ns), median \(.ring.probe_median_ns), p90 \(.ring.probe_p90_ns) ns.
Slices: \(.ring.slices_near) near or same, \(.ring.slices_far) far, \(.ring.slices_dropped) dropped as disturbed."' \
    "$results" >"$work/probe"

# Between "<!-- table NAME -->" and "<!-- end -->" stands what was made of NAME.
awk -v work="$work" '
    /^<!-- table [a-z-]+ -->$/ {
        print; print ""
        while ((getline line < (work "/" $3)) > 0) print line
        print ""; skipping = 1; next
    }
    /^<!-- end -->$/ { skipping = 0 }
    !skipping' "$here/README.md" >"$work/README.md"
cat "$work/README.md" >"$here/README.md"
