#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The everyday tools on a served folder: each step is a small script that a shell under the library runs, redirections and all; its output, its exit
# statuses and the files that it leaves must be those of the plain run.
. "$(dirname "$0")/lib.sh"
need coreutils/sort ripgrep/rg tar/tar diffutils/cmp rsync/rsync zstd/zstd gzip/gzip patch/patch make/make gcc/gcc perl/perl dash/dash \
	sed/sed grep/grep findutils/find util-linux/fallocate
budget=8M
program_begin tools "$@"

# script MODE FOLDER SHELL TEXT: the folder is the shell's own.
script() {
	on "$1" env -C "$2" LC_ALL=C HOME="$work" outside="$work/outside.$1" "$3" -c "set -eu
		status() { local s=0; \"\$@\" || s=\$?; echo \"\$1: status \$s\"; }
		$4"
	}

# shell STEP [SHELL]: the script is on stdin.
shell() {
	local text
	text=$(cat)
	timed "$1" both script "${2:-bash}" "$text"
}

lines=$((75000 * (minutes * 4 + 1))) # 100 bytes each
data() {
	mkdir "$work/outside.$1"
	awk -v seed="$seed" -v n="$lines" 'BEGIN {
		srand(seed)
		for (i = 0; i < n; i++)
			printf "%09d %08x line number %d of many, %s and so on to fill it up to one hundred%s\n", rand() * 1e9, rand() * 1e9, i,
				i % 1000 ? "with nothing to be found" : "with a needle in it", substr("........................", 1, rand() * 20)
	}' >"$work/outside.$1/text"
	on "$1" cp "$work/outside.$1/text" "$2/text"
	on "$1" dd if="$2/text" of="$2/binary" bs=65536 status=none
	on "$1" perl -e 'srand $ARGV[0]; open my $f, "+<", $ARGV[1]; for (1..500) { seek $f, int(rand(-s $f)), 0; print $f pack("L", rand(2**32)) }' "$seed" "$2/binary"
}
timed "data" both data
[ -n "$only_plain" ] || { larger_than_budget "$dir/text" && is_cached "$dir/text"; }

shell "search" <<'END_OF_SCRIPT'
	rg --mmap -n needle text | sha256sum
	rg --no-mmap -n needle text | sha256sum
	rg --mmap -c -j2 nothing text binary | sort
	grep -n needle text | sha256sum
	grep -c nothing text
	grep -r -l needle . | sort
	status grep absent text
	status grep -c needle absent
	grep -c -a line binary
	grep -o -b 'number 7777 ' text
END_OF_SCRIPT

shell "sort" <<'END_OF_SCRIPT'
	mkdir temporary
	sort -S 2M -T temporary text -o sorted
	sort -c sorted
	sort -S 2M -T temporary -k2 --parallel=2 text >by-word
	sort -m -u sorted sorted | cmp - sorted
	sort -o by-word -S 2M -T temporary -r by-word
	sha256sum sorted by-word
	comm -3 sorted sorted | wc -l
	uniq -c sorted | head -n 2
	join -j 1 sorted sorted | wc -l
	ls -A temporary
	rmdir temporary
	rm by-word
END_OF_SCRIPT

shell "read" <<'END_OF_SCRIPT'
	sha256sum text binary
	md5sum <text
	cksum binary
	wc text
	wc -c text binary
	wc -c <text
	head -n 3 text; head -c 100 binary | od -c | head -n 3
	head -n -74990 text | wc
	tail -n 3 text; tail -c 55 text
	tail -n +74990 text | wc -l
	tail -c +9000000 text | sha256sum
	tac text | head -n 2
	cut -c 1-9 text | sha256sum
	od -j 1000000 -N 64 -A d -t x1 binary
	cat text binary | sha256sum
	cat <text | wc -c
	tr a-z A-Z <text | sha256sum
	awk 'NR % 50000 == 0 {print $2}' text
	nl text | tail -n 1
	strings -n 50 binary 2>/dev/null | wc -l
	file_size=$(stat -c '%s %F' text); echo "$file_size"
	base64 binary | base64 -d | cmp - binary
	{ head -n 2 >/dev/null; head -n 1; } <text   # head gives back what it has read too much
	while read -r a b c; do echo "$a $b"; break; done <text
	mapfile -t -n 3 array <text; echo "${#array[@]} ${array[2]}"
	seq 3 >"three"; read -r first <three; echo "$first"
	{ read -r a; read -r b; cat; } <three; echo "$a $b"
