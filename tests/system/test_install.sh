#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A program that knows libvchan.h alone compiles through pkg-config against an installed tree, and works.
set -eu

skip() { echo "SKIP: $*"; exit 77; }

[ -n "${VCHAN_BIN:-}" ] || skip "VCHAN_BIN does not say where the build is"
[ -z "${VCHAN_SANITIZE:-}" ] || skip "a program without the sanitizer cannot load a library with it"
for tool in cmake pkg-config cc; do
    command -v $tool >/dev/null || skip "$tool is not installed"
done
[ -x "$VCHAN_BIN/vchand" ] || skip "vchand has not been built"

build=$(dirname "$VCHAN_BIN")
tree=$(mktemp -d /tmp/vchan-install-XXXXXX)
broker=
server=
trap 'kill $broker $server 2>/dev/null || :; rm -rf "$tree"' EXIT

for component in runtime development; do
    DESTDIR="$tree" cmake --install "$build" --component $component >"$tree/install.log" 2>&1 ||
        { cat "$tree/install.log"; exit 1; }
done

pc=$(find "$tree" -name vchan-kvm.pc)
[ -n "$pc" ] || { echo "vchan-kvm.pc is not installed"; exit 1; }
export PKG_CONFIG_PATH="${pc%/*}" PKG_CONFIG_SYSROOT_DIR="$tree"
flags=$(pkg-config --cflags --libs vchan-kvm)
# shellcheck disable=SC2086 # the flags are words
cc -Wall -Wextra -Werror -o "$tree/pump" "$VCHAN_SOURCE/tests/system/simple_pump.c" $flags
printf '#include <libvchan.h>\n#include <vchan.h>\nint main() { return vchan_explain()[0]; }\n' >"$tree/a.cc"
if command -v c++ >/dev/null; then
    # shellcheck disable=SC2086
    c++ -Wall -Werror -o "$tree/a" "$tree/a.cc" $flags
fi

library=$(find "$tree" -name libvchan-kvm.so.1)
[ -n "$library" ] || { echo "libvchan-kvm.so.1 is not installed"; exit 1; }
export LD_LIBRARY_PATH="${library%/*}"
if nm -D --defined-only "$library" | awk '{ print $3 }' | grep -Ev '^(libvchan_|vchan_|VCHAN_KVM_)'; then
    echo "these symbols are exported and should not be"
    exit 1
fi

export VCHAN_RUNTIME_DIR="$tree/run"
mkdir "$VCHAN_RUNTIME_DIR"
echo >"$tree/vchand.conf"
"$VCHAN_BIN/vchand" --config "$tree/vchand.conf" --runtime-dir "$VCHAN_RUNTIME_DIR" --log-level warning &
broker=$!
for _ in $(seq 100); do
    [ -S "$VCHAN_RUNTIME_DIR/vchand.sock" ] && break
    sleep 0.05
done

head -c 3000000 /dev/urandom >"$tree/sent"
# Its standard input stays open, and silent, for as long as this script runs.
mkfifo "$tree/silence"
exec 9<>"$tree/silence"
VCHAN_DOMAIN=0 timeout 60 "$tree/pump" server 1 5000 <"$tree/silence" >"$tree/received" 9<&- &
server=$!
VCHAN_DOMAIN=1 timeout 60 "$tree/pump" client 0 5000 <"$tree/sent"
for _ in $(seq 200); do
    cmp -s "$tree/sent" "$tree/received" && break
    sleep 0.05
done
cmp "$tree/sent" "$tree/received"
echo "3,000,000 bytes from one program to the other"
