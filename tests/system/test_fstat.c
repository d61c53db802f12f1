/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fstat(2) of what a client has open, without a word to the daemon: it must say what the daemon would. After each way to change a file it is compared with the
 * answer to a request, in the process that made the change and in another one.
 */
#include "harness.h"

#include <linux/falloc.h>

#include "libclient/internal.h"

/* What the daemon says. */
static struct stat asked(struct pgc_file *f)
{
	struct pgc_msg m = { .type = PGC_MSG_STAT };
	const struct pgc_stat_reply *s = &m.stat_reply;

	CHECK_EQ(file_request(f, &m, NULL, 0), 0);
	return (struct stat){
		.st_dev = s->dev, .st_ino = s->ino, .st_mode = s->mode, .st_nlink = s->nlink, .st_uid = s->uid, .st_gid = s->gid, .st_rdev = s->rdev,
		.st_size = (off_t)s->size, .st_blksize = s->blksize, .st_blocks = (blkcnt_t)s->blocks, .st_atim = { s->atime_s, s->atime_ns },
		.st_mtim = { s->mtime_s, s->mtime_ns }, .st_ctim = { s->ctime_s, s->ctime_ns },
	};
}

/* What can be told without it. */
static bool known(struct pgc_file *f, struct stat *ret)
{
	struct stat_look look;

	memset(ret, 0, sizeof(*ret));
	return stat_look(f, &look) && fstat(f->buffered, ret) == 0 && stat_shown(f, &look, ret);
}

static bool is_known(struct pgc_file *f) { return known(f, &(struct stat){ 0 }); }

static bool same(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }
static bool before(struct timespec a, struct timespec b) { return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec); }

static bool equal(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_mode == b->st_mode && a->st_nlink == b->st_nlink && a->st_uid == b->st_uid &&
	       a->st_gid == b->st_gid && a->st_rdev == b->st_rdev && a->st_size == b->st_size && a->st_blksize == b->st_blksize && a->st_blocks == b->st_blocks &&
	       same(a->st_mtim, b->st_mtim) && same(a->st_ctim, b->st_ctim);
}

