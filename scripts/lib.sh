# SPDX-License-Identifier: Apache-2.0
# Sourced by scripts that run a daemon of their own: a private folder, socket, state and, as root, bpffs; all of it gone at the end
# (but the folder with KEEP=1).
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
keep=--keep       # "": without a keeper; then the death of the daemon is for good
daemon_pid=       # the keeper's where there is one, else the daemon's
private_bpffs=
clients=() # pids of started programs that must not outlive the script

# private_begin NAME: makes $work on a disk, and a bpffs in $bpf where there is none to be had (as root; else $bpf is "none").
private_begin() {
	work=$(mktemp -d "${TMPDIR:-/var/tmp}/pagecached-$1-XXXXXX")
	bpf=none
	if [ "$(id -u)" = 0 ]; then
		if [ "$(stat -f -c %T /sys/fs/bpf 2>/dev/null)" = bpf_fs ]; then
			bpf=/sys/fs/bpf/$(basename "$work")
		else
			mkdir "$work/bpf"
			mount -t bpf bpf "$work/bpf" && private_bpffs=$work/bpf bpf=$work/bpf/pagecached
		fi
	fi
	trap private_end EXIT
	trap 'exit 130' INT TERM
}

# daemon_begin BUILD [FLAG...]: starts the daemon and waits until it answers.
daemon_begin() {
	local build=$1
	shift
	"$build/daemon/pagecached" ${keep:+"$keep"} --config /dev/null --socket "$work/socket" --bpffs "$bpf" --state-dir "$work/state" "$@" \
		>"$work/daemon.log" 2>&1 &
	daemon_pid=$!
	export PAGECACHED_SOCKET=$work/socket
	# The loader takes LD_PRELOAD apart at spaces and colons: a library in such a folder is named by a link.
	case $build in
	*[\ :]*)
		ln -sfn "$build/libclient/preload/libpagecached-preload.so" "$work/libpagecached-preload.so"
		export PAGECACHED_PRELOAD=$work/libpagecached-preload.so
		;;
	esac
	for _ in $(seq 100); do
		"$build/tools/pagecachectl" status >/dev/null 2>&1 && return 0
		kill -0 "$daemon_pid" 2>/dev/null || break
		sleep 0.05
	done
	echo "the daemon does not answer:" >&2
	cat "$work/daemon.log" >&2
	return 1
}

# daemon_own_pid: of the daemon that runs at this moment; there may be none.
daemon_own_pid() { pgrep -P "$daemon_pid" -x pagecached; }

# daemon_dies: whatever it is doing. The keeper starts the next one.
daemon_dies() {
	local pid
	until pid=$(daemon_own_pid); do
		kill -0 "$daemon_pid" || return 1
		sleep 0.01
	done
	kill -KILL "$pid"
}

# daemon_vanishes: the keeper dies as well, and nothing comes after them.
daemon_vanishes() {
	local keeper=$daemon_pid pid
	kill -STOP "$keeper" || return 1 # it starts no other meanwhile
	pid=$(daemon_own_pid) || true
	daemon_pid=
	# shellcheck disable=SC2086
	kill -KILL "$keeper" $pid
	wait "$keeper" 2>/dev/null || true
	for _ in $(seq 500); do
		[ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 0
		sleep 0.02
	done
	echo "the daemon $pid does not end" >&2
	return 1
}

# daemon_end: asks it to stop; everything dirty is written before it does. Its exit status; one that does not stop is killed.
daemon_end() {
	local pid=$daemon_pid status=0
	[ -n "$pid" ] || return 0
	daemon_pid=
	kill -TERM "$pid" 2>/dev/null || true
	for _ in $(seq 600); do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	if kill -0 "$pid" 2>/dev/null; then
		daemon_pid=$pid
		daemon_vanishes || true
	fi
	wait "$pid" || status=$?
	if [ $status != 0 ]; then
		echo "the daemon ended with status $status:" >&2
		cat "$work/daemon.log" >&2
	fi
	return $status
}

private_end() {
	local status=$? pid
	for pid in "${clients[@]}"; do
		kill -KILL "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	daemon_end || status=1
	if [ -n "$private_bpffs" ]; then
		umount "$private_bpffs" || status=1
	fi
	[ -n "${KEEP:-}" ] || rm -rf --one-file-system "$work"
	exit $status
}