END_OF_SCRIPT

shell "compare" <<'END_OF_SCRIPT'
	cp binary other
	status cmp binary other
	status diff -q binary text
	printf X | dd of=other bs=1 seek=5345678 conv=notrunc status=none
	status cmp binary other
	cmp -l binary other | wc -l
	status cmp -i 5345679 binary other
	{ head -n 1000 text; echo new; tail -n +1002 text; } >edited
	status diff text edited
	diff -u text edited | grep -v '^[-+][-+]' >"$outside/difference" || true
	status diff <(head -n 10 text) <(head -n 10 edited)
	rm other
END_OF_SCRIPT

shell "tar" <<'END_OF_SCRIPT'
	mkdir tree && (cd tree && split -n 40 ../binary part. && mkdir -p a/b/c && cp part.a* a/b/c && ln part.aa link && ln -s part.ab symbolic && : >empty)
	tar c -f tree.tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner tree
	sha256sum tree.tar
	mkdir extracted && tar x -f tree.tar -C extracted
	diff -r tree extracted/tree
	tar d -f tree.tar -C extracted && echo compared
	tar t -f tree.tar | wc -l
	tar c tree | tar x -C extracted && diff -r tree extracted/tree
	tar r -f tree.tar three && tar t -f tree.tar | tail -n 1
	tar --delete -f tree.tar three && tar t -f tree.tar | wc -l
	tar c -z -f tree.tgz tree && tar t -z -f tree.tgz | wc -l
	tar x -O -f tree.tar tree/part.ab | cmp - tree/part.ab
	truncate -s 10M sparse && printf data | dd of=sparse bs=1 seek=5000000 conv=notrunc status=none
	tar c -S -f sparse.tar sparse && rm sparse && tar x -S -f sparse.tar && wc -c sparse && sha256sum sparse
	rm -r extracted tree.tgz sparse.tar sparse
END_OF_SCRIPT

shell "compress" <<'END_OF_SCRIPT'
	gzip -k -n -1 text && gzip -t text.gz && gzip -dc text.gz | cmp - text
	zstd -q -1 text -o text.zst && zstd -q -t text.zst && zstd -q -d text.zst -o text.back && cmp text text.back
	zstd -q -T2 -f --rm text.back && ls text.back*
	zstd -q -d --rm text.back.zst && cmp text text.back && ls text.back*
	gzip text.back && gunzip text.back.gz && cmp text text.back
	zcat text.gz | tail -n 1
	xz -0 -T2 -k -c edited 2>/dev/null | xz -d 2>/dev/null | cmp - edited || echo "no xz here"
	rm text.gz text.zst text.back
END_OF_SCRIPT

