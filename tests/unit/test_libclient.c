/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libpagecached against a small daemon in a thread of the test (fake_daemon.h).
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "fake_daemon.h"
#include "version.h"

/* --- open ------------------------------------------------------------------------------------------------------- */

static void open_refuses_bad_arguments(void **state)
{
	struct pgc_file *f = NULL;
	char uri[256];

	assert_int_equal(pgc_open(NULL, "mem:x", O_RDONLY, 0), -EFAULT);
	assert_int_equal(pgc_open(&f, NULL, O_RDONLY, 0), -EFAULT);
	assert_int_equal(pgc_open(&f, "mem:x", 3, 0), -EINVAL);
	assert_int_equal(pgc_open(&f, "mem:x", O_PATH, 0), -EBADF);
	assert_int_equal(pgc_open(&f, "mem:x", O_RDONLY | O_TRUNC, 0), -EINVAL);
	assert_int_equal(pgc_open(&f, "mem:x", O_RDWR | O_CREAT | O_EXCL, 0), -EINVAL);
	assert_int_equal(pgc_open(&f, "/nonexistent/file", O_RDONLY, 0), -ENOENT);
	assert_int_equal(pgc_open(&f, "/tmp", O_RDONLY, 0), -EISDIR);
	assert_int_equal(pgc_open(&f, "/dev/null", O_RDONLY, 0), -EINVAL);
	memset(uri, 'x', sizeof(uri));
	memcpy(uri, "mem:", 4);
	uri[200] = '\0';
	assert_int_equal(pgc_open(&f, uri, O_RDONLY, 0), -ENAMETOOLONG);
	assert_null(f);
	assert_int_equal(get(fake.seen[PGC_MSG_OPEN]), 0);
}

static void fdopen_refuses_what_is_no_file(void **state)
{
	struct pgc_file *f = NULL;
	int p[2], d = open("/tmp", O_RDONLY | O_CLOEXEC), o = open("/tmp", O_PATH | O_CLOEXEC);

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(pgc_fdopen(&f, -1), -EBADF);
	assert_int_equal(pgc_fdopen(&f, p[0]), -EINVAL);
	assert_int_equal(pgc_fdopen(&f, fake.listen_fd), -EINVAL);
	assert_int_equal(pgc_fdopen(&f, d), -EISDIR);
	assert_int_equal(pgc_fdopen(&f, o), -EBADF);
	assert_null(f);
	close(p[0]);
	close(p[1]);
	close(d);
	close(o);
}

static void a_uri_is_told_from_a_path(void **state)
{
	assert_true(file_is_uri("mem:x"));
	assert_true(file_is_uri("s3+http:"));
	assert_false(file_is_uri("./mem:x"));
	assert_false(file_is_uri("dir/mem:x"));
	assert_false(file_is_uri("Mem:x"));
	assert_false(file_is_uri("3s:x"));
	assert_false(file_is_uri("name"));
	assert_false(file_is_uri(":x"));
	assert_false(file_is_uri(""));
}

static void open_passes_descriptors_of_a_path_and_none_of_a_uri(void **state)
{
	char path[] = "/tmp/pgc-test-file-XXXXXX";
	struct pgc_file *f;
	int fd = mkostemp(path, O_CLOEXEC);

	f = open_mem(O_RDWR);
	assert_int_equal(get(fake.last_len), 1);
	assert_int_equal(pgc_close(f), 0);
	assert_int_equal(pgc_open(&f, path, O_WRONLY, 0), 0);
	assert_int_equal(get(fake.last_flags), O_WRONLY);
	assert_int_equal(get(fake.last_len), 2 + (f->direct >= 0));
	assert_int_equal(fcntl(f->buffered, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR);
	assert_int_equal(pgc_close(f), 0);
	assert_int_equal(pgc_open(&f, path, O_RDWR | O_APPEND | O_SYNC | O_DIRECT, 0), 0);
	assert_int_equal(fcntl(f->buffered, F_GETFL) & (O_ACCMODE | O_APPEND | O_SYNC | O_DIRECT), O_RDWR);
	assert_int_equal(f->sync_flags, O_SYNC);
	assert_int_equal(pgc_close(f), 0);
	assert_int_equal(pgc_fdopen(&f, fd), 0);
	assert_int_equal(f->accmode, O_RDWR);
	assert_int_not_equal(f->buffered, fd);
	assert_int_equal(pgc_close(f), 0);
	assert_true(fcntl(fd, F_GETFD) >= 0);
	close(fd);
	unlink(path);
}

static void open_with_trunc_truncates_through_the_daemon(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR | O_TRUNC);

	assert_int_equal(get(fake.seen[PGC_MSG_TRUNCATE]), 1);
	assert_int_equal(fake_file_size(), 0);
	pgc_close(f);
}

static void open_without_a_daemon_is_refused(void **state)
{
	struct pgc_file *f = NULL;

	setenv("PAGECACHED_SOCKET", "/nonexistent/socket", 1);
	assert_int_equal(pgc_open(&f, "mem:x", O_RDONLY, 0), -ECONNREFUSED);
	setenv("PAGECACHED_SOCKET", fake.path, 1);
	assert_null(f);
}

static void another_version_is_refused(void **state)
{
	struct pgc_file *f = NULL;

	set(fake.bad, BAD_VERSION);
	assert_int_equal(pgc_open(&f, "mem:x", O_RDONLY, 0), -EPROTO);
	set(fake.bad, BAD_NO_MEMFD);
	assert_int_equal(pgc_open(&f, "mem:x", O_RDONLY, 0), -EPROTO);
	set(fake.bad, BAD_NONE);
	assert_null(f);
}

static void the_socket_is_named_by_the_environment(void **state)
{
	char a[108], old[108];
	const char *xdg = getenv("XDG_RUNTIME_DIR");

	snprintf(old, sizeof(old), "%s", xdg ? xdg : "");
	assert_int_equal(conn_address(0, a, sizeof(a)), 0);
	assert_string_equal(a, fake.path);
	assert_int_equal(conn_address(1, a, sizeof(a)), -ENOENT);
	unsetenv("PAGECACHED_SOCKET");
	setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
	assert_int_equal(conn_address(0, a, sizeof(a)), 0);
	assert_string_equal(a, "/run/pagecached/socket");
	assert_int_equal(conn_address(1, a, sizeof(a)), 0);
	assert_string_equal(a, "/run/user/7/pagecached/socket");
	assert_int_equal(conn_address(2, a, sizeof(a)), -ENOENT);
	assert_int_equal(conn_address(1, a, 10), -ENAMETOOLONG);
	if (*old)
		setenv("XDG_RUNTIME_DIR", old, 1);
	else
		unsetenv("XDG_RUNTIME_DIR");
	setenv("PAGECACHED_SOCKET", fake.path, 1);
}

