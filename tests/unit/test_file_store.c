/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon/store/file_store.c, on a file of a real file system ($TMPDIR, or /var/tmp where that is a tmpfs). The module is included, so that the ways
 * that the kernel at hand does not make it go can be taken by hand.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "daemon/store/file_store.c"
#include "store_test.h"

#define P ((size_t)PGC_PAGE_SIZE)
#define LEN (16 * P)

struct fixture {
	struct ring ring;
	char path[256];
	int plain;                 /* what an application that knows nothing of us sees */
	char *data, *got;
	bool have_direct;
};

static int fixture_open(struct fixture *f, int flags)
{
	int fd = open(f->path, flags | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* tmpfs takes O_DIRECT and keeps everything in the cache all the same. */
static bool is_tmpfs(const char *dir)
{
	struct statfs fs;

	return statfs(dir, &fs) < 0 || fs.f_type == TMPFS_MAGIC;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *dir = getenv("TMPDIR");
	int fd;

	assert_non_null(f);
	assert_int_equal(ring_init(&f->ring, 8), 0);
	assert_int_equal(offload_start(), 0);
	snprintf(f->path, sizeof(f->path), "%s/pagecached-test-XXXXXX", dir && *dir && !is_tmpfs(dir) ? dir : "/var/tmp");
	f->plain = mkostemp(f->path, O_CLOEXEC);
	assert_true(f->plain >= 0);
	fd = open(f->path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	f->have_direct = fd >= 0;
	if (fd >= 0)
		close(fd);
	f->data = pages(LEN, 3);
	f->got = pages(LEN, 99);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	offload_stop(&f->ring);
	ring_flush(&f->ring);
	ring_free(&f->ring);
	unlink(f->path);
	close(f->plain);
	munmap(f->data, LEN);
	munmap(f->got, LEN);
	free(f);
	return 0;
}

/* With an O_DIRECT description where the file system has it. */
static struct store *open_direct(struct fixture *f, int mode)
{
	struct store *s;
	int direct = f->have_direct ? fixture_open(f, mode | O_DIRECT) : -1;

	assert_int_equal(file_store_open(&s, &f->ring, fixture_open(f, mode), direct, 512), 0);
	assert_int_equal(s->direct, f->have_direct);
	assert_int_equal(s->writable, mode != O_RDONLY);
	return s;
}

static struct store *open_buffered(struct fixture *f, int mode)
{
	struct store *s;

	assert_int_equal(file_store_open(&s, &f->ring, fixture_open(f, mode), -1, 0), 0);
	assert_false(s->direct);
	return s;
}

/* Closes the store and waits until its descriptors are closed. */
static void close_store(struct store *s)
{
	struct ring *ring = s->ring;

	s->ops->close(s);
	assert_int_equal(ring_flush(ring), 0);
}

static int fds_open(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void assert_fds_become(struct ring *ring, int n)
{
	uint64_t end = now_ns() + 5000000000ull;

	while (fds_open() != n) {
		assert_true(now_ns() < end);
		assert_true(ring_run(ring, false, 8) >= 0);
		usleep(1000);
	}
}

static void check_write_and_read(struct fixture *f, struct store *s)
{
	assert_int_equal(store_write(s, f->data, 5 * P, 0), 5 * P);
	assert_int_equal(pread(f->plain, f->got, LEN, 0), 5 * P);
	assert_memory_equal(f->got, f->data, 5 * P);
	assert_int_equal(store_write(s, f->data, P, 2 * P), P);
	memset(f->got, 0, LEN);
	assert_int_equal(store_read(s, f->got, 5 * P, 0), 5 * P);
	assert_memory_equal(f->got, f->data, 2 * P);
	assert_memory_equal(f->got + 2 * P, f->data, P);
	assert_memory_equal(f->got + 3 * P, f->data + 3 * P, 2 * P);
	assert_int_equal(store_sync(s), 0);
	assert_int_equal(WAIT_OP(s, sync, true), 0);
}

static void test_write_and_read_direct(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_RDWR);

	check_write_and_read(f, s);
	assert_int_equal(s->direct, f->have_direct);
	close_store(s);
}

static void test_write_and_read_buffered(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_buffered(f, O_RDWR);

	check_write_and_read(f, s);
	close_store(s);
}

static void check_tails(struct fixture *f, struct store *s)
{
	static const size_t tails[] = { 1, 100, 511, 512, 513, 4095 };

	for (size_t i = 0; i < ELEMENTSOF(tails); i++)
		for (size_t head = 0; head <= 3 * P; head += 3 * P) {
			size_t len = head + tails[i];

			assert_int_equal(store_truncate(s, 0), 0);
			assert_int_equal(store_write(s, f->data, len, P), len);
			assert_int_equal(lseek(f->plain, 0, SEEK_END), P + len);
			/* Short at the end of file, in both ways of reading. */
			memset(f->got, 0x55, LEN);
			assert_int_equal(store_read(s, f->got, LEN, 0), P + len);
			assert_zeros(f->got, P);
			assert_memory_equal(f->got + P, f->data, len);
			assert_int_equal(pread(f->plain, f->got, LEN, P), len);
			assert_memory_equal(f->got, f->data, len);
			assert_int_equal(store_read(s, f->got, P, 8 * P), 0);
		}
}

static void test_sizes_that_end_within_a_page_direct(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_RDWR);

	check_tails(f, s);
	assert_int_equal(s->direct, f->have_direct);
	close_store(s);
}

static void test_sizes_that_end_within_a_page_buffered(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_buffered(f, O_RDWR);

	check_tails(f, s);
	close_store(s);
}

/* The last piece went through the kernel's cache; a direct write over it and a direct read must agree. */
static void test_tail_and_direct_writes_are_coherent(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_RDWR);

	assert_int_equal(store_write(s, f->data, 2 * P + 10, 0), 2 * P + 10);
	assert_int_equal(store_write(s, f->data + P, 4 * P, 0), 4 * P);
	assert_int_equal(store_read(s, f->got, LEN, 0), 4 * P);
	assert_memory_equal(f->got, f->data + P, 4 * P);
	assert_int_equal(store_write(s, f->data, 10, 3 * P), 10);
	assert_int_equal(store_read(s, f->got, P, 3 * P), P);
	assert_memory_equal(f->got, f->data, 10);
	assert_memory_equal(f->got + 10, f->data + 4 * P + 10, P - 10);
	close_store(s);
}

static void test_many_operations_at_once(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_RDWR);
	struct wait_op w[16];

	for (size_t i = 0; i < 16; i++) {
		w[i] = (struct wait_op){ .op.done = wait_op_done };
		s->ops->write(s, &w[i].op, f->data + i * P, P, i * P);
	}
	for (size_t i = 0; i < 16; i++)
		assert_int_equal(wait_for(s, &w[i]), P);
	for (size_t i = 0; i < 16; i++) {
		w[i] = (struct wait_op){ .op.done = wait_op_done };
		s->ops->read(s, &w[i].op, f->got + i * P, P, i * P);
	}
	for (size_t i = 0; i < 16; i++)
		assert_int_equal(wait_for(s, &w[i]), P);
	assert_memory_equal(f->got, f->data, LEN);
	close_store(s);
}

