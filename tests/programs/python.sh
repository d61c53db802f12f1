#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Python on served files: maps, NumPy's arrays, files, copies, children, attributes, databases (python.py).
. "$(dirname "$0")/lib.sh"
need python3/"/usr/bin/python3" python3-numpy/"/usr/lib/python3/dist-packages/numpy"
program_begin python "$@"

program=$(realpath "$(dirname "$0")/python.py")
python() { on "$1" env PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$program" "$2" "$seed" "$3"; }

round() {
	local s
	for s in mmap processes numpy files copy children attributes sqlite; do
		timed "$s" both python "$s"
	done
}
round
[ -n "$only_plain" ] || larger_than_budget "$dir"/*
is_cached "$dir/mapped"
same_as_plain
end=$(deadline)
while time_left "$end"; do
	seed=$((seed + 1))
	rm -rf "${plain_dir:?}"/* "${dir:?}"/*
	round
	same_as_plain
done
program_end
