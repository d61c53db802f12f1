#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# git on a served folder: a clone into it, work, packs, and a clone out of it; the objects are those of the plain run.
. "$(dirname "$0")/lib.sh"
need git/git
program_begin git "$@"

commits=$((60 * (minutes * 3 + 1)))
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null HOME=$work LC_ALL=C
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@example.org
export GIT_AUTHOR_DATE='@1700000000 +0000' GIT_COMMITTER_DATE='@1700000000 +0000'

# git MODE FOLDER ARG...
g() { local mode=$1 folder=$2; shift 2; on "$mode" git -C "$folder" "$@"; }

# The repository that all clone, which pagecached never sees: texts that change, and files that do not compress.
origin() {
	git init -q -b main "$work/origin"
	git -C "$work/origin" fast-import --quiet < <(awk -v seed="$seed" -v n="$commits" 'BEGIN {
		srand(seed)
		for (c = 1; c <= n; c++) {
			printf "commit refs/heads/main\nmark :%d\ncommitter C <c@example.org> %d +0000\ndata <<E\ncommit %d\nE\n", c, 1600000000 + c, c
			for (f = 0; f < 8; f++) {
				path = sprintf("folder%d/file%d.txt", rand() * 20, rand() * 20)
				printf "M 644 inline %s\ndata <<E\n", path
				m = 200 + rand() * 3000
				for (i = 0; i < m; i++)
					print int(i / 7) * c % 97, "line", i, int(rand() * 20) ? "same" : rand()
				print "E"
			}
			printf "M 755 inline noise/%d\ndata <<E\n", c
			for (i = 0; i < 4000; i++)
				printf "%c%c%c%06x%06x%06x%06x%06x%06x%06x%06x\n", 33 + rand() * 90, 33 + rand() * 90, 33 + rand() * 90, rand() * 2^24, rand() * 2^24,
					rand() * 2^24, rand() * 2^24, rand() * 2^24, rand() * 2^24, rand() * 2^24, rand() * 2^24
			print "E"
		}
		printf "M 120000 inline symbolic\ndata 7\nnoise/1\n"
	}')
	git -C "$work/origin" tag -a -m 'a tag' v1 main~5
}
timed "make a repository" plain origin

# What a repository holds, whatever the packs that it is in.
objects() { g "$1" "$2" cat-file --batch-all-objects --batch-check; g "$1" "$2" for-each-ref --exclude='refs/remotes/*/HEAD' 2>/dev/null || g "$1" "$2" show-ref; }

clone() {
	on "$1" git clone -q "file://$work/origin" "$2/clone"
	g "$1" "$2/clone" status --porcelain
	g "$1" "$2/clone" rev-parse HEAD v1 'HEAD^{tree}'
	objects "$1" "$2/clone" | sha256sum
	g "$1" "$2/clone" diff HEAD --stat
}
timed "clone into it" both clone
[ -n "$only_plain" ] || { larger_than_budget "$dir/clone" && is_cached "$dir/clone/noise/1"; }

checkout() {
	g "$1" "$2/clone" checkout -q HEAD~30
	g "$1" "$2/clone" status --porcelain
	g "$1" "$2/clone" ls-files -s | sha256sum
	g "$1" "$2/clone" checkout -q main
	g "$1" "$2/clone" status --porcelain
}
timed "checkout" both checkout

commit() {
	local i
	for i in 1 2 3; do
		on "$1" bash -c 'cd "$1" && echo "more $2" >>noise/1 && sed -i "$2d" folder1/*.txt && rm -f "noise/1$2" && echo "new $2" >"new$2"' work "$2/clone" "$i"
		g "$1" "$2/clone" status --porcelain
		g "$1" "$2/clone" diff --stat
		g "$1" "$2/clone" add -A
		g "$1" "$2/clone" commit -q -m "local $i"
	done
	g "$1" "$2/clone" checkout -q -b side HEAD~2
	on "$1" bash -c 'echo side >"$1/noise/2"' side "$2/clone"
	g "$1" "$2/clone" commit -q -a -m side
	g "$1" "$2/clone" checkout -q main
	g "$1" "$2/clone" merge -q --no-edit side
	g "$1" "$2/clone" rebase -q HEAD~1 2>&1
	g "$1" "$2/clone" stash list
	on "$1" bash -c 'echo to be stashed >>"$1/noise/1"' stash "$2/clone"
	g "$1" "$2/clone" stash -q
	g "$1" "$2/clone" status --porcelain
	g "$1" "$2/clone" stash pop -q
	g "$1" "$2/clone" status --porcelain
	g "$1" "$2/clone" reset -q --hard
	g "$1" "$2/clone" log --oneline -5
	g "$1" "$2/clone" log -p -3 -- folder1 | sha256sum
	g "$1" "$2/clone" blame noise/1 | tail -n 3
	g "$1" "$2/clone" grep -c 'line 100' | sort | sha256sum
}
timed "commit, merge, rebase, stash" both commit

pack() {
	g "$1" "$2/clone" fsck --strict --no-dangling 2>&1
	g "$1" "$2/clone" gc -q
	g "$1" "$2/clone" fsck --strict --no-dangling 2>&1
	g "$1" "$2/clone" -c pack.threads=2 repack -q -a -d -f --depth=10 --window=5
	g "$1" "$2/clone" fsck --full --no-dangling 2>&1
	g "$1" "$2/clone" verify-pack "$(cd "$2/clone" && echo .git/objects/pack/*.idx)"
	g "$1" "$2/clone" count-objects -v | grep -E '^(count|in-pack|packs|garbage)'
	g "$1" "$2/clone" commit-graph write --reachable
	g "$1" "$2/clone" multi-pack-index write 2>&1
	g "$1" "$2/clone" status --porcelain
	objects "$1" "$2/clone" | sha256sum
}
timed "fsck, gc, repack" both pack

out() {
	on "$1" git clone -q "file://$2/clone" "$work/out.clone.$1"
	on "$1" git clone -q "$2/clone" "$2/local" # hard links or copies
	g "$1" "$2/local" status --porcelain
	g "$1" "$2/clone" archive --format=tar HEAD | sha256sum
	g "$1" "$2/clone" bundle create -q "$2/bundle" main
	on "$1" git clone -q -b main "$2/bundle" "$2/unbundled"
	g "$1" "$2/unbundled" fsck --strict 2>&1
	g "$1" "$2/clone" worktree add -q "$2/tree" HEAD~3
	g "$1" "$2/tree" status --porcelain
	[ "$minutes" = 0 ] || g "$1" "$2/clone" gc --aggressive --prune=now -q
	git -C "$work/out.clone.$1" fsck --strict 2>&1
	git -C "$work/out.clone.$1" rev-parse HEAD
	git -C "$work/out.clone.$1" status --porcelain
}
timed "clone out of it" both out

# The store, without the library, with git itself and file by file. (A bundle's bytes depend on how the threads that packed it took turns.)
same_store
[ -n "$only_plain" ] || {
	git -C "$dir/clone" fsck --strict --no-dangling
	[ -z "$(git -C "$dir/clone" status --porcelain)" ] || fail "the work tree in the store has changed"
	diff -r --exclude=.git --exclude=bundle --no-dereference "$plain_dir" "$dir" >&2 || fail "the work trees differ"
	diff -r --exclude=.git --no-dereference "$work/out.clone.plain" "$work/out.clone.cached" >&2 || fail "the clones out of them differ"
}
program_end