static void say(const char *what, const struct stat *st)
{
	fprintf(stderr, "%s: size %lld blocks %lld mtime %lld.%09ld ctime %lld.%09ld mode %o nlink %u\n", what, (long long)st->st_size, (long long)st->st_blocks,
		(long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, (long long)st->st_ctim.tv_sec, st->st_ctim.tv_nsec, (unsigned)st->st_mode, (unsigned)st->st_nlink);
}

static void must_be_equal(const char *when, const struct stat *a, const struct stat *b)
{
	if (equal(a, b))
		return;
	say("known", a);
	say("asked", b);
	FAIL("%s: what is known is not what the daemon says", when);
}

/* The handle has asked so often that it need not ask any more. */
static void learn(struct pgc_file *f)
{
	struct stat st;

	for (int i = 0; i < 10; i++)
		CHECK_EQ(pgc_fstat(f, &st), 0);
	WAIT_UNTIL(is_known(f) || (pgc_fstat(f, &st) == 0 && is_known(f))); /* where daemons die, or others write, not at once */
}

static struct pgc_file *open_known(const char *path, int flags)
{
	struct pgc_file *f = open_file(path, flags);

	learn(f);
	return f;
}

/*
 * Two answers that are the same have nothing between them that shows, whatever is written out meanwhile, but for a page that was stored to in the tick of the clock that
 * the file has for its mtime, and then written out: that shows in the blocks for a while. Whether there were such answers, and what is known could be compared.
 */
static bool compared(struct pgc_file *f, const char *when)
{
	struct stat first, is, last;
	struct timespec tick;
	bool was_known;

	clock_gettime(CLOCK_REALTIME_COARSE, &tick);
	first = asked(f);
	was_known = known(f, &is);
	if (!was_known)
		CHECK_EQ(pgc_fstat(f, &is), 0); /* so often it gets to know, also where daemons die */
	last = asked(f);
	if (!was_known || !equal(&first, &last))
		return false;
	if (!before(first.st_mtim, tick))
		is.st_blocks = first.st_blocks;
	must_be_equal(when, &is, &first);
	return true;
}

/* Of a file that no client changes just now: at once, and when nobody need be asked. */
static void agree(struct pgc_file *f, const char *when)
{
	struct stat is, said;

	CHECK_EQ(pgc_fstat(f, &is), 0);
	said = asked(f);
	if (!env.options->dirty_expire)
		must_be_equal(when, &is, &said);
	WAIT_UNTIL(compared(f, when));
}

/* --- every way to change a file --- */

#define FILE_PAGES 200

struct changed {
	const char *path;
	struct pgc_file *f;
	uint8_t *map;
};

static char buf[40 * PAGE];

static void write_part(struct changed *c) { CHECK_EQ(pgc_pwrite(c->f, "abc", 3, 7), 3); }
static void write_much(struct changed *c) { CHECK_EQ(pgc_pwrite(c->f, buf, sizeof(buf), 13 * PAGE + 5), sizeof(buf)); }
static void write_past_the_end(struct changed *c) { CHECK_EQ(pgc_pwrite(c->f, buf, 3 * PAGE, FILE_PAGES * PAGE + 9), 3 * PAGE); }
static void append(struct changed *c) { CHECK_EQ(pgc_append(c->f, "abc", 3, NULL), 3); }
static void cut(struct changed *c) { CHECK_EQ(pgc_ftruncate(c->f, 150 * PAGE + 77), 0); }
static void lengthen(struct changed *c) { CHECK_EQ(pgc_ftruncate(c->f, 190 * PAGE), 0); }
static void allocate(struct changed *c) { CHECK_EQ(pgc_fallocate(c->f, 0, 195 * PAGE, 20 * PAGE), 0); }
static void allocate_behind(struct changed *c) { CHECK_EQ(pgc_fallocate(c->f, FALLOC_FL_KEEP_SIZE, 300 * PAGE, 20 * PAGE), 0); }
static void punch(struct changed *c) { CHECK_EQ(pgc_fallocate(c->f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE + 9, 80 * PAGE), 0); }
static void zero(struct changed *c) { CHECK_EQ(pgc_fallocate(c->f, FALLOC_FL_ZERO_RANGE, 90 * PAGE, 7 * PAGE), 0); }
static void store_once(struct changed *c) { store(c->map + 100 * PAGE, 1); }
static void store_more(struct changed *c)
{
	for (unsigned i = 20; i < 60; i++)
		store(c->map + i * PAGE, 1);
}
static void store_populated(struct changed *c)
{
	uint8_t *m = map(c->f, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, 110 * PAGE);

	store(m, 1);
	CHECK_EQ(munmap(m, 8 * PAGE), 0);
}
static void sync_it(struct changed *c) { CHECK_EQ(pgc_fsync(c->f), 0); }
static void sync_msync(struct changed *c) { CHECK_EQ(pgc_msync(c->map + 20 * PAGE, 30 * PAGE, MS_SYNC), 0); }
static void write_out(struct changed *c) { CHECK_EQ(file_write_out(c->f, 0, 0, true), 0); }
static void keep_on(struct changed *c) { CHECK_EQ(pgc_keep(c->f, 0, 3 * PAGE, true), 0); }
static void keep_off(struct changed *c) { CHECK_EQ(pgc_keep(c->f, 0, 3 * PAGE, false), 0); }
static void set_mtime(struct changed *c)
{
	CHECK_EQ(utimensat(AT_FDCWD, c->path, (struct timespec[]){ { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1000000 } }, 0), 0);
}
static void set_mode(struct changed *c) { CHECK_EQ(chmod(c->path, 0600), 0); }
static void set_link(struct changed *c) { CHECK_EQ(link(c->path, file_path("other")), 0); }
static void take_link(struct changed *c) { CHECK_EQ(unlink(file_path("other")), 0); }
static void write_past_the_cache(struct changed *c) { store_write(c->path, "xyz", 3, 170 * PAGE); }
static void nothing(struct changed *c) { }

static const struct { void (*change)(struct changed *c); const char *name; } ways[] = {
	{ nothing, "open" }, { write_part, "write" }, { sync_it, "fsync" }, { write_much, "long write" }, { write_out, "write-out" }, { store_once, "store" },
	{ store_more, "stores" }, { sync_msync, "msync" }, { append, "append" }, { sync_it, "fsync after append" }, { write_past_the_end, "write past the end" },
	{ cut, "cut" }, { store_once, "store after a cut" }, { lengthen, "lengthen" }, { sync_it, "fsync after lengthen" }, { allocate, "fallocate" },
	{ allocate_behind, "fallocate behind the end" }, { punch, "punch" }, { store_more, "stores into a hole" }, { sync_it, "fsync of a hole" }, { zero, "zero" },
	{ store_populated, "store to what was populated" }, { keep_on, "keep" }, { sync_it, "fsync of kept" }, { keep_off, "keep no more" }, { sync_it, "fsync then" },
	{ set_mode, "chmod" }, { write_part, "write after chmod" }, { set_link, "link" }, { sync_it, "fsync after link" }, { take_link, "unlink of one name" },
	{ set_mtime, "utimensat" }, { write_part, "write after utimensat" }, { sync_it, "fsync after that" }, { set_mtime, "utimensat of clean" },
	{ store_once, "store after utimensat" }, { write_out, "write-out after that" }, { write_past_the_cache, "write past the cache" }, { write_part, "write after that" },
	{ sync_it, "last fsync" },
};

static void change_in_turn(struct changed *c, struct peer *other)
{
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		file_clock_tick();
		ways[i].change(c);
		agree(c->f, ways[i].name);
		if (other)
			peer_ask(other, i + 1);
	}
}

