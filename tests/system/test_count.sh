#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# .ci/count-tests counts what ctest really reports: cases of cmocka, unittest and TAP, crashes, time limits, tests that could not
# be started. The reports come from ctest itself, run on a project made here.
set -euo pipefail

source_dir=${VCHAN_SOURCE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# expect NAME COUNTS PATTERN SCRIPT: a test that runs this shell script is counted so, and what is printed matches the pattern.
expect() {
    local name=$1 counts=$2 pattern=$3 script=$4 output
    mkdir "$work/$name"
    printf '%s\n' "$script" >"$work/$name/test.sh"
    cat >"$work/$name/CTestTestfile.cmake" <<END
add_test(unit/$name sh $work/$name/test.sh)
set_tests_properties(unit/$name PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 1)
END
    (cd "$work/$name" && ctest --output-junit report.xml --test-output-size-passed 100000 \
        --test-output-size-failed 100000 >log 2>&1) || true
    output=$(awk -f "$source_dir/.ci/count-tests" -v stage=s "$work/$name/log" "$work/$name/report.xml")
    if [ "$(tail -n 1 <<<"$output")" != "COUNT $counts" ] || ! grep -qE -e "$pattern" <<<"$output"; then
        printf '%s: expected "COUNT %s" and "%s", got:\n%s\n' "$name" "$counts" "$pattern" "$output"
        failures=1
    fi
}

expect plain "1 0 0" '^COUNT' 'echo "one < two & three > two"'
expect cases "12 0 0" '^COUNT' 'echo "[  PASSED  ] 9 test(s)." >&2; echo "[  PASSED  ] 3 test(s)."'
expect bad_case "2 1 0" '^FAIL s: unit/bad_case: Failed' \
    'echo "[  PASSED  ] 2 test(s)."; echo "[  FAILED  ] 1 test(s), listed below:"; echo "[  FAILED  ] x"; exit 1'
expect hidden_failure "2 1 0" 'reports failed cases' \
    'echo "[  PASSED  ] 2 test(s)."; echo "[  FAILED  ] 1 test(s), listed below:"'
expect skipped_case "2 0 1" '^SKIP s: unit/skipped_case: .*no_fuse' \
    'echo "[  PASSED  ] 2 test(s)."; echo "[  SKIPPED ] 1 test(s), listed below:"; echo "[  SKIPPED ] no_fuse"'
expect skipped "0 0 1" '^SKIP s: unit/skipped: there is no /dev/fuse here$' 'echo "there is no /dev/fuse here"; echo; exit 77'
expect crash "0 1 0" 'SegFault' 'kill -SEGV $$'
expect too_long "0 1 0" 'Timeout' 'sleep 5'
expect crash_after_passes "4 1 0" '^ +the last words$' 'echo "[  PASSED  ] 4 test(s)."; echo "the last words"; kill -ABRT $$'
expect python "5 1 2" '^FAIL' 'echo "Ran 8 tests in 0.1s"; echo; echo "FAILED (errors=1, skipped=2)"; exit 1'
expect python_well "3 0 0" '^COUNT' 'echo "Ran 3 tests in 0.1s"; echo; echo OK'
expect tap "2 1 1" '^FAIL' 'echo "ok 1 - a"; echo "ok 2"; echo "ok 3 # SKIP no root"; echo "not ok 4"; exit 1'
expect markup "1 0 0" '^COUNT' 'echo "</system-out></testcase><testcase name=\"x\" status=\"fail\">"'

cat >"$work/CTestTestfile.cmake" <<'END'
add_test(unit/absent /nonexistent/test)
END
(cd "$work" && ctest --output-junit report.xml >log 2>&1) || true
if ! awk -f "$source_dir/.ci/count-tests" -v stage=s "$work/log" "$work/report.xml" | grep -q '^COUNT 0 1 0$'; then
    echo "a test that cannot be started does not count as failed"
    failures=1
fi

# A ctest that was killed leaves no report, or half of one.
if ! awk -f "$source_dir/.ci/count-tests" -v stage=s /dev/null | grep -q '^COUNT 0 1 0$'; then
    echo "no report does not count as failed"
    failures=1
fi
head -n 12 "$work/plain/report.xml" >"$work/half.xml"
if ! awk -f "$source_dir/.ci/count-tests" -v stage=s "$work/half.xml" | grep -q '^COUNT .* 1 0$'; then
    echo "half a report does not count as failed"
    failures=1
fi

exit "$failures"
