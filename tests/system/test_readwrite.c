/* SPDX-License-Identifier: Apache-2.0 */
/* What programs rely on when they read, write and resize: coherence with mappings, append, holes, the tail, buffers of any kind. */
#include "harness.h"

#include <linux/falloc.h>

static void put(struct pgc_file *f, size_t n, off_t off, unsigned gen)
{
	uint8_t *b = malloc(n);

	CHECK(b);
	pattern_fill(b, n, (uint64_t)off, gen);
	CHECK_EQ(pgc_pwrite(f, b, n, off), n);
	free(b);
}

static void expect(struct pgc_file *f, size_t n, off_t off, unsigned gen)
{
	uint8_t *b = malloc(n);

	CHECK(b);
	CHECK_EQ(pgc_pread(f, b, n, off), n);
	PATTERN_CHECK(b, n, (uint64_t)off, gen);
	free(b);
}

static void expect_zero(struct pgc_file *f, size_t n, off_t off)
{
	uint8_t *b = malloc(n);

	CHECK(b);
	memset(b, 1, n);
	CHECK_EQ(pgc_pread(f, b, n, off), n);
	ZERO_CHECK(b, n);
	free(b);
}

static off_t size_of(struct pgc_file *f)
{
	struct stat st;

	CHECK_EQ(pgc_fstat(f, &st), 0);
	return st.st_size;
}

/* --- 10: coherence --- */

