#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# scripts/put-section replaces its own section and nothing else.
# Usage: put-section.sh PATH-OF-PUT-SECTION
set -eu

put=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

expect() { # WHAT: page is as standard input says
	if ! diff -u - page; then
		echo "$1" >&2
		exit 1
	fi
}

printf '# Title\n\nby hand\n' >page
echo "one" | "$put" page first
expect "a section that is not there yet comes to the end" <<'TEXT'
# Title

by hand

<!-- begin first -->
one
<!-- end first -->
TEXT

printf '\nafter, by hand\n' >>page
printf '%s\n' 'zwei & \n' | "$put" page second
printf 'uno\n\ndue\n' | "$put" page first
expect "what people wrote before and after stays, and so do other sections" <<'TEXT'
# Title

by hand

<!-- begin first -->
uno

due
<!-- end first -->

after, by hand

<!-- begin second -->
zwei & \n
<!-- end second -->
TEXT

cp page before
sed -i '/end first/d' page
cp page broken
if echo "x" | "$put" page first 2>/dev/null; then
	echo "a section without an end is no section" >&2
	exit 1
fi
cmp page broken
echo "x" | "$put" new only
[ "$(wc -l <new)" = 3 ]
