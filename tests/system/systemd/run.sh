#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The Debian package on a machine with a real systemd: installed, activated, restarted, killed, upgraded and stopped under load. What is done in there is in
# inside.sh; the package is built here, and the same tree as a newer version.
#
#	tests/system/systemd/run.sh
#
# Environment: SYSTEMD_TEST_BIN (folder of the built programs; default: build/tests/system/systemd), SYSTEMD_TEST_PACKAGES (what scripts/package --newer made;
# default: it is called), and that of lib.sh.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
bin=${SYSTEMD_TEST_BIN:-$root/build/tests/system/systemd}
here=$root/tests/system/systemd
machine_begin

packages=${SYSTEMD_TEST_PACKAGES:-$work/packages}
[ -n "${SYSTEMD_TEST_PACKAGES:-}" ] || DEB_BUILD_OPTIONS=noautodbgsym "$root/scripts/package" --newer 9.0.0 "$packages" >"$work/package.log" 2>&1 || {
	tail -n 40 "$work/package.log" >&2
	fail "scripts/package"
}
# What the packages need.
mapfile -t needed < <(for deb in "$packages"/{libpagecached0,pagecached}_*.deb; do dpkg-deb -f "$deb" Depends; done |
	tr ',' '\n' | sed 's/^ *//; s/[ |(].*//' | grep -v pagecached | sort -u)
machine_root systemd systemd-sysv dbus udev procps bpftool "${needed[@]}"

install -d "$work/root/root/packages/newer"
install "$here"/{inside_lib,facts,inside}.sh "$bin"/{service_client,stop_thread,fdstore_facts} "$work/root/root/"
cp "$packages"/{libpagecached0,pagecached}_*.deb "$work/root/root/packages/"
cp "$packages"/newer/{libpagecached0,pagecached}_*.deb "$work/root/root/packages/newer/"
if bpftool feature probe kernel | grep -q "program_type tracing is available"; then
	touch "$work/out/iterators"
else
	echo "systemd: this kernel lets nobody load BPF iterators: the show_* tables are not looked at"
fi
slow_file disk 24M 48M
machine_boot 400 /root/inside.sh
[ "$(cat "$work/out/result" 2>/dev/null)" = passed ] || fail "see above"