static void test_stat_tells_what_fstat_does(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_RDWR);
	struct store_stat st;
	struct stat want;

	assert_int_equal(store_write(s, f->data, P + 1, 0), P + 1);
	assert_int_equal(store_sync(s), 0);
	assert_int_equal(fstat(f->plain, &want), 0);
	assert_int_equal(store_stat_of(s, &st), 0);
	assert_int_equal(st.dev, want.st_dev);
	assert_int_equal(st.ino, want.st_ino);
	assert_int_equal(st.size, P + 1);
	assert_int_equal(st.blocks, want.st_blocks);
	assert_int_equal(st.mode, want.st_mode);
	assert_int_equal(st.nlink, 1);
	assert_int_equal(st.uid, want.st_uid);
	assert_int_equal(st.gid, want.st_gid);
	assert_int_equal(st.blksize, want.st_blksize);
	assert_int_equal(st.mtime.tv_sec, want.st_mtim.tv_sec);
	assert_int_equal(st.mtime.tv_nsec, want.st_mtim.tv_nsec);
	assert_int_equal(st.ctime.tv_nsec, want.st_ctim.tv_nsec);
	close_store(s);
}

static void check_truncate(struct fixture *f, struct store *s)
{
	struct store_stat st;

	assert_int_equal(store_write(s, f->data, 4 * P, 0), 4 * P);
	assert_int_equal(store_truncate(s, P + 7), 0);
	assert_int_equal(store_stat_of(s, &st), 0);
	assert_int_equal(st.size, P + 7);
	assert_int_equal(store_truncate(s, 3 * P), 0);
	assert_int_equal(store_read(s, f->got, LEN, 0), 3 * P);
	assert_memory_equal(f->got, f->data, P + 7);
	assert_zeros(f->got + P + 7, 2 * P - 7);
	assert_int_equal(store_truncate(s, UINT64_MAX), -EFBIG);
	assert_int_equal(store_truncate(s, INT64_MAX), -EFBIG);
}

