/* SPDX-License-Identifier: Apache-2.0 */
/* Stores that are tracked without faults: all are found, whatever takes the pages out of the page tables, and nothing else is written. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "raw.h"

#define MIB (1024 * 1024ul)
#define ASYNC .tracking = "async"
#define RW (PROT_READ | PROT_WRITE)

/* All pages mapped, none stored to. */
static uint8_t *mapped_clean(struct pgc_file *f, unsigned pages)
{
	uint8_t *m = map(f, pages * PAGE, RW, MAP_SHARED, 0);

	for (unsigned i = 0; i < pages; i++)
		CHECK_EQ(load(m + i * PAGE), pattern_byte(i * PAGE, 1));
	CHECK_EQ(look_for_stores(), 0);
	return m;
}

static void store_to_each(uint8_t *m, unsigned pages, unsigned step, uint8_t value)
{
	for (unsigned i = 0; i < pages; i += step)
		store(m + i * PAGE + 9, (uint8_t)(value + i));
}

static void expect_stored(const char *path, unsigned pages, unsigned step, uint8_t value)
{
	for (unsigned i = 0; i < pages; i++)
		CHECK(store_has_byte(path, i * PAGE + 9, i % step == 0 ? (uint8_t)(value + i) : pattern_byte(i * PAGE + 9, 1)));
}

