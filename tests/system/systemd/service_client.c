/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of the service for run.sh, which does to the daemon what administrators and kernels do.
 *
 *	service_client load DIR NAME SEED   stores, loads, writes, reads and syncs DIR/NAME until SIGTERM; then all of it is compared
 *	service_client dirty DIR NAME       writes all of DIR/NAME, says "dirty", and waits for SIGTERM; no sync
 *	service_client many DIR NAME        opens handles of DIR/NAME until one is refused, says "N handles, then ERROR", and waits; with SIGUSR1 it closes one and opens
 *	                                    another; with SIGTERM each must still answer
 *
 * What the file must hold is in DIR/NAME.model, by the kernel's own page cache: for this process, and for cmp(1) after the daemon's end. DIR/NAME.stats says of
 * "load" how many operations are done and what the longest one took, in a line that is always whole.
 *
 * Exit status 0: every byte is as it was stored.
 */
#include <errno.h>
#include <fcntl.h>
#include <pagecached.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define WORDS       (PAGE / 8)
#define PAGE        4096u
#define HANDLES_MAX 4096

static const char *dir, *name;
static size_t size;                 /* of the file */
static struct pgc_file *file;
static uint64_t *map, *model;
static uint64_t dice;

static uint64_t must(int64_t r, const char *what)
{
	if (r == -1 && errno)
		r = -errno;
	if (r < 0) {
		fprintf(stderr, "%s: %s: %s\n", name, what, strerror((int)-r));
		exit(1);
	}
	return (uint64_t)r;
}

static uint64_t roll(uint64_t n)
{
	dice ^= dice << 13;
	dice ^= dice >> 7;
	dice ^= dice << 17;
	return dice % n;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int open_beside(const char *suffix, int flags)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s%s", dir, name, suffix);
	errno = 0;
	return (int)must(open(path, flags | O_CLOEXEC, 0600), path);
}