static void watch_peer(struct peer *p, void *path)
{
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *shared = map(f, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint8_t *private = map(f, 6 * PAGE, PROT_READ, MAP_PRIVATE, 0);

	/* Page 0 is touched before the write, the others only after it. */
	PATTERN_CHECK(shared, PAGE, 0, 1);
	PATTERN_CHECK(private, PAGE, 0, 1);
	peer_tell(p, 0);
	for (uint64_t gen; (gen = peer_hear(p)) != 0; peer_tell(p, gen)) {
		PATTERN_CHECK(shared + 100, 3 * PAGE, 100, (unsigned)gen);
		PATTERN_CHECK(private + 100, 3 * PAGE, 100, (unsigned)gen);
		PATTERN_CHECK(shared, 100, 0, 1);
		PATTERN_CHECK(shared + 100 + 3 * PAGE, 2 * PAGE, 100 + 3 * PAGE, 1);
	}
}

SYSTEM_TEST(c10_pwrite_is_visible_through_every_mapping_at_once)
{
	char *path = make_file("f", 6 * PAGE, 1);
	struct peer *p = peer_start(watch_peer, path);
	struct pgc_file *f = open_file(path, O_RDWR), *g = open_file(path, O_RDWR);
	uint8_t *mine = map(f, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint8_t *other = map(g, 6 * PAGE, PROT_READ, MAP_SHARED, 0);

	peer_hear(p);
	for (unsigned gen = 2; gen < 30; gen++) {
		put(f, 3 * PAGE, 100, gen);
		PATTERN_CHECK(mine + 100, 3 * PAGE, 100, gen);
		PATTERN_CHECK(other + 100, 3 * PAGE, 100, gen);
		CHECK_EQ(peer_ask(p, gen), gen);
	}
	peer_tell(p, 0);
	peer_join(p);
}

static void pread_peer(struct peer *p, void *path)
{
	struct pgc_file *f = open_file(path, O_RDONLY);

	for (uint64_t gen; (gen = peer_hear(p)) != 0; peer_tell(p, gen))
		expect(f, 5 * PAGE, 0, (unsigned)gen);
}

SYSTEM_TEST(c10_store_is_visible_to_every_pread_before_and_after_munmap)
{
	char *path = make_file("f", 5 * PAGE, 1);
	struct peer *p = peer_start(pread_peer, path);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 5 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	CHECK_EQ(peer_ask(p, 1), 1);
	for (unsigned gen = 2; gen < 20; gen++) {
		pattern_fill(m, 5 * PAGE, 0, gen);
		expect(f, 5 * PAGE, 0, gen);
		CHECK_EQ(peer_ask(p, gen), gen);
	}
	CHECK_EQ(pgc_munmap(m, 5 * PAGE), 0);
	expect(f, 5 * PAGE, 0, 19);
	CHECK_EQ(peer_ask(p, 19), 19);
	CHECK_EQ(pgc_close(f), 0);
	CHECK_EQ(peer_ask(p, 19), 19);
	peer_tell(p, 0);
	peer_join(p);
}

SYSTEM_TEST(c10_pread_and_pwrite_of_odd_ranges_agree)
{
	static const size_t offs[] = {0, 1, 4095, 4096, 4097, 65535, BLOCK - 1, BLOCK, BLOCK + 17};
	static const size_t lens[] = {1, 2, 4095, 4096, 4097, 70001, BLOCK + 5};
	size_t size = 3 * BLOCK;
	struct pgc_file *f = open_file(make_file("f", size, 1), O_RDWR);
	uint8_t *model = malloc(size), *now = malloc(size);
	unsigned gen = 2;

	CHECK(model && now);
	pattern_fill(model, size, 0, 1);
	for (size_t i = 0; i < sizeof(offs) / sizeof(offs[0]); i++)
		for (size_t j = 0; j < sizeof(lens) / sizeof(lens[0]); j++, gen++) {
			put(f, lens[j], (off_t)offs[i], gen);
			pattern_fill(model + offs[i], lens[j], offs[i], gen);
			memset(now, 0, lens[j]);
			CHECK_EQ(pgc_pread(f, now, lens[j], (off_t)offs[i]), lens[j]);
			CHECK(memcmp(now, model + offs[i], lens[j]) == 0);
		}
	CHECK_EQ(pgc_pread(f, now, size, 0), size);
	CHECK(memcmp(now, model, size) == 0);
}

SYSTEM_TEST(c10_transfers_larger_than_one_message_are_whole)
{
	size_t size = 5 * PGC_READ_MAX + 12345;
	char *path = make_file("f", 1, 1);
	struct pgc_file *f = open_file(path, O_RDWR);

	put(f, size, 0, 2);
	expect(f, size, 0, 2);
	CHECK_EQ(size_of(f), size);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(store_size(path), size);
	CHECK(store_has(path, size, 0, 2));
}

SYSTEM_TEST(c10_preadv_and_pwritev_gather_and_scatter)
{
	struct pgc_file *f = open_file(make_file("f", 4 * PAGE, 1), O_RDWR);
	uint8_t a[100], b[PAGE + 1], c[7];
	struct iovec v[] = {{a, sizeof(a)}, {NULL, 0}, {b, sizeof(b)}, {c, sizeof(c)}};
	size_t n = sizeof(a) + sizeof(b) + sizeof(c);

	CHECK_EQ(pgc_preadv(f, v, 4, 50), n);
	PATTERN_CHECK(a, sizeof(a), 50, 1);
	PATTERN_CHECK(b, sizeof(b), 150, 1);
	PATTERN_CHECK(c, sizeof(c), 150 + sizeof(b), 1);
	pattern_fill(a, sizeof(a), 3000, 2);
	pattern_fill(b, sizeof(b), 3100, 2);
	pattern_fill(c, sizeof(c), 3100 + sizeof(b), 2);
	CHECK_EQ(pgc_pwritev(f, v, 4, 3000), n);
	expect(f, n, 3000, 2);
	expect(f, 3000, 0, 1);
	CHECK_EQ(pgc_preadv(f, v, -1, 0), -EINVAL);
	CHECK_EQ(pgc_pwritev(f, v, 100000, 0), -EINVAL);
}

SYSTEM_TEST(c10_access_mode_and_arguments_are_checked)
{
	char *path = make_file("f", PAGE, 1);
	struct pgc_file *r = open_file(path, O_RDONLY), *w = open_file(path, O_WRONLY), *rw = open_file(path, O_RDWR), *none;
	char b[16] = {0};

	CHECK_EQ(pgc_pwrite(r, b, 1, 0), -EBADF);
	CHECK_EQ(pgc_append(r, b, 1, NULL), -EBADF);
	CHECK_EQ(pgc_pread(w, b, 1, 0), -EBADF);
	CHECK_EQ(pgc_pwrite(w, b, 1, 0), 1);
	CHECK_EQ(pgc_ftruncate(r, 0), -EINVAL);
	CHECK_EQ(pgc_fallocate(r, 0, 0, 1), -EBADF);
	CHECK_EQ(pgc_pread(rw, b, 1, -1), -EINVAL);
	CHECK_EQ(pgc_pwrite(rw, b, 1, -1), -EINVAL);
	CHECK_EQ(pgc_pread(rw, b, 0, 0), 0);
	CHECK_EQ(pgc_pwrite(rw, b, 0, 0), 0);
	CHECK_EQ(pgc_ftruncate(rw, -1), -EINVAL);
	CHECK_EQ(pgc_open(&none, file_path("missing"), O_RDWR, 0), -ENOENT);
	CHECK_EQ(pgc_open(&none, env.dir, O_RDONLY, 0), -EISDIR);
	CHECK_EQ(pgc_open(&none, path, O_RDWR | O_CREAT | O_EXCL, 0600), -EEXIST);
}

SYSTEM_TEST(c10_open_creates_and_truncates)
{
	char *path = file_path("new"), *old = make_file("old", 3 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR | O_CREAT | O_EXCL), *g = open_file(old, O_RDWR);
	uint8_t *m = map(g, 3 * PAGE, PROT_READ, MAP_SHARED, 0), v;
	struct stat st;

	put(f, 100, 0, 2);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(store_size(path), 100);
	CHECK_EQ(pgc_fstat(f, &st), 0);
	CHECK_EQ(st.st_mode & 0777, 0644);
	PATTERN_CHECK(m, 3 * PAGE, 0, 1);
	CHECK_EQ(size_of(open_file(old, O_RDWR | O_TRUNC)), 0);
	CHECK_EQ(size_of(g), 0);
	CHECK_EQ(load_signal(m, &v), SIGBUS);
}

SYSTEM_TEST(c10_fdopen_takes_the_access_of_the_descriptor)
{
	char *path = make_file("f", PAGE, 1);
	struct pgc_file *f;
	int ro = open(path, O_RDONLY | O_CLOEXEC), rw = open(path, O_RDWR | O_CLOEXEC), pipes[2];
	char b = 1;

	CHECK(ro >= 0 && rw >= 0 && pipe(pipes) == 0);
	CHECK_EQ(pgc_fdopen(&f, ro), 0);
	expect(f, PAGE, 0, 1);
	CHECK_EQ(pgc_pwrite(f, &b, 1, 0), -EBADF);
	CHECK_EQ(pgc_fdopen(&f, rw), 0);
	CHECK_EQ(pgc_pwrite(f, &b, 1, 0), 1);
	CHECK(pgc_fdopen(&f, pipes[0]) < 0);
	CHECK_EQ(pgc_fdopen(&f, -1), -EBADF);
}

SYSTEM_TEST(c10_fstat_tells_of_the_cached_file)
{
	char *path = make_file("f", PAGE + 5, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	struct stat mine, theirs;

	CHECK(stat(path, &theirs) == 0);
	CHECK_EQ(pgc_fstat(f, &mine), 0);
	CHECK_EQ(mine.st_size, theirs.st_size);
	CHECK_EQ(mine.st_mode, theirs.st_mode);
	CHECK_EQ(mine.st_uid, theirs.st_uid);
	CHECK_EQ(mine.st_nlink, theirs.st_nlink);
	CHECK_EQ(mine.st_ino, theirs.st_ino);
	CHECK_EQ(mine.st_dev, theirs.st_dev);
	/* Of the size the cache knows more than the store. */
	put(f, 10, 9 * PAGE, 2);
	CHECK_EQ(size_of(f), 9 * PAGE + 10);
}

/* --- 11: growing --- */

SYSTEM_TEST(c11_pwrite_beyond_the_end_leaves_a_hole_of_zeros)
{
	char *path = make_file("f", 100, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 300 * PAGE, PROT_READ, MAP_SHARED, 0);

	put(f, 50, 200 * PAGE + 7, 2);
	CHECK_EQ(size_of(f), 200 * PAGE + 57);
	expect(f, 100, 0, 1);
	expect_zero(f, 200 * PAGE + 7 - 100, 100);
	expect(f, 50, 200 * PAGE + 7, 2);
	ZERO_CHECK(m + 100, 200 * PAGE + 7 - 100);
	PATTERN_CHECK(m + 200 * PAGE + 7, 50, 200 * PAGE + 7, 2);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(store_size(path), 200 * PAGE + 57);
	CHECK(store_is_zero(path, 200 * PAGE + 7 - 100, 100));
	CHECK(store_has(path, 50, 200 * PAGE + 7, 2));
	CHECK(store_has(path, 100, 0, 1));
}

#define APPENDERS 4
#define APPENDS 60

struct record {
	uint32_t magic, who, number, len;
};

static size_t record_len(unsigned who, unsigned number)
{
	return sizeof(struct record) + (who * 7919 + number * 104729) % 9000;
}

static void append_peer(struct peer *p, void *path)
{
	static unsigned char buf[10000];
	struct pgc_file *f = open_file(path, O_RDWR);
	unsigned who = (unsigned)peer_hear(p);
	off_t last = -1;

	for (unsigned i = 0; i < APPENDS; i++) {
		size_t n = record_len(who, i);
		struct record r = {0x7ec07d, who, i, (uint32_t)n}, back;
		off_t at = -1;

		memset(buf, (int)(1 + (who * 50 + i) % 255), n);
		memcpy(buf, &r, sizeof(r));
		CHECK_EQ(pgc_append(f, buf, n, &at), n);
		CHECK(at > last);
		last = at;
		CHECK_EQ(pgc_pread(f, &back, sizeof(back), at), sizeof(back));
		CHECK(memcmp(&back, &r, sizeof(r)) == 0);
	}
}

SYSTEM_TEST(c11_append_is_atomic_between_processes)
{
	char *path = make_file("f", 0, 1);
	struct peer *p[APPENDERS];
	unsigned next[APPENDERS] = {0};
	size_t total = 0, at = 0;
	uint8_t *b;

	for (unsigned i = 0; i < APPENDERS; i++) {
		p[i] = peer_start(append_peer, path);
		for (unsigned k = 0; k < APPENDS; k++)
			total += record_len(i, k);
	}
	for (unsigned i = 0; i < APPENDERS; i++)
		peer_tell(p[i], i);
	for (unsigned i = 0; i < APPENDERS; i++)
		peer_join(p[i]);
	CHECK_EQ(sync_all(), 0);
	CHECK_EQ(store_size(path), total);
	b = malloc(total);
	CHECK(b);
	store_read(path, b, total, 0);
	while (at < total) {
		struct record r;

		memcpy(&r, b + at, sizeof(r));
		CHECK_EQ(r.magic, 0x7ec07d);
		CHECK(r.who < APPENDERS);
		CHECK_EQ(r.number, next[r.who]++);
		CHECK_EQ(r.len, record_len(r.who, r.number));
		for (size_t i = sizeof(r); i < r.len; i++)
			CHECK_EQ(b[at + i], 1 + (r.who * 50 + r.number) % 255);
		at += r.len;
	}
	for (unsigned i = 0; i < APPENDERS; i++)
		CHECK_EQ(next[i], APPENDS);
}

SYSTEM_TEST(c11_large_append_is_one_piece)
{
	size_t n = 3 * PGC_WRITE_MAX + 77;
	char *path = make_file("f", 5, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *b = malloc(n);
	off_t at = -1;

	pattern_fill(b, n, 5, 2);
	CHECK_EQ(pgc_append(f, b, n, &at), n);
	CHECK_EQ(at, 5);
	CHECK_EQ(size_of(f), n + 5);
	expect(f, n, 5, 2);
}

SYSTEM_TEST(c11_read_is_short_at_the_end_and_0_past_it)
{
	size_t size = PAGE + 100;
	struct pgc_file *f = open_file(make_file("f", size, 1), O_RDWR);
	uint8_t b[3 * PAGE];

	memset(b, 0xee, sizeof(b));
	CHECK_EQ(pgc_pread(f, b, sizeof(b), 0), size);
	PATTERN_CHECK(b, size, 0, 1);
	CHECK_EQ(b[size], 0xee);
	CHECK_EQ(pgc_pread(f, b, sizeof(b), size - 1), 1);
	CHECK_EQ(pgc_pread(f, b, sizeof(b), size), 0);
	CHECK_EQ(pgc_pread(f, b, sizeof(b), size + 1), 0);
	CHECK_EQ(pgc_pread(f, b, sizeof(b), 1l << 40), 0);
}

/* --- 12: the tail of the last page --- */

SYSTEM_TEST(c12_stores_past_the_end_are_not_in_the_file)
{
	char *path = make_file("f", 100, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), b[PAGE];

	memset(m + 100, 0xaa, PAGE - 100);
	store(m + 50, 1);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(store_size(path), 100);
	CHECK(store_has_byte(path, 50, 1));
	CHECK_EQ(size_of(f), 100);
	CHECK_EQ(pgc_pread(f, b, PAGE, 0), 100);
}

/* How the file grows over what was stored past its end. */
static void grow_over_stores(void (*grow)(struct pgc_file *f), bool sync_before)
{
	char *path = make_file("f", 100, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	memset(m + 100, 0xaa, PAGE - 100);
	if (sync_before)
		CHECK_EQ(pgc_fsync(f), 0);
	grow(f);
	CHECK_EQ(size_of(f), 2 * PAGE);
	expect_zero(f, PAGE - 100, 100);
	ZERO_CHECK(m + 100, PAGE - 100);
	PATTERN_CHECK(m, 100, 0, 1);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_is_zero(path, PAGE - 100, 100));
	CHECK(store_has(path, 100, 0, 1));
}

static void grow_by_truncate(struct pgc_file *f)
{
	CHECK_EQ(pgc_ftruncate(f, 2 * PAGE), 0);
}

static void grow_by_write(struct pgc_file *f)
{
	put(f, 1, 2 * PAGE - 1, 2);
}

static void grow_by_fallocate(struct pgc_file *f)
{
	CHECK_EQ(pgc_fallocate(f, 0, PAGE, PAGE), 0);
}

SYSTEM_TEST(c12_growth_by_ftruncate_shows_zeros_there)
{
	grow_over_stores(grow_by_truncate, false);
}

SYSTEM_TEST(c12_growth_by_ftruncate_after_fsync_shows_zeros_there)
{
	grow_over_stores(grow_by_truncate, true);
}

SYSTEM_TEST(c12_growth_by_pwrite_shows_zeros_there)
{
	grow_over_stores(grow_by_write, false);
}

SYSTEM_TEST(c12_growth_by_fallocate_shows_zeros_there)
{
	grow_over_stores(grow_by_fallocate, false);
}

SYSTEM_TEST(c12_growth_by_append_shows_zeros_up_to_it)
{
	struct pgc_file *f = open_file(make_file("f", 100, 1), O_RDWR);
	uint8_t *m = map(f, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), b[10];
	off_t at;

	memset(m + 100, 0xaa, PAGE - 100);
	pattern_fill(b, sizeof(b), 100, 2);
	CHECK_EQ(pgc_append(f, b, sizeof(b), &at), sizeof(b));
	CHECK_EQ(at, 100);
	CHECK_EQ(pgc_ftruncate(f, PAGE), 0);
	PATTERN_CHECK(m + 100, 10, 100, 2);
	ZERO_CHECK(m + 110, PAGE - 110);
}

/* --- 13: shrinking --- */

SYSTEM_TEST(c13_shrink_to_the_middle_of_a_page_zeroes_the_rest)
{
	char *path = make_file("f", 5 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 5 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), v;
	off_t cut = PAGE + 1000;

	PATTERN_CHECK(m, 5 * PAGE, 0, 1);
	CHECK_EQ(pgc_ftruncate(f, cut), 0);
	PATTERN_CHECK(m, (size_t)cut, 0, 1);
	ZERO_CHECK(m + cut, 2 * PAGE - (size_t)cut);
	CHECK_EQ(load_signal(m + 2 * PAGE, &v), SIGBUS);
	CHECK_EQ(size_of(f), cut);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(store_size(path), cut);
	CHECK_EQ(pgc_ftruncate(f, 5 * PAGE), 0);
	ZERO_CHECK(m + cut, 5 * PAGE - (size_t)cut);
	store(m + 3 * PAGE, 9);
	store(m + cut, 8);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(store_size(path), 5 * PAGE);
	CHECK(store_has(path, (size_t)cut, 0, 1));
	CHECK(store_has_byte(path, cut, 8));
	CHECK(store_is_zero(path, 3 * PAGE - (size_t)cut - 1, cut + 1));
	CHECK(store_has_byte(path, 3 * PAGE, 9));
	CHECK(store_is_zero(path, 2 * PAGE - 1, 3 * PAGE + 1));
}

SYSTEM_TEST(c13_shrink_of_a_cold_file_keeps_the_first_part)
{
	char *path = make_file("f", 5 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);

	CHECK_EQ(pgc_ftruncate(f, PAGE + 1000), 0);
	CHECK_EQ(pgc_ftruncate(f, 5 * PAGE), 0);
	expect(f, PAGE + 1000, 0, 1);
	expect_zero(f, 4 * PAGE - 1000, PAGE + 1000);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has(path, PAGE + 1000, 0, 1));
	CHECK(store_is_zero(path, 4 * PAGE - 1000, PAGE + 1000));
}

static void shrink_to_0(bool dirty)
{
	char *path = make_file("f", 70 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 70 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), v;

	PATTERN_CHECK(m, 70 * PAGE, 0, 1);
	if (dirty)
		pattern_fill(m, 70 * PAGE, 0, 2);
	CHECK_EQ(pgc_ftruncate(f, 0), 0);
	CHECK_EQ(load_signal(m, &v), SIGBUS);
	CHECK_EQ(store_signal(m + 69 * PAGE, 1), SIGBUS);
	CHECK_EQ(file_state(path).dirty, 0);
	CHECK_EQ(file_state(path).resident, 0);
	CHECK_EQ(pgc_ftruncate(f, 70 * PAGE), 0);
	ZERO_CHECK(m, 70 * PAGE);
	expect_zero(f, 70 * PAGE, 0);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(store_size(path), 70 * PAGE);
	CHECK(store_is_zero(path, 70 * PAGE, 0));
}

SYSTEM_TEST(c13_shrink_to_0_and_regrow_is_all_zeros_when_clean)
{
	shrink_to_0(false);
}

SYSTEM_TEST(c13_shrink_to_0_and_regrow_is_all_zeros_when_dirty)
{
	shrink_to_0(true);
}

struct slow {
	const char *name;
	size_t size;
};

static void slow_toucher(struct peer *p, void *arg)
{
	const struct slow *s = arg;
	struct pgc_file *f = open_file(s->name, O_RDWR);
	uint8_t *m = map(f, s->size, PROT_READ | PROT_WRITE, MAP_SHARED, 0), v = 0;
	int sig;

	peer_tell(p, 0);
	peer_hear(p);
	peer_tell(p, 0);
	sig = load_signal(m + s->size - 1, &v);
	/* Before the cut or after it, nothing between. */
	CHECK(sig == SIGBUS || (sig == 0 && v == pattern_byte(s->size - 1, 1)));
	peer_tell(p, (uint64_t)sig);
}

SYSTEM_TEST(c13_shrink_while_a_fault_and_its_fill_are_under_way, .no_kills = STORE_DIES)
{
	static struct slow s = {"mem:slow", 20 * PAGE};
	struct peer *p = peer_start(slow_toucher, &s);
	struct pgc_file *f = open_mem(s.name, s.size, 1);
	uint64_t fills;
	uint8_t v;

	peer_hear(p);
	inject(s.name, PGC_INJECT_READ_DELAY, 300000, 0);
	fills = status().fills;
	peer_ask(p, 1);
	WAIT_UNTIL(status().fills > fills || status().faults > 0);
	CHECK_EQ(pgc_ftruncate(f, 2 * PAGE + 10), 0);
	peer_hear(p);
	peer_join(p);
	inject(s.name, PGC_INJECT_READ_DELAY, 0, 0);
	CHECK_EQ(pgc_ftruncate(f, (off_t)s.size), 0);
	expect(f, 2 * PAGE + 10, 0, 1);
	expect_zero(f, s.size - 2 * PAGE - 10, 2 * PAGE + 10);
	CHECK_EQ(load_signal(map(f, s.size, PROT_READ, MAP_SHARED, 0), &v), 0);
	CHECK_EQ(pgc_fsync(f), 0);
	drop_clean();
	expect(f, 2 * PAGE + 10, 0, 1);
	expect_zero(f, s.size - 2 * PAGE - 10, 2 * PAGE + 10);
}

static void slow_writer(struct peer *p, void *arg)
{
	const struct slow *s = arg;
	struct pgc_file *f = open_file(s->name, O_RDWR);

	peer_tell(p, 0);
	peer_hear(p);
	peer_tell(p, (uint64_t)-pgc_fsync(f));
}

SYSTEM_TEST(c13_shrink_while_a_write_out_is_under_way, .no_kills = STORE_DIES)
{
	static struct slow s = {"mem:slow", 20 * PAGE};
	struct peer *p = peer_start(slow_writer, &s);
	struct pgc_file *f = open_mem(s.name, s.size, 1);
	uint8_t *m = map(f, s.size, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	peer_hear(p);
	pattern_fill(m, s.size, 0, 2);
	inject(s.name, PGC_INJECT_WRITE_DELAY, 300000, 0);
	peer_tell(p, 1);
	WAIT_UNTIL(file_state(s.name).writeback > 0);
	CHECK_EQ(pgc_ftruncate(f, PAGE + 10), 0);
	CHECK_EQ(peer_hear(p), 0);
	peer_join(p);
	inject(s.name, PGC_INJECT_WRITE_DELAY, 0, 0);
	CHECK_EQ(size_of(f), PAGE + 10);
	CHECK_EQ(pgc_fsync(f), 0);
	drop_clean();
	/* What was being written past the new end is not in the store. */
	CHECK_EQ(pgc_ftruncate(f, (off_t)s.size), 0);
	expect(f, PAGE + 10, 0, 2);
	expect_zero(f, s.size - PAGE - 10, PAGE + 10);
}

struct cut_race {
	volatile unsigned stop;
	char path[256];
};

static void cut_race_peer(struct peer *p, void *arg)
{
	struct cut_race *r = arg;
	struct pgc_file *f = open_file(r->path, O_RDWR);
	uint8_t *m = map(f, 100 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), v;
	unsigned seed = (unsigned)peer_hear(p);

	while (!r->stop) {
		size_t at = (size_t)rand_r(&seed) % (100 * PAGE);
		int sig = load_signal(m + at, &v);

		CHECK(sig == SIGBUS || (sig == 0 && (v == 0 || v == pattern_byte(at, 1))));
		at = (size_t)rand_r(&seed) % (100 * PAGE);
		CHECK(store_signal(m + at, pattern_byte(at, 1)) != SIGSEGV);
		if (at % 16 == 0)
			CHECK_EQ(pgc_fsync(f), 0);
	}
}

SYSTEM_TEST(c13_shrinks_among_faults_and_write_outs_never_show_other_bytes)
{
	struct cut_race *r = shared_memory(sizeof(*r));
	char *path = make_file("f", 100 * PAGE, 1);
	struct peer *p[2];
	struct pgc_file *f;
	unsigned seed = 12345;
	uint8_t *b = malloc(100 * PAGE);
	size_t size = 100 * PAGE;

	snprintf(r->path, sizeof(r->path), "%s", path);
	for (unsigned i = 0; i < 2; i++)
		p[i] = peer_start(cut_race_peer, r);
	f = open_file(path, O_RDWR);
	for (unsigned i = 0; i < 2; i++)
		peer_tell(p[i], i + 1);
	for (unsigned i = 0; i < 200; i++) {
		size = (size_t)rand_r(&seed) % (100 * PAGE);
		CHECK_EQ(pgc_ftruncate(f, (off_t)size), 0);
		CHECK_EQ(size_of(f), size);
	}
	r->stop = 1;
	for (unsigned i = 0; i < 2; i++)
		peer_join(p[i]);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(store_size(path), size);
	CHECK_EQ(pgc_pread(f, b, 100 * PAGE, 0), size);
	for (size_t i = 0; i < size; i++)
		CHECK(b[i] == 0 || b[i] == pattern_byte(i, 1));
	store_read(path, b, size, 0);
	drop_clean();
	for (size_t i = 0; i < size; i += 997) {
		uint8_t v;

		CHECK_EQ(pgc_pread(f, &v, 1, (off_t)i), 1);
		CHECK_EQ(v, b[i]);
	}
}

/* --- 14: buffers in mappings --- */

SYSTEM_TEST(c14_reading_into_a_mapping_of_the_same_file)
{
	struct pgc_file *f = open_file(make_file("f", 300 * PAGE, 1), O_RDWR);
	uint8_t *m = map(f, 300 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	/* Both cold; then onto itself; then overlapping. */
	CHECK_EQ(pgc_pread(f, m + 10 * PAGE, 3 * PAGE, 200 * PAGE), 3 * PAGE);
	for (size_t i = 0; i < 3 * PAGE; i++)
		CHECK_EQ(load(m + 10 * PAGE + i), pattern_byte(200 * PAGE + i, 1));
	CHECK_EQ(pgc_pread(f, m + 50 * PAGE, PAGE, 50 * PAGE), PAGE);
	PATTERN_CHECK(m + 50 * PAGE, PAGE, 50 * PAGE, 1);
	CHECK_EQ(pgc_pread(f, m + 60 * PAGE, PAGE, 60 * PAGE + 100), PAGE);
	CHECK_EQ(load(m + 60 * PAGE), pattern_byte(60 * PAGE + 100, 1));
}

SYSTEM_TEST(c14_writing_from_a_mapping_of_the_same_file)
{
	char *path = make_file("f", 300 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 300 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), b[2 * PAGE];

	CHECK_EQ(pgc_pwrite(f, m + 100 * PAGE, 2 * PAGE, 10 * PAGE), 2 * PAGE);
	CHECK_EQ(pgc_pread(f, b, sizeof(b), 10 * PAGE), sizeof(b));
	PATTERN_CHECK(b, sizeof(b), 100 * PAGE, 1);
	CHECK_EQ(pgc_pwrite(f, m + 50 * PAGE, PAGE, 50 * PAGE), PAGE);
	PATTERN_CHECK(m + 50 * PAGE, PAGE, 50 * PAGE, 1);
	/* Onto a page that is cold and partly covered: it has to be filled while the write is under way. */
	CHECK_EQ(pgc_pwrite(f, m + 250 * PAGE, 100, 250 * PAGE + 200), 100);
	CHECK_EQ(load(m + 250 * PAGE + 200), pattern_byte(250 * PAGE, 1));
	PATTERN_CHECK(m + 250 * PAGE, 200, 250 * PAGE, 1);
	PATTERN_CHECK(m + 250 * PAGE + 300, PAGE - 300, 250 * PAGE + 300, 1);
	CHECK_EQ(pgc_fsync(f), 0);
	store_read(path, b, sizeof(b), 10 * PAGE);
	PATTERN_CHECK(b, sizeof(b), 100 * PAGE, 1);
}

/* A call on cold memory: 0, or -errno. */
static int raw_call(bool write_call, int fd, void *buf, size_t n)
{
	ssize_t r = write_call ? write(fd, buf, n) : read(fd, buf, n);

	if (r < 0)
		return -errno;
	CHECK_EQ(r, n);
	return 0;
}

static void system_call_buffer(int flags)
{
	struct pgc_file *f = open_file(make_file("f", 300 * PAGE, 1), O_RDWR);
	uint8_t *m = map(f, 300 * PAGE, PROT_READ | PROT_WRITE, flags, 0), b[PAGE];
	int p[2], r;

	CHECK(pipe(p) == 0);
	r = raw_call(true, p[1], m + 100 * PAGE, PAGE);
	if (env.user && r == -EFAULT) {
		/* Without privilege the kernel does not ask: the page has to be touched first. */
		CHECK_EQ(load(m + 100 * PAGE), pattern_byte(100 * PAGE, 1));
		r = raw_call(true, p[1], m + 100 * PAGE, PAGE);
	}
	CHECK_EQ(r, 0);
	CHECK_EQ(read(p[0], b, PAGE), PAGE);
	PATTERN_CHECK(b, PAGE, 100 * PAGE, 1);

	pattern_fill(b, PAGE, 200 * PAGE, 2);
	CHECK_EQ(write(p[1], b, PAGE), PAGE);
	r = raw_call(false, p[0], m + 200 * PAGE, PAGE);
	if (env.user && r == -EFAULT) {
		store(m + 200 * PAGE, 0);
		r = raw_call(false, p[0], m + 200 * PAGE, PAGE);
	}
	CHECK_EQ(r, 0);
	PATTERN_CHECK(m + 200 * PAGE, PAGE, 200 * PAGE, 2);
	expect(f, PAGE, 200 * PAGE, flags == MAP_SHARED ? 2 : 1);
}

SYSTEM_TEST(c14_system_call_buffer_in_a_shared_page_never_touched)
{
	system_call_buffer(MAP_SHARED);
}

SYSTEM_TEST(c14_system_call_buffer_in_a_private_page_never_touched)
{
	system_call_buffer(MAP_PRIVATE);
}

SYSTEM_TEST(c14_pread_and_pwrite_take_cold_buffers_of_another_file)
{
	struct pgc_file *f = open_file(make_file("f", 100 * PAGE, 1), O_RDWR), *g = open_file(make_file("g", 100 * PAGE, 2), O_RDWR);

	for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
		uint8_t *m = map(g, 100 * PAGE, PROT_READ | PROT_WRITE, flags, 0), b[PAGE];

		CHECK_EQ(pgc_pread(f, m + 5, 70 * PAGE, 0), 70 * PAGE);
		for (size_t i = 0; i < 70 * PAGE; i++)
			CHECK_EQ(load(m + 5 + i), pattern_byte(i, 1));
		CHECK_EQ(pgc_pwrite(f, m + 80 * PAGE, PAGE, 90 * PAGE), PAGE);
		CHECK_EQ(pgc_pread(f, b, PAGE, 90 * PAGE), PAGE);
		PATTERN_CHECK(b, PAGE, 80 * PAGE, 2);
		put(f, PAGE, 90 * PAGE, 1);
	}
}

/* --- 15: buffers past the end --- */

SYSTEM_TEST(c15_buffer_past_the_end_is_efault)
{
	struct pgc_file *f = open_file(make_file("f", PAGE, 1), O_RDWR), *g = open_file(make_file("g", 4 * PAGE, 2), O_RDWR);
	int p[2];

	CHECK(pipe(p) == 0 && write(p[1], "abc", 3) == 3);
	for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
		uint8_t *m = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, flags, 0);

		CHECK(write(p[1], m + 2 * PAGE, 10) == -1 && errno == EFAULT);
		CHECK(read(p[0], m + 2 * PAGE, 3) == -1 && errno == EFAULT);
		CHECK_EQ(pgc_pread(g, m + 2 * PAGE, PAGE, 0), -EFAULT);
		CHECK_EQ(pgc_pwrite(g, m + 2 * PAGE, PAGE, 0), -EFAULT);
		CHECK_EQ(pgc_append(g, m + 2 * PAGE, PAGE, NULL), -EFAULT);
		CHECK_EQ(pgc_pread(f, m + 2 * PAGE, PAGE, 0), -EFAULT);
		CHECK_EQ(pgc_pwrite(f, m + 2 * PAGE, PAGE, 0), -EFAULT);
	}
	expect(f, PAGE, 0, 1);
	expect(g, 4 * PAGE, 0, 2);
	CHECK_EQ(size_of(g), 4 * PAGE);
}

SYSTEM_TEST(c15_buffer_across_the_end_is_efault_or_the_partial_count)
{
	struct pgc_file *f = open_file(make_file("f", 2 * PAGE, 1), O_RDWR), *g = open_file(make_file("g", 4 * PAGE, 2), O_RDWR);
	uint8_t *m = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	ssize_t r;

	r = pgc_pread(g, m + PAGE, 2 * PAGE, 0);
	CHECK(r == -EFAULT || (r > 0 && r <= (ssize_t)PAGE));
	for (ssize_t i = 0; i < r; i++)
		CHECK_EQ(load(m + PAGE + i), pattern_byte((uint64_t)i, 2));
	PATTERN_CHECK(m, PAGE, 0, 1);
	pattern_fill(m, 2 * PAGE, 0, 3);
	r = pgc_pwrite(g, m, 3 * PAGE, 0);
	CHECK(r == -EFAULT || (r > 0 && r <= 2 * (ssize_t)PAGE));
	if (r > 0)
		expect(g, (size_t)r, 0, 3);
	expect(g, 2 * PAGE, 2 * PAGE, 2);
}

/* --- 16: fallocate --- */

SYSTEM_TEST(c16_fallocate_grows_the_file)
{
	char *path = make_file("f", 100, 1);
	struct pgc_file *f = open_file(path, O_RDWR);

	CHECK_EQ(pgc_fallocate(f, 0, 0, 10 * PAGE + 1), 0);
	CHECK_EQ(size_of(f), 10 * PAGE + 1);
	expect(f, 100, 0, 1);
	expect_zero(f, 10 * PAGE + 1 - 100, 100);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(store_size(path), 10 * PAGE + 1);
	CHECK_EQ(pgc_fallocate(f, 0, 0, 10), 0);
	CHECK_EQ(size_of(f), 10 * PAGE + 1);
}

SYSTEM_TEST(c16_keep_size_keeps_the_size)
{
	char *path = make_file("f", 100, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	struct stat st;

	CHECK_EQ(pgc_fallocate(f, FALLOC_FL_KEEP_SIZE, 0, 64 * PAGE), 0);
	CHECK_EQ(size_of(f), 100);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(stat(path, &st) == 0);
	CHECK_EQ(st.st_size, 100);
	CHECK(st.st_blocks >= (blkcnt_t)(64 * PAGE / 512));
	expect(f, 100, 0, 1);
}

static void punch(bool dirty)
{
	size_t size = 100 * PAGE;
	char *path = make_file("f", size, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, size, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	struct stat before, after;

	CHECK(stat(path, &before) == 0);
	if (dirty)
		pattern_fill(m, size, 0, 1);
	else
		PATTERN_CHECK(m, 30 * PAGE, 0, 1);
	/* Odd at both ends; whole pages between. */
	CHECK_EQ(pgc_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10 * PAGE + 5, 70 * PAGE), 0);
	CHECK_EQ(size_of(f), size);
	PATTERN_CHECK(m, 10 * PAGE + 5, 0, 1);
	ZERO_CHECK(m + 10 * PAGE + 5, 70 * PAGE);
	PATTERN_CHECK(m + 80 * PAGE + 5, 20 * PAGE - 5, 80 * PAGE + 5, 1);
	expect_zero(f, 70 * PAGE, 10 * PAGE + 5);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_is_zero(path, 70 * PAGE, 10 * PAGE + 5));
	CHECK(store_has(path, 10 * PAGE + 5, 0, 1));
	CHECK(store_has(path, 20 * PAGE - 5, 80 * PAGE + 5, 1));
	CHECK(stat(path, &after) == 0);
	CHECK(after.st_blocks < before.st_blocks);
	/* And it is a file like any other there afterwards. */
	store(m + 40 * PAGE, 5);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 40 * PAGE, 5));
}

