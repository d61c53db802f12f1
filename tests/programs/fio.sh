#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# fio writes patterns with checksums and reads them back: through each engine, at random and in order, by several jobs; then another process verifies them
# through the cache, and after a sync fio without the library verifies them in the store.
. "$(dirname "$0")/lib.sh"
need fio/fio
program_begin fio "$@"

size=$((12 * (minutes * 2 + 1)))M # of a job's file
jobs=2

# fio MODE FOLDER NAME OPTION...: its errors, and nothing that tells of times.
run_fio() {
	local mode=$1 folder=$2 name=$3 status=0
	shift 3
	on "$mode" fio --minimal --directory="$folder" --name="$name" --size="$size" --numjobs=$jobs --randseed="$seed" --allrandrepeat=1 \
		--verify=crc32c --verify_fatal=1 --verify_dump=0 --group_reporting --filename_format='$jobname.$jobnum' "$@" 2>&1 >"$work/fio.$mode" |
		sed "s|$folder||; s/pid=[0-9]*/pid=/; s/at .*time.*//" || status=$?
	echo "$name: status $status"
}

# write_verify MODE FOLDER NAME OPTION...: once in the process that wrote, once in another.
write_verify() {
	local mode=$1 folder=$2 name=$3
	shift 3
	run_fio "$mode" "$folder" "$name" "$@"
	run_fio "$mode" "$folder" "$name" "$@" --verify_only
	[ "$mode" != cached ] || {
		"$ctl" sync
		run_fio plain "$folder" "$name" "$@" --verify_only --ioengine=psync >&2
		! grep -v 'status 0$' "$work/err" >&2 || fail "what is in the store"
	}
}

engine() { timed "$1" both write_verify "${1// /-}" "${@:2}"; }

for e in psync mmap pvsync2; do
	engine "$e random" --ioengine=$e --rw=randwrite --bs=4k
	engine "$e in order" --ioengine=$e --rw=write --bs=64k
done
larger_than_budget "$plain_dir"/psync-random.*
is_cached "$dir/psync-random.0"
engine "sync mixed" --ioengine=sync --rw=randrw --bs=1k-32k --fsync=200
engine "vsync" --ioengine=vsync --rw=write --bs=4k --iodepth=8
engine "mmap mixed sizes" --ioengine=mmap --rw=randwrite --bs=512-16k --fdatasync=200
engine "psync threads" --ioengine=psync --rw=randwrite --bs=8k --thread
engine "psync direct" --ioengine=psync --rw=randwrite --bs=4k --direct=1
program_end