shell "dd" <<'END_OF_SCRIPT'
	for bs in 512 4096 10000 65536 1M 7M; do
		n=1000; [ $bs != 1M ] && [ $bs != 7M ] || n=2
		dd if=binary of=dd.$bs bs=$bs count=$n status=none; sha256sum dd.$bs
	done
	dd if=binary of=dd.512 bs=4096 seek=3 skip=5 count=7 conv=notrunc,fsync status=none; sha256sum dd.512
	dd if=binary of=dd.512 bs=1000 seek=20 count=1 status=none; stat -c %s dd.512; sha256sum dd.512
	dd if=text of=dd.4096 bs=3333 count=5 oflag=append conv=notrunc status=none; sha256sum dd.4096
	dd if=binary of=dd.direct bs=1M iflag=direct oflag=direct count=8 status=none; sha256sum dd.direct
	dd if=binary of=dd.direct bs=4096 seek=100 count=10 oflag=direct,dsync conv=notrunc status=none; sha256sum dd.direct
	dd if=/dev/zero of=dd.sparse bs=64k count=64 conv=sparse status=none; stat -c %s dd.sparse; sha256sum dd.sparse
	dd if=text of=dd.upper conv=ucase bs=1M count=3 status=none; sha256sum dd.upper
	dd if=text bs=100 skip=1500 count=3 2>&1 | head -c 300
	dd if=binary of=dd.swab conv=swab,fdatasync ibs=1024 obs=3000 count=500 status=none; sha256sum dd.swab
	dd if=binary bs=1M skip=3 count=2 status=none | dd of=dd.pipe bs=7777 iflag=fullblock status=none; sha256sum dd.pipe
	dd if=binary of=dd.bytes iflag=skip_bytes,count_bytes skip=1234567 count=7654321 bs=64k status=none; sha256sum dd.bytes
	dd if=/dev/null of=dd.bytes bs=1 seek=1000000 status=none; stat -c %s dd.bytes
	status dd if=absent of=dd.absent status=none
	status dd if=binary of=dd.512 bs=512 count=1 conv=excl status=none
	{ dd bs=1000 count=1 status=none; dd bs=1000 skip=1 count=1 status=none; } <binary | sha256sum
	{ dd bs=100 count=1 if=text status=none; dd bs=100 count=1 seek=2 if=text status=none; } >dd.shared; sha256sum dd.shared
	dd if=binary of=dd.nocache bs=1M count=4 iflag=nocache oflag=nocache,sync status=none; sha256sum dd.nocache
	rm dd.*
END_OF_SCRIPT

shell "copy" <<'END_OF_SCRIPT'
	cp text copy && cmp text copy
	truncate -s 9M holes && dd if=binary of=holes bs=64k count=10 seek=20 conv=notrunc status=none && dd if=binary of=holes bs=64k count=3 seek=100 conv=notrunc status=none
	for how in --sparse=always --sparse=never --reflink=auto; do
		cp $how holes copy.$how && cmp holes ./copy.$how && echo "$how $(stat -c %s ./copy.$how)"
	done
	status cp --reflink=always text copy.reflink 2>/dev/null
	cp -a tree tree.copy && diff -r tree tree.copy && stat -c '%n %Y' tree/part.ab | sed 's/ .*//'
	[ "$(stat -c %Y tree/part.ab)" = "$(stat -c %Y tree.copy/part.ab)" ] && echo "time kept"
	[ "$(stat -c %y tree/part.ab)" = "$(stat -c %y tree.copy/part.ab)" ] && echo "time kept to the nanosecond"
	cp -l text hard && stat -c %h text && echo appended >>hard && tail -n 1 text && head -c -9 hard >"$outside/x" && cat "$outside/x" >text && cmp text hard
	rm hard
	cp text "$outside/copied-out" && cmp text "$outside/copied-out"
	cp "$outside/copied-out" copied-in && cmp text copied-in && rm "$outside/copied-out"
	cp -u text copied-in && cp -b three copied-in && ls copied-in*
	cp -n text three && wc -c three
	status cp text absent/folder 2>/dev/null
	install -m 600 text installed && stat -c '%a %s' installed
	cat text | cp /dev/stdin from-pipe && cmp text from-pipe
	rm -r copy copy.* holes copied-in* installed from-pipe tree.copy
END_OF_SCRIPT

