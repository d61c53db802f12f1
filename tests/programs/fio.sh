#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# fio writes patterns with checksums and reads them back: through each engine, at random and in order, by several jobs; then another process verifies them
# through the cache, and after a sync fio without the library verifies them in the store.
. "$(dirname "$0")/lib.sh"
need fio/fio
budget=8M
program_begin fio "$@"

size=$((5 * (minutes * 2 + 1)))M # of a job's file
jobs=2

# fio MODE FOLDER NAME OPTION...: its errors, and nothing that tells of times.
run_fio() {
	local mode=$1 folder=$2 name=$3 status=0
	shift 3
	on "$mode" fio --minimal --directory="$folder" --name="$name" --size="$size" --numjobs=$jobs --randseed="$seed" --allrandrepeat=1 \
		--verify=crc32c --verify_fatal=1 --verify_dump=0 --verify_state_save=0 --group_reporting --filename_format='$jobname.$jobnum' "$@" 2>&1 >"$work/fio.$mode" |
		sed "s|$folder||; s/pid=[0-9]*/pid=/; s/at .*time.*//" || status=$?
	echo "$name: status $status"
	[ "$status" = 0 ] || fail "$mode: fio $name: status $status"
}

# write_verify MODE FOLDER NAME OPTION...: once in the process that wrote, once in another.
write_verify() {
	local mode=$1 folder=$2 name=$3
	shift 3
	run_fio "$mode" "$folder" "$name" "$@"
	run_fio "$mode" "$folder" "$name" "$@" --verify_only
	[ "$mode" != cached ] || "$ctl" sync >&2
	run_fio plain "$folder" "$name" "$@" --verify_only --ioengine=psync
}

engine() { timed "$1" both write_verify "${1// /-}" "${@:2}"; }

for e in psync mmap; do
	engine "$e random" --ioengine=$e --rw=randwrite --bs=4k
	engine "$e in order" --ioengine=$e --rw=write --bs=64k
done
larger_than_budget "$plain_dir"/psync-random.*
is_cached "$dir/psync-random.0"
engine "pvsync2 random" --ioengine=pvsync2 --rw=randwrite --bs=4k
engine "sync mixed" --ioengine=sync --rw=randrw --bs=2k --fsync=1000
engine "vsync" --ioengine=vsync --rw=write --bs=4k --iodepth=8
engine "mmap 16k" --ioengine=mmap --rw=randwrite --bs=16k --fdatasync=200
engine "psync threads" --ioengine=psync --rw=randwrite --bs=8k --thread
engine "psync direct" --ioengine=psync --rw=randwrite --bs=16k --direct=1
engine "splice" --ioengine=splice --rw=write --bs=16k
engine "posixaio random" --ioengine=posixaio --rw=randwrite --bs=16k --iodepth=8
if [ "$minutes" != 0 ]; then
	for e in sync psync vsync pvsync pvsync2 mmap posixaio; do
		for rw in write randwrite readwrite randrw; do
			engine "$e $rw" --ioengine=$e --rw=$rw --bs=16k --fsync=500
		done
	done
fi

# A byte changed behind fio's back must be found, else nothing was proved above.
damaged() {
	local status=0
	on "$1" bash -c 'printf "\377\376" | dd of="$1" bs=1 seek=5000000 conv=notrunc status=none' damage "$2/psync-random.1"
	on "$1" fio --minimal --directory="$2" --name=psync-random --filename=psync-random.1 --size="$size" --ioengine=mmap --rw=randwrite --bs=4k \
		--randseed="$seed" --allrandrepeat=1 --verify=crc32c --verify_dump=0 --verify_state_save=0 --verify_only >"$work/fio.$1" 2>&1 || status=$?
	echo "damaged: status $status"
	grep -q 'verify' "$work/fio.$1" || fail "$1: a damaged block was not found"
}
timed "damage is found" both damaged

# Engines whose requests go to the kernel past the C library: an error, and the file as it was.
refused() {
	local before status=0
	before=$(sha256sum <"$2/$1")
	cached fio --minimal --filename="$2/$1" --name=refused --size="$size" --ioengine="$3" --rw=randwrite --bs=4k >"$work/fio.refused" 2>&1 || status=$?
	[ "$status" != 0 ] || fail "$3: no error"
	grep -q 'Function not implemented\|Operation not permitted\|Bad file descriptor' "$work/fio.refused" || fail "$3: another error"
	"$ctl" sync >&2
	[ "$before" = "$(sha256sum <"$2/$1")" ] || fail "$3: the file has changed"
}
if [ -z "$only_plain" ]; then
	for e in libaio io_uring; do
		refused vsync.0 "$dir" "$e"
	done
fi
program_end
