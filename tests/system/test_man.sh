#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The man pages are there, are right mdoc, and name every option and command that the programs' --help names.
set -euo pipefail

source_dir=${VCHAN_SOURCE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
bin=${VCHAN_BIN:-$source_dir/build/bin}
cd "$source_dir/docs/man"

if ! command -v mandoc >/dev/null; then
    echo "there is no mandoc here (package mandoc)"
    exit 77
fi

failures=0
complain() {
    echo "$1"
    failures=1
}

mandoc -T lint -W warning -- *.[1-8] || complain "mandoc finds fault"
printf '.Dd today\n.Dt X 1\n.Os\n.Sh NAME\n.Pp\n' | mandoc -T lint -W warning >/dev/null && complain "mandoc finds no fault with anything"

# plain PAGE: its text. mandoc writes a hyphen as one or two characters, bold as overstruck ones.
plain() {
    mandoc -T ascii -O width=200 "$1" | sed 's/.\x08//g'
}

# covers PAGE COMMAND...: each --option in the output of the command is in the page.
covers() {
    local page=$1 text option
    shift
    text=$(plain "$page")
    while IFS= read -r option; do
        grep -qF -e "$option" <<<"$text" || complain "$page does not mention $option"
    done < <("$@" 2>&1 | grep -oE -- '(^|[ ,])--[a-z][a-z-]+' | tr -d ' ,' | sort -u)
}

covers vchand.8 "$bin/vchand" --help
covers vchan-libvirt.8 "$bin/vchan-libvirt" --help
covers vchanctl.1 "$bin/vchanctl" --help
[ ! -x "$bin/vchanfs" ] || covers vchanfs.8 "$bin/vchanfs" --help
[ ! -x "$bin/vchan-bench" ] || covers vchan-bench.1 "$bin/vchan-bench" --help

text=$(plain vchanctl.1)
while IFS= read -r command; do
    grep -qE "^ +$command( |\$)" <<<"$text" || complain "vchanctl.1 does not explain $command"
done < <("$bin/vchanctl" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')

# Every function of the two headers has its page.
for header in libvchan vchan; do
    page=$([ "$header" = vchan ] && echo vchan.3 || echo libvchan-kvm.3)
    text=$(plain "$page")
    while IFS= read -r function; do
        grep -qF "$function(" <<<"$text" || complain "$page does not show $function"
    done < <(sed 's|/\*.*\*/||' "$source_dir/client/$header.h" | grep -oE '^[a-z].*\b(lib)?vchan_[a-z_]+\(' |
        grep -oE '(lib)?vchan_[a-z_]+\($' | tr -d '(' | sort -u)
done

exit "$failures"