static void test_truncate(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_RDWR);

	check_truncate(f, s);
	close_store(s);
}

static void test_truncate_on_a_kernel_without_the_opcode(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_RDWR);

	file_store(s)->ftruncate_op = false;
	check_truncate(f, s);
	close_store(s);
}

static void test_fallocate_punches_and_grows(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_RDWR);
	struct store_stat st;

	assert_int_equal(store_write(s, f->data, 4 * P, 0), 4 * P);
	assert_int_equal(store_sync(s), 0);
	assert_int_equal(store_fallocate(s, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, P, 2 * P), 0);
	assert_int_equal(store_read(s, f->got, LEN, 0), 4 * P);
	assert_memory_equal(f->got, f->data, P);
	assert_zeros(f->got + P, 2 * P);
	assert_memory_equal(f->got + 3 * P, f->data + 3 * P, P);
	assert_int_equal(store_fallocate(s, 0, 0, 6 * P), 0);
	assert_int_equal(store_stat_of(s, &st), 0);
	assert_int_equal(st.size, 6 * P);
	assert_int_equal(store_fallocate(s, 0, 0, 0), -EINVAL);
	assert_int_equal(store_fallocate(s, 0, UINT64_MAX - 5, P), -EFBIG);
	close_store(s);
}

static void test_holes_are_known(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_RDWR);

	assert_int_equal(store_truncate(s, 1 << 20), 0);
	assert_int_equal(store_write(s, f->data, P, 64 * P), P);
	assert_int_equal(store_sync(s), 0);
	assert_int_equal(store_is_hole(s, 0, 64 * P), 1);
	assert_int_equal(store_is_hole(s, 0, 65 * P), 0);
	assert_int_equal(store_is_hole(s, 64 * P, P), 0);
	assert_int_equal(store_is_hole(s, 65 * P, 100 * P), 1);
	assert_int_equal(store_is_hole(s, 128 * P, 128 * P), 1);
	close_store(s);
}

static void test_data_and_holes_are_found(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_RDWR);
	struct store_stat st;

	assert_int_equal(store_truncate(s, 1 << 20), 0);
	assert_int_equal(store_write(s, f->data, P, 64 * P), P);
	assert_int_equal(store_sync(s), 0);
	assert_int_equal(store_stat_of(s, &st), 0);
	assert_int_equal(store_seek(s, SEEK_DATA, 0), 64 * P);
	assert_int_equal(store_seek(s, SEEK_HOLE, 3), 3);
	assert_int_equal(store_seek(s, SEEK_HOLE, 64 * P), 65 * P);
	assert_int_equal(store_seek(s, SEEK_DATA, 65 * P), -ENXIO);
	assert_int_equal(store_seek(s, SEEK_HOLE, 1 << 20), -ENXIO);
	close_store(s);
}

/* The store has been written to since `since`, and had the mtime `left` before. */
static struct store_restore restore_to(struct timespec to, struct timespec left)
{
	struct store_restore r = { .to = to, .left = left };

	clock_gettime(CLOCK_REALTIME_COARSE, &r.since);
	return r;
}

static void test_an_mtime_that_a_write_has_moved_is_put_back(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_RDWR);
	struct store_restore r = restore_to((struct timespec){ 1000, 17 }, (struct timespec){ 0 });
	struct store_stat st;

	assert_int_equal(store_stat_of(s, &st), 0);
	assert_int_equal(store_write(s, f->data, P, 0), P);
	assert_int_equal(store_restore_of(s, &r), 0);
	assert_true(r.found.mtime.tv_sec > 1000);
	assert_int_equal(r.after.mtime.tv_sec, 1000);
	assert_int_equal(store_stat_of(s, &st), 0);
	assert_int_equal(st.mtime.tv_sec, 1000);
	assert_int_equal(st.mtime.tv_nsec, 17);
	assert_int_equal(st.ctime.tv_nsec, r.after.ctime.tv_nsec);
	assert_int_equal(st.atime.tv_nsec, r.found.atime.tv_nsec);
	close_store(s);
}

