# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts that take a disk's power away, or make it sick: a file system on a loop device, over nbdkit by way of nbdfuse.
#
#	. "$(dirname "$0")/lib.sh"
#	power_begin NAME              $work, and all of it gone at the end
#	disk_make SIZE FS             the disk's backing file, with an empty file system
#	disk_on NBDKIT-ARGUMENT...    it is plugged in; mounted at $mnt
#	disk_cut                      its power is gone: what it had not been told to flush is lost
#	disk_off                      it is unmounted and unplugged in order
#	power_end                     the last line of a script
#
# Everything that could wait for a disk is bound by a time. As root. Environment: PAGECACHED_BIN, TMPDIR (default: /var/tmp), KEEP=1.
# shellcheck shell=bash
set -euo pipefail
# In a mount namespace of its own: nobody who copies his meanwhile keeps the disk, and whatever ends the script ends its mounts.
if [ "${POWER_NAMESPACE:-}" != 1 ]; then
	export POWER_NAMESPACE=1
	exec unshare --mount --propagation private -- "$0" "$@"
fi
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
export PATH=$PATH:/usr/sbin:/sbin
ulimit -c 0 # nbdfuse aborts when its server is gone

daemon_bin=${PAGECACHED_BIN:-$root/build/daemon/pagecached}
build=$(cd "$(dirname "$daemon_bin")/.." 2>/dev/null && pwd) || { echo "$0: no $daemon_bin: build it, or set PAGECACHED_BIN" >&2; exit 1; }
client=$build/tests/power/power_client
disk_plugin=$build/tests/power/nbdkit-volatile-plugin.so
keep=         # power_gone() kills all that there is
name=
mnt=          # where the disk is mounted
nbdkit_pid=
nbdfuse_pid=
loop=
fs=
mount_options=noatime
failures=0

fail() {
	echo "$name: FAILED: $*" >&2
	exit 1
}

# check WHAT COMMAND...: one expectation; the script goes on.
check() {
	local what=$1
	shift
	if "$@"; then
		echo "ok: $what"
	else
		echo "FAILED: $what ($*)" >&2
		failures=$((failures + 1))
	fi
}

# power_begin NAME [PACKAGE/PROGRAM...]
power_begin() {
	local want
	name=$1
	shift
	[ "$(id -u)" = 0 ] || fail "this mounts file systems: root is needed"
	for want in nbdkit/nbdkit libnbd-bin/nbdfuse fuse3/fusermount3 e2fsprogs/mkfs.ext4 util-linux/losetup "$@"; do
		command -v "${want#*/}" >/dev/null || fail "no ${want#*/}, of package ${want%%/*}"
	done
	[ -e /dev/fuse ] || fail "no /dev/fuse"
	private_begin "$name"
	trap power_cleanup EXIT
	mnt=$work/mnt
	mkdir "$mnt" "$work/fuse"
}

# disk_make SIZE FS [MKFS-OPTION...]
disk_make() {
	fs=$2
	rm -f "$work/disk"
	truncate -s "$1" "$work/disk"
	shift 2
	"mkfs.$fs" -q "$@" "$work/disk"
}

# wait_for SECONDS COMMAND...
wait_for() {
	local end=$(($(date +%s%N) + $1 * 1000000000))
	shift
	until "$@"; do
		[ "$(date +%s%N)" -lt "$end" ] || return 1
		sleep 0.02
	done
}

plugged_in() { [ -e "$work/fuse/disk" ]; }
ended() { ! kill -0 "$1" 2>/dev/null; }
mounted() { grep -qF " $1 " /proc/self/mounts; } # asks nobody who may be dead
unmounted() { timeout 20 umount "$1" 2>/dev/null || ! mounted "$1"; }

# disk_plug NBDKIT-ARGUMENT...: up to the block device, $loop.
disk_plug() {
	rm -f "$work/nbd"
	nbdkit --foreground --unix "$work/nbd" "$@" >>"$work/nbdkit.log" 2>&1 &
	nbdkit_pid=$!
	wait_for 10 test -S "$work/nbd" || fail "nbdkit does not start: $(tail -n 5 "$work/nbdkit.log")"
	nbdfuse "$work/fuse/disk" --unix "$work/nbd" >>"$work/nbdkit.log" 2>&1 &
	nbdfuse_pid=$!
	wait_for 10 plugged_in || fail "nbdfuse does not start: $(tail -n 5 "$work/nbdkit.log")"
	loop=$(timeout 20 losetup --find --show --direct-io=on "$work/fuse/disk")
}

disk_on() {
	disk_plug "$@"
	timeout 60 mount -t "$fs" -o "$mount_options" "$loop" "$mnt" || fail "the disk cannot be mounted"
}

disk_unplug() {
	local pid
	if mounted "$mnt" && ! wait_for 10 unmounted "$mnt"; then
		umount -l "$mnt" # whoever still uses it; the caller sees that the loop device does not go
	fi
	if [ -n "$loop" ]; then
		timeout 20 losetup -d "$loop" || true
		wait_for 10 loop_gone || {
			echo "$name: $loop is still in use" >&2
			return 1
		}
		loop=
	fi
	if mounted "$work/fuse"; then
		timeout 20 fusermount3 -u "$work/fuse" 2>/dev/null || umount -l "$work/fuse"
	fi
	for pid in "$nbdfuse_pid" "$nbdkit_pid"; do
		[ -n "$pid" ] || continue
		kill -CONT "$pid" 2>/dev/null || true
		kill "$pid" 2>/dev/null || true
		wait_for 10 ended "$pid" || kill -KILL "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	nbdkit_pid='' nbdfuse_pid=''
}

loop_gone() { ! losetup "$loop" >/dev/null 2>&1; }

disk_off() {
	timeout 60 umount "$mnt" || fail "the disk cannot be unmounted"
	disk_unplug || fail "the disk cannot be unplugged"
}

# power_gone PID...: the disk first, as its last words count; then all that ran on the machine.
power_gone() {
	local pid
	disown "$nbdkit_pid" "$nbdfuse_pid" # else bash would tell of their deaths
	kill -KILL "$nbdkit_pid"
	for pid in ${daemon_pid:+"$daemon_pid"} "$@"; do
		kill -KILL "$pid" 2>/dev/null || true
	done
	for pid in ${daemon_pid:+"$daemon_pid"} "$@"; do
		wait "$pid" 2>/dev/null || true
	done
	daemon_pid=
	clients=()
	[ "$bpf" = none ] || rm -rf "$bpf"
	rm -rf "$work/socket" "$work/state"
}

disk_cut() {
	power_gone "$@"
	disk_unplug || fail "the dead disk is still in use"
}

power_cleanup() {
	local status=$? pid
	trap - EXIT
	set +e
	[ "$status" = 0 ] || {
		tail -n 20 "$work/daemon.log"
		tail -n 5 "$work/nbdkit.log"
	} >&2 2>/dev/null
	if [ -n "$nbdkit_pid" ]; then
		kill -CONT "$nbdkit_pid" 2>/dev/null
	fi
	for pid in "${clients[@]}"; do
		kill -KILL "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	clients=()
	daemon_end || status=1
	disk_unplug || status=1
	(exit "$status")
	private_end
}

power_end() {
	[ "$failures" = 0 ] || fail "$failures expectations"
	daemon_end || fail "the daemon"
	echo "$name: all is as it should be"
}
