#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What is installed fits what was built: the example configuration is accepted and complete, as is its man page; the packages that
# ./demo and ./check install exist; the units are right.
set -euo pipefail

source_dir=${VCHAN_SOURCE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
bin=${VCHAN_BIN:-$source_dir/build/bin}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
count=0 failures=0

# TAP, so that each is counted.
result() {
    local status=$1
    shift
    count=$((count + 1))
    if [ "$status" -eq 0 ]; then
        echo "ok $count - $*"
    else
        echo "not ok $count - $*"
        failures=1
    fi
}
skipped() {
    count=$((count + 1))
    echo "ok $count # SKIP $*"
}
holds() {
    local name=$1 status=0
    shift
    "$@" || status=1
    result "$status" "$name"
}

example=$source_dir/packaging/vchand.conf
# Not every host has the group of the example.
sed 's/^#\([][a-z]\)/\1/; s/^socket-group = .*/socket-group = root/' "$example" >"$work/all.conf"
holds "the example configuration is accepted" "$bin/vchand" --check-config -c "$example"
holds "and with every key uncommented" "$bin/vchand" --check-config -c "$work/all.conf"
sed 's/^socket-group = .*/socket-group = no-such-group/' "$work/all.conf" >"$work/group.conf"
holds "a group that the host has not is told with its line" grep -qE '/group\.conf:[0-9]+: socket-group: ' \
    <("$bin/vchand" --check-config -c "$work/group.conf" 2>&1)
holds "a wrong key in it is not" bash -c "echo 'nonsense = 1' >>$work/all.conf; ! $bin/vchand --check-config -c $work/all.conf 2>/dev/null"

# "section key", from the broker's table, the example and the page.
sed -n 's/^ *{SECTION_\([A-Z]*\), "\([a-z-]*\)".*/\1 \2/p; s/^ *POLICY\(_SIZE\)\?("\([a-z-]*\)".*/REBALANCE \2/p' \
    "$source_dir"/broker/config*.c | tr '[:upper:]' '[:lower:]' | sort -u >"$work/broker"
awk '/^#?\[/ { sub(/^#?\[/, ""); sub(/[] ].*/, ""); section = $0 }
    /^#?[a-z-]+ = / { sub(/^#/, ""); print section, $1 }' "$example" | sort -u >"$work/example"
awk '/^\.Ss \[/ { section = $2; gsub(/[][]/, "", section) }
    /^\.It Cm [a-z-]+ = / && section { print section, $3 }' "$source_dir/docs/man/vchand.conf.5" | sort -u >"$work/page"
holds "the broker has keys" test "$(wc -l <"$work/broker")" -gt 20
holds "the example configuration has all keys" diff "$work/broker" "$work/example"
holds "vchand.conf.5 has all keys" diff "$work/broker" "$work/page"

# exists PACKAGE
exists() {
    local policy
    policy=$(apt-cache policy "$1")
    [[ $policy =~ Candidate:\ [0-9] ]]
}
# Installs into a directory: is everything there, and do the units name what was installed?
build=$(dirname "$bin")
if [ -e "$build/cmake_install.cmake" ]; then
    holds "it can be installed" bash -c "DESTDIR=$work/root cmake --install $build >$work/install.log 2>&1 || { cat $work/install.log; exit 1; }"
    for unit in vchand vchanfs vchan-libvirt vchan-agent; do
        unit_file=$(find "$work/root" -name "$unit.service")
        program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$unit_file")
        holds "$unit.service starts what is installed" test -x "$work/root$program"
    done
    for page in "$source_dir"/docs/man/*.[1-8]; do
        holds "${page##*/} is installed" test -n "$(find "$work/root" -name "${page##*/}")"
    done
    for name in vchand.socket vchan.conf vchanctl vchan-kvm.pc libvchan-kvm.so libvchan.h vchan.h; do
        holds "$name is installed" test -n "$(find "$work/root" -name "$name")"
    done
    # Each component alone is all that its kind of machine needs.
    component_has() {
        local component=$1 name
        shift
        DESTDIR=$work/$component cmake --install "$build" --component "$component" >"$work/install.log" 2>&1 ||
            { cat "$work/install.log"; return 1; }
        for name in "$@"; do
            [ -n "$(find "$work/$component" -name "$name")" ] || { echo "# $name is missing"; return 1; }
        done
    }
    holds "component host is complete" component_has host vchand vchan-libvirt vchanctl vchanfs libvchan-kvm.so.1 \
        vchand.service vchand.socket vchanfs.service vchan-libvirt.service vchan.conf vchand.8
    holds "component guest is complete" component_has guest vchan-agent vchanctl vchanfs libvchan-kvm.so.1 \
        vchan-agent.service vchanfs.service 60-vchan.rules vchan-guest.conf vchan.conf vchan-agent.8
    holds "a guest gets no broker" test -z "$(find "$work/guest" -name 'vchand*' -type f)"
else
    skipped "$build is not a build directory"
fi

if command -v apt-cache >/dev/null && exists gcc; then
    while IFS= read -r package; do
        holds "Debian has $package" exists "$package"
    done < <("$source_dir/packaging/install-missing" --list build demo test vm bench)
else
    skipped "there are no package lists here"
fi

if command -v systemd-analyze >/dev/null; then
    cp "$source_dir/packaging/vchand.socket" "$work"
    for unit in vchand vchanfs vchan-libvirt vchan-agent; do
        sed 's|@CMAKE_INSTALL_FULL_BINDIR@/[a-z-]*|/bin/true|' "$source_dir/packaging/$unit.service.in" >"$work/$unit.service"
    done
    # It also looks for the manual pages, which are not installed here.
    output=$(systemd-analyze verify "$work"/*.service 2>&1 | grep -E "vchan" | grep -v "Command 'man " || true)
    [ -z "$output" ] || echo "$output"
    holds "systemd accepts the units" test -z "$output"
else
    skipped "there is no systemd-analyze here"
fi

echo "1..$count"
exit "$failures"