static void test_an_mtime_that_somebody_has_set_is_left_alone(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_RDWR);
	struct store_restore r = restore_to((struct timespec){ 1000, 17 }, (struct timespec){ 0 });
	struct store_stat st;

	assert_int_equal(store_stat_of(s, &st), 0);
	assert_int_equal(store_write(s, f->data, P, 0), P);
	assert_int_equal(futimens(f->plain, (struct timespec[]){ { 5, 5 }, { 5, 5 } }), 0);
	assert_int_equal(store_restore_of(s, &r), 0);
	assert_int_equal(r.found.mtime.tv_sec, 5);
	assert_int_equal(r.after.mtime.tv_sec, 5);
	assert_int_equal(store_stat_of(s, &st), 0);
	assert_int_equal(st.mtime.tv_sec, 5);
	close_store(s);
}

/* The application's own read position is not ours to move, nor are its flags. */
static void test_the_applications_description_is_left_alone(void **state)
{
	struct fixture *f = *state;
	struct store *s;
	int app = fixture_open(f, O_RDWR | O_APPEND);
	int flags = fcntl(app, F_GETFL);

	assert_int_equal(ftruncate(app, 64 * (off_t)P), 0);
	assert_int_equal(pwrite(f->plain, f->data, P, 40 * (off_t)P), P);
	assert_int_equal(lseek(app, 12345, SEEK_SET), 12345);
	assert_int_equal(file_store_open(&s, &f->ring, dup(app), -1, 0), 0);
	assert_int_equal(store_is_hole(s, 0, P), 1);
	assert_int_equal(store_read(s, f->got, P, 40 * P), P);
	assert_memory_equal(f->got, f->data, P);
	assert_int_equal(lseek(app, 0, SEEK_CUR), 12345);
	assert_int_equal(fcntl(app, F_GETFL), flags);
	close_store(s);
	close(app);
}

static void test_read_only_cannot_write(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_RDONLY);

	assert_int_equal(pwrite(f->plain, f->data, P, 0), P);
	assert_false(s->writable);
	assert_int_equal(store_write(s, f->data + P, P, 0), -EBADF);
	assert_int_equal(store_truncate(s, 0), -EBADF);
	assert_int_equal(store_fallocate(s, 0, 0, 2 * P), -EBADF);
	assert_int_equal(store_read(s, f->got, LEN, 0), P);
	assert_memory_equal(f->got, f->data, P);
	assert_int_equal(store_sync(s), 0);
	close_store(s);
}

static void test_write_only_is_reopened_to_read(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_WRONLY);
	struct wait_op w[3];

	assert_int_equal(store_write(s, f->data, 3 * P, 0), 3 * P);
	for (size_t i = 0; i < 3; i++) {
		w[i] = (struct wait_op){ .op.done = wait_op_done };
		s->ops->read(s, &w[i].op, f->got + i * P, P, i * P);
	}
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(wait_for(s, &w[i]), P);
	assert_memory_equal(f->got, f->data, 3 * P);
	close_store(s);
}

static void test_write_only_that_cannot_be_reopened_does_not_read(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_WRONLY);

	file_store(s)->reopen_tried = true;
	assert_int_equal(store_read(s, f->got, P, 0), -EBADF);
	/* The next handle may bring what was missing. */
	assert_int_equal(store_write(s, f->data, P, 0), P);
	file_store_add(s, fixture_open(f, O_RDONLY), -1, 0);
	assert_int_equal(store_read(s, f->got, P, 0), P);
	assert_memory_equal(f->got, f->data, P);
	close_store(s);
}

static void test_upgrade_from_read_only(void **state)
{
	struct fixture *f = *state;
	int before = fds_open();
	struct store *s = open_direct(f, O_RDONLY);
	struct wait_op w = { .op.done = wait_op_done };
	int opened = fds_open() - before;

	assert_int_equal(pwrite(f->plain, f->data, P, 0), P);
	/* Under way on the old descriptor while the new ones come. */
	s->ops->read(s, &w.op, f->got, P, 0);
	file_store_add(s, fixture_open(f, O_RDWR), f->have_direct ? fixture_open(f, O_RDWR | O_DIRECT) : -1, 512);
	assert_true(s->writable);
	assert_int_equal(s->direct, f->have_direct);
	assert_int_equal(wait_for(s, &w), P);
	assert_memory_equal(f->got, f->data, P);
	assert_int_equal(store_write(s, f->data + P, P, P), P);
	assert_int_equal(store_read(s, f->got, LEN, 0), 2 * P);
	assert_memory_equal(f->got, f->data, 2 * P);
	assert_fds_become(&f->ring, before + opened);    /* the new ones took the old ones' place */
	close_store(s);
	assert_fds_become(&f->ring, before);
}

