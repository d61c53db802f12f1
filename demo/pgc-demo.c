/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One of the demo's two processes: maps a file, does what it reads on standard input, one command a line, and answers each with a line.
 *   put OFFSET TEXT    stores TEXT through the mapping
 *   get OFFSET LENGTH  loads that many bytes
 *   sync               fsync
 *   quit
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <pagecached.h>

int main(int argc, char **argv)
{
	char line[4096], text[2048], *map;
	unsigned long long off;
	struct pgc_file *f;
	struct stat st;
	unsigned len;
	int r;

	if (argc != 2) {
		fprintf(stderr, "usage: pgc-demo FILE\n");
		return 2;
	}
	r = pgc_open(&f, argv[1], O_RDWR, 0);
	if (r == 0)
		r = pgc_fstat(f, &st);
	if (r < 0) {
		fprintf(stderr, "pgc-demo: %s: %s\n", argv[1], strerror(-r));
		return 1;
	}
	map = pgc_mmap(f, NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	if (map == MAP_FAILED) {
		fprintf(stderr, "pgc-demo: mmap: %s\n", strerror(errno));
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("mapped %lld bytes\n", (long long)st.st_size);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "put %llu %2047[^\n]", &off, text) == 2 && off + strlen(text) <= (unsigned long long)st.st_size) {
			memcpy(map + off, text, strlen(text));
			printf("stored\n");
		} else if (sscanf(line, "get %llu %u", &off, &len) == 2 && len < sizeof(text) && off + len <= (unsigned long long)st.st_size) {
			printf("%.*s\n", (int)len, map + off);
		} else if (strcmp(line, "sync\n") == 0) {
			r = pgc_fsync(f);
			printf("%s\n", r < 0 ? strerror(-r) : "synced");
		} else if (strcmp(line, "quit\n") == 0) {
			break;
		} else {
			printf("what?\n");
		}
	}
	pgc_munmap(map, (size_t)st.st_size);
	pgc_close(f);
	return 0;
}
