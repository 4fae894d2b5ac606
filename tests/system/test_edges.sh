#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The tree keeps the rules of tests/check-edges, and each rule can fail: every seeded violation is found, and only there.
set -euo pipefail

source_dir=${VCHAN_SOURCE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

"$source_dir/tests/check-edges"

tar -C "$source_dir" --exclude=.git --exclude='./build' --exclude='./build-*' -cf - . | tar -C "$copy" -xf -
"$source_dir/tests/check-edges" "$copy"

licence='/* SPDX-License-Identifier: LGPL-2.1-or-later */'
failures=0

# seed FILE TEXT PATTERN: with this file in the tree, the check fails and says PATTERN of the file, and nothing else.
seed() {
    local file=$1 text=$2 pattern=$3 output
    printf '%s\n' "$text" >"$copy/$file"
    if output=$("$source_dir/tests/check-edges" "$copy"); then
        echo "not found: $file with $pattern"
        failures=1
    elif ! grep -q "^$file:.*$pattern" <<<"$output" || grep -v "^$file:" <<<"$output"; then
        printf 'wrong answer for %s:\n%s\n' "$file" "$output"
        failures=1
    fi
    rm "$copy/$file"
}

seed ring/seeded.c "$licence
#include \"broker/broker.h\"" "ring may not include broker/broker.h"
seed allocator/seeded.h "$licence
#  include \"proto/proto.h\"" "allocator may not include proto/proto.h"
seed client/seeded.c "$licence
#include \"broker/log.h\"" "client may not include broker/log.h"
seed client/seeded.c "$licence
#include \"client/ctl/text.h\"" "the library includes client/ctl/text.h"
seed fuse/seeded.c "$licence
#include \"ring/layout.h\"" "fuse may not include ring/layout.h"
seed fuse/seeded.c "$licence
#include \"client/connection.h\"" "fuse may not include client/connection.h"
seed broker/seeded.c "$licence
#include \"client/vchan.h\"" "broker may not include client/vchan.h"
seed broker/seeded.c "$licence
#include \"config.h\"" "include by folder path"
seed broker/seeded.c "$licence
#include <fuse3/fuse_lowlevel.h>" "belongs in: fuse"
seed ring/seeded.c "$licence
#include <json-c/json.h>" "belongs in: client"
seed client/ctl/zseeded.c "$licence
#include <json-c/json.h>" "stay in one file"
seed client/seeded.c "$licence
#include <seccomp.h>" "belongs in: broker"
seed broker/libvirt/seeded.c "$licence
#include \"broker/log.h\"" "two programs: not broker/log.h"
seed broker/seeded.c "$licence
#include \"broker/libvirt/task.h\"" "two programs: not broker/libvirt/task.h"
seed broker/libvirt/seeded.c "$licence
#include <libvirt/libvirt.h>" "stay in one file"
seed client/seeded.c "$licence
#include <libxml/tree.h>" "belongs in: broker"
seed broker/seeded.c "int x;" "SPDX-License-Identifier"
seed broker/seeded.c "$licence
$(seq 600 | sed 's/.*/int x&;/')" "at most 600"
seed broker/util.c "$licence" "name the module after what it does"
seed ring/common.h "$licence" "name the module after what it does"

mkdir "$copy/empty"
if "$source_dir/tests/check-edges" "$copy/empty" 2>/dev/null; then
    echo "a tree without sources passes"
    failures=1
fi

exit "$failures"
