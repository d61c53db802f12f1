# SPDX-License-Identifier: Apache-2.0
# Sourced by run.sh: a machine of its own with a real systemd, by systemd-nspawn. As root.
#
#	machine_begin                 $work and a mount namespace and cgroups of its own; all of it gone at the end
#	machine_root PACKAGE...       a Debian root with these in $work/root, from mmdebstrap or the cache
#	slow_file NAME SIZE BITS      $work/slow/NAME: a file that takes so many bits a second
#	machine_boot SECONDS SCRIPT   boots it, runs SCRIPT of the root in it, and shuts it down. What it wrote to /out is in $work/out; /data is on
#	                              a disk
#
# Environment: SYSTEMD_TEST_CACHE (a folder for the root; default: build/systemd-root), TMPDIR (default: /var/tmp), KEEP=1.
# shellcheck shell=bash
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd -P)
export PATH=$PATH:/usr/sbin:/sbin
# Mounts that whatever ends the script ends, too.
if [ "${MACHINE_NAMESPACE:-}" != 1 ]; then
	[ "$(id -u)" = 0 ] || { echo "$0: this boots a machine: root is needed" >&2; exit 1; }
	export MACHINE_NAMESPACE=1
	exec unshare --mount --propagation private -- "$0" "$@"
fi
cache=${SYSTEMD_TEST_CACHE:-$root/build/systemd-root}
started=() # pids
cgroups=() # folders

fail() {
	echo "systemd: FAILED: $*" >&2
	exit 1
}

# A cgroup below this one in the hierarchies that nspawn uses, so that what it makes beside itself can be taken away.
own_cgroups() {
	local mount line path fs options
	while read -r _ mount fs options _; do
		case $fs,$options in
		cgroup2,*) line=$(grep '^0::' /proc/self/cgroup) ;;
		cgroup,*name=systemd*) line=$(grep ':name=systemd:' /proc/self/cgroup) ;;
		*) continue ;;
		esac
		path=$mount${line#*:*:}
		path=${path%/}/pagecached-test-$$
		mkdir "$path" || continue
		cgroups+=("$path")
		echo $$ >"$path/cgroup.procs"
	done </proc/self/mounts
}

machine_begin() {
	local want
	for want in mmdebstrap/mmdebstrap systemd-container/systemd-nspawn nbdkit/nbdkit libnbd-bin/nbdfuse fuse3/fusermount3; do
		command -v "${want#*/}" >/dev/null || fail "no ${want#*/}, of package ${want%%/*}"
	done
	for want in /dev/userfaultfd /dev/fuse; do
		[ -c "$want" ] || fail "no $want"
	done
	work=$(mktemp -d "${TMPDIR:-/var/tmp}/pagecached-systemd-XXXXXX")
	trap machine_end EXIT
	trap 'exit 130' INT TERM
	mkdir "$work/out" "$work/bpf" "$work/slow" "$work/data"
	# What nspawn keeps of its machines, whether a systemd runs here or not.
	mkdir -p /run/systemd
	mount -t tmpfs -o mode=755 tmpfs /run/systemd
	own_cgroups
}

machine_end() {
	local status=$? pid path
	trap - EXIT INT TERM
	set +e
	! mountpoint -q "$work/slow" || fusermount3 -u "$work/slow" || umount -l "$work/slow"
	for pid in "${started[@]}"; do
		kill -KILL "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	for path in "$work/root" "$work/layer" "$work/bpf"; do
		! mountpoint -q "$path" || umount "$path" || status=1
	done
	for path in "${cgroups[@]}"; do
		echo $$ >"${path%/*}/cgroup.procs"
		for _ in $(seq 50); do # the last process of a cgroup is gone a moment before the cgroup is empty
			find "$path" -depth -type d -exec rmdir {} + 2>/dev/null
			[ -e "$path" ] || break
			sleep 0.1
		done
		[ ! -e "$path" ] || { echo "systemd: $path is left" >&2; status=1; }
	done
	if [ -n "${KEEP:-}" ]; then
		echo "systemd: kept: $work"
	else
		rm -rf --one-file-system "$work"
	fi
	exit $status
}

