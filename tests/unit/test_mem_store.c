/* SPDX-License-Identifier: Apache-2.0 */
/* daemon/store/mem_store.c: objects by name, and each injection. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "store_test.h"

#define LEN ((size_t)4 * PGC_PAGE_SIZE)
#define URI "mem:disk"

struct fixture {
	struct ring ring;
	struct store *s;
	char *data, *got;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(ring_init(&f->ring, 8), 0);
	assert_int_equal(offload_start(), 0);
	assert_int_equal(mem_store_open(&f->s, &f->ring, URI "?size=16384"), 0);
	f->data = pages(LEN, 3);
	f->got = pages(LEN, 99);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	f->s->ops->close(f->s);
	mem_store_forget_all();
	offload_stop(&f->ring);
	ring_flush(&f->ring);
	ring_free(&f->ring);
	munmap(f->data, LEN);
	munmap(f->got, LEN);
	free(f);
	return 0;
}

static void test_what_is_written_is_read(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(store_read(f->s, f->got, LEN, 0), LEN);
	assert_zeros(f->got, LEN);
	assert_int_equal(store_write(f->s, f->data, LEN - 100, 4096), LEN - 100);
	assert_int_equal(store_read(f->s, f->got, LEN, 4096), LEN - 100);
	assert_memory_equal(f->got, f->data, LEN - 100);
	assert_int_equal(store_sync(f->s), 0);
}

static void test_one_name_is_one_object(void **state)
{
	struct fixture *f = *state;
	struct store_stat st;
	struct store *again;
	uint64_t dev, ino, dev2, ino2;

	assert_int_equal(store_write(f->s, f->data, LEN, 0), LEN);
	assert_int_equal(mem_store_open(&again, &f->ring, URI "?size=1"), 0);
	assert_int_equal(store_read(again, f->got, LEN, 0), LEN);
	assert_memory_equal(f->got, f->data, LEN);
	assert_int_equal(mem_store_identity(URI, &dev, &ino), 0);
	assert_int_equal(store_stat_of(again, &st), 0);
	assert_int_equal(st.dev, dev);
	assert_int_equal(st.ino, ino);
	assert_int_equal(st.size, LEN);
	assert_int_equal(mem_store_identity("mem:other", &dev2, &ino2), 0);
	assert_true(dev != dev2 || ino != ino2);
	again->ops->close(again);
}

static void test_forgotten_object_serves_its_open_stores(void **state)
{
	struct fixture *f = *state;
	struct mem_store_counters c;

	assert_int_equal(store_write(f->s, f->data, LEN, 0), LEN);
	mem_store_forget_all();
	assert_int_equal(mem_store_counters(URI, &c), -ENOENT);
	assert_int_equal(mem_store_fd(URI), -ENOENT);
	assert_int_equal(mem_store_inject(URI, PGC_INJECT_READ_ERROR, EIO, 0), -ENOENT);
	assert_int_equal(store_read(f->s, f->got, LEN, 0), LEN);
	assert_memory_equal(f->got, f->data, LEN);
}

static void test_bad_uris_are_refused(void **state)
{
	static const char *const bad[] = { "", "mem:", "mem:?size=1", "mem:a?", "mem:a?size=", "mem:a?size=-1", "mem:a?size=1x",
					   "mem:a?size=99999999999999999999", "mem:a?len=1", "file:a" };
	struct fixture *f = *state;
	struct store *s;
	uint64_t dev, ino;

	for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
		assert_int_equal(mem_store_open(&s, &f->ring, bad[i]), -EINVAL);
		assert_int_equal(mem_store_identity(bad[i], &dev, &ino), -EINVAL);
	}
}

static void test_injected_errors_end_after_their_count(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mem_store_inject(URI, PGC_INJECT_READ_ERROR, EIO, 2), 0);
	assert_int_equal(mem_store_inject(URI, PGC_INJECT_WRITE_ERROR, ENOSPC, 1), 0);
	assert_int_equal(mem_store_inject(URI, PGC_INJECT_SYNC_ERROR, EDQUOT, 1), 0);
	assert_int_equal(store_write(f->s, f->data, LEN, 0), -ENOSPC);
	assert_int_equal(store_write(f->s, f->data, LEN, 0), LEN);
	assert_int_equal(store_read(f->s, f->got, LEN, 0), -EIO);
	assert_int_equal(store_read(f->s, f->got, LEN, 0), -EIO);
	assert_int_equal(store_read(f->s, f->got, LEN, 0), LEN);
	assert_memory_equal(f->got, f->data, LEN);
	assert_int_equal(store_sync(f->s), -EDQUOT);
	assert_int_equal(store_sync(f->s), 0);
}

static void test_uncounted_error_lasts_until_changed(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mem_store_inject(URI, PGC_INJECT_READ_ERROR, EIO, 0), 0);
	for (int i = 0; i < 5; i++)
		assert_int_equal(store_read(f->s, f->got, LEN, 0), -EIO);
	assert_int_equal(mem_store_inject(URI, PGC_INJECT_READ_ERROR, 0, 0), 0);
	assert_int_equal(store_read(f->s, f->got, LEN, 0), LEN);
	assert_int_equal(mem_store_inject(URI, 0, 1, 0), -EINVAL);
	assert_int_equal(mem_store_inject(URI, 99, 1, 0), -EINVAL);
	assert_int_equal(mem_store_inject(URI, PGC_INJECT_READ_ERROR, 4096, 0), -EINVAL);
}

static void test_failed_write_changes_nothing(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mem_store_inject(URI, PGC_INJECT_WRITE_ERROR, EIO, 1), 0);
	assert_int_equal(store_write(f->s, f->data, LEN, 0), -EIO);
	assert_int_equal(store_read(f->s, f->got, LEN, 0), LEN);
	assert_zeros(f->got, LEN);
}

static void test_short_transfers_move_what_they_say(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mem_store_inject(URI, PGC_INJECT_WRITE_SHORT, 5000, 1), 0);
	assert_int_equal(store_write(f->s, f->data, LEN, 0), 5000);
	assert_int_equal(mem_store_inject(URI, PGC_INJECT_READ_SHORT, 6000, 1), 0);
	assert_int_equal(store_read(f->s, f->got, LEN, 0), 6000);
	assert_memory_equal(f->got, f->data, 5000);
	assert_zeros(f->got + 5000, 1000);
	assert_int_equal(store_read(f->s, f->got, LEN, 0), LEN);
}

static void test_write_zero_accepts_nothing(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mem_store_inject(URI, PGC_INJECT_WRITE_ZERO, 1, 1), 0);
	assert_int_equal(store_write(f->s, f->data, LEN, 0), 0);
	assert_int_equal(store_read(f->s, f->got, LEN, 0), LEN);
	assert_zeros(f->got, LEN);
	assert_int_equal(store_write(f->s, f->data, LEN, 0), LEN);
}

static void test_delay_delays_and_then_does_it(void **state)
{
	struct fixture *f = *state;
	uint64_t start;

	assert_int_equal(mem_store_inject(URI, PGC_INJECT_WRITE_DELAY, 30000, 1), 0);
	start = now_ns();
	assert_int_equal(store_write(f->s, f->data, LEN, 0), LEN);
	assert_true(now_ns() - start >= 30000000);
	assert_int_equal(mem_store_inject(URI, PGC_INJECT_READ_DELAY, 20000, 1), 0);
	assert_int_equal(mem_store_inject(URI, PGC_INJECT_READ_ERROR, EIO, 1), 0);
	start = now_ns();
	assert_int_equal(store_read(f->s, f->got, LEN, 0), -EIO);
	assert_true(now_ns() - start >= 20000000);
	assert_int_equal(store_read(f->s, f->got, LEN, 0), LEN);
	assert_memory_equal(f->got, f->data, LEN);
}

static void test_delayed_operation_holds_up_no_other(void **state)
{
	struct fixture *f = *state;
	struct wait_op slow = { .op.done = wait_op_done };

	assert_int_equal(mem_store_inject(URI, PGC_INJECT_READ_DELAY, 100000, 1), 0);
	f->s->ops->read(f->s, &slow.op, f->got, LEN, 0);
	assert_int_equal(store_write(f->s, f->data, LEN, 0), LEN);
	assert_int_equal(slow.calls, 0);
	assert_int_equal(wait_for(f->s, &slow), LEN);
	assert_memory_equal(f->got, f->data, LEN);
}

static void test_counters_count(void **state)
{
	struct fixture *f = *state;
	struct mem_store_counters c;

	assert_int_equal(store_write(f->s, f->data, 5000, 0), 5000);
	assert_int_equal(store_write(f->s, f->data, 4096, 8192), 4096);
	assert_int_equal(mem_store_inject(URI, PGC_INJECT_READ_ERROR, EIO, 1), 0);
	assert_int_equal(store_read(f->s, f->got, 4096, 0), -EIO);
	assert_int_equal(store_read(f->s, f->got, 4096, 0), 4096);
	assert_int_equal(store_sync(f->s), 0);
	assert_int_equal(mem_store_counters(URI, &c), 0);
	assert_int_equal(c.writes, 2);
	assert_int_equal(c.written_bytes, 9096);
	assert_int_equal(c.reads, 2);
	assert_int_equal(c.read_bytes, 4096);
	assert_int_equal(c.syncs, 1);
}

static void test_fd_is_the_object(void **state)
{
	struct fixture *f = *state;
	int fd = mem_store_fd(URI);

	assert_true(fd >= 0);
	assert_int_equal(store_write(f->s, f->data, LEN, 0), LEN);
	assert_int_equal(pread(fd, f->got, LEN, 0), LEN);
	assert_memory_equal(f->got, f->data, LEN);
	close(fd);
}

static void test_size_operations(void **state)
{
	struct fixture *f = *state;
	struct store_stat st;

	assert_int_equal(store_write(f->s, f->data, LEN, 0), LEN);
	assert_int_equal(store_fallocate(f->s, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096), 0);
	assert_int_equal(store_read(f->s, f->got, LEN, 0), LEN);
	assert_memory_equal(f->got, f->data, 4096);
	assert_zeros(f->got + 4096, 4096);
	assert_int_equal(store_is_hole(f->s, 4096, 4096), 1);
	assert_int_equal(store_is_hole(f->s, 0, 8192), 0);
	assert_int_equal(store_truncate(f->s, 100), 0);
	assert_int_equal(store_stat_of(f->s, &st), 0);
	assert_int_equal(st.size, 100);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_what_is_written_is_read),
		TEST(test_one_name_is_one_object),
		TEST(test_forgotten_object_serves_its_open_stores),
		TEST(test_bad_uris_are_refused),
		TEST(test_injected_errors_end_after_their_count),
		TEST(test_uncounted_error_lasts_until_changed),
		TEST(test_failed_write_changes_nothing),
		TEST(test_short_transfers_move_what_they_say),
		TEST(test_write_zero_accepts_nothing),
		TEST(test_delay_delays_and_then_does_it),
		TEST(test_delayed_operation_holds_up_no_other),
		TEST(test_counters_count),
		TEST(test_fd_is_the_object),
		TEST(test_size_operations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
