#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# ./check can fail: in a small tree made here, it finds a test that fails, a build that breaks, a process and a mount that are left
# behind, and is silent when all is well.
set -euo pipefail

source_dir=${VCHAN_SOURCE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
tree=$(mktemp -d)
state=$(mktemp -d)
trap 'rm -rf "$tree" "$state"' EXIT
count=0 failures=0

mkdir -p "$tree/.ci" "$tree/tests" "$tree/ring"
cp "$source_dir/check" "$source_dir/CMakePresets.json" "$tree"
cp "$source_dir/.ci/count-tests" "$tree/.ci"
cp "$source_dir/tests/check-edges" "$tree/tests"
licence='SPDX-License-Identifier: LGPL-2.1-or-later'
echo "/* $licence */" >"$tree/ring/ring.c"

# project LINE...: the tree's CMakeLists.txt, with a passing test in each suite, and these lines.
project() {
    {
        echo "# $licence"
        echo 'cmake_minimum_required(VERSION 3.25)
project(small NONE)
enable_testing()
add_test(NAME unit/well COMMAND true)
add_test(NAME system/well COMMAND true)
add_test(NAME vm/well COMMAND true)
set_tests_properties(unit/well PROPERTIES LABELS unit)
set_tests_properties(system/well PROPERTIES LABELS system)
set_tests_properties(vm/well PROPERTIES LABELS vm)'
        printf '%s\n' "$@"
    } >"$tree/CMakeLists.txt"
    rm -rf "$tree/build"
}

# expect NAME STATUS LAST-LINE PATTERN: what ./check -q says, from another directory and with an empty environment.
expect() {
    local name=$1 status=0 output problem=''
    output=$(cd / && env -i HOME=/nonexistent PATH=/usr/bin:/bin:/usr/sbin:/sbin bash "$tree/check" -q --no-install 2>&1) ||
        status=$?
    [ "$status" -eq "$2" ] || problem="exit status $status"
    [ "$(tail -n 1 <<<"$output")" = "$3" ] || problem="$problem, another last line"
    grep -qE "$4" <<<"$output" || problem="$problem, nothing like '$4'"
    count=$((count + 1))
    if [ -z "$problem" ]; then
        echo "ok $count - $name"
    else
        printf 'not ok %s - %s: %s\n%s\n' "$count" "$name" "$problem" "$output"
        failures=1
    fi
}
is_so() {
    count=$((count + 1))
    if "${@:2}"; then
        echo "ok $count - $1"
    else
        echo "not ok $count - $1"
        failures=1
    fi
}

project
expect "all is well" 0 "4 passed, 0 failed, 0 skipped" '^4 passed'
output=$(bash "$tree/check" -q --no-install)
is_so "it says nothing else then" test "$output" = "4 passed, 0 failed, 0 skipped"

project 'add_test(NAME system/ill COMMAND sh -c "echo this went wrong; exit 1")'
expect "a failed test" 1 "4 passed, 1 failed, 0 skipped" '^    this went wrong$'

project 'add_test(NAME system/no COMMAND sh -c "echo not on a Sunday; exit 77")
set_tests_properties(system/no PROPERTIES SKIP_RETURN_CODE 77)'
expect "a skipped test" 0 "4 passed, 0 failed, 1 skipped" '^SKIP release: system/no: not on a Sunday$'

project 'message(FATAL_ERROR "no such luck")'
expect "a build that breaks" 1 "1 passed, 1 failed, 0 skipped" 'no such luck'

project "add_test(NAME system/leaves COMMAND sh -c \"setsid sleep 300 >/dev/null 2>&1 & echo \$! >$state/pid\")"
expect "a process left behind" 1 "5 passed, 1 failed, 0 skipped" 'left a process behind: [0-9]+ sleep 300'
# Nobody may have reaped it yet, but it does not sleep any more.
is_so "which is ended" bash -c "! grep -qs sleep /proc/$(cat "$state/pid")/cmdline"

if [ "$(id -u)" -eq 0 ] && mkdir "$state/mount" && mount -t tmpfs none "$state/mount" 2>/dev/null; then
    umount "$state/mount"
    # shellcheck disable=SC2016 # the test is to expand it
    project 'add_test(NAME system/mounts COMMAND sh -c "mkdir $TMPDIR/left && mount -t tmpfs none $TMPDIR/left")'
    expect "a mount left behind" 1 "5 passed, 1 failed, 0 skipped" 'left a mount behind: .*/left'
    is_so "which is unmounted" bash -c '! grep -q /vchan-check.*/left /proc/self/mounts'
else
    count=$((count + 1))
    echo "ok $count # SKIP mounting is not permitted here"
fi

# Guests are tested by a ./check of their own: what goes wrong there is counted and told all the same.
project 'add_test(NAME vm/bad COMMAND sh -c "echo no such guest; exit 1")' 'set_tests_properties(vm/bad PROPERTIES LABELS vm)'
expect "a guest's test that fails" 1 "4 passed, 1 failed, 0 skipped" '^FAIL guests: vm/bad'

project
echo '#include "broker/broker.h"' >>"$tree/ring/ring.c"
expect "an include that is not allowed" 1 "3 passed, 1 failed, 0 skipped" 'ring may not include broker/broker.h'

echo "1..$count"
exit "$failures"