SYSTEM_TEST(c16_punched_hole_is_zero_in_the_store_too)
{
	punch(false);
}

SYSTEM_TEST(c16_punched_hole_takes_dirty_pages_with_it)
{
	punch(true);
}

SYSTEM_TEST(c16_punch_past_the_end_changes_nothing)
{
	struct pgc_file *f = open_file(make_file("f", PAGE + 10, 1), O_RDWR);

	CHECK_EQ(pgc_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10 * PAGE, 10 * PAGE), 0);
	CHECK_EQ(size_of(f), PAGE + 10);
	expect(f, PAGE + 10, 0, 1);
}

SYSTEM_TEST(c16_zero_range_zeroes_where_the_store_can)
{
	char *path = make_file("f", 20 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 20 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	int other = open(make_file("other", PAGE, 1), O_RDWR | O_CLOEXEC), r = pgc_fallocate(f, FALLOC_FL_ZERO_RANGE, 3 * PAGE + 9, 5 * PAGE);

	if (fallocate(other, FALLOC_FL_ZERO_RANGE, 0, PAGE) != 0) {
		CHECK_EQ(r, -EOPNOTSUPP);
		PATTERN_CHECK(m, 20 * PAGE, 0, 1);
		return;
	}
	CHECK_EQ(r, 0);
	ZERO_CHECK(m + 3 * PAGE + 9, 5 * PAGE);
	PATTERN_CHECK(m, 3 * PAGE + 9, 0, 1);
	PATTERN_CHECK(m + 8 * PAGE + 9, 12 * PAGE - 9, 8 * PAGE + 9, 1);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_is_zero(path, 5 * PAGE, 3 * PAGE + 9));
	CHECK(store_has(path, 3 * PAGE + 9, 0, 1));
	CHECK_EQ(pgc_fallocate(f, FALLOC_FL_ZERO_RANGE, 19 * PAGE, 3 * PAGE), 0);
	CHECK_EQ(size_of(f), 22 * PAGE);
	CHECK_EQ(pgc_fallocate(f, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 21 * PAGE, 3 * PAGE), 0);
	CHECK_EQ(size_of(f), 22 * PAGE);
	expect_zero(f, 3 * PAGE, 19 * PAGE);
}

