#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Runs vchan-bench rebalance, keeps what it measured in bench/results/, plots it (SVG and PNG, by gnuplot), and writes the tables
# of docs/rebalancing.md.
#
#     bench/rebalance.sh            some 9 minutes, on a quiet machine
#     bench/rebalance.sh --short    some 3 minutes: to see that it works
#     bench/rebalance.sh --tables   plots and tables only, of what was measured before
#     bench/rebalance.sh --episode  records a new episode, which docs/rebalancing.md then has to be told anew
#
# VCHAN_BIN names the directory with vchan-bench and vchand, else build/bin.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bench=${VCHAN_BIN:-$here/../build/bin}/vchan-bench
results=$here/results
seconds=20 rounds=2 measure=yes episode=no
case ${1:-} in
    '') ;;
    --short) seconds=10 rounds=1 ;;
    --tables) measure=no ;;
    --episode) measure=no episode=yes ;;
    *) sed -n '3,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
for tool in gnuplot jq; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: apt-get install gnuplot-nox jq" >&2; exit 1; }
done
mkdir -p "$results"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ $measure = yes ]; then
    "$bench" rebalance --seconds $seconds --rounds $rounds --json --csv "$results/rebalance.csv" >"$results/rebalance.json"
fi
if [ $episode = yes ]; then
    # One load under the default policy, watched closely.
    "$bench" rebalance --loads bursty --policies default --seconds 14 --rounds 1 --json \
        --trace "$work/trace.csv" --history "$work/history.csv" >"$results/episode.json"
    # Three streams whose bursts follow one another: the two of channel 5, and the first of channel 6.
    awk -F, 'NR == 1 || $2 == "all" || ($2 >= 10 && $2 <= 12)' "$work/trace.csv" >"$results/episode.csv"
    awk -F, 'NR == 1 || $3 == 9005 || ($3 == 9006 && $4 == 0)' "$work/history.csv" >"$results/episode-history.csv"
fi

# plot NAME: what follows on standard input, as SVG and as PNG.
plot() {
    local script
    script=$(cat)
    (cd "$results" && gnuplot <<<"set terminal svg size 900,${2:-420} font 'sans,12' background 'white'
set output '$1.svg'
set datafile separator ','
$script" && gnuplot <<<"set terminal pngcairo size 900,${2:-420} font 'sans,10' background 'white'
set output '$1.png'
set datafile separator ','
$script")
}

policies=$(jq -r '[.rebalance.loads[].policy] | unique_by(.) | .[]' "$results/rebalance.json")
for key in stall_percent mb_per_s; do
    jq -r --arg key $key '.rebalance.loads | group_by(.load)[] |
        [.[0].load] + [(sort_by(.policy)[])[$key]] | @csv' "$results/rebalance.json" >"$results/bars-$key.csv"
    columns=""
    i=2
    for policy in $policies; do
        columns+="${columns:+, }'bars-$key.csv' using $i:xtic(1) title '$policy'"
        i=$((i + 1))
    done
    [ $key = stall_percent ] && title="time that writers waited for space, %" || title="read by all, MB/s"
    plot "rebalance-${key//_/-}" <<END
set style data histogram
set style histogram clustered gap 1
set style fill solid 0.8 border -1
set ylabel "$title"
set yrange [0:*]
set grid ytics
set key top left
plot $columns
END
    rm -f "$results/bars-$key.csv"
done

plot episode 760 <<'END'
set multiplot layout 3,1
set xrange [4800:9800]
set grid
set lmargin 10
set ylabel "ring, KiB"
set key top right
stream(s) = sprintf("< awk -F, '$2 == %d' episode.csv", s)
plot for [s=10:12] stream(s) using 1:($3/1024) with steps lw 2 title sprintf("stream %d", s)
set ylabel "written, MB since the start"
plot for [s=10:12] stream(s) using 1:($4/1e6) with lines lw 2 notitle
set ylabel "stalled, ms since the start"
set xlabel "ms since the start"
plot for [s=10:12] stream(s) using 1:($6/1e3) with lines lw 2 notitle
unset multiplot
END
plot episode-memory <<'END'
all = "< awk -F, '$2 == \"all\"' episode.csv"
set ylabel "MB"
set xlabel "ms since the start"
set yrange [0:*]
set grid
set key bottom right
plot all using 1:($3/1e6) with lines lw 2 title "used by rings", \
     all using 1:($4/1e6) with lines lw 2 title "resident"
END

cat >"$work/tables.jq" <<'END'
def show($digits): if . == null then "-" else . * pow(10; $digits) | round / pow(10; $digits) | tostring end;
def row: "| " + join(" | ") + " |";
def machine: .machine | "\(.cpu), \(.cpus_online) CPUs, Linux \(.kernel); " ;
def setup: .rebalance | "\(.streams) streams, \(.region_bytes / 1048576) MiB, \(.rounds) rounds of slices of \(.seconds) s.";
def loads: (["load", "policy", "MB/s", "times", "stalled %", "times", "write p50 us", "p99 us", "p99.9 us", "Jain", "moves", "moves/s", "used MB", "resident MB", "apart MB"]
    | row, (map("---") | row)),
  (.rebalance.loads[] | [.load, .policy, (.mb_per_s | show(1)), (.throughput_ratio | show(2)), (.stall_percent | show(2)),
    (.stall_ratio | show(2)), (.p50_us | show(1)), (.p99_us | show(0)), (.p99_9_us | show(0)), (.jain | show(3)), (.moves | show(0)),
    (.moves_per_s | show(1)), (.used_mb | show(2)), (.resident_mb | show(2)), (.apart_mb | show(2))] | row);
def of($load): .rebalance.loads[] | select(.policy == "default" and .load == $load);
def targets: (["what", "target", "measured"] | row, (map("---") | row)),
  (["bursty: time stalled, times static", "<= 0.5", (of("bursty").stall_ratio | show(2))] | row),
  (["skewed: time stalled, times static", "<= 0.5", (of("skewed").stall_ratio | show(2))] | row),
  (["uniform: throughput, times static", ">= 0.95", (of("uniform").throughput_ratio | show(2))] | row),
  (["uniform: time stalled, times static", "<= 1.05", (of("uniform").stall_ratio | show(2))] | row),
  (["Jain's fairness among equals, least of all loads", ">= 0.95",
    ([.rebalance.loads[] | select(.policy == "default").jain] | min | show(3))] | row),
  (["constant: moves in the last 80%", "0", (of("constant").moves | show(0))] | row);
END
for table in machine+setup loads targets; do
    jq -r -L "$work" "include \"tables\"; $table" "$results/rebalance.json" >"$work/${table%+*}"
done
page=$here/../docs/rebalancing.md
awk -v work="$work" '
    /^<!-- table [a-z-]+ -->$/ {
        print; print ""
        while ((getline line < (work "/" $3)) > 0) print line
        print ""; skipping = 1; next
    }
    /^<!-- end -->$/ { skipping = 0 }
    !skipping' "$page" >"$work/page"
cat "$work/page" >"$page"
