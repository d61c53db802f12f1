/* SPDX-License-Identifier: Apache-2.0 */
/* "pagecachectl check": silent about a daemon that works, whatever it is doing; and each kind of difference, made on purpose, is found. */
#include <dirent.h>
#include <linux/bpf.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "harness.h"
#include "pagecached/maps.h"

static void expect_nothing(const char *option)
{
	struct output o = option ? RUN(pagecachectl(), "check", option, "--rate", "0") : RUN(pagecachectl(), "check");

	if (o.code != 0)
		FAIL("check says (exit code %d):\n%s%s", o.code, o.out, o.err);
	CHECK(strstr(o.out, "nothing differs"));
	output_free(&o);
}

/* The first difference of that kind ("count": of that count), in an answer with exit code 1; NULL: none. Released with *ret. */
static json_object *find(json_object *answer, const char *kind, const char *count)
{
	json_object *list;

	CHECK(json_object_object_get_ex(answer, "differences", &list));
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		json_object *d = json_object_array_get_idx(list, i), *of;

		if (strcmp(json_string(d, "kind"), kind) == 0 &&
		    (!count || (json_object_object_get_ex(d, "count", &of) && strcmp(json_object_get_string(of), count) == 0)))
			return d;
	}
	return NULL;
}

static json_object *check_says(const char *option)
{
	struct output o = option ? RUN(pagecachectl(), "--json", "check", option, "--rate", "0") : RUN(pagecachectl(), "--json", "check");
	json_object *answer;

	if (o.code != 1)
		FAIL("check says (exit code %d):\n%s%s", o.code, o.out, o.err);
	answer = json_tokener_parse(o.out);
	CHECK(answer);
	output_free(&o);
	return answer;
}

static json_object *must_find(json_object *answer, const char *kind, const char *count)
{
	json_object *d = find(answer, kind, count);

	if (!d)
		FAIL("no \"%s\" %s among the differences: %s", kind, count ? count : "", json_object_to_json_string(answer));
	return d;
}

/* Pages [first, end) and nothing else of that kind. */
static void expect_pages(const char *option, const char *kind, int64_t first, int64_t end)
{
	json_object *answer = check_says(option), *d = must_find(answer, kind, NULL);

	CHECK_EQ(json_int(d, "start"), first);
	CHECK_EQ(json_int(d, "end"), end);
	json_object_put(answer);
}

/* --- what nothing is wrong with --- */

SYSTEM_TEST(nothing_differs_where_nothing_is_cached) { expect_nothing("--content"); }

SYSTEM_TEST(nothing_differs_with_clean_dirty_and_private_pages)
{
	char *path = make_file("f", 300 * PAGE + 100, 1);
	struct pgc_file *f = open_file(path, O_RDWR), *reader = open_file(path, O_RDONLY), *writer = open_file(path, O_WRONLY);
	uint8_t *m = map(f, 300 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint8_t *own = map(reader, 300 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);

	for (unsigned i = 0; i < 300; i++) {
		load(m + i * PAGE);
		if (i % 3 == 0)
			store(m + i * PAGE, 7);
		if (i % 5 == 0)
			store(own + i * PAGE, 8);
	}
	CHECK_EQ(pgc_pwrite(writer, "x", 1, 250 * PAGE), 1);
	expect_nothing("--content");
	CHECK_EQ(pgc_fsync(f), 0);
	store(m + 9 * PAGE, 9);
	CHECK_EQ(pgc_ftruncate(f, 200 * PAGE + 10), 0);
	CHECK_EQ(pgc_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 20 * PAGE, 30 * PAGE), 0);
	CHECK_EQ(pgc_ftruncate(f, 400 * PAGE), 0);
	store(m + 299 * PAGE, 9);
	expect_nothing("--content");
	CHECK_EQ(munmap(m + 100 * PAGE, 50 * PAGE), 0);
	expect_nothing("--content");
}