/* --- read and write --------------------------------------------------------------------------------------------- */

static void read_checks_its_arguments(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY), *w = open_mem(O_WRONLY);
	struct iovec iov = { NULL, SSIZE_MAX }, two[2] = { { NULL, SSIZE_MAX }, { NULL, 1 } };
	char b[8];

	assert_int_equal(pgc_pread(NULL, b, 1, 0), -EBADF);
	assert_int_equal(pgc_pread(w, b, 1, 0), -EBADF);
	assert_int_equal(pgc_pread(f, b, 1, -1), -EINVAL);
	assert_int_equal(pgc_pread(f, b, 0, 0), 0);
	assert_int_equal(pgc_preadv(f, &iov, -1, 0), -EINVAL);
	assert_int_equal(pgc_preadv(f, &iov, IOV_MAX + 1, 0), -EINVAL);
	assert_int_equal(pgc_preadv(f, two, 2, 0), -EINVAL);
	assert_int_equal(pgc_pread(f, (void *)8, 8, 0), -EFAULT);
	assert_int_equal(pgc_pwrite(f, b, 1, 0), -EBADF);
	assert_int_equal(pgc_pwrite(w, b, 1, -1), -EINVAL);
	assert_int_equal(pgc_pwrite(w, b, 0, 0), 0);
	assert_int_equal(pgc_pwrite(w, b, 1, INT64_MAX), -EFBIG);
	assert_int_equal(pgc_pwrite(w, (void *)8, 8, 0), -EFAULT);
	assert_int_equal(pgc_append(f, b, 1, NULL), -EBADF);
	assert_int_equal(get(fake.seen[PGC_MSG_WRITE]), 0);
	pgc_close(f);
	pgc_close(w);
}

static void read_gives_the_bytes_and_stops_at_the_end(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY);
	static char b[FILE_SIZE + 50];

	assert_int_equal(pgc_pread(f, b, sizeof(b), 0), FILE_SIZE);
	for (size_t i = 0; i < FILE_SIZE; i++)
		assert_int_equal(b[i], byte_at(i));
	assert_int_equal(pgc_pread(f, b, 10, FILE_SIZE - 4), 4);
	assert_int_equal(b[0], byte_at(FILE_SIZE - 4));
	assert_int_equal(pgc_pread(f, b, 10, FILE_SIZE), 0);
	assert_int_equal(pgc_pread(f, b, 10, INT64_MAX - 5), 0);
	pgc_close(f);
}

static void vectors_are_read_and_written_in_order(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	struct iovec iov[200];
	char b[200][3];

	for (int i = 0; i < 200; i++)
		iov[i] = (struct iovec){ b[i], i % 4 == 3 ? 0 : 3 };
	assert_int_equal(pgc_preadv(f, iov, 200, 10), 450);
	for (size_t i = 0, off = 10; i < 200; i++)
		for (size_t j = 0; j < iov[i].iov_len; j++)
			assert_int_equal(b[i][j], byte_at(off++));
	memset(b, 'Z', sizeof(b));
	b[198][2] = '!';
	assert_int_equal(pgc_pwritev(f, iov, 200, 5), 450);
	assert_int_equal(pread(fake.memfd, b[0], 3, 5 + 447), 3);
	assert_memory_equal(b[0], "ZZ!", 3);
	pgc_close(f);
}

static void a_read_that_lost_its_pages_is_repeated(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY);
	static char b[FILE_SIZE];

	set(fake.drop, 3);
	assert_int_equal(pgc_pread(f, b, sizeof(b), 0), FILE_SIZE);
	assert_true(get(fake.seen[PGC_MSG_READ]) >= 4);
	for (size_t i = 0; i < FILE_SIZE; i++)
		assert_int_equal(b[i], byte_at(i));
	pgc_close(f);
}

static void a_partly_bad_buffer_gives_a_partial_count(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *b = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_int_equal(munmap(b + PAGE, PAGE), 0);
	assert_int_equal(pgc_pread(f, b + PAGE - 10, 100, 0), 10);
	assert_int_equal(pgc_pwrite(f, b + PAGE - 10, 100, 0), 10);
	munmap(b, PAGE);
	pgc_close(f);
}

static void a_long_write_goes_in_steps(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	size_t n = 3 * PGC_WRITE_MAX + 17;
	char *b = malloc(n), *got = malloc(n);

	for (size_t i = 0; i < n; i++)
		b[i] = (char)(i * 7 + i / PAGE);
	assert_int_equal(pgc_pwrite(f, b, n, 33), n);
	assert_int_equal(get(fake.seen[PGC_MSG_WRITE]), 4);
	assert_int_equal(get(fake.seen[PGC_MSG_XFER]), 1);
	assert_int_equal(pread(fake.memfd, got, n, 33), n);
	assert_memory_equal(b, got, n);
	free(b);
	free(got);
	pgc_close(f);
}

static void a_daemon_without_room_for_the_transfer_area_is_given_it_again(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char got[4];

	assert_int_equal(pgc_pwrite(f, "one", 3, 10), 3);
	set(fake.no_room, 3);
	set(fake.take_over, 1);
	assert_int_equal(pgc_pwrite(f, "two", 3, 10), 3);
	assert_int_equal(get(fake.seen[PGC_MSG_XFER]), 1 + 3 + 1);
	assert_int_equal(pread(fake.memfd, got, 3, 10), 3);
	assert_memory_equal(got, "two", 3);
	pgc_close(f);
}

