#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# LMDB environments in a served folder, written by calls and by the mapping (MDB_WRITEMAP): several writers and readers at once, who take
# turns by robust mutexes in the mapped lock file; writers that die, also while they hold the mutex; all of it scanned and checked.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
need lmdb-utils/mdb_stat lmdb-utils/mdb_dump "liblmdb-dev/$build/tests/programs/lmdb_load"
program_begin lmdb "$@"

load=$build/tests/programs/lmdb_load
entries=5000 # of each writer
[ "$minutes" = 0 ] || entries=12000

# fill MODE FOLDER FLAGS: writers and readers together.
fill() {
	local environment=$2/$3 w pids=() pid
	mkdir "$environment"
	on "$1" "$load" "$environment" "$3" put 0 100 10 >/dev/null
	for w in 1 2 3; do
		start "$1" "$load" "$environment" "$3" put $((w * 1000000)) "$entries" 500 >/dev/null
		pids+=("$started")
	done
	for w in 1 2; do
		start "$1" "$load" "$environment" "$3" scan 3 >&2
		pids+=("$started")
	done
	for pid in "${pids[@]}"; do
		finish "$pid" || fail "a program ended with status $?"
	done
	on "$1" "$load" "$environment" "$3" scan 1
	on "$1" mdb_stat -a "$environment" | grep -E 'Status|Entries'
}

update() {
	on "$1" "$load" "$2/$3" "$3" update 7 11
	on "$1" "$load" "$2/$3" "$3" scan 2
}

number_of() { local n=${1#entries }; echo "${n%%,*}"; }

# puts MODE FOLDER FLAGS FIRST: a writer of small transactions is started; how many entries there were is left in $before.
puts() {
	before=$(number_of "$(on "$1" "$load" "$2/$3" "$3" scan 1)")
	start "$1" "$load" "$2/$3" "$3" put "$4" 1000000 20 >"$work/said"
	until [ -s "$work/said" ]; do
		kill -0 "$started" || fail "the writer ended by itself"
		sleep 0.02
	done
	sleep "0.$((100 + RANDOM % 300))"
	kill -0 "$started" || fail "the writer ended by itself"
}

# survived MODE ENVIRONMENT FLAGS FIRST: all that it said is committed is there, and nothing is there by half, which the scan would see.
survived() {
	local said found
	said=$(($(grep -x '[0-9]*' "$work/said" | tail -n 1) - $4))
	found=$(($(number_of "$(on "$1" "$load" "$2" "$3" scan 1)") - before))
	echo "said $said, found $found more" >&2
	[ "$found" -ge $((said - said / 5)) ] || fail "$said were put, $found are there" # each fifth deletes one
}

# killed MODE FOLDER FLAGS: a writer dies at any moment.
killed() {
	puts "$1" "$2" "$3" 10000000
	kill_hard "$started"
	survived "$1" "$2/$3" "$3" 10000000
	# The next writer comes to its turn: the mutex is free, whoever had it.
	on "$1" timeout 30 "$load" "$2/$3" "$3" put 20000000 10 10 >/dev/null
	on "$1" "$load" "$2/$3" "$3" scan 1 >&2
}

# undisturbed MODE FOLDER FLAGS: the daemon dies, and another takes over: the writer goes on.
undisturbed() {
	puts "$1" "$2" "$3" 50000000
	goes_on "$started" grep -c '^[0-9]' "$work/said"
	kill_hard "$started"
	survived "$1" "$2/$3" "$3" 50000000
}

# without_power MODE FOLDER FLAGS: daemon and keeper die, too: what was committed is in the store.
without_power() {
	"$ctl" sync >/dev/null
	puts "$1" "$2" "$3" 40000000
	power_failure "$started"
	mkdir "$work/restart"
	cp --sparse=always "$2/$3/data.mdb" "$work/restart/"
	survived plain "$work/restart" "$3" 40000000
	rm -r "$work/restart"
	daemon_start
	survived "$1" "$2/$3" "$3" 40000000
}

# killed_holding MODE FOLDER FLAGS: when its holder dies the mutex's page has been written out, and as much of the rest as can be is out of
# the memory.
killed_holding() {
	local holder before after
	before=$(on "$1" "$load" "$2/$3" "$3" scan 1)
	mkfifo "$work/hold"
	start "$1" bash -c 'exec "$1" "$2" "$3" hold 3 5 <"$4" >"$5"' holder "$load" "$2/$3" "$3" "$work/hold" "$work/held"
	holder=$started
	exec 9>"$work/hold"
	until grep -q held "$work/held" 2>/dev/null; do
		kill -0 "$holder" || fail "the writer ended by itself"
		sleep 0.05
	done
	if [ "$1" = cached ]; then
		"$ctl" sync >&2
		"$ctl" drop >&2
	fi
	start "$1" timeout 20 "$load" "$2/$3" "$3" put 30000000 10 10 # waits for the mutex
	sleep 0.1
	kill -0 "$started" || fail "two writers at a time"
	kill_hard "$holder"
	exec 9>&-
	rm "$work/hold" "$work/held"
	finish "$started" >&2 || fail "the next writer: status $?"
	after=$(on "$1" "$load" "$2/$3" "$3" scan 1)
	[ "${after##*versions}" = "${before##*versions}" ] || fail "$before has become $after"
}

dump() { on "$1" mdb_dump -a "$2/$3" | sha256sum; }

# copy MODE FOLDER FLAGS: what is copied while nobody writes is the same environment, and a compact one has the same entries.
copy() {
	local environment=$2/$3
	mkdir "$environment.copy" "$environment.compact"
	on "$1" mdb_copy "$environment" "$environment.copy"
	on "$1" mdb_copy -c "$environment" "$environment.compact"
	dump "$1" "$2" "$3.copy"
	dump "$1" "$2" "$3.compact"
	on "$1" rm -r "$environment.copy" "$environment.compact"
}

one_round() {
	local flags seen
	for flags in plain writemap; do
		timed "$flags: 3 writers, 2 readers" both fill "$flags"
		timed "$flags: update of each seventh" both update "$flags"
		timed "$flags: dump" both dump "$flags"
		timed "$flags: copies" both copy "$flags"
		larger_than_budget "$plain_dir/$flags/data.mdb"
		timed "$flags: a writer is killed" both killed "$flags"
		timed "$flags: a holder of the mutex is killed" both killed_holding "$flags"
		[ -n "$only_plain" ] || {
			timed "$flags: the daemon is killed" cached undisturbed "$flags"
			timed "$flags: the power fails" cached without_power "$flags"
			is_cached "$dir/$flags/data.mdb"
			same_store
			seen=$(cached "$load" "$dir/$flags" "$flags" scan 1)
			"$ctl" sync >/dev/null
			cp -r --sparse=always "$dir/$flags" "$work/store"
			[ "$("$load" "$work/store" "$flags" scan 1)" = "$seen" ] || fail "$flags: the store has something else than what was seen: $seen"
			rm -r "$work/store"
		}
	done
}

rounds
program_end