SYSTEM_TEST(nothing_differs_with_kept_and_pinned_pages)
{
	char *path = make_file("f", 200 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 200 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	CHECK_EQ(pgc_keep(f, 10 * PAGE, 20 * PAGE, true), 0);
	for (unsigned i = 0; i < 40; i++)
		store(m + i * PAGE, 7);
	CHECK_EQ(pgc_fsync(f), 0);
	store(m + 12 * PAGE, 8);
	expect_nothing("--content");
	CHECK_EQ(pgc_keep(f, 10 * PAGE, 20 * PAGE, false), 0);
	CHECK_EQ(pgc_fsync(f), 0);
	expect_nothing("--content");
}

SYSTEM_TEST(nothing_differs_after_a_take_over, .keep = true)
{
	char *path = make_file("f", 200 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 200 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (unsigned i = 0; i < 200; i += 2)
		store(m + i * PAGE, 7);
	CHECK_EQ(pgc_fsync(f), 0);
	for (unsigned i = 0; i < 200; i += 5)
		store(m + i * PAGE, 8);
	daemon_kill();
	CHECK_EQ(load(m + PAGE), pattern_byte(PAGE, 1));
	WAIT_UNTIL(file_state(path).handles == 1 && file_state(path).mappings == 1);
	expect_nothing("--content");
	CHECK_EQ(pgc_fsync(f), 0);
	expect_nothing("--content");
}

/* --- busy --- */

struct busy { char *path[3]; unsigned n; bool fork; volatile bool *stop; };

/* Stores, loads, calls, truncates, maps and unmaps, syncs, as fast as it can. */
static void be_busy(struct peer *p, void *arg)
{
	const struct busy *b = arg;
	struct pgc_file *f[3];
	uint8_t *m[3];
	unsigned seed = b->n;
	char buf[2 * PAGE] = { 1 };

	for (unsigned i = 0; i < 3; i++) {
		f[i] = open_file(b->path[i], O_RDWR);
		m[i] = map(f[i], 1000 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	}
	while (!*b->stop) {
		unsigned i = (unsigned)rand_r(&seed) % 3;
		size_t page = (size_t)rand_r(&seed) % 1000;

		switch (rand_r(&seed) % 16) {
		case 0:
			CHECK_EQ(pgc_fsync(f[i]), 0);
			break;
		case 1:
			CHECK_EQ(pgc_pwrite(f[i], buf, sizeof(buf), (off_t)(page * PAGE / 2)), sizeof(buf));
			break;
		case 2:
			CHECK_EQ(pgc_munmap(m[i] + 100 * PAGE, 50 * PAGE), 0);
			CHECK(pgc_mmap(f[i], m[i] + 100 * PAGE, 50 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, 100 * PAGE) != MAP_FAILED);
			break;
		case 3:
			if (i == 2) { /* only this one changes its size: what lies past the end is not touched */
				CHECK_EQ(pgc_ftruncate(f[i], (off_t)(page * PAGE + 17)), 0);
				CHECK_EQ(pgc_ftruncate(f[i], (off_t)(1000 * PAGE)), 0);
			}
			break;
		case 4:
			CHECK(pgc_pread(f[i], buf, sizeof(buf), (off_t)(page * PAGE)) >= 0);
			break;
		case 5:
			if (b->fork && page % 8 == 0) {
				pid_t pid = fork();

				if (pid == 0) {
					if (i != 2)
						store(m[i] + page * PAGE, 1);
					_exit(0);
				}
				expect_exit_0(pid);
			}
			break;
		default: {
			uint8_t byte;

			if (i == 2)
				(void)load_signal(m[i] + page * PAGE, &byte);
			else if (page % 2)
				store(m[i] + page * PAGE, (uint8_t)seed);
			else
				load(m[i] + page * PAGE);
		}
		}
	}
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(pgc_close(f[i]), 0);
}

static void while_busy(bool forks)
{
	volatile bool *stop = shared_memory(PAGE);
	struct busy b[3];
	struct peer *p[3];
	char *path[3] = { make_file("a", 1000 * PAGE, 1), make_file("b", 1000 * PAGE, 2), make_file("c", 1000 * PAGE, 3) };
	uint64_t until;

	for (unsigned i = 0; i < 3; i++) {
		b[i] = (struct busy){ { path[0], path[1], path[2] }, i + 1, forks, stop };
		p[i] = peer_start(be_busy, &b[i]);
	}
	WAIT_UNTIL(count_files() == 3 && status().faults > 1000);
	until = now_ms() + 3000;
	for (unsigned i = 0; now_ms() < until; i++)
		expect_nothing(i % 2 ? "--content" : NULL);
	*stop = true;
	for (unsigned i = 0; i < 3; i++)
		peer_join(p[i]);
	expect_nothing("--content");
}

SYSTEM_TEST(nothing_differs_while_clients_are_busy, .dirty_expire = "20ms") { while_busy(true); }
SYSTEM_TEST(nothing_differs_under_reclaim, .memory_max = "6M", .dirty_expire = "20ms") { while_busy(false); }

/* --- what is wrong --- */

/* A descriptor of `pid` whose link begins with `target`, opened anew or, of this process, the number itself. */
static int fd_of(pid_t pid, const char *target, bool reopen)
{
	char dir[64], path[400], link[200];
	struct dirent *e;
	int fd = -1;
	DIR *d;

	snprintf(dir, sizeof(dir), "/proc/%d/fd", (int)pid);
	d = opendir(dir);
	CHECK(d);
	while (fd < 0 && (e = readdir(d))) {
		ssize_t n;

		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		n = readlink(path, link, sizeof(link) - 1);
		if (n <= 0)
			continue;
		link[n] = 0;
		if (strncmp(link, target, strlen(target)) == 0)
			fd = reopen ? open(path, O_RDWR | O_CLOEXEC) : atoi(e->d_name);
	}
	closedir(d);
	CHECK(fd >= 0);
	return fd;
}

#define MEMFD "/memfd:pagecached:"  /* that of a file, not a control page */

static int daemon_memfd(void)
{
	if (geteuid() != 0)
		skip_test("needs root, to open the daemon's memfd");
	return fd_of(daemon_pid(), MEMFD, true);
}

/* One file of 100 pages of which the first 20 are here, clean, and mapped. */
static uint8_t *some_pages(char **ret_path, struct pgc_file **ret)
{
	char *path = make_file("f", 100 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 100 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_RANDOM), 0);
	for (unsigned i = 0; i < 20; i++)
		load(m + i * PAGE);
	CHECK_EQ(file_state(path).resident, 20);
	expect_nothing("--content");
	*ret_path = path;
	*ret = f;
	return m;
}

SYSTEM_TEST(a_page_that_is_gone_from_the_memfd_is_found)
{
	struct pgc_file *f;
	char *path;
	int fd;

	some_pages(&path, &f);
	fd = daemon_memfd();
	CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5 * PAGE, 2 * PAGE) == 0);
	expect_pages(NULL, "missing", 5, 7);
}