static void append_says_where_it_went(void **state)
{
	struct pgc_file *f = open_mem(O_WRONLY);
	size_t n = PGC_WRITE_MAX + 5;
	char *b = malloc(n), last;
	off_t at = -1;

	memset(b, 'A', n);
	b[n - 1] = 'B';
	assert_int_equal(pgc_append(f, b, 10, &at), 10);
	assert_int_equal(at, FILE_SIZE);
	assert_int_equal(get(fake.last_flags), PGC_WRITE_APPEND);
	assert_int_equal(pgc_append(f, b, n, &at), n);
	assert_int_equal(at, FILE_SIZE + 10);
	assert_int_equal(get(fake.last_flags), PGC_WRITE_APPEND | PGC_WRITE_DATAFD);
	assert_int_equal(get(fake.seen[PGC_MSG_WRITE]), 2);
	assert_int_equal(pgc_append(f, b, 0, &at), 0);
	assert_int_equal(at, FILE_SIZE + 10 + (off_t)n);
	assert_int_equal(pread(fake.memfd, &last, 1, at - 1), 1);
	assert_int_equal(last, 'B');
	free(b);
	pgc_close(f);
}

static void a_failed_write_is_reported(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);

	set(fake.error, ENOSPC);
	assert_int_equal(pgc_pwrite(f, "x", 1, 0), -ENOSPC);
	assert_int_equal(pgc_append(f, "x", 1, NULL), -ENOSPC);
	assert_int_equal(pgc_fsync(f), -ENOSPC);
	set(fake.error, 0);
	assert_int_equal(pgc_pwrite(f, "x", 1, 0), 1);
	pgc_close(f);
}

static void o_dsync_syncs_each_write(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR | O_DSYNC);

	assert_int_equal(pgc_pwrite(f, "x", 1, 0), 1);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 1);
	assert_int_equal(get(fake.last_flags), PGC_SYNC_DATA);
	pgc_close(f);
}

static void a_write_out_names_its_range_and_leaves_the_store_alone(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);

	assert_int_equal(file_write_out(f, 4096, 8192, true), 0);
	assert_int_equal(get(fake.last_flags), PGC_SYNC_WRITE);
	assert_int_equal(get(fake.last_off), 4096);
	assert_int_equal(get(fake.last_len), 8192);
	assert_int_equal(file_write_out(f, 0, 0, false), 0);
	assert_int_equal(get(fake.last_flags), PGC_SYNC_WRITE | PGC_SYNC_ASYNC);
	pgc_close(f);
}

static void seek_asks_the_daemon_for_data_and_holes(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY);
	off_t at = 1;

	assert_int_equal(pgc_seek(f, 5, SEEK_HOLE, &at), 0);
	assert_int_equal(at, 12);
	assert_int_equal(get(fake.last_off), 5);
	assert_int_equal(get(fake.last_flags), SEEK_HOLE);
	set(fake.error, ENXIO);
	assert_int_equal(pgc_seek(f, 5, SEEK_DATA, &at), -ENXIO);
	assert_int_equal(at, 12); /* written on success only */
	set(fake.error, 0);
	pgc_close(f);
}

static void seeks_that_make_no_sense_are_not_asked(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY);
	off_t at;

	assert_int_equal(pgc_seek(f, 5, SEEK_END, &at), -EINVAL);
	assert_int_equal(pgc_seek(f, -5, SEEK_DATA, &at), -ENXIO);
	assert_int_equal(pgc_seek(f, 5, SEEK_DATA, NULL), -EFAULT);
	assert_int_equal(pgc_seek(NULL, 5, SEEK_DATA, &at), -EBADF);
	assert_int_equal(get(fake.seen[PGC_MSG_SEEK]), 0);
	pgc_close(f);
}

static void a_small_file_size_limit_refuses_without_a_signal(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	struct rlimit old, small;

	getrlimit(RLIMIT_FSIZE, &old);
	small = (struct rlimit){ 4096, old.rlim_max };
	setrlimit(RLIMIT_FSIZE, &small);
	ssize_t n = pgc_pwrite(f, "x", 1, 0);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(n, -EFBIG);
	pgc_close(f);
}

static void size_and_sync_calls_check_their_arguments(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR), *r = open_mem(O_RDONLY);
	struct stat st;

	assert_int_equal(pgc_ftruncate(f, -1), -EINVAL);
	assert_int_equal(pgc_ftruncate(r, 0), -EINVAL);
	assert_int_equal(pgc_ftruncate(f, 5000), 0);
	assert_int_equal(fake_file_size(), 5000);
	assert_int_equal(pgc_fallocate(f, 0, -1, 1), -EINVAL);
	assert_int_equal(pgc_fallocate(f, 0, 0, 0), -EINVAL);
	assert_int_equal(pgc_fallocate(f, 2 /* PUNCH_HOLE alone */, 0, 1), -EOPNOTSUPP);
	assert_int_equal(pgc_fallocate(f, 0, INT64_MAX, 1), -EFBIG);
	assert_int_equal(pgc_fallocate(r, 0, 0, 1), -EBADF);
	assert_int_equal(pgc_fallocate(f, 3, 0, 1), 0);
	assert_int_equal(pgc_fadvise(f, 0, -1, POSIX_FADV_NORMAL), -EINVAL);
	assert_int_equal(pgc_fadvise(f, 0, 0, 99), -EINVAL);
	assert_int_equal(pgc_fadvise(f, 0, 0, POSIX_FADV_WILLNEED), 0);
	assert_int_equal(pgc_keep(r, 0, 1, true), -EBADF);
	assert_int_equal(pgc_keep(f, 0, 0, true), -EINVAL);
	assert_int_equal(pgc_keep(f, PAGE + 1, PAGE, true), 0);
	assert_int_equal(get(fake.last_off), PAGE);
	assert_int_equal(get(fake.last_len), 2 * PAGE);
	assert_int_equal(pgc_fstat(f, NULL), -EFAULT);
	assert_int_equal(pgc_fstat(f, &st), 0);
	assert_int_equal(st.st_size, 5000);
	assert_int_equal(st.st_ino, 6);
	assert_int_equal(st.st_mtim.tv_nsec, 8);
	assert_int_equal(pgc_fsync(NULL), -EBADF);
	assert_int_equal(pgc_close(NULL), -EBADF);
	assert_string_equal(pgc_version(), PGC_VERSION);
	pgc_close(f);
	pgc_close(r);
}

/* --- the connection --------------------------------------------------------------------------------------------- */