static void watch(struct peer *p, void *arg)
{
	struct pgc_file *f;
	uint64_t i;

	peer_hear(p);
	f = open_known(file_path("f"), O_RDONLY);
	peer_tell(p, 0);
	while ((i = peer_hear(p)) > 0) {
		agree(f, ways[i - 1].name);
		peer_tell(p, i);
	}
}

static void change_everything(void)
{
	struct peer *other = peer_start(watch, NULL);
	struct changed c = { .path = make_file("f", FILE_PAGES * PAGE, 1) };

	memset(buf, 1, sizeof(buf));
	c.f = open_known(c.path, O_RDWR);
	c.map = map(c.f, FILE_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	peer_ask(other, 1);
	change_in_turn(&c, other);
	peer_tell(other, 0);
	peer_join(other);
}

SYSTEM_TEST(after_each_change_it_is_what_the_daemon_says, .tracking = "sync") { change_everything(); }
SYSTEM_TEST(so_it_is_where_much_is_written_out_in_the_background, .tracking = "sync", .dirty_expire = "10ms", .seconds = 120) { change_everything(); }

SYSTEM_TEST(a_handle_that_may_only_write_knows_as_well)
{
	struct pgc_file *f = open_known(make_file("f", 3 * PAGE, 1), O_WRONLY);

	CHECK_EQ(pgc_pwrite(f, "abc", 3, 5 * PAGE), 3);
	agree(f, "write");
}

/* Looks at a byte all the time, and at the file as soon as that is another. */
static void see_bytes(struct peer *p, void *arg)
{
	struct pgc_file *f;
	const uint8_t *m;
	struct stat was, is;
	uint64_t value;

	peer_hear(p);
	f = open_known(file_path("f"), O_RDONLY);
	m = map(f, PAGE, PROT_READ, MAP_SHARED, 0);
	(void)load(m);
	CHECK_EQ(pgc_fstat(f, &was), 0);
	peer_tell(p, 0);
	while ((value = peer_hear(p)) > 0) {
		while (*(volatile const uint8_t *)m != (uint8_t)value)
			;
		CHECK_EQ(pgc_fstat(f, &is), 0);
		CHECK(before(was.st_mtim, is.st_mtim));
		was = is;
		peer_tell(p, 0);
	}
}

SYSTEM_TEST(who_sees_the_bytes_of_a_write_sees_its_time)
{
	struct peer *p = peer_start(see_bytes, NULL);
	struct pgc_file *f;

	make_file("f", PAGE, 1);
	f = open_file(file_path("f"), O_RDWR);
	peer_ask(p, 1);
	for (unsigned i = 0; i < 150; i++) {
		uint8_t value = (uint8_t)(i % 200 + 20);

		file_clock_tick();
		peer_tell(p, value);
		CHECK_EQ(pgc_pwrite(f, &value, 1, 0), 1);
		peer_hear(p);
	}
	peer_tell(p, 0);
	peer_join(p);
}

/* --- when the daemon is asked, and when not --- */

SYSTEM_TEST(nobody_is_asked, .no_kills = "it stops the daemon")
{
	struct pgc_file *f = open_known(make_file("f", 3 * PAGE, 1), O_RDWR);
	struct stat st;
	pid_t daemon;

	file_clock_tick();
	CHECK_EQ(pgc_pwrite(f, "abc", 3, 3 * PAGE), 3);
	WAIT_UNTIL(is_known(f));
	daemon = daemon_pid();
	stop_process(daemon);
	for (int i = 0; i < 1000; i++)
		CHECK_EQ(pgc_fstat(f, &st), 0);
	CHECK_EQ(st.st_size, 3 * PAGE + 3);
	CHECK_EQ(kill(daemon, SIGCONT), 0);
	agree(f, "afterwards");
}

SYSTEM_TEST(what_is_no_file_of_the_kernels_is_asked_for, .no_kills = STORE_DIES)
{
	struct pgc_file *f = open_mem("mem:m", 4 * PAGE, 1);
	struct stat st;

	for (int i = 0; i < 20; i++)
		CHECK_EQ(pgc_fstat(f, &st), 0);
	CHECK(!is_known(f));
	CHECK_EQ(pgc_pwrite(f, "abc", 3, 4 * PAGE), 3);
	CHECK_EQ(pgc_fstat(f, &st), 0);
	CHECK_EQ(st.st_size, 4 * PAGE + 3);
}

SYSTEM_TEST(a_file_without_a_name_is_known)
{
	char *path = make_file("f", 3 * PAGE, 1);
	struct pgc_file *f = open_known(path, O_RDWR);
	struct stat st;

	CHECK_EQ(unlink(path), 0);
	CHECK_EQ(pgc_pwrite(f, "abc", 3, 3 * PAGE), 3);
	agree(f, "write");
	CHECK_EQ(pgc_fstat(f, &st), 0);
	CHECK_EQ(st.st_nlink, 0);
	CHECK_EQ(st.st_size, 3 * PAGE + 3);
}

SYSTEM_TEST(of_a_dead_daemon_nothing_is_known, .keep = true, .tracking = "sync")
{
	char *path = make_file("f", 20 * PAGE, 1);
	struct pgc_file *f = open_known(path, O_RDWR);
	uint8_t *m = map(f, 20 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	struct stat was, is;
	pid_t died;

	store(m, 1);
	CHECK_EQ(pgc_append(f, "abc", 3, NULL), 3);
	CHECK_EQ(pgc_fstat(f, &was), 0);
	for (int i = 0; i < 5; i++) {
		died = daemon_pid();
		daemon_kill();
		WAIT_UNTIL(kill(died, 0) < 0);
		CHECK(!is_known(f));
		CHECK_EQ(pgc_fstat(f, &is), 0);
		must_be_equal("after a death", &is, &was);
		CHECK(!is_known(f)); /* the next daemon's life page is not there yet */
		learn(f);
		agree(f, "with the next daemon");
		file_clock_tick();
		store(m + (i + 1) * PAGE, 1);
		CHECK_EQ(pgc_append(f, "abc", 3, NULL), 3);
		agree(f, "after a change");
		CHECK_EQ(pgc_fstat(f, &was), 0);
		CHECK_EQ(was.st_size, 20 * PAGE + (size_t)(i + 2) * 3);
	}
}

SYSTEM_TEST(a_client_that_comes_back_by_itself_knows_nothing_of_the_daemon_before, .no_kills = "it has no keeper")
{
	char *path = make_file("f", 20 * PAGE, 1);
	struct pgc_file *f = open_known(path, O_RDWR);
	struct stat is;

	CHECK_EQ(pgc_append(f, "abc", 3, NULL), 3);
	CHECK(is_known(f));
	CHECK_EQ(kill(env.daemon, SIGKILL), 0);
	CHECK_EQ(waitpid(env.daemon, NULL, 0), env.daemon);
	env.daemon = 0;
	CHECK(!is_known(f));
	daemon_start();
	CHECK_EQ(pgc_fstat(f, &is), 0);
	CHECK_EQ(is.st_size, 20 * PAGE + 3);
	learn(f);
	agree(f, "with the next daemon");
	CHECK_EQ(pgc_append(f, "abc", 3, NULL), 3);
	agree(f, "after a change");
}

SYSTEM_TEST(a_forked_child_asks_first)
{
	struct pgc_file *f = open_known(make_file("f", 3 * PAGE, 1), O_RDWR);
	struct stat st;
	pid_t child = fork();

	if (child == 0) {
		CHECK(!is_known(f));
		CHECK_EQ(pgc_append(f, "abc", 3, NULL), 3);
		CHECK_EQ(pgc_fstat(f, &st), 0);
		CHECK_EQ(st.st_size, 3 * PAGE + 3);
		learn(f);
		agree(f, "in the child");
		_exit(0);
	}
	expect_exit_0(child);
	agree(f, "in the parent");
	CHECK_EQ(pgc_fstat(f, &st), 0);
	CHECK_EQ(st.st_size, 3 * PAGE + 3);
}

/* Whoever has a control page of a file that the cache has let go finds nothing in it. */
SYSTEM_TEST(what_the_cache_has_let_go_is_not_shown, .config = "retain = mapped\n")
{
	char *path = make_file("f", 3 * PAGE, 1);
	struct pgc_file *f = open_known(path, O_RDWR);
	const struct pgc_control_page *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	/* As one that outlives the handle. */
	CHECK(mremap((void *)f->control, 0, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)page) == page);
	CHECK_EQ(page->stat_seq % 2, 0);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(count_files() == 0);
	CHECK_EQ(page->stat_seq % 2, 1);
}

/* --- many at once --- */

#define CLIENTS 3
#define ROUNDS  400

struct shared { pthread_mutex_t lock; uint64_t ready; };

static void init_shared(struct shared *s)
{
	pthread_mutexattr_t a;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&s->lock, &a);
}

