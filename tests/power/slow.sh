#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A disk that takes its time, and one that does not answer at all: who uses another disk does not notice, and all goes on when it does. One
# worker serves both disks.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
power_begin slow
mount_options=relatime # as they come: reads set times, too

mkdir "$work/fast"
disk_make 64M ext4
disk_on --filter=delay file "$work/disk" rdelay=200ms wdelay=300ms
daemon_begin "$build" --memory-max 64M --workers 1
timeout 150 "$build/tests/power/sick_disk" slow "$mnt" "$work/fast" 200 || fail "slow: status $?"
daemon_end || fail "the daemon"
disk_off

disk_on file "$work/disk"
daemon_begin "$build" --memory-max 64M --workers 1 --dirty-expire 1s
timeout 150 "$build/tests/power/sick_disk" hung "$mnt" "$work/fast" "$nbdkit_pid" || fail "hung: status $?"
daemon_end || fail "the daemon"
disk_off
power_end