struct reader {
	struct pgc_file *f;
	pthread_t t;
	off_t off;
	ssize_t n;
	char b[32];
};

static void *reader_run(void *arg)
{
	struct reader *r = arg;

	r->n = pgc_pread(r->f, r->b, sizeof(r->b), r->off);
	return NULL;
}

static void readers_start(struct reader *r, int n, struct pgc_file *f)
{
	for (int i = 0; i < n; i++) {
		r[i] = (struct reader){ .f = f, .off = i * 37 };
		assert_int_equal(pthread_create(&r[i].t, NULL, reader_run, &r[i]), 0);
	}
}

static void readers_join(struct reader *r, int n)
{
	for (int i = 0; i < n; i++)
		pthread_join(r[i].t, NULL);
}

static void replies_out_of_order_reach_their_callers(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY);
	struct reader r[24];

	for (int round = 0; round < 20; round++) {
		set(fake.hold, 24);
		readers_start(r, 24, f);
		readers_join(r, 24);
		for (int i = 0; i < 24; i++) {
			assert_int_equal(r[i].n, sizeof(r[i].b));
			for (size_t j = 0; j < sizeof(r[i].b); j++)
				assert_int_equal(r[i].b[j], byte_at((size_t)r[i].off + j));
		}
	}
	pgc_close(f);
}

static void no_more_requests_are_outstanding_than_allowed(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY);
	struct reader r[80];

	set(fake.hold, HELD);
	readers_start(r, 80, f);
	assert_true(wait_for(&fake.held, PGC_REQUESTS_MAX));
	usleep(50000);
	assert_int_equal(get(fake.held), PGC_REQUESTS_MAX);
	set(fake.kill, 1);
	readers_join(r, 80);
	for (int i = 0; i < 80; i++)
		assert_int_equal(r[i].n, -ECONNRESET);
	pgc_close(f);
}

static void a_hang_up_ends_every_waiting_request(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY);
	struct reader r[8];
	char b;

	set(fake.hold, HELD);
	readers_start(r, 8, f);
	assert_true(wait_for(&fake.held, 8));
	set(fake.kill, 1);
	readers_join(r, 8);
	for (int i = 0; i < 8; i++)
		assert_int_equal(r[i].n, -ECONNRESET);
	assert_int_equal(pgc_pread(f, &b, 1, 0), -ECONNRESET);
	assert_int_equal(pgc_fsync(f), -ECONNRESET);
	assert_int_equal(pgc_close(f), 0);
}

static void a_window_that_is_refused_is_not_asked_for_at_each_read(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY);
	int before = get(fake.windows);
	char b;

	for (int i = 0; i < 200; i++)
		assert_int_equal(pgc_pread(f, &b, 1, i), 1);
	assert_int_equal(get(fake.windows), before + 1);
	pgc_close(f);
}

static void a_malformed_reply_ends_the_connection(void **state)
{
	static const struct { int bad, result; } cases[] = {
		{ BAD_TAG, -EPROTO }, { BAD_TYPE, -EPROTO }, { BAD_SHORT, -EPROTO }, { BAD_STATUS, -EPROTO },
		{ BAD_FDS, -EPROTO }, { BAD_HANGUP, -ECONNRESET },
	};
	int fds = fd_count();

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pgc_file *f = open_mem(O_RDONLY);
		char b;

		set(fake.bad, cases[i].bad);
		assert_int_equal(pgc_pread(f, &b, 1, 0), cases[i].result);
		assert_int_equal(pgc_pread(f, &b, 1, 0), cases[i].result);
		pgc_close(f);
	}
	assert_true(wait_for(&fake.connections, 0));
	assert_true(comes_to(fds));
}

/* --- mappings --------------------------------------------------------------------------------------------------- */

#define assert_mmap_fails(f, addr, len, prot, flags, off, error) \
	do { \
		errno = 0; \
		assert_ptr_equal(pgc_mmap(f, addr, len, prot, flags, off), MAP_FAILED); \
		assert_int_equal(errno, error); \
	} while (0)

static void mmap_checks_its_arguments(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR), *r = open_mem(O_RDONLY), *w = open_mem(O_WRONLY);
	const int rw = PROT_READ | PROT_WRITE;
	char *page_of_fake = (char *)&fake - (uintptr_t)&fake % PAGE;

	assert_mmap_fails(NULL, NULL, PAGE, rw, MAP_SHARED, 0, EBADF);
	assert_mmap_fails(f, NULL, 0, rw, MAP_SHARED, 0, EINVAL);
	assert_mmap_fails(f, NULL, PAGE, rw, 0, 0, EINVAL);
	assert_mmap_fails(f, NULL, PAGE, rw, MAP_SHARED | MAP_PRIVATE, 0, EINVAL);
	assert_mmap_fails(f, NULL, PAGE, rw, MAP_SHARED_VALIDATE | 0x80000 /* MAP_SYNC */, 0, EOPNOTSUPP);
	assert_mmap_fails(f, NULL, PAGE, rw, MAP_SHARED, 100, EINVAL);
	assert_mmap_fails(f, NULL, PAGE, rw, MAP_SHARED, -(off_t)PAGE, EOVERFLOW);
	assert_mmap_fails(f, NULL, 2 * PAGE, rw, MAP_SHARED, INT64_MAX & ~(off_t)(PAGE - 1), EOVERFLOW);
	assert_mmap_fails(f, NULL, SIZE_MAX, rw, MAP_SHARED, 0, ENOMEM);
	assert_mmap_fails(f, NULL, SIZE_MAX / 4, rw, MAP_SHARED, 0, ENOMEM);
	assert_mmap_fails(f, NULL, PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS, 0, EINVAL);
	assert_mmap_fails(f, NULL, PAGE, rw, MAP_SHARED | MAP_HUGETLB, 0, EINVAL);
	assert_mmap_fails(f, NULL, PAGE, rw, MAP_PRIVATE | MAP_GROWSDOWN, 0, EINVAL);
	assert_mmap_fails(r, NULL, PAGE, rw, MAP_SHARED, 0, EACCES);
	assert_mmap_fails(w, NULL, PAGE, PROT_READ, MAP_SHARED, 0, EACCES);
	assert_mmap_fails(w, NULL, PAGE, PROT_WRITE, MAP_PRIVATE, 0, EACCES);
	assert_mmap_fails(f, page_of_fake + 100, PAGE, rw, MAP_SHARED | MAP_FIXED, 0, EINVAL);
	assert_mmap_fails(f, page_of_fake, PAGE, rw, MAP_SHARED | MAP_FIXED_NOREPLACE, 0, EEXIST);
	assert_int_equal(lib.n_map, 0);
	pgc_close(f);
	pgc_close(r);
	pgc_close(w);
}

