#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A disk that fails writes, then reads, and is well again. What ext4 does with the kernel's page cache on the same disk is printed beside.
# Without a journal: one that fails a write of its journal has ext4 shut the file system down, and nobody writes to that any more.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
power_begin errors

disk_make 64M ext4 -O ^has_journal
disk_on --filter=error file "$work/disk" error=EIO error-pwrite-rate=100% error-pwrite-file="$work/fail-writes" \
	error-zero-rate=100% error-zero-file="$work/fail-writes" error-pread-rate=100% error-pread-file="$work/fail-reads"
daemon_begin "$build" --memory-max 64M --dirty-expire 2s
timeout 150 "$build/tests/power/sick_disk" errors "$mnt" "$work/fail-writes" "$work/fail-reads" || fail "status $?"
daemon_end || fail "the daemon"
disk_off
power_end