SYSTEM_TEST(a_page_that_is_in_the_memfd_besides_is_found)
{
	struct pgc_file *f;
	char *path;
	int fd;

	some_pages(&path, &f);
	fd = daemon_memfd();
	CHECK(pwrite(fd, "x", 1, 50 * PAGE) == 1);
	expect_pages(NULL, "stray", 50, 51);
	CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 50 * PAGE, PAGE) == 0);
	expect_nothing(NULL);
	CHECK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 60 * PAGE, 3 * PAGE) == 0); /* not even touched */
	expect_pages(NULL, "stray", 0, 64);
}

SYSTEM_TEST(a_clean_page_that_is_writable_is_found, .tracking = "sync")
{
	struct uffdio_writeprotect wp = { 0 };
	struct pgc_file *f;
	char *path;
	uint8_t *m = some_pages(&path, &f);

	wp.range.start = (uintptr_t)(m + 3 * PAGE);
	wp.range.len = PAGE;
	CHECK(ioctl(fd_of(getpid(), "anon_inode:[userfaultfd]", false), UFFDIO_WRITEPROTECT, &wp) == 0);
	expect_pages(NULL, "writable", 3, 4);
	store(m + 3 * PAGE, 1);    /* which nobody hears of: the page is not as in the store, and counts as clean */
	expect_pages("--content", "content", 3, 4);
}

