/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients of pagecached see of a disk that fails or does not answer. The script around it has made the disk.
 *
 *	sick_disk errors FOLDER WRITES READS   the disk fails writes while the file WRITES exists, and reads while READS does
 *	sick_disk slow SICK FAST MILLISECONDS  the disk of SICK takes at least that long for a request, that of FAST does not
 *	sick_disk hung SICK FAST PID           PID is stopped, with which the disk of SICK stops answering; and goes on
 *
 * Prints a line for each expectation; status 1: some did not hold. It ends by itself when something hangs that should not.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "pagecached.h"

#define PAGE 4096u
#define SIZE (64u * PAGE)
#define PATIENCE 120u            /* seconds: all of it takes less */
#define STALL_NS 1000000000ull   /* a healthy disk's file that waits so long was made to wait */
#define STOPS 6u
#define SICK_FILES 16u           /* more than io_uring has threads for calls that block */

static int failures;

static void expect(bool ok, const char *what, ...)
{
	va_list args;

	va_start(args, what);
	fputs(ok ? "ok: " : "FAILED: ", stdout);
	vprintf(what, args);
	putchar('\n');
	fflush(stdout);
	va_end(args);
	failures += !ok;
}

#define must(r, what) must_((long)(r), what, __LINE__)
static long must_(long r, const char *what, int line)
{
	if (r >= 0)
		return r;
	fprintf(stderr, "sick_disk: %s (line %d): %s\n", what, line, strerror(r == -1 ? errno : (int)-r));
	exit(2);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void nap(unsigned ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

static const char *in(char *ret, const char *folder, const char *name, unsigned n)
{
	snprintf(ret, 4096, "%s/%s-%u", folder, name, n);
	return ret;
}

/* A file full of `c`, on the disk and in no cache of the kernel. */
static void make(const char *path, char c)
{
	static char buf[SIZE] __attribute__((aligned(PAGE)));
	int fd = (int)must(open(path, O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0600), path);

	memset(buf, c, SIZE);
	must(write(fd, buf, SIZE) == SIZE ? 0 : -1, path);
	must(fsync(fd), path);
	close(fd);
}

/* Whether the disk has nothing but `c` there. */
static bool disk_has(const char *path, char c)
{
	static char buf[SIZE] __attribute__((aligned(PAGE)));
	int fd = (int)must(open(path, O_RDONLY | O_DIRECT), path);
	bool same = read(fd, buf, SIZE) == SIZE && buf[0] == c && memcmp(buf, buf + 1, SIZE - 1) == 0;

	close(fd);
	return same;
}

static struct pgc_file *opened(const char *path)
{
	struct pgc_file *f;

	must(pgc_open(&f, path, O_RDWR, 0), path);
	return f;
}

static char *mapped(struct pgc_file *f)
{
	char *p = pgc_mmap(f, NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	must(p == MAP_FAILED ? -1 : 0, "pgc_mmap");
	return p;
}

/* --- errors --- */

static void sick(const char *file, bool on)
{
	if (on)
		close((int)must(open(file, O_CREAT | O_WRONLY, 0600), file));
	else
		must(unlink(file), file);
}

static const char *name_of(int r)
{
	return r == 0 ? "0" : strerrorname_np(r < 0 ? -r : r);
}

static void write_errors(const char *folder, const char *errors)
{
	char path[4096], byte;
	struct pgc_file *a, *b;
	char *p;
	int r;

	make(in(path, folder, "written", 0), 'o');
	a = opened(path);
	b = opened(path);
	p = mapped(a);
	memset(p, 'n', SIZE);
	sick(errors, true);
	r = pgc_fsync(a);
	expect(r == -EIO, "fsync on a disk that fails writes: %s", name_of(r));
	r = pgc_fsync(a);
	expect(r == -EIO, "and again while it does, for nothing was given up: %s", name_of(r));
	expect(p[SIZE - 1] == 'n' && pgc_pread(b, &byte, 1, PAGE) == 1 && byte == 'n', "what could not be written is still seen");
	sick(errors, false);
	r = pgc_fsync(a);
	expect(r == 0, "fsync once the disk is well: %s", name_of(r));
	expect(disk_has(path, 'n'), "the disk has all of it");
	r = pgc_fsync(b);
	expect(r == -EIO, "another handle is told of the failure: %s", name_of(r));
	r = pgc_fsync(b);
	expect(r == 0, "but once: %s", name_of(r));

	/* Nobody calls fsync any more: the daemon tries by itself. */
	memset(p, 'm', SIZE);
	sick(errors, true);
	r = pgc_fsync(a);
	expect(r == -EIO, "a disk that fails again: %s", name_of(r));
	sick(errors, false);
	for (unsigned i = 0; i < 100 && !disk_has(path, 'm'); i++)
		nap(100);
	expect(disk_has(path, 'm'), "what failed is written without another call");
	pgc_munmap(p, SIZE);
	pgc_close(a);
	pgc_close(b);
}

/* The same by the kernel's page cache: said, not judged. */
static void kernel_write_errors(const char *folder, const char *errors)
{
	static char buf[SIZE];
	char path[4096];
	int fd, r[3];

	make(in(path, folder, "kernel", 0), 'o');
	fd = (int)must(open(path, O_RDWR), path);
	memset(buf, 'n', SIZE);
	must(pwrite(fd, buf, SIZE, 0), path);
	sick(errors, true);
	r[0] = fsync(fd) == 0 ? 0 : errno;
	sick(errors, false);
	r[1] = fsync(fd) == 0 ? 0 : errno;
	nap(1000);
	r[2] = fsync(fd) == 0 ? 0 : errno;
	close(fd);
	printf("the kernel's page cache: fsync on the failing disk: %s; on the disk that is well again: %s, %s; the disk has %s\n", name_of(r[0]),
	       name_of(r[1]), name_of(r[2]), disk_has(path, 'n') ? "the new bytes" : disk_has(path, 'o') ? "the OLD bytes" : "some of both");
}

static sigjmp_buf on_bus;

static void bus(int sig)
{
	siglongjmp(on_bus, 1);
}

/* The byte at `p`, or -1: SIGBUS. */
static int load(const volatile char *p)
{
	return sigsetjmp(on_bus, 1) ? -1 : *p;
}

static void read_errors(const char *folder, const char *errors)
{
	char path[4096], buf[PAGE];
	struct pgc_file *f;
	char *p;
	long r;

	make(in(path, folder, "read", 0), 'r');
	f = opened(path);
	p = mapped(f);
	must(pgc_madvise(p, SIZE, MADV_RANDOM), "pgc_madvise");
	must(pgc_fadvise(f, 0, 0, POSIX_FADV_RANDOM), "pgc_fadvise");
	signal(SIGBUS, bus);
	sick(errors, true);
	expect(load(p) == -1, "a load of what cannot be read: SIGBUS");
	r = pgc_pread(f, buf, PAGE, 8 * PAGE);
	expect(r == -EIO, "pread of what cannot be read: %s", name_of((int)r));
	sick(errors, false);
	r = pgc_pread(f, buf, PAGE, 8 * PAGE);
	expect(r == PAGE && buf[0] == 'r', "pread once the disk is well");
	for (unsigned i = 0; i < 100 && load(p) != 'r'; i++)
		nap(100);
	expect(load(p) == 'r', "the load, too");
	pgc_munmap(p, SIZE);
	pgc_close(f);
}

/* --- slow and hung --- */

/* What somebody does who knows nothing of the sick disk: how long the longest of his calls took. */
static uint64_t healthy(const char *folder, uint64_t until, unsigned *ret_rounds)
{
	char path[4096], buf[PAGE] = "";
	uint64_t longest = 0;
	const char *of = "";
	unsigned n = 0;

	for (; now_ns() < until; n++) {
		uint64_t begin, t;
		struct pgc_file *f;
		struct stat st;
		off_t off;
		char *p;

		make(in(path, folder, "healthy", n % 8), 'h'); /* so that nothing of it is cached */
#define timed(call) do { begin = now_ns(); call; t = now_ns() - begin; if (t > longest) { longest = t; of = #call; } } while (0)
		timed(f = opened(path));
		timed(p = mapped(f));
		timed(must(p[n * 5 % 64 * PAGE] == 'h' ? 0 : -1, "a load"));
		timed(p[n * 7 % 64 * PAGE] = 's');
		timed(must(pgc_pwrite(f, buf, 100, n * 3 % 64 * PAGE + 50), "pgc_pwrite"));
		timed(must(pgc_fsync(f), "pgc_fsync"));
		timed(must(pgc_msync(p, SIZE, MS_SYNC), "pgc_msync"));
		timed(must(pgc_append(f, buf, 100, &off), "pgc_append"));
		timed(must(pgc_fdatasync(f), "pgc_fdatasync"));
		timed(must(pgc_fstat(f, &st), "pgc_fstat"));
		timed(must(pgc_seek(f, 0, SEEK_DATA, &off), "pgc_seek"));
		timed(must(pgc_ftruncate(f, SIZE / 2), "pgc_ftruncate"));
		timed(must(pgc_munmap(p, SIZE), "pgc_munmap"));
		timed(must(pgc_close(f), "pgc_close"));
#undef timed
		nap(5);
	}
	printf("healthy: %u rounds, longest call %.1f ms: %s\n", n, (double)longest / 1e6, of);
	*ret_rounds = n;
	return longest;
}

struct patient {
	pthread_t thread;
	char path[4096];
	unsigned act;
	atomic_int result;           /* 1: not done yet */
	uint64_t took;
	struct pgc_file *f;
	char *p;
};

static void *suffer(void *arg)
{
	struct patient *x = arg;
	char buf[PAGE] = "";
	uint64_t begin = now_ns();
	off_t off;
	long r = 0;

	switch (x->act % 6) {
	case 0: r = pgc_fsync(x->f); break;                       /* of pages that are dirty */
	case 1: r = x->p[40 * PAGE] == 'x' ? 0 : -EIO; break;     /* a fault */
	case 2: r = pgc_pread(x->f, buf, PAGE, 30 * PAGE); break;
	case 3: r = pgc_pwrite(x->f, buf, 100, 20 * PAGE + 10); break; /* reads what is around it */
	case 4: r = pgc_fdatasync(x->f); break;
	case 5:
		r = pgc_append(x->f, buf, 100, &off);
		if (r >= 0)
			r = pgc_fsync(x->f);
		break;
	}
	x->took = now_ns() - begin;
	atomic_store(&x->result, r < 0 ? (int)r : 0);
	return NULL;
}

static atomic_bool enough;

/* At work whenever the disk stops: in a write, a journal's commit, the setting of times. */
static void *toil(void *arg)
{
	struct patient *x = arg;
	char buf[PAGE] = "";
	long r = 0;
	off_t off;

	for (unsigned i = 0; r >= 0 && !atomic_load(&enough); i++) {
		memset(x->p + (i + x->act) % 32 * PAGE, 'x', PAGE);
		switch ((i + x->act) % 4) {
		case 0: r = pgc_append(x->f, buf, 100, &off); break;
		case 1: r = pgc_ftruncate(x->f, SIZE); break;
		case 2: r = pgc_fallocate(x->f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 50 * PAGE, PAGE); break;
		case 3: r = pgc_seek(x->f, 0, SEEK_DATA, &off); break;
		}
		if (r >= 0)
			r = pgc_fsync(x->f);
	}
	atomic_store(&x->result, r < 0 ? (int)r : 0);
	return NULL;
}

static void patients_make(struct patient *all, unsigned n, const char *folder)
{
	for (unsigned i = 0; i < n; i++) {
		struct patient *x = &all[i];

		x->act = i;
		make(in(x->path, folder, "sick", i), 'x');
		x->f = opened(x->path);
		x->p = mapped(x->f);
		must(pgc_madvise(x->p, SIZE, MADV_RANDOM), "pgc_madvise");
		must(pgc_fadvise(x->f, 0, 0, POSIX_FADV_RANDOM), "pgc_fadvise");
		memset(x->p, 'x', PAGE);
		atomic_store(&x->result, 1);
	}
}

static void patients_start(struct patient *all, unsigned n, void *(*act)(void *))
{
	for (unsigned i = 0; i < n; i++)
		must(-pthread_create(&all[i].thread, NULL, act, &all[i]), "pthread_create");
}

static unsigned patients_done(struct patient *all, unsigned n)
{
	unsigned done = 0;

	for (unsigned i = 0; i < n; i++)
		done += atomic_load(&all[i].result) != 1;
	return done;
}

static void patients_end(struct patient *all, unsigned n)
{
	unsigned well = 0;

	for (unsigned i = 0; i < n; i++) {
		pthread_join(all[i].thread, NULL);
		well += atomic_load(&all[i].result) == 0;
		if (atomic_load(&all[i].result) != 0)
			printf("act %u: %s\n", all[i].act % 6, name_of(atomic_load(&all[i].result)));
		must(pgc_munmap(all[i].p, SIZE), "pgc_munmap");
		must(pgc_close(all[i].f), "pgc_close");
	}
	expect(well == n, "%u of %u calls on the sick disk succeeded in the end", well, n);
}

static void slow(const char *folder, const char *fast, unsigned ms)
{
	static struct patient all[6];
	unsigned rounds;
	uint64_t longest;

	patients_make(all, 6, folder);
	patients_start(all, 6, suffer);
	longest = healthy(fast, now_ns() + 3000000000u, &rounds);
	expect(rounds > 0 && longest < STALL_NS, "files of another disk wait for nobody");
	patients_end(all, 6);
	for (unsigned i = 0; i < 6; i++)
		if (i != 3) /* which need not wait for the write */
			expect(all[i].took >= ms * 1000000ull, "call %u took the disk's time: %.0f ms", i, (double)all[i].took / 1e6);
}

static void hung(const char *folder, const char *fast, pid_t server)
{
	static struct patient all[SICK_FILES];
	unsigned rounds, done;
	uint64_t longest;

	patients_make(all, SICK_FILES, folder);
	must(kill(server, SIGSTOP), "kill");
	patients_start(all, SICK_FILES, suffer);
	nap(200);
	longest = healthy(fast, now_ns() + 4000000000u, &rounds);
	expect(rounds > 0 && longest < STALL_NS, "files of another disk wait for nobody");
	done = patients_done(all, SICK_FILES);
	expect(done == 0, "of %u calls on the disk that does not answer %u returned", SICK_FILES, done);
	must(kill(server, SIGCONT), "kill");
	patients_end(all, SICK_FILES);
}

/* It stops when it is busy, several times. */
static void stops(const char *folder, const char *fast, pid_t server)
{
	static struct patient all[SICK_FILES];
	uint64_t longest = 0;
	unsigned rounds;

	patients_make(all, SICK_FILES, folder);
	patients_start(all, SICK_FILES, toil);
	for (unsigned i = 0; i < STOPS; i++) {
		uint64_t t;

		nap(300 + i * 37);
		must(kill(server, SIGSTOP), "kill");
		nap(100);
		t = healthy(fast, now_ns() + 1500000000u, &rounds);
		longest = t > longest ? t : longest;
		must(kill(server, SIGCONT), "kill");
	}
	expect(longest < STALL_NS, "files of another disk wait for nobody");
	atomic_store(&enough, true);
	patients_end(all, SICK_FILES);
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fprintf(stderr, "usage: sick_disk errors|slow|hung ...\n");
		return 2;
	}
	alarm(PATIENCE);
	if (strcmp(argv[1], "errors") == 0) {
		write_errors(argv[2], argv[3]);
		kernel_write_errors(argv[2], argv[3]);
		read_errors(argv[2], argv[4]);
	} else if (strcmp(argv[1], "slow") == 0) {
		slow(argv[2], argv[3], (unsigned)atoi(argv[4]));
	} else if (strcmp(argv[1], "hung") == 0) {
		hung(argv[2], argv[3], (pid_t)atoi(argv[4]));
		stops(argv[2], argv[3], (pid_t)atoi(argv[4]));
	} else {
		return 2;
	}
	return failures ? 1 : 0;
}