# A folder for what was asked for, made anew when that, or where Debian's packages come from, changes. It is never written to: the
# machine has a layer of its own over it, in memory.
machine_root() {
	local sources key packages base
	packages=$(IFS=,; echo "$*")
	mapfile -t sources < <(grep -lsE '^[^#]*/debian' /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} | sort)
	[ ${#sources[@]} -gt 0 ] || fail "apt knows no mirror of Debian's"
	key=$(cat <(echo "$packages"; declare -f machine_root) "${sources[@]}" | sha256sum | cut -c1-16)
	base=$cache/$key
	if [ ! -e "$base/made" ]; then
		rm -rf --one-file-system "$cache"
		mkdir -p "$base"
		# shellcheck source=/dev/null
		mmdebstrap --quiet --mode=root --variant=minbase --format=directory --include="$packages" \
			--aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
			--dpkgopt='path-exclude=/usr/share/locale/*' "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$base/root" "${sources[@]}" \
			>"$work/mmdebstrap.log" 2>&1 || { tail -n 20 "$work/mmdebstrap.log" >&2; fail "mmdebstrap"; }
		touch "$base/made"
	fi
	mkdir "$work/root" "$work/layer"
	mount -t tmpfs -o mode=755 tmpfs "$work/layer"
	mkdir "$work/layer/upper" "$work/layer/work"
	mount -t overlay -o "lowerdir=$base/root,upperdir=$work/layer/upper,workdir=$work/layer/work" overlay "$work/root"
}

slow_file() {
	local name=$1 size=$2 bits=$3
	nbdkit --foreground --unix "$work/nbd" --filter=rate memory "$size" rate="$bits" >"$work/nbdkit.log" 2>&1 &
	started+=($!)
	for _ in $(seq 100); do [ ! -S "$work/nbd" ] || break; sleep 0.05; done
	# Others: the daemon is not root.
	nbdfuse -o allow_other "$work/slow/$name" --unix "$work/nbd" >>"$work/nbdkit.log" 2>&1 &
	started+=($!)
	for _ in $(seq 100); do [ ! -e "$work/slow/$name" ] || return 0; sleep 0.05; done
	fail "nbdfuse does not start: $(tail -n 5 "$work/nbdkit.log")"
}

machine_boot() {
	local seconds=$1 script=$2 pid
	mount -t bpf bpf "$work/bpf"
	# Of its own, as the rule for udev changes its group.
	mknod -m 600 "$work/userfaultfd" c $((0x$(stat -c %t /dev/userfaultfd))) $((0x$(stat -c %T /dev/userfaultfd)))
	cat >"$work/root/etc/systemd/system/test.service" <<-END
		[Unit]
		Description=The test
		Requires=multi-user.target
		After=multi-user.target
		[Service]
		Type=oneshot
		ExecStart=$script
		StandardOutput=append:/out/log
		StandardError=inherit
		ExecStopPost=systemctl --no-block poweroff
	END
	SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout -k 20 "$seconds" systemd-nspawn --quiet --directory="$work/root" --machine=pagecached-test --boot --register=no \
		--keep-unit --console=pipe --private-network --link-journal=no --resolv-conf=off --timezone=off \
		--bind="$work/userfaultfd:/dev/userfaultfd" --bind="$work/bpf:/sys/fs/bpf" --bind="$work/out:/out" --bind="$work/slow:/slow" --bind="$work/data:/data" \
		--system-call-filter='userfaultfd bpf perf_event_open io_uring_setup io_uring_enter io_uring_register' \
		--capability=CAP_BPF,CAP_PERFMON,CAP_IPC_LOCK,CAP_SYS_RESOURCE systemd.unit=test.service </dev/null >"$work/console.log" 2>&1 &
	pid=$!
	tail -n +1 -F --pid="$pid" "$work/out/log" 2>/dev/null &
	wait "$pid" || { cat "$work/console.log" >&2; fail "the machine: status $?"; }
	wait $! || true
}
