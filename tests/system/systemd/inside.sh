#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The test itself, on the machine that run.sh boots. Its result is in /out/result, and the journal in /out/journal.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/inside_lib.sh"
data=/data            # files of the store
daemon=pagecached.service
dropins=/run/systemd/system/$daemon.d
pids=()

at_end() {
	local status=$?
	trap - EXIT
	journalctl --no-pager -o short-monotonic >/out/journal 2>&1 || true
	if [ $status = 0 ]; then
		echo passed >/out/result
	else
		tail -n 60 /out/journal
		systemctl status --no-pager $daemon pagecached.socket || true
	fi
	exit $status
}
trap at_end EXIT

# status_number KEY: of the daemon's JSON.
# shellcheck disable=SC2020
status_number() { pagecachectl -j status | tr ',{}' '\n\n\n' | sed -n "s/^ *\"$1\": *//p" | tr -d '" '; }
kept() { prop $daemon NFileDescriptorStore; }
journal_has() { journalctl -o cat -u $daemon | grep -q "$1"; }
kept_at_most() { [ "$(kept)" -le "$1" ]; }
answers() { pagecachectl status >/dev/null 2>&1; }
alive() { kill -0 "$1" 2>/dev/null; }

# drop_in NAME SETTING...: of [Service]; without a setting: taken away.
drop_in() {
	local name=$1
	shift
	mkdir -p "$dropins"
	rm -f "$dropins/$name.conf"
	[ $# = 0 ] || printf '%s\n' '[Service]' "$@" >"$dropins/$name.conf"
	systemctl daemon-reload
}

# --- clients ---

as_user=(setpriv --reuid=daemon --regid=daemon --clear-groups)

operations() { local n; read -r n _ <"$data/$1.stats" && echo $((10#$n)); }
went_on() { local n; n=$(operations "$1") && [ "$n" -gt "$2" ]; }

# load NAME PREFIX...: starts a client; its pid is the last of $pids.
load() {
	local name=$1
	shift
	truncate -s 8M "$data/$name"
	chown daemon "$data/$name"
	: >"$data/$name.stats"
	chown daemon "$data/$name.stats"
	"$@" /root/service_client load $data "$name" $RANDOM >>/out/clients 2>&1 &
	pids+=($!)
}

# disturbed WHAT COMMAND...: after the command there is another daemon, with everything that the clients stored and all that is kept for them.
disturbed() {
	local what=$1 before after n k name pid
	shift
	before=$(prop $daemon MainPID) k=$(kept) n=$(date +%s%N)
	"$@"
	wait_for 20 "$what: another daemon" other_daemon "$before"
	wait_for 20 "$what: it answers" answers
	after=$(($(date +%s%N) - n))
	for name in one two; do
		n=$(operations $name)
		wait_for 20 "$what: client $name goes on" went_on $name $((n + 200))
	done
	for pid in "${pids[@]}"; do alive "$pid" || fail "$what: a client ended: $(cat /out/clients)"; done
	same "$what: pages read again from the store" "$(status_number fills)" 0
	wait_for 5 "$what: $k descriptors are kept, not $(kept)" is $daemon NFileDescriptorStore "$k"
	ok "$what ($((after / 1000000)) ms until it answers)"
}
other_daemon() { local pid; pid=$(prop $daemon MainPID) && [ "$pid" != 0 ] && [ "$pid" != "$1" ] && is $daemon SubState running; }

kill_it() { systemctl kill --kill-whom=main -s "$1" $daemon; }

many_kills() {
	local i pid
	for i in $(seq "$1"); do
		pid=$(prop $daemon MainPID)
		kill_it KILL
		wait_for 10 "kill $i" other_daemon "$pid"
	done
}

upgrade() { dpkg -i /root/packages/newer/*.deb >>/out/dpkg 2>&1 || fail "dpkg -i: $(tail -n 20 /out/dpkg)"; }

# One worker stands still, the main thread does not.
stuck_worker() {
	local pid tid task
	pid=$(prop $daemon MainPID) tid=
	for task in /proc/"$pid"/task/*; do
		case $(cat "$task/comm") in "worker "*) tid=${task##*/}; break ;; esac
	done
	[ -n "$tid" ] || fail "no worker among $(cat /proc/"$pid"/task/*/comm | tr '\n' ' ')"
	/root/stop_thread "$tid" 30 &
	wait_for 20 "the watchdog" other_daemon "$pid"
	kill $! 2>/dev/null || true
	wait $! 2>/dev/null || true
	journal_has "Watchdog timeout" || fail "it was not the watchdog"
}

chmod 777 $data
rm -f /out/clients

# --- the facts ---
/root/facts.sh

# --- the package ---
older=$(cd /root/packages && echo pagecached_0*.deb)
older=${older#*_} older=${older%%_*}
newer=$(cd /root/packages/newer && echo pagecached_*.deb)
newer=${newer#*_} newer=${newer%%_*}
# A refused system call ends the daemon here, so that one which is missing in the unit's list shows.
mkdir -p $dropins /etc/pagecached/pagecached.conf.d
printf '%s\n' '[Service]' 'SystemCallErrorNumber=kill' 'WatchdogSec=3s' >$dropins/test.conf
printf '%s\n' '[daemon]' 'memory_max = 256M' 'workers = 2' 'dirty_background = 80%' 'dirty_max = 90%' 'dirty_expire = 2s' \
	>/etc/pagecached/pagecached.conf.d/test.conf
dpkg -i /root/packages/*.deb >/out/dpkg 2>&1 || fail "dpkg -i: $(cat /out/dpkg)"
id -u pagecached >/dev/null || fail "no user pagecached"
udevadm test /sys/class/misc/userfaultfd 2>&1 | grep -qi "GROUP.*$(id -g pagecached)\|gid=$(id -g pagecached)" || fail "the rule for /dev/userfaultfd: $(udevadm test /sys/class/misc/userfaultfd 2>&1 | tail -n 20)"
chgrp pagecached /dev/userfaultfd && chmod 660 /dev/userfaultfd # as the rule has it
is pagecached.socket ActiveState active || fail "the socket is not listening"
systemctl is-enabled -q pagecached.service pagecached.socket || fail "not enabled"
systemd-analyze security --no-pager --threshold=25 $daemon >/out/security 2>&1 || fail "exposed: $(tail -n 2 /out/security)"
ok "the package is installed: $(tail -n 1 /out/security)"

systemctl stop $daemon
is $daemon ActiveState inactive || fail "it is not stopped"
answers || fail "it is not activated: $(pagecachectl status 2>&1)"
is $daemon ActiveState active || fail "something else answered"
same "user of the daemon" "$(ps -o user= -p "$(prop $daemon MainPID)")" "$(ps -o user= -U pagecached | head -n 1)"
[ "$(prop pagecached.socket NAccepted)" = 0 ] || fail "Accept=yes?"
ok "the first client activates it"

# --- under load ---
load one
load two "${as_user[@]}"
for name in one two; do wait_for 20 "client $name" went_on $name 200; done
bpftool map dump pinned /sys/fs/bpf/pagecached/files >/out/files 2>&1 || fail "bpftool: $(tail -n 3 /out/files)"
grep -q '"name": *"[^"]*/one"\|/one' /out/files || fail "bpftool does not show the file: $(head -c 2000 /out/files)"
if [ -e /out/iterators ]; then # this kernel loads such programs: run.sh has looked
	grep -q "$data/one" /sys/fs/bpf/pagecached/show_files || fail "show_files does not show the file"
fi
ok "bpftool shows what is cached"

lonely=$(kept)
load three
wait_for 20 "client three" went_on three 200
third=${pids[-1]}
unset 'pids[-1]'
[ "$(kept)" -ge $((lonely + 4)) ] || fail "$(kept) descriptors are kept with a third client, $lonely without"
kill -KILL "$third"
wait "$third" 2>/dev/null || true
pagecachectl drop $data/three >/dev/null
# Its file stays cached, with memfd and control page.
wait_for 10 "what is kept for a dead client goes" kept_at_most $((lonely + 2))
ok "what was kept for a dead client is removed ($lonely, then $(kept))"

disturbed "systemctl restart" systemctl restart $daemon
disturbed "kill -9" kill_it KILL
disturbed "abort" kill_it ABRT
pid=$(prop $daemon MainPID)
systemctl reload $daemon
journal_has "configuration read again" || fail "it was not reloaded"
is $daemon MainPID "$pid" || fail "a reload made another daemon"
ok "reload"
disturbed "watchdog" stuck_worker
disturbed "five kills" many_kills 5
same "version before the upgrade" "$(status_number version)" "$older"
disturbed "upgrade" upgrade
same "version after the upgrade" "$(status_number version)" "$newer"
disturbed "kill -9 after the upgrade" kill_it KILL

for pid in "${pids[@]}"; do
	kill -TERM "$pid"
	wait "$pid" || fail "a client lost something, status $?: $(cat /out/clients)"
done
cat /out/clients
ok "all that the clients stored is there"

# --- a stop drains ---
ln -s /slow/disk $data/slow
printf '%s\n' '[daemon]' 'dirty_expire = 10min' >/etc/pagecached/pagecached.conf.d/zz-dirty.conf
systemctl reload $daemon
/root/service_client dirty $data slow >/out/dirty 2>&1 &
client=$!
wait_for 30 "24 MiB dirty" grep -q dirty /out/dirty
pages=$(status_number dirty)
[ "$pages" -ge 6144 ] || fail "$pages dirty pages of 6144: the reload was for nothing"
# Far less than what writing back takes: so it is the daemon that asks for more.
drop_in stop 'TimeoutStopSec=1s'
# The socket as well: clients that have mappings would start the next daemon at once.
systemctl stop pagecached.socket $daemon &
stop=$!
texts=
while alive $stop; do texts+=$(prop $daemon StatusText)$'\n'; sleep 0.2; done
wait $stop || fail "systemctl stop"
drop_in stop
same "result of the stop" "$(prop $daemon Result)" success
grep -q "Writing back: .* MiB left" <<<"$texts" || fail "no status text while it writes back: $texts"
cmp /slow/disk $data/slow.model || fail "what was dirty is not in the store"
kill -TERM $client
wait $client || fail "the client: $(cat /out/dirty)"
for name in one two; do cmp $data/$name $data/$name.model || fail "$name is not in the store"; done
ok "a stop writes $pages dirty pages back, and says so: $(sort -u <<<"$texts" | tr '\n' ';')"
same "kept after a stop" "$(kept)" 0
is $daemon ActiveState inactive || fail "it did not stay stopped"
left=$(find /sys/fs/bpf/pagecached -mindepth 1)
[ -z "$left" ] || fail "pins are left: $left"
systemctl start pagecached.socket
ok "nothing of it is left after a stop"

# --- a descriptor store that is full ---
drop_in small 'FileDescriptorStoreMax=40'
truncate -s 4K $data/many
/root/service_client many $data many >/out/many 2>&1 &
client=$!
wait_for 20 "as many handles as there may be" grep -q 'then' /out/many
grep -qE '^1[0-9] handles, then (ENFILE|EMFILE)$' /out/many || fail "refused in another way: $(cat /out/many)"
n=$(kept)
[ "$n" -le 40 ] || fail "$n descriptors are kept"
kill -USR1 $client
wait_for 20 "a handle after one was closed" grep -q another /out/many
before=$(prop $daemon MainPID)
kill_it KILL
wait_for 20 "another daemon" other_daemon "$before"
kill -TERM $client
wait $client || fail "after the kill: $(cat /out/many)"
ok "a full store refuses handles, and none is lost: $(tr '\n' ';' </out/many)"

# A daemon that finds no state has no use for what it is passed: a store that is never emptied would be full some day. Its own are three for each of two workers: what says
# that its operations have ended, and the pipe that pages are in while they are dropped.
before=$(prop $daemon MainPID)
rm -rf /sys/fs/bpf/pagecached/*
kill_it KILL
wait_for 20 "without state: another daemon" other_daemon "$before"
wait_for 10 "without state: what is kept goes" kept_at_most 6
ok "a daemon without state empties the store ($n, then $(kept))"

# The maximum is lowered below what is kept: nobody tells the daemon, so it looks.
/root/service_client many $data many >/out/many 2>&1 &
client=$!
wait_for 20 "as many handles as there may be" grep -q 'then' /out/many
drop_in small 'FileDescriptorStoreMax=8'
wait_for 20 "it sees that the store is full" journal_has "descriptor store is full"
same "with a store that is full" "$(timeout 1 /root/service_client many $data many | head -n 1)" "0 handles, then ENFILE"
drop_in small
opens() { [[ $(timeout 1 /root/service_client many $data many) == [1-9]* ]]; }
wait_for 20 "handles again" opens
kill -TERM $client
wait $client || fail "handles in a full store: $(cat /out/many)"
ok "the count is read back: a store that is full takes no handles, and takes them again later"

# --- the end ---
rm -r /etc/pagecached/pagecached.conf.d # ours, not the package's
dpkg --purge pagecached >>/out/dpkg 2>&1 || fail "dpkg --purge: $(tail -n 20 /out/dpkg)"
! pgrep -x pagecached || fail "the daemon outlived its package"
[ -z "$(find /etc/pagecached /var/lib/pagecached /run/pagecached /sys/fs/bpf/pagecached /lib/systemd/system/pagecached* -print -quit 2>/dev/null)" ] ||
	fail "left: $(find /etc/pagecached /var/lib/pagecached /run/pagecached /sys/fs/bpf/pagecached /lib/systemd/system/pagecached* 2>/dev/null)"
ok "the package is purged"
! journalctl -o cat | grep -E "code=killed, status=31|SIGSYS" || fail "a system call that the unit does not allow"