SYSTEM_TEST(a_store_to_a_clean_page_is_no_fault_and_is_found, ASYNC)
{
	char *path = make_file("f", 200 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = mapped_clean(f, 200);
	uint64_t faults = status().faults;
	json_object *j;

	store_to_each(m, 200, 3, 1);
	CHECK_EQ(status().faults, faults);
	CHECK_EQ(look_for_stores(), 67);
	CHECK_EQ(file_state(path).dirty, 67);
	j = CTL_JSON("--json", "sync", "--scan-only", path);
	CHECK_EQ(json_int(j, "pages"), 67);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(file_state(path).dirty, 0);
	expect_stored(path, 200, 3, 1);
	/* Protected again: the next ones are found, too, and only those are written. */
	store(m + 5 * PAGE + 9, 0x77);
	CHECK_EQ(look_for_stores(), 1);
	CHECK_EQ(pgc_msync(m, 200 * PAGE, MS_SYNC), 0);
	CHECK(store_has_byte(path, 5 * PAGE + 9, 0x77));
	CHECK_EQ(status().faults, faults);
}

SYSTEM_TEST(sync_tracking_has_a_fault_at_each_first_store, .tracking = "sync")
{
	struct pgc_file *f = open_file(make_file("f", 50 * PAGE, 1), O_RDWR);
	uint8_t *m = mapped_clean(f, 50);
	uint64_t faults = status().faults;

	store_to_each(m, 50, 7, 1);
	CHECK_EQ(status().faults, faults + 8);
}

SYSTEM_TEST(a_timer_finds_stores_and_has_them_written, ASYNC, .dirty_expire = "100ms")
{
	char *path = make_file("f", 64 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = mapped_clean(f, 64);

	(void)f;
	store_to_each(m, 64, 5, 3);
	WAIT_UNTIL(store_has_byte(path, 60 * PAGE + 9, 63));
	expect_stored(path, 64, 5, 3);
}

SYSTEM_TEST(the_mtime_moves_with_a_store, ASYNC)
{
	struct pgc_file *f = open_file(make_file("f", 8 * PAGE, 1), O_RDWR);
	uint8_t *m = mapped_clean(f, 8);
	struct stat before, after;

	CHECK_EQ(pgc_fstat(f, &before), 0);
	usleep(20000);
	store(m + PAGE, 1);
	CHECK_EQ(pgc_fstat(f, &after), 0);
	CHECK(after.st_mtim.tv_sec > before.st_mtim.tv_sec || after.st_mtim.tv_nsec > before.st_mtim.tv_nsec);
}

#define MANY 150u

SYSTEM_TEST(many_handles_of_one_file_are_told_apart, ASYNC)
{
	char *path = make_file("f", MANY * PAGE, 1);
	struct pgc_file *f[MANY];
	uint8_t *m[MANY];

	for (unsigned i = 0; i < MANY; i++) {
		f[i] = open_file(path, O_RDWR);
		m[i] = map(f[i], MANY * PAGE, RW, MAP_SHARED, 0);
		CHECK_EQ(load(m[i] + i * PAGE), pattern_byte(i * PAGE, 1));
	}
	CHECK_EQ(look_for_stores(), 0);
	/* New ones where others have been. */
	for (unsigned i = 0; i < MANY; i += 3) {
		CHECK_EQ(pgc_munmap(m[i], MANY * PAGE), 0);
		CHECK_EQ(pgc_close(f[i]), 0);
		f[i] = open_file(path, O_RDWR);
		m[i] = map(f[i], MANY * PAGE, RW, MAP_SHARED, 0);
		CHECK_EQ(load(m[i] + i * PAGE), pattern_byte(i * PAGE, 1));
	}
	for (unsigned i = 0; i < MANY; i++)
		store(m[i] + i * PAGE + 9, (uint8_t)(1 + i));
	CHECK_EQ(look_for_stores(), MANY);
	CHECK_EQ(pgc_fsync(f[0]), 0);
	expect_stored(path, MANY, 1, 1);
}

/* --- what takes pages out of the page tables --- */

SYSTEM_TEST(stores_before_dontneed_are_found, ASYNC)
{
	char *path = make_file("f", 100 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = mapped_clean(f, 100);

	store_to_each(m, 100, 4, 1);
	CHECK(madvise(m, 100 * PAGE, MADV_DONTNEED) == 0);
	CHECK_EQ(look_for_stores(), 25);
	CHECK_EQ(pgc_fsync(f), 0);
	expect_stored(path, 100, 4, 1);
	/* Mapped anew before anybody looks. */
	store_to_each(m, 100, 4, 50);
	CHECK(madvise(m, 100 * PAGE, MADV_DONTNEED) == 0);
	for (unsigned i = 0; i < 100; i += 4)
		CHECK_EQ(load(m + i * PAGE + 9), (uint8_t)(50 + i));
	CHECK_EQ(pgc_fsync(f), 0);
	expect_stored(path, 100, 4, 50);
}

SYSTEM_TEST(pgc_munmap_writes_what_was_stored_and_no_more, ASYNC)
{
	char *path = make_file("f", 100 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = mapped_clean(f, 100);
	uint64_t written = status().writeout_bytes;

	store_to_each(m, 100, 10, 1);
	CHECK_EQ(pgc_munmap(m, 100 * PAGE), 0);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(status().writeout_bytes - written, 10 * PAGE);
	expect_stored(path, 100, 10, 1);
}

SYSTEM_TEST(a_plain_munmap_loses_nothing, ASYNC)
{
	char *path = make_file("f", 100 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = mapped_clean(f, 100);

	store_to_each(m, 100, 10, 1);
	CHECK(munmap(m, 50 * PAGE) == 0);
	CHECK(munmap(m + 50 * PAGE, 50 * PAGE) == 0);
	CHECK_EQ(pgc_fsync(f), 0);
	expect_stored(path, 100, 10, 1);
}

SYSTEM_TEST(a_moved_mapping_loses_nothing, ASYNC)
{
	char *path = make_file("f", 64 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = mapped_clean(f, 64), *q;

	store_to_each(m, 64, 4, 1);
	q = mremap(m, 64 * PAGE, 200 * PAGE, MREMAP_MAYMOVE);
	CHECK(q != MAP_FAILED);
	store(q + 2 * PAGE + 9, 0x55);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 2 * PAGE + 9, 0x55));
	CHECK(store_has_byte(path, 60 * PAGE + 9, 61));
	store(q + 3 * PAGE + 9, 0x66);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 3 * PAGE + 9, 0x66));
}

static void stores_and(struct peer *p, void *arg)
{
	struct pgc_file *f = open_file("f", O_RDWR);
	uint8_t *m = mapped_clean(f, 100);

	store_to_each(m, 100, 10, 1);
	peer_tell(p, 1);
	peer_hear(p);
	exit(0);
}

SYSTEM_TEST(a_killed_client_loses_nothing, ASYNC)
{
	struct peer *p;

	make_file("f", 100 * PAGE, 1);
	p = peer_start(stores_and, NULL);
	peer_hear(p);
	peer_kill(p);
	WAIT_UNTIL(file_state("f").handles == 0);
	CHECK_EQ(sync_all(), 0);
	expect_stored("f", 100, 10, 1);
}

SYSTEM_TEST(an_exit_writes_what_was_stored_and_no_more, ASYNC)
{
	uint64_t written = status().writeout_bytes;
	struct peer *p;

	make_file("f", 100 * PAGE, 1);
	p = peer_start(stores_and, NULL);
	peer_hear(p);
	peer_tell(p, 1);
	peer_join(p);
	WAIT_UNTIL(file_state("f").handles == 0);
	CHECK_EQ(sync_all(), 0);
	expect_stored("f", 100, 10, 1);
	CHECK_EQ(status().writeout_bytes - written, 10 * PAGE);
}

SYSTEM_TEST(a_forked_childs_stores_are_found, ASYNC)
{
	char *path = make_file("f", 40 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = mapped_clean(f, 40);
	pid_t pid;

	store(m + 9, 1);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK_EQ(load(m + 9), 1);
		CHECK_EQ(load(m + PAGE), pattern_byte(PAGE, 1));
		store(m + PAGE + 9, 2);
		_exit(0);
	}
	expect_exit_0(pid);
	CHECK_EQ(load(m + PAGE + 9), 2);
	store(m + 2 * PAGE + 9, 3);
	CHECK_EQ(pgc_fsync(f), 0);
	for (unsigned i = 0; i < 3; i++)
		CHECK(store_has_byte(path, i * PAGE + 9, (uint8_t)(i + 1)));
}

/* One whose library has seen no fork gets a signal, and no zeros: nobody serves it. */
SYSTEM_TEST(a_child_of_a_bare_clone_sees_no_zeros, ASYNC)
{
	make_file("f", 40 * PAGE, 1);
	struct pgc_file *f = open_file(file_path("f"), O_RDWR);
	uint8_t *shared = map(f, 40 * PAGE, RW, MAP_SHARED, 0), *private = map(f, 40 * PAGE, RW, MAP_PRIVATE, 0), byte;
	pid_t pid;

	store(private + 9, 1);
	for (int i = 0; i < 2; i++) { /* also after a fork that let the private mapping through */
		pid = (pid_t)unseen_call(SYS_clone, SIGCHLD, NULL, 0);
		CHECK(pid >= 0);
		if (pid == 0) {
			CHECK_EQ(load_signal(shared + 7 * PAGE, &byte), SIGSEGV);
			CHECK_EQ(load_signal(private + 7 * PAGE, &byte), SIGSEGV);
			_exit(0);
		}
		expect_exit_0(pid);
		pid = fork();
		CHECK(pid >= 0);
		if (pid == 0) {
			CHECK_EQ(load(private + 9), 1);
			CHECK_EQ(load(private + (5 + i) * PAGE), pattern_byte((5 + i) * PAGE, 1));
			store(private + 9, 2);
			_exit(0);
		}
		expect_exit_0(pid);
		CHECK_EQ(load(private + 9), 1);
	}
}

/* --- reclaim --- */

#define SHARED_PAGES 4096u             /* four times the memory */

struct counters { _Atomic uint32_t stop, value[SHARED_PAGES]; };
struct storing { struct counters *c; unsigned seed, of; };

/* Each page is stored to by one process alone: its number, which grows. */
static void keeps_storing(struct peer *p, void *arg)
{
	struct storing *s = arg;
	struct pgc_file *f = open_file("f", O_RDWR);
	uint8_t *m = map(f, SHARED_PAGES * PAGE, RW, MAP_SHARED, 0);
	unsigned x = s->seed * 7919 + 1;

	peer_tell(p, 1);
	while (!s->c->stop) {
		unsigned page;
		uint32_t *at, now;

		x = x * 1103515245 + 12345;
		/* Some pages much more often than others: they are stored to while they go. */
		page = (x >> 8) % (x & 64 ? SHARED_PAGES : 128) / 4 * 4 + s->of;
		at = (uint32_t *)(m + page * PAGE + 64);
		now = s->c->value[page];
		if (*(volatile uint32_t *)at != now)
			FAIL("page %u has %u, not %u", page, *at, now);
		s->c->value[page] = now + 1;
		*(volatile uint32_t *)at = now + 1;
	}
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(pgc_close(f), 0);
}

SYSTEM_TEST(reclaim_loses_no_store, ASYNC, .memory_max = "4M", .workers = 1, .seconds = 120)
{
	struct counters *c = shared_memory(sizeof(*c));
	struct storing s[4];
	struct peer *p[4];
	char *zeros = calloc(SHARED_PAGES, PAGE);

	CHECK(zeros);
	make_file("f", 1, 1);
	store_write("f", zeros, SHARED_PAGES * PAGE, 0);
	free(zeros);
	for (unsigned i = 0; i < 4; i++) {
		s[i] = (struct storing){ c, i, i };
		p[i] = peer_start(keeps_storing, &s[i]);
	}
	for (unsigned i = 0; i < 4; i++)
		peer_hear(p[i]);
	for (unsigned i = 0; i < 20; i++) {
		usleep(200000);
		drop_clean(); /* what is clean goes at once, in the middle of stores */
	}
	c->stop = 1;
	for (unsigned i = 0; i < 4; i++)
		peer_join(p[i]);
	CHECK_EQ(sync_all(), 0);
	for (unsigned i = 0; i < SHARED_PAGES; i++) {
		uint32_t v;

		store_read("f", &v, sizeof(v), i * PAGE + 64);
		CHECK_EQ(v, c->value[i]);
	}
}

static struct pgc_ctl_memory_reply memory_state(void)
{
	struct pgc_msg m = { .type = PGC_CTL_MEMORY };

	control_request(&m);
	CHECK_EQ(m.status, 0);
	return m.ctl_memory_reply;
}

SYSTEM_TEST(who_has_too_much_dirty_loses_what_it_can_store_to_unseen, ASYNC, .memory_max = "64M", .config = "dirty_background = 1M\ndirty_max = 4M")
{
	static const unsigned pages = 8192;
	struct pgc_file *f = open_mem("mem:slow", pages * PAGE, 1);
	uint8_t *m = map(f, pages * PAGE, RW, MAP_SHARED, 0);
	struct pgc_ctl_memory_reply before;

	for (unsigned i = 0; i < pages; i++)
		CHECK_EQ(load(m + i * PAGE), pattern_byte(i * PAGE, 1));
	inject("mem:slow", PGC_INJECT_WRITE_DELAY, 20000, 0);
	before = memory_state();
	for (unsigned i = 0; i < pages; i++)
		store(m + i * PAGE + 9, 5);
	/* The timer looks, and takes the pages away: so the next stores are faults, and wait. */
	WAIT_UNTIL((store(m + 9, 6), store(m + 99 * PAGE, 6), memory_state().throttled > before.throttled || status().dirty < pages / 2));
	inject("mem:slow", PGC_INJECT_WRITE_DELAY, 0, 0);
	CHECK_EQ(pgc_fsync(f), 0);
	for (unsigned i = 1; i < pages; i++)
		CHECK_EQ(load(m + i * PAGE + 9), 5);
}

/* --- the daemon's end --- */

static void *stores_all_the_time(void *arg)
{
	uint8_t *m = arg;

	for (uint32_t n = 1;; n++) {
		*(volatile uint32_t *)(m + (n % 64) * PAGE + 128) = n;
		__atomic_store_n((uint32_t *)(m + 64 * PAGE), n, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void stores_until_it_is_killed(struct peer *p, void *arg)
{
	struct pgc_file *f = open_file("f", O_RDWR);

	stores_all_the_time(mapped_clean(f, 65));
}

/* Those that the kernel took are in the store, and no later one was taken. */
SYSTEM_TEST(a_full_stop_writes_all_stores, ASYNC)
{
	struct peer *p;
	uint32_t last, v[64], most = 0;

	make_file("f", 65 * PAGE, 1);
	p = peer_start(stores_until_it_is_killed, NULL);
	WAIT_UNTIL(status().dirty > 0);
	daemon_stop();
	store_read("f", &last, sizeof(last), 64 * PAGE);
	for (unsigned i = 0; i < 64; i++) {
		store_read("f", &v[i], sizeof(v[i]), i * PAGE + 128);
		most = v[i] > most ? v[i] : most;
	}
	CHECK(most == last || most == last + 1);
	for (unsigned i = 0; i < 64; i++)
		CHECK(most - v[i] < 64);
	peer_kill(p);
}

static void next_daemon(void)
{
	pid_t before = daemon_pid();

	daemon_kill();
	WAIT_UNTIL(kill(before, 0) < 0 && daemon_pid() != before && control_try() >= 0);
}

SYSTEM_TEST(the_next_daemon_finds_what_was_stored_and_no_more, ASYNC, .keep = true)
{
	char *path = make_file("f", 300 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = mapped_clean(f, 300);
	uint64_t faults;

	store_to_each(m, 300, 3, 1);
	next_daemon();
	CHECK_EQ(look_for_stores(), 100);
	CHECK_EQ(pgc_fsync(f), 0);
	expect_stored(path, 300, 3, 1);
	/* And goes on without faults. */
	faults = status().faults;
	store_to_each(m, 300, 3, 7);
	CHECK_EQ(status().faults, faults);
	CHECK_EQ(pgc_fsync(f), 0);
	expect_stored(path, 300, 3, 7);
}

static void stores_without_a_daemon(struct peer *p, void *arg)
{
	struct pgc_file *f = open_file("f", O_RDWR);
	uint8_t *m = mapped_clean(f, 300);

	store_to_each(m, 300, 3, 1);
	(void)peer_ask(p, 1);
	store(m + PAGE + 9, 0x31);
	(void)peer_ask(p, 1);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte("f", PAGE + 9, 0x31));
	store(m + PAGE + 9, pattern_byte(PAGE + 9, 1));
	CHECK_EQ(pgc_fsync(f), 0);
	expect_stored("f", 300, 3, 1);
}

SYSTEM_TEST(the_next_daemon_has_it_from_the_clients, ASYNC)
{
	struct peer *p;

	make_file("f", 300 * PAGE, 1);
	p = peer_start(stores_without_a_daemon, NULL);
	CHECK_EQ(peer_hear(p), 1);
	CHECK(kill(env.daemon, SIGKILL) == 0);
	wait_child(env.daemon);
	CHECK_EQ(peer_ask(p, 1), 1);
	daemon_start();
	peer_tell(p, 1);
	peer_join(p);
}

/* --- who brings what as its pagemap --- */

static void say_hello_with(struct raw *r, int fd)
{
	struct pgc_msg m = hello(PGC_ROLE_CLIENT);

	m.hello.features = PGC_FEATURE_PAGEMAP;
	*r = (struct raw){ .sock = raw_socket(), .uffd = -1, .control = -1, .memfd = -1 };
	send_msg(r->sock, &m, &fd, fd >= 0);
}

static uint32_t flags_with(int pagemap)
{
	int fd = open("f", O_RDWR | O_CLOEXEC);
	struct pgc_msg m;
	struct raw r;

	CHECK(fd >= 0);
	say_hello_with(&r, pagemap);
	CHECK(recv_msg(r.sock, &m, NULL));
	CHECK_EQ(m.status, 0);
	raw_send_open(&r, fd, NULL, O_RDWR);
	raw_finish_open(&r);
	m.status = r.reply.flags;
	raw_close(&r);
	close(fd);
	return m.status;
}

SYSTEM_TEST(a_pagemap_that_is_none_is_not_taken, ASYNC)
{
	char *path = file_path("pagemap");
	struct raw r;
	int fd;

	make_file("f", 10 * PAGE, 1);
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	CHECK(flags_with(fd) & PGC_HANDLE_ASYNC);
	close(fd);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK(!(flags_with(fd) & PGC_HANDLE_ASYNC));
	close(fd);
	fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	CHECK(!(flags_with(fd) & PGC_HANDLE_ASYNC));
	close(fd);
	/* The feature, and no descriptor. */
	say_hello_with(&r, -1);
	expect_hangup(&r);
	raw_close(&r);
}

/* Of another process: there nothing is tracked, so all that is mapped counts as stored to, and no more than the client's own file is written too often. */
SYSTEM_TEST(another_process_s_pagemap_hides_no_store, ASYNC)
{
	int pagemap = open("/proc/1/pagemap", O_RDONLY | O_CLOEXEC), fd;
	struct pgc_msg m;
	struct raw r;

	if (pagemap < 0)
		pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	make_file("f", 10 * PAGE, 1);
	fd = open("f", O_RDWR | O_CLOEXEC);
	CHECK(fd >= 0);
	say_hello_with(&r, pagemap);
	CHECK(recv_msg(r.sock, &m, NULL));
	raw_send_open(&r, fd, NULL, O_RDWR);
	raw_finish_open(&r);
	raw_map(&r, 10);
	CHECK(mprotect(r.map, 10 * PAGE, RW) == 0);
	CHECK_EQ(load(r.map), pattern_byte(0, 1));
	store(r.map, 0x5a);
	m = (struct pgc_msg){ .type = PGC_MSG_SYNC };
	CHECK_EQ(raw_call(&r, &m, NULL, 0), 0);
	CHECK(store_has_byte("f", 0, 0x5a));
	raw_close(&r);
	close(fd);
	close(pagemap);
}

SYSTEM_TESTS_MAIN("tracking",
	cmocka_unit_test(a_store_to_a_clean_page_is_no_fault_and_is_found),
	cmocka_unit_test(sync_tracking_has_a_fault_at_each_first_store),
	cmocka_unit_test(a_timer_finds_stores_and_has_them_written),
	cmocka_unit_test(the_mtime_moves_with_a_store),
	cmocka_unit_test(many_handles_of_one_file_are_told_apart),
	cmocka_unit_test(stores_before_dontneed_are_found),
	cmocka_unit_test(pgc_munmap_writes_what_was_stored_and_no_more),
	cmocka_unit_test(a_plain_munmap_loses_nothing),
	cmocka_unit_test(a_moved_mapping_loses_nothing),
	cmocka_unit_test(a_killed_client_loses_nothing),
	cmocka_unit_test(an_exit_writes_what_was_stored_and_no_more),
	cmocka_unit_test(a_forked_childs_stores_are_found),
	cmocka_unit_test(a_child_of_a_bare_clone_sees_no_zeros),
	cmocka_unit_test(reclaim_loses_no_store),
	cmocka_unit_test(who_has_too_much_dirty_loses_what_it_can_store_to_unseen),
	cmocka_unit_test(a_full_stop_writes_all_stores),
	cmocka_unit_test(the_next_daemon_finds_what_was_stored_and_no_more),
	cmocka_unit_test(the_next_daemon_has_it_from_the_clients),
	cmocka_unit_test(a_pagemap_that_is_none_is_not_taken),
	cmocka_unit_test(another_process_s_pagemap_hides_no_store))
