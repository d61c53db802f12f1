#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The power goes while clients write through pagecached, again and again: what fsync, fdatasync and msync promised is on the disk.
#
#	tests/power/cuts.sh [--cuts N] [--fs ext4|xfs] [--clients 1|2|4|8] [--seed N]
#
# Before that it is shown that the cuts bite: what was written past all caches of the kernel, and not flushed, is gone; and promises that
# are noted without a sync are found to be broken.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

cuts=12 fs=ext4 n_clients=4 seed=$((RANDOM * 32768 + RANDOM))
while [ $# -gt 0 ]; do
	case $1 in
	--cuts) cuts=$2 ;;
	--fs) fs=$2 ;;
	--clients) n_clients=$2 ;;
	--seed) seed=$2 ;;
	*) echo "usage: $0 [--cuts N] [--fs ext4|xfs] [--clients N] [--seed N]" >&2; exit 2 ;;
	esac
	shift 2
done
power_begin "cuts-$fs" "$([ "$fs" = xfs ] && echo xfsprogs || echo e2fsprogs)/mkfs.$fs"
RANDOM=$((seed % 32768))
echo "$name: seed $seed, $cuts cuts, $n_clients clients"

# disk_again: the machine comes up. The journal is replayed by the mount.
disk_again() { disk_on "$disk_plugin" file="$work/disk" spill=30 seed="$RANDOM"; }

# sha FILE: what the disk has, not what a cache has.
sha() { dd if="$1" iflag=direct bs=64k status=none | sha256sum; }

# Written with O_DIRECT, seen by who reads the disk, and gone after the cut; with fsync it stays.
unflushed_is_lost() {
	local before after
	disk_on "$disk_plugin" file="$work/disk"
	dd if=/dev/urandom of="$mnt/control" bs=64k count=16 oflag=direct conv=fsync status=none
	before=$(sha "$mnt/control")
	dd if=/dev/urandom of="$mnt/control" bs=64k count=16 oflag=direct conv=notrunc status=none
	after=$(sha "$mnt/control")
	[ "$after" != "$before" ] || fail "nothing was written"
	disk_cut
	disk_on "$disk_plugin" file="$work/disk"
	[ "$(sha "$mnt/control")" = "$before" ] || fail "the cut did not take what was not flushed"
	rm "$mnt/control"
	disk_off
}

# round ACT: clients at work, then the cut.
round() {
	local i
	daemon_begin "$build" --memory-max 8M --dirty-expire 100ms --workers 2
	for i in $(seq 0 $((n_clients - 1))); do
		"$client" "$1" "$work/state-of-promises" "$mnt" "$i" "$RANDOM" 2>>"$work/clients.log" &
		clients+=($!)
	done
	sleep "$((RANDOM % 2)).$((RANDOM % 8 + 2))"
	for i in "${clients[@]}"; do
		kill -0 "$i" 2>/dev/null || fail "a client ended before the cut: $(tail -n 3 "$work/clients.log")"
	done
	disk_cut "${clients[@]}"
	disk_again
}

size=96M
[ "$fs" != xfs ] || size=320M # it comes no smaller
disk_make "$size" "$fs"
unflushed_is_lost
echo "ok: what is not flushed is lost"

disk_again
"$client" make "$work/state-of-promises" "$mnt" "$n_clients"
caught=
for _ in 1 2 3 4 5; do
	round lie
	"$client" check "$work/state-of-promises" "$mnt" >/dev/null 2>&1 || {
		caught=1
		break
	}
done
[ -n "$caught" ] || fail "promises without a sync were not found to be broken"
echo "ok: promises without a sync are found to be broken"

: >"$work/counts"
for i in $(seq "$cuts"); do
	round run
	"$client" check "$work/state-of-promises" "$mnt" >>"$work/counts" || fail "cut $i: a promise is broken; seed $seed"
done
disk_off
case $fs in
ext4) e2fsck -fn "$work/disk" >"$work/fsck.log" 2>&1 || fail "the file system is broken: $(cat "$work/fsck.log")" ;;
xfs) xfs_repair -n "$work/disk" >"$work/fsck.log" 2>&1 || fail "the file system is broken: $(cat "$work/fsck.log")" ;;
esac
awk -v fs="$fs" '{s += $1; p += $3; c += $6; l += $8; lp += $12; ll += $15}
	END {printf "%s: %d cuts, %d syncs, %d records promised, %d checked, %d written but not promised lost; of logs %d bytes promised, %d lost\n",
		fs, NR, s, p, c, l, lp, ll; exit !(p > 0 && l > 0 && lp > 0)}' "$work/counts" || fail "nothing was promised, or nothing lost: this shows nothing"
power_end
