# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts that prove that programs which were not rebuilt work on a served folder: each does the same in $plain_dir
# without pagecached and in $dir through it, with a budget smaller than the data, and compares. Times are printed side by side;
# nothing is said of what they should be.
#
#	. "$(dirname "$0")/lib.sh"
#	need sqlite3/sqlite3                   Debian's package / program in it
#	program_begin NAME "$@"                reads the options, starts the daemon
#	work() { on "$1" PROGRAM "$2"/file; }  $1: plain or cached, $2: the folder
#	timed "what" both work                 work plain $plain_dir, then work cached $dir
#	same_store                             what is in the store is what programs see, and what they see is what plain left
#	program_end                            prints the times
#
# Options of each script: --short (the default: some seconds), --minutes N (goes on for about that long), --seed N, --memory SIZE (the
# budget), --plain (without pagecached only: to try the script itself). Environment: PAGECACHED_BIN, PAGECACHECTL_BIN (default: of build/),
# TMPDIR (default: /var/tmp, must be on a disk), KEEP=1 (leave the folder), PGC_REQUIRE_KERNEL=1 (a missing program is a failure),
# PGC_KILL_EVERY=SECONDS (the daemon is killed that often; the keeper starts the next one, and nothing else must change).
# shellcheck shell=bash
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

export PAGECACHED_ORPHAN_TIMEOUT=30 # when the keeper has given up, programs fail and do not hang
daemon_bin=${PAGECACHED_BIN:-$root/build/daemon/pagecached}
build=$(cd "$(dirname "$daemon_bin")/.." 2>/dev/null && pwd) || { echo "$0: no $daemon_bin: build it, or set PAGECACHED_BIN" >&2; exit 1; }
ctl=${PAGECACHECTL_BIN:-$build/tools/pagecachectl}
minutes=0   # 0: the short form
seed=
budget=16M
only_plain=
name=
dir=        # the served folder
plain_dir=  # its twin, which pagecached never sees
groups=()   # of started programs: all their processes end with the script
steps=()
daemon_flags=() # more than the budget
through=()  # what goes before a command for it to see $dir through pagecached
step=       # the one under way
killer=     # the process that kills the daemon every $PGC_KILL_EVERY seconds
declare -A took=()

fail() {
	echo "$name: FAILED: $*" >&2
	exit 1
}

# need PACKAGE/PROGRAM...: without it there is nothing to prove. PROGRAM may be an absolute path with wildcards.
need() {
	local want
	for want in "$@"; do
		compgen -G "${want#*/}" >/dev/null || command -v "${want#*/}" >/dev/null || {
			echo "cannot run here: no ${want#*/}, of package ${want%%/*}" >&2
			[ "${PGC_REQUIRE_KERNEL:-}" != 1 ] || exit 1
			exit 77
		}
	done
}

# program_begin NAME [OPTION...]
program_begin() {
	name=$1
	shift
	while [ $# -gt 0 ]; do
		case $1 in
		--short) minutes=0 ;;
		--minutes) minutes=$2; shift ;;
		--seed) seed=$2; shift ;;
		--memory) budget=$2; shift ;;
		--plain) only_plain=1 ;;
		*) echo "usage: $0 [--short | --minutes N] [--seed N] [--memory SIZE] [--plain]" >&2; exit 2 ;;
		esac
		shift
	done
	seed=${seed:-$((RANDOM * 32768 + RANDOM))}
	RANDOM=$((seed % 32768))
	echo "$name: seed $seed, memory $budget"
	unset LD_PRELOAD PAGECACHED_PATHS
	exec {stdout}>&1 {stderr}>&2
	private_begin "$name"
	trap groups_end EXIT
	chmod 711 "$work" # a program may run as another user
	dir=$work/served plain_dir=$work/plain
	mkdir "$dir" "$plain_dir"
	[ -n "$only_plain" ] || daemon_start
	through=("$ctl" run --path "$dir" --)
}

