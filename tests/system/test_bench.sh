#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A short run of every mode of vchan-bench: it ends well, says one JSON object of the right shape,
# has compared bytes, and leaves nothing behind. Never how fast anything is.
set -uo pipefail

bench=${VCHAN_BIN:?}/vchan-bench
[ -x "$bench" ] || { echo "SKIP: no vchan-bench was built"; exit 77; }
command -v jq >/dev/null || { echo "SKIP: jq is not installed"; exit 77; }
[ "$(nproc)" -ge 2 ] || { echo "SKIP: one CPU, and two spinning processes"; exit 77; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work
failed=0

fail() {
    echo "FAILED: $*"
    failed=1
}

# run NAME JQ-CONDITION ARGUMENT...
run() {
    local name=$1 condition=$2
    shift 2
    if ! timeout 120 "$bench" "$@" --json >"$work/out.json" 2>"$work/err"; then
        fail "$name: vchan-bench $* exits with an error: $(head -3 "$work/err")"
    elif ! jq -e "$condition" "$work/out.json" >/dev/null; then
        fail "$name: $condition does not hold in $(head -c 2000 "$work/out.json")"
    elif compgen -G "$work/vchan-bench.*" >/dev/null; then
        fail "$name: leaves $(compgen -G "$work/vchan-bench.*")"
    else
        echo "ok: $name"
    fi
}

sizes=16,4096,1048576
run "the machine is described" '.machine | (.cpu | length > 0) and .cpus_online >= 2' alloc 100
run "ring compares with the ideal ring, every byte verified" \
    '.ring | .compared_with == "ideal" and .verified_bytes > 12000000 and .rounds >= 3 and
     (.slices_near + .slices_far + .slices_dropped == 36) and .probe_median_ns > 0' \
    ring --seconds 0.3 --sizes $sizes
run "channel runs against a broker of its own" \
    '.channel | .compared_with == "vchan" and (.ucx_measured | not) and
     .verified_bytes > 40000000' \
    channel --seconds 0.5 --sizes $sizes
run "latency spins and sleeps" \
    '.latency | (.spinning.verified_bytes > 0) and
     ([.sleeping[].subject] | index("libvchan") != null) and
     ([.sleeping[] | select(.round_trips >= 2)] | length == 4)' latency --seconds 0.4
run "open counts its opens and the idle CPU" \
    '.open | .channels == 50 and .opens >= 100 and
     .open_p99_us >= .open_p50_us and .idle_cpu_percent >= 0' \
    open --channels 50 --seconds 0.4
run "resize verifies every byte across generations" \
    '.resize | .cycles >= 50 and .grows > 0 and .shrinks > 0 and .verified_bytes > 1000000 and
     ([.pauses[].writes] == ["resting", "resizing", "hit"])' resize --cycles 50
run "alloc measures the sizes it is given" \
    '.alloc.rows | map(.extents) == [100, 1000]' alloc 100 1000
run "load moves bytes on every channel" \
    '.load.phases | length >= 3 and
     ([.[] | select(.load == "hot" and .mb_per_s > 0)] | length >= 3)' \
    load --channels 3 --seconds 1.5
run "rebalance runs all policies in turn, memory follows what is used" \
    '.rebalance | (.loads | map(.policy) == ["static", "default"]) and
     ([.loads[] | select(.load == "constant" and .mb_per_s > 0 and .jain > 0)] | length == 2) and
     ([.loads[] | select(.apart_mb < 2)] | length == 2)' \
    rebalance --channels 4 --loads constant --policies static,default --seconds 1 --rounds 1

"$bench" nonsense >/dev/null 2>&1
[ $? -eq 2 ] || fail "a mode that does not exist is not refused with 2"
"$bench" ring --sizes 17 >/dev/null 2>&1
[ $? -eq 2 ] || fail "a wrong message size is not refused with 2"
"$bench" --help | grep -q "^usage: vchan-bench" || fail "--help does not help"

# A child that dies must end the benchmark, with a message.
"$bench" ring --seconds 60 --json >/dev/null 2>"$work/err" &
pid=$!
sleep 0.5
follower=$(pgrep -P $pid | head -1)
kill -9 "$follower"
if wait $pid; then
    fail "a benchmark whose other half was killed says that all is well"
elif ! grep -q "the follower was killed" "$work/err"; then
    fail "a dead child is not named: $(cat "$work/err")"
else
    echo "ok: a dead child ends the benchmark"
fi
exit $failed
