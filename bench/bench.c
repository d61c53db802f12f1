/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The helpers of bench.h. Single-threaded; errors end the program with a message, after the file under test was removed.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "pagecached/wire.h"

#define CHUNK (1u << 20)

char bench_path[512];
void (*bench_cleanup)(void);
static bool kept;

void die(const char *what, ...)
{
	va_list ap;

	va_start(ap, what);
	fprintf(stderr, "pgc-bench: ");
	vfprintf(stderr, what, ap);
	va_end(ap);
	fputc('\n', stderr);
	if (bench_cleanup)
		bench_cleanup();
	bench_remove_file();
	exit(1);
}

double bench_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

uint64_t bench_mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

uint32_t *bench_shuffled(uint32_t n, uint64_t seed)
{
	uint32_t *a = malloc(n * sizeof(*a));

	if (!a)
		die("out of memory");
	for (uint32_t i = 0; i < n; i++)
		a[i] = i;
	for (uint32_t i = n - 1; i > 0; i--) {
		uint32_t j = (uint32_t)(bench_mix(seed + i) % (i + 1)), t = a[i];

		a[i] = a[j];
		a[j] = t;
	}
	return a;
}

uint64_t bench_parse_size(const char *option, const char *s)
{
	char *end;
	uint64_t v;

	errno = 0;
	v = strtoull(s, &end, 10);
	for (const char *suffix = "KMG"; *end && *suffix; suffix++) {
		v <<= 10;
		if (*end == *suffix) {
			end++;
			break;
		}
	}
	if (errno || end == s || *end || v < 16 << 20 || v % (1 << 20) || v > 1ull << 40)
		die("--%s %s: whole MiB from 16M to 1024G are wanted", option, s);
	return v;
}

unsigned bench_parse_number(const char *option, const char *s, unsigned min, unsigned max)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(s, &end, 10);
	if (errno || end == s || *end || v < min || v > max)
		die("--%s %s: from %u to %u", option, s, min, max);
	return (unsigned)v;
}

static bool file_fits(const char *path, uint64_t size)
{
	uint64_t word[2];
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return false;
	ok = !fstat(fd, &st) && (uint64_t)st.st_size == size && pread(fd, &word[0], 8, 0) == 8 &&
		pread(fd, &word[1], 8, (off_t)(size - PAGE)) == 8 && word[0] == bench_word(0) && word[1] == bench_word(size - PAGE);
	close(fd);
	return ok;
}

/* Closes fd. */
static void fill(int fd, const char *path, uint64_t size)
{
	uint64_t *chunk = malloc(CHUNK);

	if (!chunk)
		die("out of memory");
	for (uint64_t at = 0; at < size; at += CHUNK) {
		for (uint64_t i = 0; i < CHUNK / 8; i++)
			chunk[i] = bench_word(at + i * 8);
		if (write(fd, chunk, CHUNK) != CHUNK)
			die("%s: %s", path, strerror(errno));
	}
	if (fsync(fd))
		die("%s: %s", path, strerror(errno));
	close(fd);
	free(chunk);
}

void bench_fill_file(const char *path, uint64_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	fill(fd, path, size);
}

void bench_make_file(const char *dir, const char *keep, uint64_t size)
{
	int fd;

	kept = keep != NULL;
	if (kept) {
		snprintf(bench_path, sizeof(bench_path), "%s", keep);
		if (file_fits(keep, size))
			return;
		fd = open(keep, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	} else {
		snprintf(bench_path, sizeof(bench_path), "%s/pgc-bench-XXXXXX", dir);
		fd = mkostemp(bench_path, O_CLOEXEC);
	}
	if (fd < 0) {
		bench_path[0] = '\0';
		die("%s: %s", keep ? keep : dir, strerror(errno));
	}
	fill(fd, bench_path, size);
}

void bench_remove_file(void)
{
	if (bench_path[0] && !kept)
		unlink(bench_path);
	bench_path[0] = '\0';
}

void bench_kernel_drop(uint64_t size)
{
	bench_kernel_drop_file(bench_path, size);
}

void bench_kernel_drop_file(const char *path, uint64_t size)
{
	uint64_t pages = size / PAGE, in = 0;
	unsigned char *core = malloc(pages);
	int fd = open(path, O_RDWR | O_CLOEXEC), r;
	void *p;

	if (fd < 0 || !core || fsync(fd))
		die("%s: %s", path, strerror(errno));
	r = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (r || p == MAP_FAILED || mincore(p, size, core))
		die("%s: cannot empty the kernel's cache", path);
	for (uint64_t i = 0; i < pages; i++)
		in += core[i] & 1;
	if (in > pages / 100)
		die("%s: %" PRIu64 " pages are still in the kernel's cache", path, in);
	munmap(p, size);
	close(fd);
	free(core);
}

int bench_control(const char *name)
{
	struct pgc_msg m = { .type = PGC_MSG_HELLO, .tag = 1,
		.hello = { .magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION, .role = PGC_ROLE_CONTROL } };
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd, r;

	if (strlen(name) >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	strcpy(a.sun_path, name);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	errno = 0;
	if (!connect(fd, (struct sockaddr *)&a, sizeof(a)) && send(fd, &m, sizeof(m), MSG_NOSIGNAL) == sizeof(m) &&
	    recv(fd, &m, sizeof(m), 0) == sizeof(m) && !m.status)
		return fd;
	r = errno ? -errno : -EPROTO;
	close(fd);
	return r;
}

void bench_beside(const char *name, char ret[512])
{
	char self[400];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	self[n > 0 ? n : 0] = '\0';
	slash = strrchr(self, '/');
	if (slash)
		*slash = '\0';
	snprintf(ret, 512, "%s/%s", slash ? self : ".", name);
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

struct figures bench_figures(const double *values, int n)
{
	double v[RUNS_MAX];

	memcpy(v, values, (size_t)n * sizeof(*v));
	qsort(v, (size_t)n, sizeof(*v), by_value);
	return (struct figures){ n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2, v[0], v[n - 1] };
}

void bench_print_figures(const struct figures *f)
{
	int digits = f->median >= 100 ? 0 : f->median >= 10 ? 1 : f->median >= 1 ? 2 : 3;

	printf(" %.*f (%.*f - %.*f) |", digits, f->median, digits, f->min, digits, f->max);
}

void *bench_shared(size_t size, int *ret_fd)
{
	void *p;

	*ret_fd = memfd_create("pgc-bench-run", MFD_CLOEXEC);
	if (*ret_fd < 0 || ftruncate(*ret_fd, (off_t)size))
		die("memfd: %s", strerror(errno));
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *ret_fd, 0);
	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	return p;
}
