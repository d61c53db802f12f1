#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the daemon relies on of systemd's descriptor store, and what it must bear, shown of the systemd that is here: by a service that is not
# pagecached (fdstore_facts.c).
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/inside_lib.sh"
got=/run/facts

# unit NAME SETTING... -- WORD...: a unit that runs fdstore_facts with these words.
unit() {
	local name=$1 service=()
	shift
	while [ "$1" != -- ]; do service+=("$1"); shift; done
	shift
	{
		printf '[Unit]\n'
		printf '%s\n' "${service[@]}" | grep '^StartLimit' || true
		printf '[Service]\nType=notify\nNotifyAccess=main\nRestartSec=10ms\nExecStart=/root/fdstore_facts got=%s.%s %s\n' "$got" "$name" "$*"
		printf '%s\n' "${service[@]}" | grep -v '^StartLimit'
	} >"/run/systemd/system/$name.service"
	rm -f "$got.$name"
}

kept() { prop "$1" NFileDescriptorStore; }
last() { tail -n 1 "$got.$1"; } # how many descriptors its last process was passed
starts() { wc -l <"$got.$1"; }
started() { [ "$(starts "$1")" -ge "$2" ] && is "$1" SubState running; }
kill_it() { systemctl kill -s KILL "$1"; }

unit whole FileDescriptorStoreMax=8 Restart=on-failure StartLimitIntervalSec=0 -- add=a add=a add=b
unit limited FileDescriptorStoreMax=8 Restart=on-failure StartLimitIntervalSec=60 StartLimitBurst=3 -- add=a
unit small FileDescriptorStoreMax=2 -- add=a add=b add=c add=d
unit removed FileDescriptorStoreMax=8 -- add=a add=a add=b remove=a
unit polled FileDescriptorStoreMax=8 -- uffd=quiet polled-uffd=polled
systemctl daemon-reload
systemctl start whole limited small removed polled

same "kept of three given" "$(kept whole)" 3
systemctl restart whole
same "passed on at a restart" "$(last whole)" 3
for i in 1 2 3 4 5 6; do
	kill_it whole
	wait_for 10 "restart $i" started whole $((i + 2))
	[ "$(last whole)" -ge 3 ] || fail "kill $i: $(last whole) descriptors passed on"
done
ok "restarts and kills keep the store; without a limit of starts as many as one likes"

systemctl stop whole
same "kept after a stop" "$(kept whole)" 0
systemctl start whole
same "passed on after a stop" "$(last whole)" 0
ok "a full stop empties the store"

for i in 1 2 3; do
	kill_it limited
	[ "$i" = 3 ] || wait_for 10 "restart $i" started limited $((i + 1))
done
wait_for 10 "failed at the limit" is limited ActiveState failed
same "kept after StartLimitBurst" "$(kept limited)" 0
systemctl reset-failed limited
systemctl start limited
same "passed on after StartLimitBurst" "$(last limited)" 0
ok "the limit of starts empties the store"

same "kept beyond the maximum" "$(kept small)" 2
ok "what is beyond FileDescriptorStoreMax is dropped, and its sender hears nothing"

same "kept after FDSTOREREMOVE" "$(kept removed)" 1
ok "a name is removed with all its descriptors"

wait_for 5 "a polled userfaultfd dropped" is polled NFileDescriptorStore 1
ok "without FDPOLL=0 a userfaultfd is dropped"
systemctl stop whole limited small removed polled