daemon_start() {
	daemon_begin "$build" --memory-max "$budget" "${daemon_flags[@]}"
	[ -z "${PGC_KILL_EVERY:-}" ] || kills_begin
}

# The daemon dies, and dies again. Each death is a line in $work/kills.
kills_begin() {
	(
		trap - EXIT
		set +e
		while sleep "$PGC_KILL_EVERY" && kill -0 "$daemon_pid" 2>/dev/null; do
			daemon_dies && echo dead >>"$work/kills"
		done
	) &
	killer=$!
}

kills_end() {
	[ -n "$killer" ] || return 0
	kill "$killer" 2>/dev/null || true
	wait "$killer" 2>/dev/null || true
	killer=
}

# goes_on PID COMMAND...: the daemon dies three times under the program PID, which goes on each time: the number that COMMAND prints gets larger.
goes_on() {
	local pid=$1 n i before
	shift
	for n in 1 2 3; do
		daemon_dies || fail "there is no daemon"
		before=$("$@")
		for ((i = 0; i < 600; i++)); do
			kill -0 "$pid" || fail "the program ended by itself, when the daemon had died $n times"
			[ "$("$@")" -le "$before" ] || break
			sleep 0.05
		done
		[ "$i" -lt 600 ] || fail "the program does not go on, when the daemon has died $n times"
	done
}

# power_failure PID...: daemon and keeper die, and with them all that no sync has brought to the store; so do the programs that start() started.
power_failure() {
	local pid
	kills_end
	daemon_vanishes
	[ "$bpf" = none ] || rm -rf "$bpf" # memory, too
	for pid in "$@"; do
		kill_hard "$pid"
	done
}

# How a script ends, well or not. The programs end before the daemon does.
groups_end() {
	local status=$? pid
	trap - EXIT
	set +e
	exec 1>&"$stdout" 2>&"$stderr"
	kills_end
	for pid in "${groups[@]}"; do
		kill_hard "$pid"
	done
	if [ "$status" != 0 ]; then
		[ -z "$step" ] || {
			tail -n 40 "$work/out" "$work/err" 2>/dev/null
			echo "$name: failed in: $step"
		} >&2
		tail -n 20 "$work/daemon.log" >&2 2>/dev/null || true
		echo "$name: seed $seed${KEEP:+, see $work}" >&2
	fi
	(exit "$status") # where private_end takes the status from
	private_end
}

# program_end: the last line of a script.
program_end() {
	local s
	printf '\n%-44s %10s %10s\n' "seconds" plain cached
	for s in "${steps[@]}"; do
		printf '%-44s %10s %10s\n' "$s" "${took["$s/plain"]:--}" "${took["$s/cached"]:--}"
	done
	kills_end
	if [ -n "${PGC_KILL_EVERY:-}" ] && [ -z "$only_plain" ]; then
		[ -s "$work/kills" ] || fail "it was over before the daemon was killed"
		echo "the daemon was killed $(wc -l <"$work/kills") times"
	fi
	[ -n "$only_plain" ] || daemon_end || fail "the daemon"
	echo "$name: all is as it should be"
}

# plain COMMAND...: without pagecached. cached COMMAND...: through it.
plain() { "$@"; }
cached() { "${through[@]}" "$@"; }

# on MODE COMMAND...: plain or cached.
on() { "$@"; }

# start MODE COMMAND...: in the background, with a process group of its own; its number is left in $started.
start() {
	case $1 in
	plain) (shift && exec setsid "$@") & ;;
	cached) (shift && exec setsid "${through[@]}" "$@") & ;;
	esac
	started=$!
	groups+=("$started")
}

# finish PID: waits for what start() started; its exit status.
finish() {
	local pid rest=()
	for pid in "${groups[@]}"; do
		[ "$pid" = "$1" ] || rest+=("$pid")
	done
	groups=("${rest[@]}")
	wait "$1"
}

# kill_hard PID: ends all of what start() started as a crash would, and waits for it.
kill_hard() {
	kill -KILL -- "-$1" 2>/dev/null || true
	finish "$1" 2>/dev/null || true
}