static void test_descriptors_that_add_nothing_are_closed(void **state)
{
	struct fixture *f = *state;
	int before = fds_open(), opened;
	struct store *s = open_direct(f, O_RDWR);

	opened = fds_open() - before;
	file_store_add(s, fixture_open(f, O_RDONLY), f->have_direct ? fixture_open(f, O_RDONLY | O_DIRECT) : -1, 512);
	file_store_add(s, fixture_open(f, O_RDWR), -1, 0);
	assert_fds_become(&f->ring, before + opened);
	assert_true(s->writable);
	check_write_and_read(f, s);
	close_store(s);
	assert_fds_become(&f->ring, before);
}

/* Many operations of the slow kind (a kernel worker takes them on later) while the descriptor they run on is replaced. */
static void test_replaced_descriptor_lives_until_its_operations_end(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_buffered(f, O_RDONLY);
	struct wait_op w[8];

	for (size_t i = 0; i < 8; i++) {
		w[i] = (struct wait_op){ .op.done = wait_op_done };
		s->ops->sync(s, &w[i].op, false);
	}
	file_store_add(s, fixture_open(f, O_RDWR), -1, 0);
	for (size_t i = 0; i < 8; i++)
		assert_int_equal(wait_for(s, &w[i]), 0);
	close_store(s);
}

static void test_alignment_above_a_page_is_not_used(void **state)
{
	struct fixture *f = *state;
	int before = fds_open();
	struct store *s;

	assert_int_equal(file_store_open(&s, &f->ring, fixture_open(f, O_RDWR), dup(f->plain), 8192), 0);
	assert_false(s->direct);
	assert_fds_become(&f->ring, before + 1);
	check_write_and_read(f, s);
	close_store(s);
}

/* What an odd file system does: O_DIRECT opens, but transfers fail with EINVAL. Played by a descriptor that fails so: an unaligned buffer. */
static void test_refused_direct_transfer_goes_buffered_for_good(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_direct(f, O_RDWR);

	if (!f->have_direct) {
		assert_false(s->direct);
		check_write_and_read(f, s);
	} else {
		assert_int_equal(store_write(s, f->data + 1, P + 50, 0), P + 50);
		assert_false(s->direct);
		assert_int_equal(store_read(s, f->got, LEN, 0), P + 50);
		assert_memory_equal(f->got, f->data + 1, P + 50);
		/* A later handle's O_DIRECT is not tried again. */
		file_store_add(s, fixture_open(f, O_RDWR), fixture_open(f, O_RDWR | O_DIRECT), 512);
		assert_false(s->direct);
		assert_int_equal(store_write(s, f->data, P, 0), P);
	}
	close_store(s);

	s = open_direct(f, O_RDWR);
	assert_int_equal(store_write(s, f->data, P, 0), P);
	assert_int_equal(store_read(s, f->got + 1, P, 0), P);
	assert_memory_equal(f->got + 1, f->data, P);
	assert_false(s->direct);
	close_store(s);
}

static void test_transfers_where_dontcache_is_refused(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_create("no-dontcache", MFD_CLOEXEC);
	struct store *s;

	/* shmem takes no RWF_DONTCACHE, on any kernel. */
	assert_true(fd >= 0);
	assert_int_equal(file_store_open(&s, &f->ring, fd, -1, 0), 0);
	assert_int_equal(store_write(s, f->data, 2 * P + 5, 0), 2 * P + 5);
	assert_false(file_store(s)->dontcache);
	assert_int_equal(store_read(s, f->got, LEN, 0), 2 * P + 5);
	assert_memory_equal(f->got, f->data, 2 * P + 5);
	close_store(s);
}