static void random_change(struct pgc_file *f, uint8_t *m, unsigned *seed)
{
	uint64_t page = (unsigned)rand_r(seed) % 64;

	switch (rand_r(seed) % 8) {
	case 0:
	case 1:
		CHECK_EQ(pgc_pwrite(f, buf, 100 + page * 50, (off_t)(page * PAGE)), (ssize_t)(100 + page * 50));
		break;
	case 2:
		CHECK(pgc_append(f, buf, page * 100 + 1, NULL) > 0);
		break;
	case 3:
		CHECK_EQ(pgc_ftruncate(f, (off_t)(64 * PAGE + page * 1000)), 0);
		break;
	case 4:
	case 5:
		store(m + page * PAGE, 1);
		break;
	case 6:
		CHECK_EQ(pgc_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(page * PAGE), 3000), 0);
		break;
	case 7:
		CHECK_EQ(page % 2 ? pgc_fsync(f) : pgc_fdatasync(f), 0);
		break;
	}
}

static void must_not_go_back(const struct stat *was, const struct stat *is)
{
	if (!before(is->st_mtim, was->st_mtim) && !before(is->st_ctim, was->st_ctim))
		return;
	say("was", was);
	say("is", is);
	FAIL("a time went back");
}

/* One client at a time changes something, and all compare. Besides, who looks without a turn never sees time go back. */
static void one_of_many(struct peer *p, void *arg)
{
	struct shared *s = arg;
	unsigned seed = (unsigned)getpid();
	struct stat is = { 0 }, was;
	struct timespec from;
	struct pgc_file *f;
	uint8_t *m;

	peer_hear(p);
	f = open_known(file_path("f"), O_RDWR);
	m = map(f, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		was = is;
		CHECK_EQ(pgc_fstat(f, &is), 0);
		must_not_go_back(&was, &is);
		if (i % 4) {
			clock_gettime(CLOCK_REALTIME_COARSE, &from);
			CHECK_EQ(pgc_pwrite(f, buf, 50, (off_t)(i % 64 * PAGE)), 50);
			CHECK_EQ(pgc_fstat(f, &is), 0);
			CHECK(!before(is.st_mtim, from) && !before(is.st_ctim, from) && is.st_size >= 64 * (off_t)PAGE);
			continue;
		}
		pthread_mutex_lock(&s->lock);
		random_change(f, m, &seed);
		(void)compared(f, "in a turn");
		pthread_mutex_unlock(&s->lock);
	}
	peer_tell(p, 0);
}

