#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# stress-ng's stressors of files, each with --verify: what it finds right on a plain folder it finds right on a served one.
. "$(dirname "$0")/lib.sh"
need stress-ng/stress-ng
program_begin stress "$@"

ops=20 seconds=1 instances=2
[ "$minutes" = 0 ] || ops=2000 seconds=$((minutes * 30 / 25 + 1)) instances=4

# stress MODE FOLDER STRESSOR [OPTION...]: its exit status; that of a failed verification is 2.
stress() {
	local mode=$1 folder=$2 stressor=$3 status=0
	shift 3
	# Without a terminal's width and times, a failure's text is the same each time; but how often it comes is not.
	PAGECACHED_DEBUG=1 on "$mode" timeout -k 5 60 stress-ng "--$stressor" $instances "--$stressor-ops" $ops "$@" --verify --timeout $seconds --seed "$seed" \
		--temp-path "$folder" >"$work/stress.$mode" 2>&1 || status=$?
	echo "$stressor: status $status"
	[ "$mode" != plain ] || [ "$status" = 0 ] || { cat "$work/stress.$mode" >&2; fail "$stressor fails here without pagecached"; }
	[ "$mode" = plain ] || cat "$work/stress.$mode" >&2
	# A stressor that uses no file that the library sees would prove nothing.
	[ "$mode" = plain ] || grep -q "^pagecached: .* is descriptor" "$work/stress.$mode" || fail "$stressor: no file of its was taken over"
}

# Short form and long form.
for s in hdd seek iomix copy-file sendfile fallocate fcntl flock lockf lockofd locka utime chmod msync mincore revio tlb-shootdown xattr access fault touch link; do
	timed "$s" both stress "$s"
done
timed mmap both stress mmap --mmap-file --mmap-bytes 24M
[ "$minutes" = 0 ] || for s in chown fiemap file-ioctl fpunch fsize inode-flags lease sync-file msyncmany madvise readahead stackmmap dentry filename symlink aio; do
	timed "$s" both stress "$s"
done
timed open both stress open --open-ops 500
timed "hdd, large" both stress hdd --hdd-bytes 24M --hdd-ops 700 --hdd-opts wr-rnd,rd-rnd

# The folder is empty, as stressors leave it.
[ -z "$(find "$plain_dir" -mindepth 1)" ] || fail "files were left in the plain folder"
[ -n "$only_plain" ] || [ -z "$(find "$dir" -mindepth 1)" ] || fail "files were left in the served folder"
program_end