static void begin(void)
{
	char path[4096];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	must(pgc_open(&file, path, O_RDWR, 0), path);
	must(pgc_fstat(file, &st), "pgc_fstat");
	size = (size_t)st.st_size / PAGE * PAGE;
	map = pgc_mmap(file, NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	errno = map == MAP_FAILED ? errno : 0;
	must(map == MAP_FAILED ? -1 : 0, "pgc_mmap");
	fd = open_beside(".model", O_RDWR | O_CREAT | O_TRUNC);
	must(ftruncate(fd, st.st_size), "ftruncate");
	model = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(model == MAP_FAILED ? -1 : 0, "mmap of the model");
	close(fd);
}

static void compare(const uint64_t *have, size_t at, size_t n, const char *how)
{
	for (size_t i = 0; i < n; i++)
		if (have[i] != model[at + i]) {
			fprintf(stderr, "%s: %s at %zu: %016llx, stored was %016llx\n", name, how, (at + i) * 8, (unsigned long long)have[i],
				(unsigned long long)model[at + i]);
			exit(1);
		}
}

static void compare_all(void)
{
	static uint64_t buf[256 * WORDS];

	compare(map, 0, size / 8, "mapped");
	for (size_t at = 0; at < size; at += sizeof(buf)) {
		size_t n = size - at < sizeof(buf) ? size - at : sizeof(buf);

		if (must(pgc_pread(file, buf, n, (off_t)at), "pgc_pread") != n)
			must(-EIO, "short read");
		compare(buf, at / 8, n / 8, "read");
	}
}

static void write_some(size_t at, size_t n, uint64_t seq)
{
	static uint64_t buf[4 * WORDS];

	for (size_t i = 0; i < n; i++)
		buf[i] = seq + i;
	if (must(pgc_pwrite(file, buf, n * 8, (off_t)at * 8), "pgc_pwrite") != n * 8)
		must(-EIO, "short write");
	memcpy(model + at, buf, n * 8);
}

static void read_some(size_t at, size_t n)
{
	static uint64_t buf[4 * WORDS];

	if (must(pgc_pread(file, buf, n * 8, (off_t)at * 8), "pgc_pread") != n * 8)
		must(-EIO, "short read");
	compare(buf, at, n, "read");
}

static void one_operation(uint64_t seq)
{
	size_t at = roll(size / 8), n = 1 + roll(4 * WORDS);

	n = n < size / 8 - at ? n : size / 8 - at;
	switch (roll(64)) {
	case 0: must(pgc_fdatasync(file), "pgc_fdatasync"); break;
	case 1 ... 4: write_some(at, n, seq); break;
	case 5 ... 8: read_some(at, n); break;
	case 9 ... 24: compare(map + at, at, 1, "mapped"); break;
	default: model[at] = map[at] = seq; break;
	}
}

static bool told(int signal)
{
	sigset_t set;

	sigpending(&set);
	return sigismember(&set, signal);
}

static int load(void)
{
	int stats = open_beside(".stats", O_WRONLY | O_CREAT | O_TRUNC);
	uint64_t longest = 0, ops = 0;

	begin();
	compare_all(); /* zeros */
	while (!told(SIGTERM)) {
		uint64_t before = now_ms(), took;
		char line[64];

		one_operation(++ops << 20);
		took = now_ms() - before;
		longest = took > longest ? took : longest;
		if (ops % 64 && took < 10)
			continue;
		snprintf(line, sizeof(line), "%012llu %012llu\n", (unsigned long long)ops, (unsigned long long)longest);
		must(pwrite(stats, line, strlen(line), 0), "stats");
		usleep(2000); /* there are others */
	}
	compare_all();
	printf("%s: %llu operations, the longest took %llu ms, %zu bytes compared\n", name, (unsigned long long)ops, (unsigned long long)longest, 2 * size);
	must(pgc_close(file), "pgc_close");
	return 0;
}

static int wait_for(const sigset_t *set)
{
	int sig = 0;

	fflush(stdout);
	sigwait(set, &sig);
	return sig;
}

static int make_dirty(const sigset_t *set)
{
	begin();
	for (size_t i = 0; i < size / 8; i += WORDS)
		write_some(i, WORDS, (uint64_t)now_ms() << 32 | i);
	puts("dirty");
	wait_for(set);
	return 0;
}

static int open_many(const sigset_t *set)
{
	static struct pgc_file *handle[HANDLES_MAX];
	unsigned n = 0;
	char path[4096];
	int r = 0;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	while (n < HANDLES_MAX && (r = pgc_open(&handle[n], path, O_RDONLY, 0)) == 0)
		n++;
	printf("%u handles, then %s\n", n, strerrorname_np(-r));
	while (wait_for(set) == SIGUSR1) {
		must(n ? pgc_close(handle[--n]) : -ENOENT, "pgc_close");
		for (int i = 0; i < 100; i++) { /* what is closed is forgotten a little later */
			r = pgc_open(&handle[n], path, O_RDONLY, 0);
			if (r == 0)
				break;
			usleep(50000);
		}
		must(r, "pgc_open after a pgc_close");
		n++;
		puts("another one");
	}
	for (unsigned i = 0; i < n; i++) {
		uint64_t word;

		must(pgc_pread(handle[i], &word, sizeof(word), 0), "pgc_pread");
	}
	printf("%u answer\n", n);
	return 0;
}

int main(int argc, char **argv)
{
	const char *act = argc > 3 ? argv[1] : "";
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	dir = argc > 3 ? argv[2] : "";
	name = argc > 3 ? argv[3] : "service_client";
	if (strcmp(act, "load") == 0 && argc == 5) {
		dice = 0x9e3779b97f4a7c15u + strtoull(argv[4], NULL, 0);
		return load();
	}
	if (strcmp(act, "dirty") == 0 && argc == 4)
		return make_dirty(&set);
	if (strcmp(act, "many") == 0 && argc == 4)
		return open_many(&set);
	fprintf(stderr, "usage: service_client load|dirty|many DIR NAME [SEED]\n");
	return 2;
}