static void many_clients(void)
{
	struct shared *s = shared_memory(sizeof(*s));
	struct peer *peers[CLIENTS];

	init_shared(s);
	memset(buf, 1, sizeof(buf));
	for (unsigned i = 0; i < CLIENTS; i++)
		peers[i] = peer_start(one_of_many, s);
	make_file("f", 64 * PAGE, 1);
	for (unsigned i = 0; i < CLIENTS; i++)
		peer_tell(peers[i], 0);
	for (unsigned i = 0; i < CLIENTS; i++) {
		peer_hear(peers[i]);
		peer_join(peers[i]);
	}
}

SYSTEM_TEST(of_what_many_change_at_once_it_is_what_the_daemon_says, .seconds = 120) { many_clients(); }
SYSTEM_TEST(so_it_is_with_write_outs_all_the_time, .dirty_expire = "10ms", .seconds = 120) { many_clients(); }

SYSTEM_TESTS_MAIN("fstat",
	cmocka_unit_test(after_each_change_it_is_what_the_daemon_says),
	cmocka_unit_test(so_it_is_where_much_is_written_out_in_the_background),
	cmocka_unit_test(a_handle_that_may_only_write_knows_as_well),
	cmocka_unit_test(who_sees_the_bytes_of_a_write_sees_its_time),
	cmocka_unit_test(nobody_is_asked),
	cmocka_unit_test(what_is_no_file_of_the_kernels_is_asked_for),
	cmocka_unit_test(a_file_without_a_name_is_known),
	cmocka_unit_test(of_a_dead_daemon_nothing_is_known),
	cmocka_unit_test(a_client_that_comes_back_by_itself_knows_nothing_of_the_daemon_before),
	cmocka_unit_test(a_forked_child_asks_first),
	cmocka_unit_test(what_the_cache_has_let_go_is_not_shown),
	cmocka_unit_test(of_what_many_change_at_once_it_is_what_the_daemon_says),
	cmocka_unit_test(so_it_is_with_write_outs_all_the_time))