modes() { if [ -n "$only_plain" ]; then echo plain; else echo plain cached; fi; }

folder() { if [ "$1" = cached ]; then echo "$dir"; else echo "$plain_dir"; fi; }

# timed STEP MODE|both FUNCTION [ARG...]: calls FUNCTION MODE FOLDER ARG..., and notes how long it took. What it prints must be the same
# in both modes; what must not be compared goes to stderr.
timed() {
	local which=$2 what=$3 mode begin
	step=$1
	shift 3
	[ "$which" != both ] || which=$(modes)
	case "|$(IFS='|' && echo "${steps[*]}")|" in *"|$step|"*) ;; *) steps+=("$step") ;; esac
	for mode in $which; do
		begin=${EPOCHREALTIME/[.,]/}
		"$what" "$mode" "$(folder "$mode")" "$@" >"$work/out" 2>"$work/err" # not in a condition, which would turn set -e off in it
		took["$step/$mode"]=$(awk -v us=$((${EPOCHREALTIME/[.,]/} - begin)) 'BEGIN {printf "%.2f", us / 1e6}')
		mv "$work/out" "$work/out.$mode"
	done
	rm -f "$work/err"
	if [ "$which" = "plain cached" ]; then
		diff "$work/out.plain" "$work/out.cached" >"$work/err" || fail "the outputs differ"
	fi
	step=
}

# list FOLDER: type, size or target, and SHA-256 of all that is in it.
list() {
	(cd "$1" && find . -type f -printf 'f %p %s\n' -o -printf '%y %p %l\n' && find . -type f -exec sha256sum {} +) | sort
}
export -f list

# same_store: after a sync the store, read without the library, is what programs see through it.
same_store() {
	[ -z "$only_plain" ] || return 0
	cached bash -c 'list "$1"' list "$dir" >"$work/list.seen"
	"$ctl" sync >/dev/null
	list "$dir" >"$work/list.store"
	diff "$work/list.seen" "$work/list.store" >&2 || fail "the store (right) is not what programs see (left)"
}

# same_as_plain: and it is what the plain run left.
same_as_plain() {
	[ -z "$only_plain" ] || return 0
	same_store
	list "$plain_dir" >"$work/list.plain"
	diff "$work/list.plain" "$work/list.store" >&2 || fail "what is served (right) is not what the plain run left (left)"
}

bytes() { numfmt --from=iec "$1"; }

# larger_than_budget FILE...: what was worked on did not fit.
larger_than_budget() {
	local size
	size=$(du -bc "$@" | tail -n 1 | cut -f 1)
	[ "$size" -gt "$(bytes "$budget")" ] || fail "only $size bytes of data, in a budget of $budget"
}

# is_cached FILE: the daemon really serves or served it; without this look all comparisons would hold without any library.
# When daemons die, clean files that nobody has open may be forgotten, so any will do then; and one may die while it is asked.
is_cached() {
	local file=$1 tries=1 said
	[ -z "$only_plain" ] || return 0
	[ -z "${PGC_KILL_EVERY:-}" ] || file= tries=50
	for ((; tries > 0; tries--)); do
		said=$("$ctl" files ${file:+"$file"} 2>/dev/null) || true
		case $said in *"$dir"*) return 0 ;; esac
		[ "$tries" = 1 ] || sleep 0.1
	done
	fail "the daemon has never seen $1"
}

# time_left END: for loops of the long form.
deadline() { echo $(($(date +%s) + minutes * 60)); }
time_left() { [ "$(date +%s)" -lt "$1" ]; }

# rounds: one_round, and in the long form again and again in emptied folders.
rounds() {
	local end mode
	end=$(deadline)
	one_round
	while time_left "$end"; do
		seed=$((seed + 1))
		for mode in $(modes); do
			on "$mode" bash -c 'rm -r "$1"/*' rm "$(folder "$mode")"
		done
		one_round
	done
}
