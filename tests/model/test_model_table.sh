#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# docs/model.md says where each step of the model is in the code, and which mutations there are: so
# it must be. Each step stands in its model file, each function is defined in its code file; each
# mutation of the model is run and described, each of the code has the model's name and is run too,
# and each rule has one of both kinds.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
page=$root/docs/model.md
failed=0
steps=0

fail() {
    echo "FAILED: $*"
    failed=1
}

# The words between backquotes of a table's cell, a line each.
# shellcheck disable=SC2016 # backquotes are meant
quoted() {
    grep -o '`[^`]*`' <<<"$1" | tr -d '`'
}

while IFS='|' read -r _ labels model _ functions files _; do
    model=$(tr -d ' ' <<<"$model")
    while read -r label; do
        grep -qF -- "$label" "$root/tests/model/$model" || fail "$model has no step '$label'"
        steps=$((steps + 1))
    done < <(quoted "$labels")
    while read -r function; do
        found=0
        for file in $files; do
            # A definition: its name, not called, at the end of what begins a line.
            grep -qE "^[a-z][a-z0-9_ *]*\b$function\(" "$root/$file" && found=1
        done
        [ $found = 1 ] || fail "$function is not defined in $files"
    done < <(quoted "$functions")
done < <(grep -E '^\| `.*\.pml \|' "$page")
[ $steps -ge 30 ] || fail "only $steps steps in the table"

described=$(sed -n '/^## Mutations/,/^## /p' "$page" | sed -n 's/^| \([A-Z_]*\) |.*/\1/p' | sort)
of_model=$(grep -ohE '\bMUT_[A-Z_]+' "$root"/tests/model/*.pml | sed 's/^MUT_//' | sort -u)
run=$(sed -n 's/^MUT_\([A-Z_]*\) .*/\1/p' "$root/tests/model/test_model.sh" | sort -u)
of_code=$(sed -n 's/^ *MUTATION_\([A-Z_]*\),.*/\1/p' "$root/ring/mutation.h" | grep -vx NONE | sort -u)
[ "$described" = "$of_model" ] ||
    fail "described and in the model differ: $(diff <(echo "$described") <(echo "$of_model") | tr '\n' ' ')"
[ "$run" = "$of_model" ] ||
    fail "run by test_model.sh and in the model differ: $(diff <(echo "$run") <(echo "$of_model"))"
for mutation in $of_code; do
    grep -qx "$mutation" <<<"$of_model" || fail "$mutation is in the code and not in the model"
    grep -qw "MUTATED($mutation)" "$root"/ring/*.c || fail "$mutation changes nothing in ring/"
    grep -qw "$mutation" "$root/tests/race/CMakeLists.txt" || fail "$mutation has no race test"
    grep -qE "^\| $mutation \|.*\| [0-9, ]+ \| yes \|$" "$page" ||
        fail "$mutation is not marked in the page as planted in the code"
done
for rule in 1 2 3 4 5; do
    grep -qE "^\| [A-Z_]+ \|.*\|[0-9, ]*${rule}[0-9, ]*\| yes \|$" "$page" ||
        fail "rule $rule has no mutation of model and code"
done
[ $failed = 0 ] && echo "ok: $steps steps, $(wc -w <<<"$of_model") mutations of the model, $(wc -w <<<"$of_code") of the code"
exit $failed