SYSTEM_TEST(a_page_that_is_mapped_and_not_resident_is_found)
{
	struct uffdio_zeropage zero = { 0 };
	struct pgc_file *f;
	char *path;
	uint8_t *m = some_pages(&path, &f);

	zero.range.start = (uintptr_t)(m + 40 * PAGE);
	zero.range.len = PAGE;
	CHECK(ioctl(fd_of(getpid(), "anon_inode:[userfaultfd]", false), UFFDIO_ZEROPAGE, &zero) == 0);
	expect_pages(NULL, "mapped", 40, 41);
}

SYSTEM_TEST(a_mapping_that_nobody_was_told_of_is_found)
{
	struct pgc_file *f;
	char *path;
	json_object *answer, *d;
	uint8_t *other;

	some_pages(&path, &f);
	other = mmap(NULL, 20 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd_of(getpid(), MEMFD, false), 0);
	CHECK(other != MAP_FAILED);
	expect_nothing(NULL);      /* as long as nothing is touched there it does no harm */
	load(other + 7 * PAGE);
	answer = check_says(NULL);
	d = must_find(answer, "untracked", NULL);
	CHECK_EQ(json_int(d, "pid"), getpid());
	CHECK(json_int(d, "start") <= (int64_t)(uintptr_t)other + 7 * (int64_t)PAGE && json_int(d, "end") > (int64_t)(uintptr_t)other + 7 * (int64_t)PAGE);
	json_object_put(answer);
}

SYSTEM_TEST(a_mapping_that_is_gone_without_a_word_is_found)
{
	struct uffdio_range r;
	struct pgc_file *f;
	char *path;
	uint8_t *m = some_pages(&path, &f);
	json_object *answer, *d;

	r.start = (uintptr_t)(m + 60 * PAGE);
	r.len = 10 * PAGE;
	CHECK(ioctl(fd_of(getpid(), "anon_inode:[userfaultfd]", false), UFFDIO_UNREGISTER, &r) == 0);
	CHECK(munmap(m + 60 * PAGE, 10 * PAGE) == 0);
	answer = check_says(NULL);
	d = must_find(answer, "gone", NULL);
	CHECK_EQ(json_int(d, "start"), (uintptr_t)(m + 60 * PAGE));
	CHECK_EQ(json_int(d, "end"), (uintptr_t)(m + 70 * PAGE));
	CHECK_EQ(json_int(d, "pid"), getpid());
	json_object_put(answer);
}

SYSTEM_TEST(a_store_that_changed_under_clean_pages_is_found)
{
	struct pgc_file *f;
	char *path;

	some_pages(&path, &f);
	store_write(path, "other", 5, 4 * PAGE + 100);
	store_write(path, "other", 5, 30 * PAGE); /* which is not here */
	expect_nothing(NULL);
	expect_pages("--content", "content", 4, 5);
}

SYSTEM_TEST(the_size_of_the_memfd_is_compared)
{
	struct pgc_file *f;
	char *path;
	json_object *answer, *d;

	some_pages(&path, &f);
	CHECK(ftruncate(daemon_memfd(), 120 * PAGE) == 0);
	answer = check_says(NULL);
	d = must_find(answer, "size", NULL);
	CHECK_EQ(json_int(d, "found"), 120 * PAGE);
	CHECK_EQ(json_int(d, "expected"), 100 * PAGE);
	json_object_put(answer);
}