shell "rsync" <<'END_OF_SCRIPT'
	files() { grep -E 'Number of regular files transferred|Total transferred file size|Total file size'; }
	mkdir synced
	rsync -a --stats tree text synced/ | files
	rsync -a --stats tree text synced/ | files
	rsync -a -c --stats tree text synced/ | files
	diff -r tree synced/tree && cmp text synced/text
	printf changed | dd of=tree/part.ac bs=1 seek=5000 conv=notrunc status=none
	rsync -a -c --inplace --no-whole-file --stats tree text synced/ | files
	diff -r tree synced/tree
	echo more >>text; rsync -a --append-verify --stats text synced/ | files; cmp text synced/text
	head -n -1 text >text.new && cat text.new >text && rm text.new
	rsync -a --no-whole-file --delete --stats tree text synced/ | files; diff -r tree synced/tree; cmp text synced/text
	rsync -a -W --sparse --stats text "$outside/synced" | files; cmp text "$outside/synced"; rm "$outside/synced"
	rm -r synced
END_OF_SCRIPT

shell "change" <<'END_OF_SCRIPT'
	cp text changed
	truncate -s 5000 changed && wc -c changed && tail -c 20 changed | od -c
	truncate -s +10000 changed && wc -c changed && sha256sum changed
	truncate -s %4096 changed && wc -c changed
	fallocate -l 100000 changed && wc -c changed && sha256sum changed
	fallocate -n -o 100000 -l 50000 changed && wc -c changed
	fallocate -p -o 1000 -l 3000 changed && sha256sum changed
	fallocate -z -o 8000 -l 30000 changed && sha256sum changed
	fallocate -d changed && sha256sum changed
	cp text changed
	sed -i 's/needle/haystack/' changed && grep -c haystack changed
	sed -i.bak '1d;$d' changed && wc -l changed changed.bak
	perl -i -pe 's/^0/zero/' changed && sha256sum changed
	perl -e 'open my $f, "+<", "changed"; seek $f, 1000, 0; read $f, my $b, 10; print "$b\n"; seek $f, 1000, 0; print $f "overwrites"; seek $f, -5, 2; read $f, $b, 5; print $b; truncate $f, 2000; close $f; print -s "changed", "\n"'
	perl -e 'open my $f, ">>", "changed"; print $f "appended\n"; print tell($f), "\n"; open $f, "<", "changed"; my @l = <$f>; print scalar(@l), " $l[-1]"'
	perl -e 'open my $f, "<", "text"; my $n = 0; $n += length while <$f>; print "$n\n"; sysseek $f, 100, 0; sysread $f, my $b, 20; print "$b\n"'
	chmod 600 changed && stat -c '%a %s' changed
	touch -d @1000000000 changed && stat -c %Y changed
	touch -r changed touched && stat -c '%Y %s' touched
	[ changed -ot text ] && echo older
	echo line | tee tee1 tee2 && echo more | tee -a tee1 >/dev/null && cat tee1 tee2
	shuf -n 5 --random-source=text text | sha256sum
	csplit -s -f piece- text 1000 50000 && ls piece-* && cat piece-* | cmp - text
	split -b 1000000 text chunk- && cat chunk-* | cmp - text && ls chunk-* | wc -l
	split -l 60000 --filter='sha256sum' text
	rm piece-* chunk-* changed.bak
	shred -n 1 -u touched && ls touched 2>/dev/null || echo gone
	mktemp -p . >/dev/null && ls tmp.* | wc -l && rm tmp.*
	sync changed && sync -d changed && sync -f changed && echo synced
END_OF_SCRIPT

# What the cache does not have is refused, and the file stays as it was.
collapse() {
	cached bash -c 'cp "$1/binary" "$1/whole" && ! fallocate -c -o 4096 -l 4096 "$1/whole" && ! fallocate -i -o 4096 -l 4096 "$1/whole" && cmp "$1/binary" "$1/whole" && rm "$1/whole"' \
		collapse "$2"
}
[ -n "$only_plain" ] || timed "collapse is refused" cached collapse

redirections='
	echo one >redirected; echo two >>redirected; cat redirected; cat <redirected
	echo three 1<>redirected; cat redirected
	cat >redirected <<HERE