static void mappings_show_the_file(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR), *r = open_mem(O_RDONLY);
	char *s = pgc_mmap(f, NULL, 20 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	char *p = pgc_mmap(f, NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, PAGE);
	char *o = pgc_mmap(r, NULL, 3 * PAGE + 1, PROT_READ, MAP_SHARED | MAP_POPULATE, PAGE);
	char b;

	assert_ptr_not_equal(s, MAP_FAILED);
	assert_ptr_not_equal(p, MAP_FAILED);
	assert_ptr_not_equal(o, MAP_FAILED);
	assert_int_equal(get(fake.seen[PGC_MSG_MAP]), 3);
	assert_int_equal(get(fake.seen[PGC_MSG_POPULATE]), 1);
	assert_int_equal(lib.n_map, 3);
	for (size_t i = 0; i < FILE_SIZE; i += 1000)
		assert_int_equal(s[i], byte_at(i));
	assert_int_equal(p[PAGE], byte_at(2 * PAGE));
	assert_int_equal(o[0], byte_at(PAGE));
	s[PAGE] = 'S';
	assert_int_equal(o[0], 'S');
	assert_int_equal(p[0], 'S');
	p[0] = 'P';
	assert_int_equal(s[PAGE], 'S');
	assert_int_equal(pread(fake.memfd, &b, 1, PAGE), 1);
	assert_int_equal(b, 'S');
	assert_int_equal(pgc_munmap(s, 20 * PAGE), 0);
	assert_int_equal(pgc_munmap(p, 2 * PAGE), 0);
	assert_int_equal(pgc_munmap(o, 4 * PAGE), 0);
	assert_int_equal(lib.n_map, 0);
	pgc_close(f);
	pgc_close(r);
}

static void map_fixed_replaces_what_was_there(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 4 * PAGE, PROT_READ, MAP_SHARED, 0);
	char *t = pgc_mmap(f, s + PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, 5 * PAGE);

	assert_ptr_equal(t, s + PAGE);
	assert_int_equal(lib.n_map, 3);
	assert_int_equal(s[PAGE], byte_at(5 * PAGE));
	assert_int_equal(s[2 * PAGE], byte_at(2 * PAGE));
	assert_int_equal(pgc_munmap(s, 4 * PAGE), 0);
	pgc_close(f);
}

static void a_mapping_refused_by_the_daemon_is_taken_away(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	void *p[MAPS];

	for (int i = 0; i < MAPS; i++)
		p[i] = pgc_mmap(f, NULL, PAGE, PROT_READ, MAP_SHARED, 2 * i * PAGE);
	assert_mmap_fails(f, NULL, PAGE, PROT_READ, MAP_SHARED, 0, ENOSPC);
	assert_int_equal(lib.n_map, MAPS);
	for (int i = 0; i < MAPS; i++)
		assert_int_equal(pgc_munmap(p[i], PAGE), 0);
	pgc_close(f);
}

static void a_buffer_in_an_untouched_mapping_works(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	assert_int_equal(pgc_pread(f, s + 2 * PAGE, 100, 5 * PAGE), 100);
	assert_int_equal(s[2 * PAGE + 1], byte_at(5 * PAGE + 1));
	assert_int_equal(pgc_pwrite(f, s + 6 * PAGE, 100, 7 * PAGE), 100);
	assert_int_equal(s[7 * PAGE + 2], byte_at(6 * PAGE + 2));
	pgc_munmap(s, 8 * PAGE);
	pgc_close(f);
}

static void msync_checks_and_asks_for_its_range(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	assert_int_equal(pgc_msync(s, PAGE, MS_SYNC | MS_ASYNC), -EINVAL);
	assert_int_equal(pgc_msync(s + 1, PAGE, MS_SYNC), -EINVAL);
	assert_int_equal(pgc_msync(s, 0, MS_SYNC), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 0);
	assert_int_equal(pgc_msync(s + PAGE, PAGE + 1, MS_SYNC), 0);
	assert_int_equal(get(fake.last_off), PAGE);
	assert_int_equal(get(fake.last_len), 2 * PAGE);
	assert_int_equal(pgc_msync(s, PAGE, MS_ASYNC), 0);
	assert_int_equal(get(fake.last_flags), PGC_SYNC_ASYNC);
	assert_int_equal(pgc_munmap(s + 3 * PAGE, PAGE), 0);
	assert_int_equal(pgc_msync(s, 8 * PAGE, MS_SYNC), -ENOMEM);
	assert_int_equal(get(fake.last_off), 4 * PAGE);
	assert_int_equal(get(fake.last_len), 4 * PAGE);
	set(fake.error, EIO);
	assert_int_equal(pgc_msync(s, PAGE, MS_SYNC), -EIO);
	set(fake.error, 0);
	pgc_munmap(s, 8 * PAGE);
	pgc_close(f);
}

static void msync_finds_a_mapping_that_was_moved(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	char *t = mremap(s, 4 * PAGE, 2 * 4 * PAGE, MREMAP_MAYMOVE);

	/* Whether it moved or grew in place: what the table never heard of is synced. */
	assert_ptr_not_equal(t, MAP_FAILED);
	assert_int_equal(pgc_msync(t + 6 * PAGE, PAGE, MS_SYNC), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 1);
	assert_int_equal(get(fake.last_off), 6 * PAGE);
	assert_int_equal(pgc_munmap(t, 8 * PAGE), 0);
	set(fake.kill, 1); /* it has heard of no event, so it waits for an unmap that it cannot know */
	pgc_close(f);
}