/* --- the maps --- */

/* A pinned map, writable. *ret_n: entries. */
static void *open_map(const char *name, size_t entry, unsigned *ret_n)
{
	struct bpf_map_info info = { 0 };
	union bpf_attr attr;
	char path[300];
	void *mem;
	int fd;

	if (!*env.bpffs)
		skip_test("needs BPF maps");
	snprintf(path, sizeof(path), "%s/%s", env.bpffs, name);
	memset(&attr, 0, sizeof(attr));
	attr.pathname = (uintptr_t)path;
	fd = (int)syscall(SYS_bpf, BPF_OBJ_GET, &attr, sizeof(attr));
	CHECK(fd >= 0);
	memset(&attr, 0, sizeof(attr));
	attr.info.bpf_fd = (unsigned)fd;
	attr.info.info_len = sizeof(info);
	attr.info.info = (uintptr_t)&info;
	CHECK(syscall(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof(attr)) == 0);
	CHECK_EQ(info.value_size, entry);
	*ret_n = info.max_entries;
	mem = mmap(NULL, entry * info.max_entries, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(mem != MAP_FAILED);
	close(fd);
	return mem;
}

/* Changes a field of the entry of `map` that is in use, looks whether that is found, and puts it back. */
#define EXPECT_FOUND(type, map, field, change, kind, count) \
	do { \
		unsigned _n; \
		struct type *_e = open_map(map, sizeof(struct type), &_n), *_used = NULL; \
		for (unsigned _i = 1; _i < _n && !_used; _i++) \
			if (_e[_i].file) \
				_used = &_e[_i]; \
		CHECK(_used); \
		__typeof__(_used->field) _was = _used->field; \
		_used->field = (__typeof__(_used->field))(change); \
		json_object *_answer = check_says(NULL); \
		must_find(_answer, kind, count); \
		json_object_put(_answer); \
		_used->field = _was; \
		munmap(_e, _n * sizeof(struct type)); \
	} while (0)

SYSTEM_TEST(a_changed_entry_of_a_map_is_found, .workers = 1, .max_files = 32, .max_mappings = 32, .max_blocks = 32, .keep = true, .seconds = 120)
{
	struct pgc_file *f;
	char *path;

	some_pages(&path, &f);
	EXPECT_FOUND(pgc_block_entry, "blocks", resident, _was | 1ull << 30, "missing", NULL);
	EXPECT_FOUND(pgc_block_entry, "blocks", resident, _was | 1ull << 30, "count", "worker resident");
	EXPECT_FOUND(pgc_block_entry, "blocks", resident, _was & ~1ull, "stray", NULL);
	EXPECT_FOUND(pgc_block_entry, "blocks", resident, _was & ~1ull, "mapped", NULL);
	EXPECT_FOUND(pgc_block_entry, "blocks", dirty, 1ull << 40, "bits", NULL);
	EXPECT_FOUND(pgc_block_entry, "blocks", keep, 1, "bits", NULL);
	EXPECT_FOUND(pgc_block_entry, "blocks", refs, _was + 1, "references", NULL);
	EXPECT_FOUND(pgc_block_entry, "blocks", cgroup, _was + 1, "block", NULL);
	EXPECT_FOUND(pgc_file_entry, "files", resident, _was + 1, "count", "resident");
	EXPECT_FOUND(pgc_file_entry, "files", dirty, _was + 1, "count", "dirty");
	EXPECT_FOUND(pgc_file_entry, "files", size, _was + 1, "size", NULL);
	EXPECT_FOUND(pgc_file_entry, "files", handles, _was + 1, "handles", NULL);
	EXPECT_FOUND(pgc_file_entry, "files", worker, _was + 1, "file entry", NULL);
	EXPECT_FOUND(pgc_mapping_entry, "mappings", refs, _was + 1, "mappings", NULL);
	EXPECT_FOUND(pgc_saved_file, "saved_files", memfd_ino, _was + 1, "file record", NULL);
	EXPECT_FOUND(pgc_saved_file, "saved_files", version_size, _was + 1, "file record", NULL);
	EXPECT_FOUND(pgc_saved_handle, "saved_handles", id, _was + 1, "handle record", NULL);
	expect_nothing("--content");
}

/* --- the command --- */

static void another_user(struct peer *p, void *arg)
{
	struct output o;

	CHECK(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
	o = RUN(pagecachectl(), "check", arg);
	CHECK_EQ(o.code, 2);
	CHECK(strstr(o.err, strerror(EPERM)));
}

SYSTEM_TEST(another_user_may_not)
{
	char *path = make_file("f", PAGE, 1);

	if (geteuid() != 0)
		skip_test("needs root, to be another user");
	CHECK(chmod(env.dir, 0755) == 0);
	load(map(open_file(path, O_RDWR), PAGE, PROT_READ, MAP_SHARED, 0));
	peer_join(peer_start(another_user, path));
}

SYSTEM_TEST(trouble_has_a_status_of_its_own)
{
	struct output o = RUN(pagecachectl(), "check", "/nothing/like/that");

	CHECK_EQ(o.code, 2);
	o = RUN(pagecachectl(), "check", "--rate", "much");
	CHECK_EQ(o.code, 2);
	o = RUN(pagecachectl(), "--socket", "/nothing/like/that", "check");
	CHECK_EQ(o.code, 3);
}

SYSTEM_TEST(one_file_is_checked_and_read_at_the_rate_asked_for)
{
	char *path = make_file("f", 256 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint64_t start;
	struct output o;

	PATTERN_CHECK(map(f, 256 * PAGE, PROT_READ, MAP_SHARED, 0), 256 * PAGE, 0, 1);
	start = now_ms();
	o = RUN(pagecachectl(), "check", "--content", "--rate", "2M", path);
	CHECK_EQ(o.code, 0);
	CHECK(now_ms() - start >= 450);
	CHECK(strstr(o.out, "nothing differs: 1 file, 256 pages, 256 compared with the store"));
	/* Its pages stay when nobody has it open, and it is opened to be compared. */
	CHECK_EQ(pgc_close(f), 0);
	o = RUN(pagecachectl(), "check", "--content", path);
	CHECK_EQ(o.code, 0);
}

SYSTEM_TESTS_MAIN("check",
	cmocka_unit_test(nothing_differs_where_nothing_is_cached),
	cmocka_unit_test(nothing_differs_with_clean_dirty_and_private_pages),
	cmocka_unit_test(nothing_differs_with_kept_and_pinned_pages),
	cmocka_unit_test(nothing_differs_after_a_take_over),
	cmocka_unit_test(nothing_differs_while_clients_are_busy),
	cmocka_unit_test(nothing_differs_under_reclaim),
	cmocka_unit_test(a_page_that_is_gone_from_the_memfd_is_found),
	cmocka_unit_test(a_page_that_is_in_the_memfd_besides_is_found),
	cmocka_unit_test(a_clean_page_that_is_writable_is_found),
	cmocka_unit_test(a_page_that_is_mapped_and_not_resident_is_found),
	cmocka_unit_test(a_mapping_that_nobody_was_told_of_is_found),
	cmocka_unit_test(a_mapping_that_is_gone_without_a_word_is_found),
	cmocka_unit_test(a_store_that_changed_under_clean_pages_is_found),
	cmocka_unit_test(the_size_of_the_memfd_is_compared),
	cmocka_unit_test(a_changed_entry_of_a_map_is_found),
	cmocka_unit_test(another_user_may_not),
	cmocka_unit_test(trouble_has_a_status_of_its_own),
	cmocka_unit_test(one_file_is_checked_and_read_at_the_rate_asked_for))
