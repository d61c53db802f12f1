#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The sqlite3 shell on served databases, with mapped reads, in all journal modes that leave files: several writers at once, readers that
# check what every transaction keeps, writers killed in the middle and what the next one recovers. Whatever the order in which writers
# come, the end is the same, so the contents are compared with those of the plain run.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
need sqlite3/sqlite3
budget=12M
program_begin sqlite "$@"

writers=3
transactions=20
accounts=7000
sum=$((accounts * 1000))
[ "$minutes" = 0 ] || transactions=200

# sql MODE DATABASE: statements from the standard input.
setup='PRAGMA mmap_size=1073741824;'
sql() {
	on "$1" sqlite3 -batch -bail -cmd '.timeout 60000' -cmd '.output /dev/null' -cmd "$setup" -cmd '.output stdout' "$2"
}

# create MODE FOLDER JOURNAL: some 8 MiB.
create() {
	sql "$1" "$2/$3.db" <<-END
		PRAGMA journal_mode=$3;
		BEGIN;
		CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, filler TEXT NOT NULL);
		CREATE TABLE transfer (writer INTEGER, n INTEGER, taken INTEGER, PRIMARY KEY (writer, n)) WITHOUT ROWID;
		WITH RECURSIVE i(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM i LIMIT $accounts)
			INSERT INTO account SELECT id, 1000, printf('%0600d', id * 7919 + $seed) FROM i;
		CREATE INDEX account_balance ON account (balance, id);
		COMMIT;
		SELECT count(*), sum(balance), max(length(filler)) FROM account;
	END
}

# transfers WRITER: statements of transactions that move amounts between accounts.
transfers() {
	local n
	RANDOM=$(((seed + $1) % 32768))
	for ((n = 0; n < transactions; n++)); do
		local amount=$((RANDOM % 50))
		echo "BEGIN IMMEDIATE;
			UPDATE account SET balance = balance - $amount WHERE id = $((RANDOM % accounts));
			UPDATE account SET balance = balance + $amount WHERE id = $((RANDOM % accounts));
			INSERT INTO transfer VALUES ($1, $n, $amount);
			COMMIT;"
	done
}

# check_sums: answers of readers, of which there must be one only.
check_sums() {
	local seen
	seen=$(sort -u "$@")
	[ "$seen" = "$sum" ] || fail "the readers saw sums of: $seen; not $sum"
}

# Scans of all rows, by the index, and twice in one transaction.
reads() {
	local n
	for ((n = 0; n < 8; n++)); do
		echo "SELECT sum(balance) FROM account NOT INDEXED; SELECT sum(balance) FROM account INDEXED BY account_balance;
			BEGIN; SELECT sum(balance) FROM account; SELECT sum(balance) FROM account WHERE length(filler) = 600; COMMIT;"
	done
}

# compete MODE FOLDER JOURNAL: writers and readers together.
compete() {
	local w pids=() pid
	reads >"$work/reads.sql"
	for ((w = 0; w < writers; w++)); do
		transfers "$w" >"$work/writer.$w.sql"
		start "$1" sqlite3 -batch -bail -cmd '.timeout 60000' -cmd '.output /dev/null' -cmd "$setup" -cmd '.output stdout' "$2/$3.db" \
			".read $work/writer.$w.sql"
		pids+=("$started")
	done
	for w in 0 1; do
		start "$1" bash -c 'sqlite3 -batch -bail -cmd ".timeout 60000" -cmd ".output /dev/null" -cmd "$1" -cmd ".output stdout" "$2" ".read $3" >"$4"' \
			reader "$setup" "$2/$3.db" "$work/reads.sql" "$work/sums.$1.$w"
		pids+=("$started")
	done
	for pid in "${pids[@]}"; do
		finish "$pid" || fail "a program ended with status $?"
	done
	check_sums "$work/sums.$1.0" "$work/sums.$1.1"
	[ "$(wc -l <"$work/sums.$1.0")" = 32 ] || fail "a reader ended early"
	sql "$1" "$2/$3.db" <<<"SELECT writer, count(*), sum(taken) FROM transfer GROUP BY writer; PRAGMA integrity_check;"
}

# crash MODE FOLDER JOURNAL: a writer that has changed much of the file, as its small cache has it do, dies before it commits.
crash() {
	local database=$2/crash-$3.db before after
	on "$1" cp "$2/$3.db" "$database"
	before=$(sql "$1" "$database" <<<"PRAGMA cache_size=40; SELECT sum(id * balance) FROM account;")
	mkfifo "$work/hold"
	rm -f "$work/said" # of the writer before, which would count
	start "$1" bash -c 'exec sqlite3 -batch -bail -cmd ".timeout 60000" "$1" <"$2"' writer "$database" "$work/hold"
	exec 9>"$work/hold"
	cat >&9 <<-END
		PRAGMA journal_mode=$3; PRAGMA cache_size=40; PRAGMA mmap_size=1073741824; BEGIN IMMEDIATE;
		UPDATE account SET balance = balance + 7, filler = replace(filler, '0', '1');
		.output $work/changed
		SELECT 'changed', sum(balance) FROM account;
		.output stdout
	END
	until grep -q changed "$work/changed" 2>/dev/null; do
		kill -0 "$started" || fail "the writer ended by itself"
		sleep 0.05
	done
	on "$1" test -s "$database-wal" || on "$1" test -s "$database-journal" || fail "nothing to recover from"
	kill_hard "$started"
	exec 9>&-
	rm "$work/hold" "$work/changed"

	# What would be there after the machine's restart: the store as it is, without the cache.
	if [ "$1" = cached ]; then
		"$ctl" sync >/dev/null
		mkdir "$work/restart"
		cp "$database"* "$work/restart/"
		after=$(sql plain "$work/restart/$(basename "$database")" <<<"SELECT sum(id * balance) FROM account; PRAGMA integrity_check;")
		[ "$after" = "$before"$'\nok' ] || fail "the store recovers to: $after; not $before"
		rm -r "$work/restart"
	fi
	after=$(sql "$1" "$database" <<<"SELECT sum(id * balance) FROM account; PRAGMA integrity_check;")
	[ "$after" = "$before"$'\nok' ] || fail "recovered to: $after; not $before"
	echo "recovered"
	remove "$1" "$database"
}