static void msync_of_a_private_mapping_asks_nothing(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR), *ro = open_mem(O_RDONLY);
	char *s = pgc_mmap(f, NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
	char *t = pgc_mmap(ro, NULL, PAGE, PROT_READ, MAP_SHARED, 0);

	assert_int_equal(pgc_msync(s, PAGE, MS_SYNC), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 0);
	/* A shared one of a read-only handle is private underneath; others may have stored. */
	assert_int_equal(pgc_msync(t, PAGE, MS_SYNC), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 1);
	pgc_munmap(s, PAGE);
	pgc_munmap(t, PAGE);
	pgc_close(f);
	pgc_close(ro);
}

static void msync_joins_what_adjoins_in_the_file(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	/* Three mappings for the kernel. */
	assert_int_equal(mprotect(s + 2 * PAGE, PAGE, PROT_READ), 0);
	assert_int_equal(pgc_msync(s + PAGE, 6 * PAGE, MS_SYNC), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 1);
	assert_int_equal(get(fake.last_off), PAGE);
	assert_int_equal(get(fake.last_len), 6 * PAGE);
	assert_int_equal(pgc_munmap(s + 2 * PAGE, PAGE), 0);
	assert_int_equal(pgc_msync(s + PAGE, 6 * PAGE, MS_SYNC), -ENOMEM);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 3);
	pgc_munmap(s, 8 * PAGE);
	pgc_close(f);
}

/* An error is told once a handle, so it must not be some other one that hears of it. */
static void msync_asks_the_handle_that_mapped(void **state)
{
	struct pgc_file *f[3];
	char *s[3];

	for (int i = 0; i < 3; i++) {
		f[i] = open_mem(i == 1 ? O_RDONLY : O_RDWR);
		s[i] = pgc_mmap(f[i], NULL, PAGE, PROT_READ, MAP_SHARED, 0);
		assert_ptr_not_equal(s[i], MAP_FAILED);
	}
	for (int i = 0; i < 3; i++) {
		assert_int_equal(pgc_msync(s[i], PAGE, MS_SYNC), 0);
		assert_int_equal(get(fake.last_handle), i + 1);
	}
	/* A closed one answers for its mapping as well. */
	assert_int_equal(pgc_close(f[0]), 0);
	assert_int_equal(pgc_msync(s[0], PAGE, MS_SYNC), 0);
	assert_int_equal(get(fake.last_handle), 1);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 4);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pgc_munmap(s[i], PAGE), 0);
	pgc_close(f[1]);
	pgc_close(f[2]);
}

static void msync_asks_another_handle_when_a_closed_one_hung_up(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR), *other = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	pgc_close(f);
	set(fake.bad, BAD_HANGUP);
	assert_int_equal(pgc_msync(s, PAGE, MS_SYNC), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 2);
	assert_int_equal(get(fake.last_handle), 2);
	assert_int_equal(pgc_munmap(s, PAGE), 0);
	pgc_close(other);
}

static void msync_without_proc_syncs_what_the_table_names(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR), *ro = open_mem(O_RDONLY);
	char *s = pgc_mmap(f, NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	char *private = pgc_mmap(f, NULL, PAGE, PROT_READ, MAP_PRIVATE, 0);
	char *t = pgc_mmap(ro, NULL, PAGE, PROT_READ, MAP_SHARED, 0);
	char *none = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct rlimit old, no_more;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	no_more = (struct rlimit){ 2, old.rlim_max }; /* the fake daemon polls two */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &no_more), 0);
	int shared = pgc_msync(s + PAGE, PAGE, MS_SYNC), handle = get(fake.last_handle);
	uint64_t off = get(fake.last_off), len = get(fake.last_len);
	int reader = pgc_msync(t, PAGE, MS_ASYNC), reader_handle = get(fake.last_handle);
	uint32_t flags = get(fake.last_flags);
	int of_private = pgc_msync(private, PAGE, MS_SYNC), unknown = pgc_msync(none, PAGE, MS_SYNC);
	int seen = get(fake.seen[PGC_MSG_SYNC]);
	set(fake.error, EIO);
	int failed = pgc_msync(s, PAGE, MS_SYNC);
	set(fake.error, 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);

	assert_int_equal(shared, 0);
	assert_int_equal(handle, 1);
	assert_int_equal(off, 0);
	assert_int_equal(len, 0);
	assert_int_equal(reader, 0);
	assert_int_equal(reader_handle, 2);
	assert_int_equal(flags, PGC_SYNC_ASYNC);
	assert_int_equal(of_private, 0);
	assert_int_equal(unknown, -EMFILE);
	assert_int_equal(seen, 2);
	assert_int_equal(failed, -EIO);
	pgc_munmap(s, 4 * PAGE);
	pgc_munmap(private, PAGE);
	pgc_munmap(t, PAGE);
	munmap(none, PAGE);
	pgc_close(f);
	pgc_close(ro);
}

static void madvise_goes_to_the_daemon_or_the_kernel(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	assert_int_equal(pgc_madvise(s, PAGE, 9999), -EINVAL);
	assert_int_equal(pgc_madvise(s + 1, PAGE, MADV_RANDOM), -EINVAL);
	assert_int_equal(pgc_madvise(s, PAGE, MADV_RANDOM), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_MADVISE]), 1);
	assert_int_equal(get(fake.last_flags), MADV_RANDOM);
	assert_int_equal(pgc_madvise(s, 4 * PAGE, 22 /* POPULATE_READ */), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_POPULATE]), 1);
	assert_int_equal(pgc_madvise(s, PAGE, MADV_DONTNEED), 0);
	assert_int_equal(s[1], byte_at(1));
	assert_int_equal(pgc_madvise(s + PAGE, PAGE, MADV_DONTFORK), 0);
	assert_int_equal(lib.n_map, 3);
	assert_true(lib.map[1].dontfork);
	pgc_munmap(s, 4 * PAGE);
	pgc_close(f);
}

static void a_mapping_outlives_its_handle(void **state)
{
	int fds = fd_count();
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	assert_int_equal(pgc_close(f), 0);
	assert_non_null(lib.files);
	assert_int_equal(s[2 * PAGE], byte_at(2 * PAGE));
	assert_int_equal(pgc_msync(s, PAGE, MS_SYNC), 0);
	assert_int_equal(pgc_madvise(s, PAGE, MADV_RANDOM), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_MADVISE]), 0);
	assert_int_equal(pgc_munmap(s, 4 * PAGE), 0);
	assert_true(all_reaped());
	assert_true(wait_for(&fake.connections, 0));
	assert_true(comes_to(fds));
}