a here-document of $(wc -c <text) bytes
HERE
	cat redirected
	{ echo out; echo err >&2; } >both 2>&1; cat both
	{ echo out; echo err >&2; } 2>both >&2; cat both
	exec 3<text; head -n 1 <&3 >/dev/null; dd bs=50 count=1 status=none <&3 | wc -c; exec 3<&-
	exec 4>written; echo first >&4; echo second >&4; cat written; (echo third >&4); exec 4>&-; cat written
	exec 5<>written; read -r a <&5; echo "$a"; echo SECOND >&5; exec 5>&-; cat written
	exec 6>>written; exec 7>&6; echo six >&6; echo seven >&7; exec 6>&-; echo still >&7; exec 7>&-; cat written
	(exec >sub; echo to a file; ls -d sub; exec 1>&2) 2>/dev/null; cat sub
	: >empty; wc -c empty
	>|empty; set -C; (echo x >empty) 2>/dev/null || echo "kept"; set +C
	for i in 1 2 3; do echo $i; sh -c "echo child $i"; done >loop; cat loop
	while read -r l; do echo "got $l"; done <loop | tail -n 1
	(sleep 0.1; echo background) >>loop & wait; tail -n 1 loop
	for i in 1 2 3 4; do (for j in 1 2 3 4 5 6 7 8 9 10; do echo "writer $i line $j"; done >>appended) & done; wait; sort appended | sha256sum; wc appended; rm appended
	sh -c "cat; echo \$0" <three 2>&1 >through; cat through
	eval "echo evaluated" >e; cat e
	echo "echo sourced \$0" >source; . ./source | cut -c 1-12
	printf "#!/bin/sh\necho run \$1; cat\n" >program; chmod +x program; echo input | ./program argument
	printf "#!/usr/bin/env bash\nread -r x <text; echo \${x:+}ran\n" >program; ./program
	sh ./program
	echo $(<three) $(cat three)
	cat three - <three | wc -l
	exec 3>moved; echo before >&3; mv moved moved.on; echo after >&3; exec 3>&-; cat moved.on
	exec 3<moved.on; rm moved.on; cat <&3; exec 3<&-; ls moved.on 2>/dev/null || echo gone
	exec 3>linked; ln -f linked linked.too; echo text >&3; cat linked.too; rm linked; echo more >&3; cat linked.too; exec 3>&-
	exec 3>replaced; echo old >&3; echo new >replacement; mv replacement replaced; echo late >&3; cat replaced; exec 3>&-; cat replaced
	cat /dev/stdin <three; cat /dev/fd/3 3<three; cat /proc/self/fd/0 <three; echo to stdout >/dev/stdout
	echo through the name >out.name; { echo a >/dev/stdout; } >out.name; cat out.name
'
shell "shell: bash" <<<"$redirections"
shell "shell: dash" dash <<<"$redirections"

shell "find, du" <<'END_OF_SCRIPT'
	truncate -s 3M sized; printf x >>sized
	find . -name sized -size +3M -printf '%p %s\n'
	find . -size -2000c -size +0 -type f | sort | sed 's/[0-9]*$//' | head -n 5
	find . -newer sized -name text
	find . -name 'part.a?' -exec cat {} + | sha256sum
	find tree -type f -print0 | sort -z | xargs -0 -n 7 -P 1 cat | sha256sum
	du -b --apparent-size -c tree text sized | tail -n 1
	ls -l sized | awk '{print $5}'
	ls -s --block-size=1 text >/dev/null && echo listed
	stat -c '%s %h %F' sized text tree
	test -s sized && test -f text && test -r text && test -w text && test ! -x text && echo tested
	mv sized renamed && mv renamed sub.renamed && stat -c %s sub.renamed && mkdir folder && mv sub.renamed folder/ && ls folder
	ln -s ../text folder/link && wc -c <folder/link && readlink folder/link && realpath folder/link | sed 's|.*/||'
	rm -r folder && ls folder 2>/dev/null || echo gone
	status rm absent 2>/dev/null
	status cat . 2>/dev/null
	status cat absent 2>/dev/null
	echo x >unreadable && mv -f unreadable three.too && cat three.too && unlink three.too