# commits MODE DATABASE: a writer of many small transactions is started, which says in $work/said which of them are committed.
commits() {
	local n
	sql "$1" "$2" <<<"DELETE FROM transfer;"
	for ((n = 0; n < 4000; n++)); do
		echo "BEGIN IMMEDIATE; UPDATE account SET balance = balance - 1 WHERE id = $((n * 37 % accounts));
			UPDATE account SET balance = balance + 1 WHERE id = $((n * 53 % accounts));
			INSERT INTO transfer VALUES (0, $n, 1); COMMIT; SELECT 'committed', $n;"
	done >"$work/writer.sql"
	: >"$work/said" # that of the writer before would count
	start "$1" bash -c 'exec sqlite3 -batch -bail -cmd ".timeout 60000" "$1" <"$2" >"$3"' writer "$2" "$work/writer.sql" "$work/said"
	while [ "$(grep -c committed "$work/said" 2>/dev/null)" -lt 3 ]; do
		kill -0 "$started" || fail "the writer ended by itself"
		sleep 0.02
	done
	sleep "0.$((100 + RANDOM % 300))"
	kill -0 "$started" || fail "the writer ended by itself"
}

# survived MODE DATABASE: what it said it committed is there, and nothing is there by half.
survived() {
	local said found
	said=$(grep -c 'committed|[0-9]*$' "$work/said" || true)
	found=$(sql "$1" "$2" <<<"SELECT count(*) FROM transfer;")
	echo "said $said, found $found" >&2
	[ "$found" -ge "$said" ] || fail "$said transactions were committed, $found are there"
	found=$(sql "$1" "$2" <<<"SELECT sum(balance) FROM account; PRAGMA integrity_check;")
	[ "$found" = "$sum"$'\nok' ] || fail "the database has become: $found"
}

remove() {
	on "$1" rm "$2"
	on "$1" rm -f "$2-wal" "$2-shm" "$2-journal"
}

# killed MODE FOLDER JOURNAL: a writer dies at any moment.
killed() {
	local database=$2/killed.db
	on "$1" cp "$2/$3.db" "$database"
	commits "$1" "$database"
	kill_hard "$started"
	survived "$1" "$database"
	remove "$1" "$database"
}

# undisturbed MODE FOLDER JOURNAL: the daemon dies, and another takes over: the writer goes on.
undisturbed() {
	local database=$2/pause.db
	on "$1" cp "$2/$3.db" "$database"
	commits "$1" "$database"
	goes_on "$started" grep -c committed "$work/said"
	kill_hard "$started"
	survived "$1" "$database"
	remove "$1" "$database"
}

# without_power MODE FOLDER JOURNAL: daemon and keeper die, too: what was committed is in the store.
without_power() {
	local database=$2/power.db
	on "$1" cp "$2/$3.db" "$database"
	"$ctl" sync >/dev/null
	commits "$1" "$database"
	power_failure "$started"
	mkdir "$work/restart"
	cp "$database"* "$work/restart/"
	survived plain "$work/restart/power.db"
	rm -r "$work/restart"
	daemon_start
	survived "$1" "$database"
	remove "$1" "$database"
}

# rewrite MODE FOLDER JOURNAL: the file is written anew and gets smaller.
rewrite() {
	sql "$1" "$2/$3.db" <<-END
		DELETE FROM account WHERE id % 3 = 0;
		VACUUM;
		PRAGMA integrity_check;
		SELECT count(*), sum(balance * id) FROM account;
		PRAGMA page_count;
	END
}

dump() { sql "$1" "$2/$3.db" <<<.dump | sha256sum; }

one_round() {
	local journal
	for journal in delete truncate persist wal; do
		timed "$journal: create" both create "$journal"
		timed "$journal: $writers writers, 2 readers" both compete "$journal"
		timed "$journal: crash in a transaction" both crash "$journal"
		timed "$journal: a writer is killed" both killed "$journal"
		[ -n "$only_plain" ] || {
			timed "$journal: the daemon is killed" cached undisturbed "$journal"
			timed "$journal: the power fails" cached without_power "$journal"
		}
		timed "$journal: dump" both dump "$journal"
		is_cached "$dir/$journal.db"
	done
	same_store
	larger_than_budget "$(folder plain)"/*.db
	if [ -z "$only_plain" ]; then
		for journal in delete truncate persist wal; do
			mkdir "$work/store"
			cp "$dir/$journal.db"* "$work/store/" # not there, where sqlite would change it
			[ "$(dump plain "$work/store" "$journal")" = "$(dump plain "$plain_dir" "$journal")" ] ||
				fail "$journal: the store has something else than the plain run"
			[ "$(sql plain "$work/store/$journal.db" <<<'PRAGMA integrity_check;')" = ok ] || fail "$journal: the store's integrity"
			rm -r "$work/store"
		done
	fi
	for journal in delete wal; do
		timed "$journal: rewrite" both rewrite "$journal"
	done
	same_store
}

rounds
program_end