static void plain_munmap_of_a_closed_handle_is_noticed(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 4 * PAGE, PROT_READ, MAP_SHARED, 0);

	pgc_close(f);
	assert_int_equal(munmap(s, 4 * PAGE), 0);
	assert_true(wait_for(&fake.connections, 0));
	f = open_mem(O_RDONLY);
	assert_true(reaped_but(f));
	pgc_close(f);
}

static void a_dead_daemon_leaves_mappings_registered(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 4 * PAGE, PROT_READ, MAP_SHARED, 0);
	int uffd = f->uffd;

	set(fake.kill, 1);
	assert_true(wait_for(&fake.connections, 0));
	pgc_close(f);
	file_reap();
	/* The last descriptor of the userfaultfd: were it closed, holes would read as zeros. */
	assert_true(fcntl(uffd, F_GETFD) >= 0);
	assert_int_equal(pgc_munmap(s, 4 * PAGE), 0);
	assert_true(all_reaped());
	assert_true(is_closed(uffd));
}

/* --- the table, /proc/self/maps --------------------------------------------------------------------------------- */

static void put(struct pgc_file *f, uintptr_t page, uintptr_t pages, uint64_t off)
{
	struct mapping m = { .addr = page * PAGE, .len = pages * PAGE, .off = off * PAGE, .f = f };

	assert_int_equal(table_reserve(2), 0);
	table_insert(&m);
}

static void assert_entry(size_t i, uintptr_t page, uintptr_t pages, uint64_t off)
{
	assert_true(i < lib.n_map);
	assert_int_equal(lib.map[i].addr, page * PAGE);
	assert_int_equal(lib.map[i].len, pages * PAGE);
	assert_int_equal(lib.map[i].off, off * PAGE);
}

static void the_table_stays_sorted_and_cuts_what_is_replaced(void **state)
{
	struct pgc_file a = { 0 }, b = { 0 };
	struct mapping m;

	put(&a, 100, 10, 0);
	put(&a, 300, 10, 50);
	put(&b, 200, 10, 20);
	assert_entry(0, 100, 10, 0);
	assert_entry(1, 200, 10, 20);
	assert_entry(2, 300, 10, 50);
	put(&b, 104, 2, 7);        /* in the middle */
	assert_int_equal(lib.n_map, 5);
	assert_entry(0, 100, 4, 0);
	assert_entry(1, 104, 2, 7);
	assert_entry(2, 106, 4, 6);
	assert_int_equal(a.maps, 3);
	assert_int_equal(b.maps, 2);
	put(&a, 108, 94, 0);       /* the end of one and the beginning of another */
	assert_entry(2, 106, 2, 6);
	assert_entry(3, 108, 94, 0);
	assert_entry(4, 202, 8, 22);
	assert_true(table_next(109 * PAGE, 110 * PAGE, &m));
	assert_int_equal(m.addr, 109 * PAGE);
	assert_int_equal(m.len, PAGE);
	assert_int_equal(m.off, PAGE);
	assert_int_equal(a.busy, 1);
	file_put(&a);
	assert_false(table_next(210 * PAGE, 300 * PAGE, &m));
	assert_int_equal(table_reserve(1), 0);
	table_remove(0, UINTPTR_MAX);
	assert_int_equal(lib.n_map, 0);
	assert_int_equal(a.maps, 0);
	assert_int_equal(b.maps, 0);
}

static void resync_follows_the_address_space(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, PAGE);

	assert_int_equal(munmap(s + 2 * PAGE, PAGE), 0);
	assert_int_equal(mprotect(s, PAGE, PROT_READ), 0);
	pthread_mutex_lock(&lib.lock);
	assert_true(table_resync());
	pthread_mutex_unlock(&lib.lock);
	assert_int_equal(lib.n_map, 3);
	assert_entry(0, (uintptr_t)s / PAGE, 1, 1);
	assert_entry(1, (uintptr_t)s / PAGE + 1, 1, 2);
	assert_entry(2, (uintptr_t)s / PAGE + 3, 5, 4);
	assert_int_equal(lib.map[0].prot, PROT_READ);
	assert_true(lib.map[0].tracked);
	assert_int_equal(f->maps, 3);
	pgc_munmap(s, 8 * PAGE);
	pthread_mutex_lock(&lib.lock);
	assert_true(table_resync());
	pthread_mutex_unlock(&lib.lock);
	assert_int_equal(lib.n_map, 0);
	set(fake.kill, 1); /* it does not split what it knows */
	pgc_close(f);
}

static void a_line_of_maps_is_parsed(void **state)
{
	struct vma v;

	assert_true(vma_parse("7f1c00000000-7f1c00001000 r-xp 00002000 fd:01 4026531840    /usr/lib/x", &v));
	assert_int_equal(v.start, 0x7f1c00000000);
	assert_int_equal(v.end, 0x7f1c00001000);
	assert_int_equal(v.prot, PROT_READ | PROT_EXEC);
	assert_false(v.shared);
	assert_int_equal(v.off, 0x2000);
	assert_int_equal(v.ino, 4026531840);
	assert_true(vma_parse("1000-2000 -w-s 0 00:01 7", &v));
	assert_true(v.shared);
	assert_int_equal(v.prot, PROT_WRITE);
	assert_false(vma_parse("", &v));
	assert_false(vma_parse("1000-2000 rw", &v));
	assert_false(vma_parse("1000-fffffffffffffffff rw-p 0 0:0 0", &v));
	assert_false(vma_parse("x000-2000 rw-p 0 0:0 0", &v));
}

/* --- fork ------------------------------------------------------------------------------------------------------- */

static int run_child(int (*f)(void *), void *arg)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(20);
		_exit(f(arg));
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

struct family {
	struct pgc_file *f, *w;
	char *shared, *private, *moved;
};