/* The read half of the same: the first transfer that is refused is a read. */
static void test_read_where_dontcache_is_refused(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_create("no-dontcache", MFD_CLOEXEC);
	struct store *s;

	assert_int_equal(pwrite(fd, f->data, P, 0), P);
	assert_int_equal(file_store_open(&s, &f->ring, fd, -1, 0), 0);
	assert_int_equal(store_read(s, f->got, LEN, 0), P);
	assert_memory_equal(f->got, f->data, P);
	assert_false(file_store(s)->dontcache);
	close_store(s);
}

static unsigned cached_pages(struct fixture *f, size_t len)
{
	unsigned char vec[LEN / PGC_PAGE_SIZE];
	unsigned n = 0;
	void *p = mmap(NULL, len, PROT_READ, MAP_SHARED, f->plain, 0);

	assert_true(p != MAP_FAILED);
	assert_int_equal(mincore(p, len, vec), 0);
	for (size_t i = 0; i < len / P; i++)
		n += vec[i] & 1;
	munmap(p, len);
	return n;
}

/* One copy of a file in memory is ours; the kernel is not to keep another. */
static void test_sync_leaves_nothing_in_the_kernels_cache(void **state)
{
	struct fixture *f = *state;
	struct store *s = open_buffered(f, O_RDWR);

	file_store(s)->dontcache = false;
	assert_int_equal(store_write(s, f->data, LEN, 0), LEN);
	assert_int_equal(cached_pages(f, LEN), LEN / P);
	assert_int_equal(store_sync(s), 0);
	assert_int_equal(cached_pages(f, LEN), 0);
	close_store(s);
}

static void test_what_is_no_file_is_refused(void **state)
{
	struct fixture *f = *state;
	struct store *s;
	int path = open(f->path, O_PATH | O_CLOEXEC);

	assert_true(path >= 0);
	assert_int_equal(file_store_open(&s, &f->ring, 9999, -1, 0), -EBADF);
	assert_int_equal(file_store_open(&s, &f->ring, path, -1, 0), -EBADF);
	/* Not taken over on failure. */
	assert_true(fcntl(path, F_GETFD) >= 0);
	close(path);
}

static void test_error_of_the_file_system_is_the_result(void **state)
{
	struct fixture *f = *state;
	struct store *s;
	int full = open("/dev/full", O_RDWR | O_CLOEXEC);

	assert_true(full >= 0);
	assert_int_equal(file_store_open(&s, &f->ring, full, -1, 0), 0);
	assert_int_equal(store_write(s, f->data, P, 0), -ENOSPC);
	close_store(s);
	s = open_direct(f, O_RDWR);
	assert_int_equal(store_write(s, f->data, P, (uint64_t)INT64_MAX - P + 1), -EFBIG);
	assert_int_equal(store_read(s, f->got, P, (uint64_t)INT64_MAX - P + 1), -EINVAL);
	close_store(s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_write_and_read_direct),
		TEST(test_write_and_read_buffered),
		TEST(test_sizes_that_end_within_a_page_direct),
		TEST(test_sizes_that_end_within_a_page_buffered),
		TEST(test_tail_and_direct_writes_are_coherent),
		TEST(test_many_operations_at_once),
		TEST(test_stat_tells_what_fstat_does),
		TEST(test_truncate),
		TEST(test_truncate_on_a_kernel_without_the_opcode),
		TEST(test_fallocate_punches_and_grows),
		TEST(test_holes_are_known),
		TEST(test_data_and_holes_are_found),
		TEST(test_an_mtime_that_a_write_has_moved_is_put_back),
		TEST(test_an_mtime_that_somebody_has_set_is_left_alone),
		TEST(test_the_applications_description_is_left_alone),
		TEST(test_read_only_cannot_write),
		TEST(test_write_only_is_reopened_to_read),
		TEST(test_write_only_that_cannot_be_reopened_does_not_read),
		TEST(test_upgrade_from_read_only),
		TEST(test_descriptors_that_add_nothing_are_closed),
		TEST(test_replaced_descriptor_lives_until_its_operations_end),
		TEST(test_alignment_above_a_page_is_not_used),
		TEST(test_refused_direct_transfer_goes_buffered_for_good),
		TEST(test_transfers_where_dontcache_is_refused),
		TEST(test_read_where_dontcache_is_refused),
		TEST(test_sync_leaves_nothing_in_the_kernels_cache),
		TEST(test_what_is_no_file_is_refused),
		TEST(test_error_of_the_file_system_is_the_result),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
