#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Checks ring.pml exhaustively in each configuration below, then shows that spin finds the error
# when a rule is broken on purpose. One line per run; docs/model.md explains names and bounds.
#   test_model.sh [PATTERN]    only runs whose name or flags match the extended regular expression
#   VCHAN_MODEL_DEEP=1         the larger bounds too (some five minutes more, 4 GB a run)
set -u

model=$(cd "$(dirname "$0")" && pwd)/ring.pml
for tool in spin gcc; do
    if ! command -v "$tool" >/dev/null; then
        echo "SKIP: $tool is not installed"
        exit 77
    fi
done

small_transfer="MARKS JOINED BYTES=2 GENERATIONS=3"
promise="MARKS JOINED PROMISE=1 FIRST=2 BYTES=2 GENERATIONS=3 CAP2=2 CAP3=1"
kill_moving="MARKS JOINED KILLS=1 BYTES=1"
sleep_asym="SLEEP ASYM_SLEEP BYTES=2 CAP1=1"
sleep_fence="SLEEP FENCE_SLEEP BYTES=2 CAP1=1"
# recv of two bytes through a ring of one, which then gets two
pieces="SLEEP ASYM_SLEEP NEED=2 BYTES=2 FIRST=2 GENERATIONS=3"
no_reader="SLEEP ASYM_SLEEP NO_READER PRESSURE BYTES=2 GENERATIONS=2 CAP1=1 CAP2=1"

# Must hold: name, flags (a later one replaces an earlier one). The longest first.
configurations() {
    cat <<END
promise $promise BUFFER=3
transfer-3-bytes MARKS JOINED BYTES=3 GENERATIONS=2 BUFFER=3
kill-2-bytes $kill_moving BYTES=2 GENERATIONS=2 BUFFER=3
transfer $small_transfer
sleep-asym-poll SLEEP ASYM_SLEEP POLL BYTES=3 GENERATIONS=2 CAP1=1
sleep-asym SLEEP ASYM_SLEEP BYTES=3 GENERATIONS=2
kill-4-generations $kill_moving GENERATIONS=4
sleep-fence SLEEP FENCE_SLEEP BYTES=3 GENERATIONS=2
mark-fence MARKS FENCE_MARK BYTES=2 GENERATIONS=3
stores-apart MARKS BYTES=2 GENERATIONS=2 BUFFER=6
abandoned-reserve MARKS JOINED ABANDON=1 BYTES=1 GENERATIONS=3
kill-both MARKS KILLS=2 BYTES=1 GENERATIONS=2
close-asym $sleep_asym CLOSE GENERATIONS=2
close-fence $sleep_fence CLOSE GENERATIONS=2
close-asym-poll $sleep_asym CLOSE POLL GENERATIONS=1
close-fence-poll $sleep_fence CLOSE POLL GENERATIONS=1
kill-asleep-asym $sleep_asym KILLS=2 GENERATIONS=1
kill-asleep-fence $sleep_fence KILLS=2 GENERATIONS=1
pieces-asym $pieces
pieces-fence SLEEP FENCE_SLEEP NEED=2 BYTES=2 FIRST=2 GENERATIONS=3
no-reader $no_reader
END
    if [ -n "${VCHAN_MODEL_DEEP:-}" ]; then
        cat <<END
deep-transfer MARKS JOINED BYTES=3 GENERATIONS=3 BUFFER=3
deep-generations MARKS JOINED BYTES=2 GENERATIONS=4 BUFFER=3
deep-kill $kill_moving BYTES=2 GENERATIONS=3 BUFFER=3
deep-promise MARKS JOINED PROMISE=1 BYTES=2 GENERATIONS=3 CAP1=2 CAP2=2 CAP3=1
deep-sleep SLEEP FENCE_SLEEP CLOSE BYTES=3 GENERATIONS=2
END
    fi
}

