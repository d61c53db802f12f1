/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the memory's limits share: files much larger than the memory, of which each page begins with its own number, and
 * the daemon's view of its memory.
 */
#pragma once

#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"
#include "pagecached/maps.h"

#define MIB (1ul << 20)

static inline struct pgc_ctl_memory_reply memory(void)
{
	struct pgc_msg m = {.type = PGC_CTL_MEMORY};

	control_request(&m);
	CHECK_EQ(m.status, 0);
	return m.ctl_memory_reply;
}

/* PGC_CTL_SET. 0 or -errno. */
static inline int set(const char *key, const char *value)
{
	struct pgc_msg m = {.type = PGC_CTL_SET};

	CHECK(strlen(key) < sizeof(m.ctl_set.name) && strlen(value) < sizeof(m.ctl_set.value));
	strcpy(m.ctl_set.name, key);
	strcpy(m.ctl_set.value, value);
	control_request(&m);
	return -(int)m.status;
}

static inline uint64_t page_stamp(uint64_t page, unsigned gen) { return (page + 1) * 0x9e3779b97f4a7c15ull + gen; }

/* DIR/name: `size` bytes, whole pages, each with its stamp at the beginning and zeros after it. */
static inline char *make_stamped(const char *name, size_t size, unsigned gen)
{
	char *path = file_path(name), *buf = calloc(1, MIB);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	CHECK(buf && fd >= 0);
	for (size_t off = 0; off < size; off += MIB) {
		size_t n = size - off < MIB ? size - off : MIB;

		for (size_t i = 0; i < n; i += PAGE) {
			uint64_t stamp = page_stamp((off + i) / PAGE, gen);

			memcpy(buf + i, &stamp, sizeof(stamp));
		}
		CHECK(pwrite(fd, buf, n, (off_t)off) == (ssize_t)n);
	}
	CHECK(fsync(fd) == 0);
	/* The daemon reads around the kernel's cache: it would only cost memory. */
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
	free(buf);
	return path;
}

/* Loads the stamp of page `page` of the file at `m`, which is mapped from its page `first` on. */
static inline void check_stamp(const void *m, uint64_t first, uint64_t page, unsigned gen)
{
	uint64_t have = *(const volatile uint64_t *)((const char *)m + (page - first) * PAGE);

	if (have != page_stamp(page, gen))
		FAIL("page %" PRIu64 " has the stamp %" PRIx64 ", not %" PRIx64, page, have, page_stamp(page, gen));
}

/* One load of each page. */
static inline void scan(const void *m, size_t size, unsigned gen)
{
	for (uint64_t page = 0; page < size / PAGE; page++)
		check_stamp(m, 0, page, gen);
}

/* The same by calls. */
static inline void scan_by_calls(struct pgc_file *f, size_t size, unsigned gen)
{
	char *buf = malloc(64 * PAGE);

	CHECK(buf);
	for (size_t off = 0; off < size;) {
		ssize_t n = pgc_pread(f, buf, 64 * PAGE, (off_t)off);

		CHECK(n > 0 && n % (ssize_t)PAGE == 0);
		for (size_t i = 0; i < (size_t)n; i += PAGE)
			check_stamp(buf, off / PAGE, (off + i) / PAGE, gen);
		off += (size_t)n;
	}
	free(buf);
}