END_OF_SCRIPT

shell "patch, make, gcc" <<'END_OF_SCRIPT'
	mkdir project && cd project
	printf '#include "answer.h"\nint answer(void) { return ANSWER; }\n' >answer.c
	printf '#define ANSWER 41\nint answer(void);\n' >answer.h
	printf '#include <stdio.h>\n#include "answer.h"\nint main(int argc, char **argv) { printf("%%d\\n", answer()); return 0; }\n' >main.c
	printf 'CFLAGS = -O1\nprogram: main.o answer.o\n\t$(CC) -o $@ $^\nlib.a: answer.o\n\t$(AR) rcD $@ $^\nmain.o answer.o: answer.h\n' >Makefile
	make -s program lib.a && ./program
	make program lib.a
	sleep 0.02
	printf -- '--- answer.h\n+++ answer.h\n@@ -1,2 +1,2 @@\n-#define ANSWER 41\n+#define ANSWER 42\n int answer(void);\n' | patch -p0
	make -n program | sed 's/ .*//' && make -s -j2 program lib.a && ./program
	make -q program && echo "up to date"
	patch -R -p0 --dry-run <<<$'--- answer.h\n+++ answer.h\n@@ -1,2 +1,2 @@\n-#define ANSWER 41\n+#define ANSWER 42\n int answer(void);'
	gcc -O2 -g -pipe -flto -o optimized main.c answer.c && ./optimized
	gcc -shared -fPIC -o libanswer.so answer.c && gcc -o dynamic main.c -L. -lanswer -Wl,-rpath,"$PWD" && ./dynamic
	gcc -E main.c | tail -n 1; gcc -MM main.c
	status gcc -c absent.c 2>/dev/null
	ar t lib.a; nm answer.o | awk '{print $NF}'; objdump -h answer.o | grep -c text
	strip program && ./program; size program | wc -l; readelf -h program | grep Type
	ld -r -o joined.o main.o answer.o && gcc -o joined joined.o && ./joined
	rm -f optimized dynamic joined
	cd ..
END_OF_SCRIPT

shell "rest" <<'END_OF_SCRIPT'
	status timeout 5 tail -n 1 -f --pid=1999999 three
	printf '%s\n' a b c | paste -d, - three 2>/dev/null || true
	(tail -c +1 -f three --pid=$$ & p=$!; sleep 0.2; echo four >>three; sync three; sleep 1.3; kill $p) 2>/dev/null | tail -n 1
	flock text echo locked
	flock -n text flock -n text echo both || echo "locked by another"
	yes | head -n 100000 >many; uniq -c many
	cat many | sponge many 2>/dev/null || echo "no sponge here"
	nohup echo hung >nohup.out 2>/dev/null; cat nohup.out
	script -q -c 'echo typed' typescript >/dev/null 2>&1; grep -c typed typescript
	stdbuf -o0 echo unbuffered >many; cat many
	env -i /bin/cat three | wc -l || true
	printf '%s' text three | xargs -d ' ' sha256sum 2>/dev/null || true
	xargs -a three echo
	seq 7 9 >numbers; numfmt <numbers; factor <numbers; tsort <<<'a b'; expand three | fmt | fold -w 1 | wc -l
	sqlite3 :memory: '.import three t' 'select count(*) from t' 2>/dev/null || true
	bc <<<'scale=3; 1/3' 2>/dev/null || true
	rm many nohup.out
END_OF_SCRIPT

# Files that compilers and time make differ.
[ -n "$only_plain" ] || rm -rf "$dir"/{project/*.o,project/program,project/*.so,project/lib.a,typescript,tree.tar} "$plain_dir"/{project/*.o,project/program,project/*.so,project/lib.a,typescript,tree.tar}
same_as_plain
program_end