static int child_uses_all(void *arg)
{
	struct family *a = arg;
	char b[10];

	if (a->shared[3 * PAGE] != byte_at(3 * PAGE))
		return 1;
	a->shared[3 * PAGE] = 'C';
	if (a->private[0] != 'P' || a->private[PAGE] != byte_at(PAGE))
		return 2;
	a->private[0] = 'Q';
	if (a->moved[5 * PAGE] != byte_at(5 * PAGE))
		return 3;
	if (pgc_pread(a->f, b, 10, 7 * PAGE) != 10 || b[1] != byte_at(7 * PAGE + 1))
		return 4;
	if (pgc_pwrite(a->w, "W", 1, 9 * PAGE) != 1)
		return 5;
	if (pgc_msync(a->shared, PAGE, MS_SYNC) != 0)
		return 6;
	char *p = pgc_mmap(a->f, NULL, PAGE, PROT_READ, MAP_SHARED, 4 * PAGE);
	if (p == MAP_FAILED || p[0] != byte_at(4 * PAGE) || pgc_munmap(p, PAGE) != 0)
		return 7;
	if (pgc_close(a->f) != 0 || a->shared[6 * PAGE] != byte_at(6 * PAGE))
		return 8;
	return 0;
}

static void a_child_goes_on_with_handles_and_mappings(void **state)
{
	struct family a = { open_mem(O_RDWR), open_mem(O_WRONLY) };
	char *reserved = mmap(NULL, 8 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	a.shared = pgc_mmap(a.f, NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	a.private = pgc_mmap(a.f, NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
	a.moved = pgc_mmap(a.f, NULL, 8 * PAGE, PROT_READ, MAP_SHARED, 0);
	a.private[0] = 'P';
	assert_int_equal(pgc_pwrite(a.w, "x", 1, 0), 1);
	/* Behind the library's back; the daemon of this test does not care. */
	a.moved = mremap(a.moved, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, reserved);
	assert_ptr_equal(a.moved, reserved);
	assert_int_equal(run_child(child_uses_all, &a), 0);
	assert_int_equal(a.shared[3 * PAGE], 'C');
	assert_int_equal(a.private[0], 'P');
	assert_int_equal(a.shared[9 * PAGE - 2 * PAGE], byte_at(7 * PAGE));
	assert_int_equal(pgc_pread(a.f, a.private, 1, 9 * PAGE), 1);
	assert_int_equal(a.private[0], 'W');
	assert_true(get(fake.seen[PGC_MSG_CLONE]) == 1);
	assert_true(get(fake.seen[PGC_MSG_OPEN]) == 3);
	pgc_munmap(a.shared, 8 * PAGE);
	pgc_munmap(a.private, 2 * PAGE);
	pgc_munmap(a.moved, 8 * PAGE);
	set(fake.kill, 1); /* it knows the moved mapping by its old address */
	pgc_close(a.f);
	pgc_close(a.w);
}

static int child_touches(void *arg)
{
	char *p = arg;

	/* Inaccessible: the kernel refuses to read from it. */
	int fd[2];

	if (pipe(fd) < 0)
		return 1;
	return write(fd[1], p, 1) < 0 && errno == EFAULT ? 0 : 2;
}

static void without_a_daemon_a_childs_mappings_are_inaccessible(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	char *p = pgc_mmap(f, NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, PAGE);

	p[0] = 'P';
	setenv("PAGECACHED_SOCKET", "/nonexistent/socket", 1);
	int a = run_child(child_touches, s), b = run_child(child_touches, p);
	setenv("PAGECACHED_SOCKET", fake.path, 1);
	assert_int_equal(a, 0);
	assert_int_equal(b, 0);
	assert_int_equal(p[0], 'P');
	pgc_munmap(s, PAGE);
	pgc_munmap(p, PAGE);
	pgc_close(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(open_refuses_bad_arguments),
		T(fdopen_refuses_what_is_no_file),
		T(a_uri_is_told_from_a_path),
		T(open_passes_descriptors_of_a_path_and_none_of_a_uri),
		T(open_with_trunc_truncates_through_the_daemon),
		T(open_without_a_daemon_is_refused),
		T(another_version_is_refused),
		T(the_socket_is_named_by_the_environment),
		T(read_checks_its_arguments),
		T(read_gives_the_bytes_and_stops_at_the_end),
		T(vectors_are_read_and_written_in_order),
		T(a_read_that_lost_its_pages_is_repeated),
		T(a_partly_bad_buffer_gives_a_partial_count),
		T(a_long_write_goes_in_steps), T(a_daemon_without_room_for_the_transfer_area_is_given_it_again),
		T(append_says_where_it_went),
		T(a_failed_write_is_reported),
		T(o_dsync_syncs_each_write),
		T(a_write_out_names_its_range_and_leaves_the_store_alone), T(seek_asks_the_daemon_for_data_and_holes),
		T(seeks_that_make_no_sense_are_not_asked), T(a_small_file_size_limit_refuses_without_a_signal),
		T(size_and_sync_calls_check_their_arguments),
		T(replies_out_of_order_reach_their_callers),
		T(no_more_requests_are_outstanding_than_allowed),
		T(a_hang_up_ends_every_waiting_request),
		T(a_window_that_is_refused_is_not_asked_for_at_each_read),
		T(a_malformed_reply_ends_the_connection),
		T(mmap_checks_its_arguments),
		T(mappings_show_the_file),
		T(map_fixed_replaces_what_was_there),
		T(a_mapping_refused_by_the_daemon_is_taken_away),
		T(a_buffer_in_an_untouched_mapping_works),
		T(msync_checks_and_asks_for_its_range),
		T(msync_finds_a_mapping_that_was_moved),
		T(msync_of_a_private_mapping_asks_nothing),
		T(msync_joins_what_adjoins_in_the_file),
		T(msync_asks_the_handle_that_mapped),
		T(msync_asks_another_handle_when_a_closed_one_hung_up),
		T(msync_without_proc_syncs_what_the_table_names),
		T(madvise_goes_to_the_daemon_or_the_kernel),
		T(a_mapping_outlives_its_handle),
		T(plain_munmap_of_a_closed_handle_is_noticed),
		T(a_dead_daemon_leaves_mappings_registered),
		T(the_table_stays_sorted_and_cuts_what_is_replaced),
		T(resync_follows_the_address_space),
		T(a_line_of_maps_is_parsed),
		T(a_child_goes_on_with_handles_and_mappings),
		T(without_a_daemon_a_childs_mappings_are_inaccessible),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