# Must fail: the mutation, then the flags of the smallest configuration known to show it.
mutations() {
    cat <<END
MUT_CONSUMER_LOADS_SWITCH_FIRST $small_transfer
MUT_TAIL_BEFORE_SWITCH $small_transfer
MUT_TAIL_BEFORE_BYTES MARKS BYTES=2 GENERATIONS=1 BUFFER=6
MUT_SWITCH_WITHOUT_FOLLOWED $small_transfer BUFFER=3
MUT_FREE_WITHOUT_GRACE $small_transfer BUFFER=3
MUT_IGNORE_PRODUCER_MARK $small_transfer BUFFER=3
MUT_IGNORE_CONSUMER_MARK $kill_moving GENERATIONS=4 BUFFER=3
MUT_FOLLOWED_READ_AFTER_GRACE $small_transfer BUFFER=3
MUT_SWITCH_NUMBER_NOT_READ_AGAIN $small_transfer BUFFER=3
MUT_IGNORE_HEAD $small_transfer BUFFER=3
MUT_FOLLOWED_NOT_READ_AGAIN $small_transfer BUFFER=3
MUT_PUBLISH_BEFORE_FREE $small_transfer
MUT_MARK_CLEARED_EARLY $small_transfer BUFFER=3
MUT_MARK_AFTER_GENERATION $small_transfer BUFFER=3
MUT_MARK_WITHOUT_FENCE MARKS FENCE_MARK BYTES=2 GENERATIONS=2
MUT_PRODUCER_IGNORES_PROMISE $promise BUFFER=2
MUT_BROKER_IGNORES_PROMISE $promise BUFFER=2
MUT_DECLINE_STAYS $promise BUFFER=2
MUT_PROMISED_READ_FIRST $promise BUFFER=2
MUT_SWITCH_NUMBER_BEFORE_PROMISED $promise BUFFER=2
MUT_DEAD_NOT_CLEAR $kill_moving GENERATIONS=2
MUT_DEAD_BEFORE_DRAINED $kill_moving GENERATIONS=2
MUT_ENDED_READ_AFTER_TAIL $sleep_asym KILLS=1 GENERATIONS=1
MUT_ENDED_READ_AFTER_TAIL $sleep_fence CLOSE GENERATIONS=1
MUT_GONE_WITHOUT_RING $sleep_asym KILLS=1 GENERATIONS=1
MUT_CLOSE_WITHOUT_RING $sleep_fence CLOSE GENERATIONS=1
MUT_NO_RECHECK_AFTER_ARM $sleep_asym GENERATIONS=1
MUT_NO_BARRIER_AFTER_ARM $sleep_asym GENERATIONS=1
MUT_NO_BARRIER_AFTER_ARM $sleep_fence GENERATIONS=1
MUT_OWN_FENCE_ONLY $sleep_asym GENERATIONS=1
MUT_LOOK_WITHOUT_FENCE $sleep_fence GENERATIONS=1
MUT_SAME_NUMBER_TWICE $sleep_asym GENERATIONS=1
MUT_POLL_WITHOUT_OWN_RING $sleep_asym POLL GENERATIONS=1
MUT_NO_RING_AFTER_SWITCH $pieces
MUT_NO_RING_AFTER_FOLLOW $pieces
MUT_RECHECK_TAIL_ONLY $pieces
MUT_PUBLISH_WITHOUT_RING $pieces
MUT_PUBLISH_WITHOUT_FENCE $pieces
MUT_RING_ONLY_LARGER $no_reader
END
}

# run KIND NAME FLAG...: prints one line; fails unless spin says what KIND (holds, breaks) expects.
run() {
    local kind=$1 name=$2 dir result states errors started verdict
    shift 2
    dir=$(mktemp -d) || return 1
    started=$SECONDS
    declare -A defines=()
    for flag in "$@"; do
        defines[${flag%%=*}]=$flag
    done
    [ "$kind" = breaks ] && defines[$name]=$name
    if ! (cd "$dir" && spin "${defines[@]/#/-D}" -a "$model" >out 2>&1 &&
          gcc -O2 -DSAFETY -DCOLLAPSE -DMEMLIM=4000 -o pan pan.c >>out 2>&1 &&
          ./pan -m100000 >out 2>&1); then
        echo "pan ended badly" >>"$dir/out"
    fi
    # Exhaustive: no limit of depth or memory was met, and the search ran to its end.
    errors=$(sed -n 's/.*errors: \([0-9]*\)$/\1/p' "$dir/out")
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored$/\1/p' "$dir/out")
    result=$(sed -n 's/^pan:1: \(.*\) (at depth [0-9]*)$/\1/p' "$dir/out" | head -n 1)
    verdict=FAILED
    if [ "$kind" = holds ]; then
        if [ "$errors" = 0 ] &&
            ! grep -qE 'Search not completed|too small|ended badly' "$dir/out"; then
            verdict=ok result="holds, exhaustive"
        fi
    elif [ "${errors:-0}" -gt 0 ] &&
        [[ $result == *"assertion violated"* || $result == *"invalid end state"* ]]; then
        verdict=ok result="caught: $result"
    fi
    result=${result:-no error found}
    printf '%-6s %-33s %11s states %4d s  %s\n' "$verdict" "$name" "${states:-?}" \
        $((SECONDS - started)) "${result:0:70}"
    [ $verdict = ok ] || { echo "       $*"; tail -n 3 "$dir/out"; }
    rm -rf "$dir"
    [ $verdict = ok ]
}

if [ "${1:-}" = --run ]; then
    shift
    # shellcheck disable=SC2068 # the line is split into its words on purpose
    run $@
    exit
fi

runs=$({
    configurations | sed 's/^/holds /'
    mutations | sed 's/^/breaks /'
} | grep -E -- "${1:-.}")
if [ -z "$runs" ]; then
    echo "no run matches $1"
    exit 1
fi
xargs -d '\n' -P "$(nproc)" -I{} bash "$0" --run {} <<<"$runs" || exit 1