/* The pinned map `blocks`, to be unmapped. To have bpftool print it takes seconds. */
static inline const struct pgc_block_entry *map_blocks(size_t *ret_n)
{
	struct bpf_map_info info = {0};
	union bpf_attr get, ask;
	char path[256];
	const void *p;
	int fd;

	memset(&get, 0, sizeof(get));
	memset(&ask, 0, sizeof(ask));
	snprintf(path, sizeof(path), "%s/blocks", env.bpffs);
	get.pathname = (uintptr_t)path;
	fd = (int)syscall(SYS_bpf, BPF_OBJ_GET, &get, sizeof(get));
	CHECK(fd >= 0);
	ask.info.bpf_fd = (uint32_t)fd;
	ask.info.info_len = sizeof(info);
	ask.info.info = (uintptr_t)&info;
	CHECK(syscall(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &ask, sizeof(ask)) == 0);
	CHECK_EQ(info.value_size, sizeof(struct pgc_block_entry));
	p = mmap(NULL, info.max_entries * sizeof(struct pgc_block_entry), PROT_READ, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	close(fd);
	*ret_n = info.max_entries;
	return p;
}

/* Pages of [first, first + n) that are resident: nothing is read for looking. */
static inline uint64_t resident_in(const char *path, uint64_t first, uint64_t n)
{
	uint32_t file = file_state(path).file;
	uint64_t pages = 0;
	size_t n_blocks;
	const struct pgc_block_entry *blocks = map_blocks(&n_blocks);

	for (size_t i = 0; i < n_blocks; i++)
		for (unsigned bit = 0; blocks[i].file == file && bit < 64; bit++) {
			uint64_t page = blocks[i].index * 64 + bit;

			pages += page >= first && page < first + n && (blocks[i].resident >> bit & 1);
		}
	munmap((void *)blocks, n_blocks * sizeof(*blocks));
	return pages;
}

/* Pages 0 to n - 1 in an order that has no pattern: i -> (i * odd + c) mod n, n a power of 2, scrambled once more. */
static inline uint64_t scattered(uint64_t i, uint64_t n)
{
	for (int round = 0; round < 3; round++) {
		i = (i * 0x9e3779b1u + 0x7f4a7c15u) & (n - 1);
		i ^= i >> 5;
	}
	return i;
}

/* Each page of the file once, in no order: nothing but the advice tells that it will not be used again. */
static inline void scan_scattered(struct pgc_file *f, size_t size, unsigned gen)
{
	char buf[PAGE];

	for (uint64_t i = 0; i < size / PAGE; i++) {
		uint64_t page = scattered(i, size / PAGE);

		CHECK_EQ(pgc_pread(f, buf, PAGE, (off_t)(page * PAGE)), PAGE);
		check_stamp(buf, page, page, gen);
	}
}

/* A file of 8 MiB that is used again and again. */
static inline char *make_hot(void)
{
	char *path = make_stamped("hot", 8 * MIB, 2);
	struct pgc_file *f = open_file(path, O_RDONLY);

	for (int i = 0; i < 3; i++)
		scan_scattered(f, 8 * MIB, 2);
	CHECK_EQ(file_state(path).resident, 8 * MIB / PAGE);
	return path;
}

static inline unsigned count_words(const char *text, const char *word)
{
	unsigned n = 0;

	for (; (text = strstr(text, word)); text++)
		n++;
	return n;
}

/* A memory cgroup of the test's own, below the one that it runs in. Removed when all who were in it have ended. */
struct test_cgroup {
	char path[512];            /* of the folder */
	char name[512];            /* in the memory hierarchy */
	char home[512];            /* the folder above it */
	bool v2;
};

static inline void cgroup_move(const char *folder)
{
	char path[600];
	FILE *f;

	snprintf(path, sizeof(path), "%s/cgroup.procs", folder);
	f = fopen(path, "we");
	CHECK(f && fprintf(f, "%d\n", (int)getpid()) > 0 && fclose(f) == 0);
}

/* Where the hierarchy is mounted: the first mount of that kind. */
static inline bool cgroup_mount(bool v2, char *ret, size_t size)
{
	char *text = read_whole("/proc/self/mounts"), *save = NULL;
	bool found = false;

	for (char *line = strtok_r(text, "\n", &save); line && !found; line = strtok_r(NULL, "\n", &save)) {
		char where[400], type[64], options[400];

		if (sscanf(line, "%*s %399s %63s %399s", where, type, options) != 3)
			continue;
		if (v2 ? strcmp(type, "cgroup2") != 0 : strcmp(type, "cgroup") != 0 || !strstr(options, "memory"))
			continue;
		snprintf(ret, size, "%s", where);
		found = true;
	}
	free(text);
	return found;
}

/* Ends the test as skipped where none can be made. */
static inline struct test_cgroup cgroup_make(void)
{
	char *text = read_whole("/proc/self/cgroup"), *line = strstr(text, ":memory:"), mount[400], *at;
	struct test_cgroup c = {.v2 = !line};
	pid_t cleaner;
	int fds[2];

	if (geteuid() != 0)
		skip_test("needs root, for a memory cgroup");
	line = line ? line + strlen(":memory:") : strstr(text, "0::");
	if (!line || !cgroup_mount(c.v2, mount, sizeof(mount)))
		skip_test("there are no memory cgroups");
	at = strchr(line, '/');
	CHECK(at);
	at[strcspn(at, "\n")] = 0;
	if (strcmp(at, "/") == 0)
		at++;
	snprintf(c.home, sizeof(c.home), "%.250s%.250s", mount, at);
	snprintf(c.name, sizeof(c.name), "%.400s/pagecached-test-%d", at, (int)getpid());
	snprintf(c.path, sizeof(c.path), "%.100s%.400s", mount, c.name);
	free(text);
	CHECK(pipe2(fds, O_CLOEXEC) == 0);
	if (mkdir(c.path, 0755) != 0)
		skip_test("a memory cgroup cannot be made");
	/* Outlives the test, also one that fails or is killed. */
	cleaner = fork();
	CHECK(cleaner >= 0);
	if (cleaner == 0) {
		char byte;

		setsid();
		close(fds[1]);
		while (read(fds[0], &byte, 1) < 0 && errno == EINTR)
			;
		for (int i = 0; i < 1000 && rmdir(c.path) != 0 && errno == EBUSY; i++)
			nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
		_exit(0);
	}
	close(fds[0]); /* the other end closes with the last process of the test */
	return c;
}

static inline uint64_t cgroup_usage(const struct test_cgroup *c)
{
	char path[600], *text;
	uint64_t n;

	snprintf(path, sizeof(path), "%s/%s", c->path, c->v2 ? "memory.current" : "memory.usage_in_bytes");
	text = read_whole(path);
	n = strtoull(text, NULL, 10);
	free(text);
	return n;
}
