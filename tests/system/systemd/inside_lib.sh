# SPDX-License-Identifier: Apache-2.0
# Sourced by what runs on the machine: inside.sh and facts.sh.
# shellcheck shell=bash
set -euo pipefail

fail() {
	echo "FAILED: $*"
	exit 1
}

ok() { printf '%6.1f s  ok: %s\n' "$(bc_ms)" "$*"; }
began=$(date +%s%N)
bc_ms() { local ms=$((($(date +%s%N) - began) / 1000000)); echo "$((ms / 1000)).$((ms % 1000 / 100))"; }

# wait_for SECONDS WHAT COMMAND...
wait_for() {
	local end=$(($(date +%s%N) + $1 * 1000000000)) what=$2
	shift 2
	until "$@"; do
		[ "$(date +%s%N)" -lt "$end" ] || fail "$what: not within the time"
		sleep 0.05
	done
}

# prop UNIT PROPERTY
prop() { systemctl show --value -p "$2" "$1"; }
is() { [ "$(prop "$1" "$2")" = "$3" ]; }
same() { [ "$2" = "$3" ] || fail "$1: $2, not $3"; }