/* Up to where the kernel lets a file of this file system be written: found out with one that nobody serves. */
static uint64_t largest_file(void)
{
	int fd = open(make_file("plain", 0, 1), O_RDWR | O_CLOEXEC);
	uint64_t fits = 0, not = 1ull << 62;

	CHECK(fd >= 0);
	while (not - fits > 1) {
		uint64_t middle = fits + (not - fits) / 2;

		if (lseek(fd, (off_t)middle, SEEK_SET) >= 0)
			fits = middle;
		else
			not = middle;
	}
	if (not == 1ull << 62)
		skip_test("this file system takes files of any size");
	CHECK(pwrite(fd, "x", 1, (off_t)fits) < 0 && errno == EFBIG);
	CHECK(close(fd) == 0 && unlink(file_path("plain")) == 0);
	return fits;
}

/* At once, and not when it is written out: nobody might be told of that any more. */
SYSTEM_TEST(c17_a_write_beyond_what_the_file_system_takes_is_refused)
{
	uint64_t most = largest_file();
	char *path = make_file("f", PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	struct stat st;

	CHECK_EQ(pgc_pwrite(f, "x", 1, 1ll << 61), -EFBIG);
	CHECK_EQ(pgc_pwrite(f, "x", 1, (off_t)most), -EFBIG);
	CHECK_EQ(pgc_ftruncate(f, (off_t)most + 1), -EFBIG);
	CHECK_EQ(pgc_fallocate(f, 0, (off_t)most, 1), -EFBIG);
	CHECK_EQ(size_of(f), PAGE);
	CHECK_EQ(file_state("f").dirty, 0);
	CHECK_EQ(pgc_pwrite(f, "xyz", 3, (off_t)most - 3), 3);
	CHECK_EQ(pgc_append(f, "x", 1, NULL), -EFBIG);
	CHECK_EQ(size_of(f), most);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(stat(path, &st) == 0 && (uint64_t)st.st_size == most);
	CHECK(store_has_byte(path, most - 2, 'y'));
	CHECK_EQ(pgc_ftruncate(f, PAGE), 0);
	expect(f, PAGE, 0, 1);
}

SYSTEM_TEST(c16_bad_arguments_are_refused)
{
	struct pgc_file *f = open_file(make_file("f", PAGE, 1), O_RDWR);

	CHECK_EQ(pgc_fallocate(f, 0, 0, 0), -EINVAL);
	CHECK_EQ(pgc_fallocate(f, 0, -1, 10), -EINVAL);
	CHECK_EQ(pgc_fallocate(f, 0, 0, -1), -EINVAL);
	CHECK_EQ(pgc_fallocate(f, FALLOC_FL_PUNCH_HOLE, 0, PAGE), -EOPNOTSUPP);
	CHECK_EQ(pgc_fallocate(f, 1 << 20, 0, PAGE), -EOPNOTSUPP);
	CHECK_EQ(pgc_fallocate(f, 0, INT64_MAX, 10), -EFBIG);
	expect(f, PAGE, 0, 1);
}

SYSTEM_TESTS_MAIN("readwrite",
	cmocka_unit_test(c10_pwrite_is_visible_through_every_mapping_at_once),
	cmocka_unit_test(c10_store_is_visible_to_every_pread_before_and_after_munmap),
	cmocka_unit_test(c10_pread_and_pwrite_of_odd_ranges_agree),
	cmocka_unit_test(c10_transfers_larger_than_one_message_are_whole),
	cmocka_unit_test(c10_preadv_and_pwritev_gather_and_scatter),
	cmocka_unit_test(c10_access_mode_and_arguments_are_checked),
	cmocka_unit_test(c10_open_creates_and_truncates),
	cmocka_unit_test(c10_fdopen_takes_the_access_of_the_descriptor),
	cmocka_unit_test(c10_fstat_tells_of_the_cached_file),
	cmocka_unit_test(c11_pwrite_beyond_the_end_leaves_a_hole_of_zeros),
	cmocka_unit_test(c11_append_is_atomic_between_processes),
	cmocka_unit_test(c11_large_append_is_one_piece),
	cmocka_unit_test(c11_read_is_short_at_the_end_and_0_past_it),
	cmocka_unit_test(c12_stores_past_the_end_are_not_in_the_file),
	cmocka_unit_test(c12_growth_by_ftruncate_shows_zeros_there),
	cmocka_unit_test(c12_growth_by_ftruncate_after_fsync_shows_zeros_there),
	cmocka_unit_test(c12_growth_by_pwrite_shows_zeros_there),
	cmocka_unit_test(c12_growth_by_fallocate_shows_zeros_there),
	cmocka_unit_test(c12_growth_by_append_shows_zeros_up_to_it),
	cmocka_unit_test(c13_shrink_to_the_middle_of_a_page_zeroes_the_rest),
	cmocka_unit_test(c13_shrink_of_a_cold_file_keeps_the_first_part),
	cmocka_unit_test(c13_shrink_to_0_and_regrow_is_all_zeros_when_clean),
	cmocka_unit_test(c13_shrink_to_0_and_regrow_is_all_zeros_when_dirty),
	cmocka_unit_test(c13_shrink_while_a_fault_and_its_fill_are_under_way),
	cmocka_unit_test(c13_shrink_while_a_write_out_is_under_way),
	cmocka_unit_test(c13_shrinks_among_faults_and_write_outs_never_show_other_bytes),
	cmocka_unit_test(c14_reading_into_a_mapping_of_the_same_file),
	cmocka_unit_test(c14_writing_from_a_mapping_of_the_same_file),
	cmocka_unit_test(c14_system_call_buffer_in_a_shared_page_never_touched),
	cmocka_unit_test(c14_system_call_buffer_in_a_private_page_never_touched),
	cmocka_unit_test(c14_pread_and_pwrite_take_cold_buffers_of_another_file),
	cmocka_unit_test(c15_buffer_past_the_end_is_efault),
	cmocka_unit_test(c15_buffer_across_the_end_is_efault_or_the_partial_count),
	cmocka_unit_test(c16_fallocate_grows_the_file),
	cmocka_unit_test(c16_keep_size_keeps_the_size),
	cmocka_unit_test(c16_punched_hole_is_zero_in_the_store_too),
	cmocka_unit_test(c16_punched_hole_takes_dirty_pages_with_it),
	cmocka_unit_test(c16_punch_past_the_end_changes_nothing),
	cmocka_unit_test(c16_zero_range_zeroes_where_the_store_can),
	cmocka_unit_test(c16_bad_arguments_are_refused),
	cmocka_unit_test(c17_a_write_beyond_what_the_file_system_takes_is_refused))
