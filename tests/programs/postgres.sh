#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A PostgreSQL cluster with checksums whose data directory is served: initdb, pgbench with four clients, a crash of all of the server in the
# middle and its recovery, amcheck, and a look at the store by a server that knows nothing of pagecached. Each client's transactions follow
# from the seed, and they add up in any order, so the tables are compared with those of the plain run.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
need "postgresql//usr/lib/postgresql/*/bin/postgres" util-linux/setpriv
daemon_flags=(--max-files 4096) # a server keeps hundreds open, which is more than so little memory allows for by itself
program_begin postgres "$@"

bin=$(dirname "$(compgen -G "/usr/lib/postgresql/*/bin/postgres" | sort -V | tail -n 1)")
transactions=40 # of each client
scale=1
[ "$minutes" = 0 ] || transactions=600 scale=4

# The server does not run as root.
as=()
if [ "$(id -u)" = 0 ]; then
	as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
	chown postgres "$dir" "$plain_dir"
fi
sockets=$work/sockets
mkdir "$sockets"
[ ${#as[@]} = 0 ] || chown postgres "$sockets"
export PGHOST=$sockets PGUSER=postgres PGDATABASE=postgres LC_ALL=C
cd / # where that user may be

query() { "${as[@]}" "$bin/psql" -X -A -t -q -v ON_ERROR_STOP=1 "$@"; }

# server_start MODE FOLDER: waits until it answers; its number is left in $server.
server_start() {
	local n
	start "$1" "${as[@]}" "$bin/postgres" -D "$2/data" >>"$work/server.log" 2>&1
	server=$started
	for ((n = 0; n < 600; n++)); do
		query -c 'SELECT 1' >/dev/null 2>&1 && return 0
		kill -0 "$server" 2>/dev/null || break
		sleep 0.1
	done
	tail -n 30 "$work/server.log" >&2
	fail "the server does not answer"
}

server_stop() {
	kill -INT "$server"
	finish "$server" || fail "the server ended with status $?"
}

# server_crash: all of its processes at once; each has a process group of its own.
server_crash() {
	local pids pid
	mapfile -t pids < <(pgrep -P "$server")
	kill -KILL "$server" "${pids[@]}" 2>/dev/null || true
	finish "$server" 2>/dev/null || true
	for pid in "${pids[@]}"; do
		while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
	done
}

init() {
	on "$1" "${as[@]}" "$bin/initdb" -D "$2/data" -U postgres -A trust -E UTF8 --no-locale --data-checksums --wal-segsize=1 >&2
	on "$1" "${as[@]}" tee -a "$2/data/postgresql.conf" >&2 <<-END
		listen_addresses = ''
		unix_socket_directories = '$sockets'
		max_connections = 20
		shared_buffers = 1MB
		max_wal_size = 8MB
		min_wal_size = 2MB
		log_checkpoints = on
	END
}

fill() {
	server_start "$1" "$2"
	"${as[@]}" "$bin/pgbench" -i -q -s "$scale" >&2
	query -c "CREATE EXTENSION amcheck"
	sums
}

# What every transaction keeps, and each row.
sums() {
	query <<-END
		SELECT sum(abalance) FROM pgbench_accounts;
		SELECT sum(bbalance) FROM pgbench_branches;
		SELECT sum(tbalance) FROM pgbench_tellers;
		SELECT sum(delta), count(*) FROM pgbench_history;
		SELECT md5(string_agg(aid || ' ' || abalance, ',' ORDER BY aid)) FROM pgbench_accounts;
	END
}

consistent() {
	local answer
	answer=$(query <<-END
		SELECT count(*) FROM (SELECT sum(abalance) s FROM pgbench_accounts UNION SELECT sum(bbalance) FROM pgbench_branches
			UNION SELECT sum(tbalance) FROM pgbench_tellers UNION SELECT coalesce(sum(delta), 0) FROM pgbench_history) AS sums;
		SELECT count(bt_index_parent_check(c.oid, true)) > 100 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
			WHERE a.amname = 'btree' AND c.relpersistence <> 't' AND i.indisready AND i.indisvalid;
		SELECT count(*) FROM pg_class c, verify_heapam(c.oid) WHERE c.relkind = 'r' AND c.relpersistence <> 't';
	END
	)
	[ "$answer" = $'1\nt\n0' ] || fail "sums of four tables that are one, indexes that are whole, broken rows: $answer"
}

bench() {
	"${as[@]}" "$bin/pgbench" -n -c 4 -j 1 -t "$transactions" --random-seed="$seed" >&2
	sums
	consistent
}

# Sorts that do not fit into work_mem, tables that are written anew, cut off and dropped.
maintain() {
	query <<-END
		SET work_mem = '64kB';
		SELECT md5(string_agg(t, ',')) FROM (SELECT aid || filler AS t FROM pgbench_accounts ORDER BY abalance, aid DESC LIMIT 50000) AS sorted;
		CREATE TABLE copied AS SELECT * FROM pgbench_accounts;
		CREATE INDEX copied_aid ON copied (aid);
		DELETE FROM copied WHERE aid > 1000;
		VACUUM copied;
		SELECT count(*), pg_relation_size('copied') < pg_relation_size('pgbench_accounts') FROM copied;
		VACUUM FULL copied;
		CLUSTER copied USING copied_aid;
		REINDEX TABLE copied;
		SELECT count(*), sum(aid) FROM copied;
		CREATE DATABASE other TEMPLATE template0;
		DROP DATABASE other;
		DROP TABLE copied;
		CHECKPOINT;
	END
}

# clients_start: pgbench in $bench, until it loses its server, in the middle of its work; how many transactions there were is left in $before.
clients_start() {
	local n
	before=$(query -c 'SELECT count(*) FROM pgbench_history')
	rm -f "$sockets"/said*
	start plain "${as[@]}" "$bin/pgbench" -n -c 4 -j 1 -T 600 -l --log-prefix="$sockets/said" >&2
	bench=$started
	for ((n = 0; n < 600; n++)); do
		[ "$(query -c 'SELECT count(*) FROM pgbench_history')" = "$before" ] || break
		kill -0 "$bench" || fail "the clients ended by themselves"
		sleep 0.05
	done
	sleep "0.$((400 + RANDOM % 400))"
	kill -0 "$bench" || fail "the clients ended by themselves"
}

# recovered MODE FOLDER: what the clients heard to be committed is there after the next start.
recovered() {
	local found said
	said=$(cat "$sockets"/said* | wc -l)
	[ "$said" -gt 0 ] || fail "nothing was committed"
	: >"$work/server.log"
	server_start "$1" "$2"
	grep -q 'automatic recovery in progress' "$work/server.log" || fail "there was nothing to recover"
	found=$(($(query -c 'SELECT count(*) FROM pgbench_history') - before))
	echo "said $said, found $found" >&2
	[ "$found" -ge "$said" ] || fail "$said transactions were committed, $found are there"
	consistent
}

crash() {
	clients_start
	server_crash
	finish "$bench" || true # it has lost its server
	recovered "$1" "$2"
}

# The daemon dies, and another takes over: server and clients go on.
undisturbed() {
	clients_start
	goes_on "$bench" query -c 'SELECT count(*) FROM pgbench_history'
	kill_hard "$bench"
	consistent
}

# Daemon and keeper die, too: what was committed is in the store, for a server that knows nothing of pagecached, too.
without_power() {
	clients_start
	power_failure # the programs below
	server_crash
	finish "$bench" || true
	mkdir "$work/restart"
	cp -a "$2/data" "$work/restart/"
	[ ${#as[@]} = 0 ] || chown postgres "$work/restart"
	recovered plain "$work/restart"
	server_stop
	rm -r "$work/restart"
	daemon_start
	recovered "$1" "$2"
}

stop() { server_stop; }

test_fsync() { on "$1" "${as[@]}" "$bin/pg_test_fsync" -s 1 -f "$2/test_fsync" >&2; }

# The cluster as the store has it, by a server without the library.
store_is_whole() {
	local seen=$1
	"$ctl" sync >/dev/null
	mkdir "$work/store"
	cp -a "$dir/data" "$work/store/"
	[ ${#as[@]} = 0 ] || chown postgres "$work/store"
	"${as[@]}" "$bin/pg_checksums" --check -D "$work/store/data" >"$work/checksums" || fail "checksums of the store: $(tail -n 3 "$work/checksums")"
	server_start plain "$work/store"
	[ "$(sums)" = "$seen" ] || fail "the store has something else than what was seen"
	server_stop
	rm -r "$work/store"
}

one_round() {
	local mode seen=
	for mode in $(modes); do
		timed "initdb" "$mode" init
		timed "start, pgbench -i -s $scale" "$mode" fill
		timed "pgbench: 4 clients" "$mode" bench
		mv "$work/out.$mode" "$work/bench.$mode"
		timed "sort, vacuum, cluster, reindex" "$mode" maintain
		mv "$work/out.$mode" "$work/maintain.$mode"
		timed "crash, recovery, amcheck" "$mode" crash
		[ "$mode" = plain ] || {
			timed "the daemon is killed" "$mode" undisturbed
			timed "the power fails" "$mode" without_power
		}
		seen=$(sums)
		timed "stop" "$mode" stop
	done
	larger_than_budget "$plain_dir/data"
	[ -z "$only_plain" ] || return 0
	diff "$work/bench.plain" "$work/bench.cached" || fail "the tables differ after pgbench"
	diff "$work/maintain.plain" "$work/maintain.cached" || fail "the tables differ after maintenance"
	is_cached "$dir/data/global/pg_control"
	same_store
	store_is_whole "$seen"
}

end=$(deadline)
one_round
[ "$minutes" = 0 ] || timed "pg_test_fsync" both test_fsync
while time_left "$end"; do
	seed=$((seed + 1))
	for mode in $(modes); do
		on "$mode" rm -r "$(folder "$mode")/data"
	done
	one_round
done
program_end
