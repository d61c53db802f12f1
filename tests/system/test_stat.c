/* SPDX-License-Identifier: Apache-2.0 */
/* What stat(2) and lseek(2) say of a file whose bytes are not in the store yet: times, size, blocks, data and holes. */
#include <sys/mount.h>
#include <sys/socket.h>

#include "harness.h"

#include "libclient/internal.h"

static struct stat shown(struct pgc_file *f)
{
	struct stat st;

	CHECK_EQ(pgc_fstat(f, &st), 0);
	return st;
}

static struct stat stored(const char *path)
{
	struct stat st;

	CHECK_EQ(stat(path, &st), 0);
	return st;
}

static bool same(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }
static bool before(struct timespec a, struct timespec b) { return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec); }

/* A file whose times are earlier than what is done to it, also on the kernel's coarse clock. */
static char *make_old(const char *name, size_t size, unsigned gen)
{
	char *path = make_file(name, size, gen);

	file_clock_tick();
	return path;
}

/* For the order of what clients and others do: stamps lag behind the time by up to two ticks and a little. */
static void a_while(void) { nanosleep(&(struct timespec){ .tv_nsec = 40000000 }, NULL); }

static struct timespec mtime_of(const struct pgc_stat_reply *r) { return (struct timespec){ r->mtime_s, r->mtime_ns }; }
static struct timespec ctime_of(const struct pgc_stat_reply *r) { return (struct timespec){ r->ctime_s, r->ctime_ns }; }

static void set_mtime(const char *path, time_t to)
{
	CHECK_EQ(utimensat(AT_FDCWD, path, (struct timespec[]){ { .tv_nsec = UTIME_OMIT }, { .tv_sec = to } }, 0), 0);
}

static void pwrite_all(struct pgc_file *f, const void *buf, size_t n, off_t off) { CHECK_EQ(pgc_pwrite(f, buf, n, off), (ssize_t)n); }

/* --- times --- */

SYSTEM_TEST(times_move_with_a_write)
{
	struct pgc_file *f = open_file(make_old("f", 3 * PAGE, 1), O_RDWR);
	struct stat was = shown(f), is;

	file_clock_tick();
	pwrite_all(f, "x", 1, 100);
	is = shown(f);
	CHECK(before(was.st_mtim, is.st_mtim) && same(is.st_mtim, is.st_ctim));
	file_clock_tick();
	CHECK(same(shown(f).st_mtim, is.st_mtim));
}

SYSTEM_TEST(times_move_with_a_store_to_a_clean_page)
{
	struct pgc_file *f = open_file(make_old("f", 3 * PAGE, 1), O_RDWR);
	uint8_t *m = map(f, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	struct stat was = shown(f), first;

	file_clock_tick();
	(void)load(m);
	CHECK(same(shown(f).st_mtim, was.st_mtim));
	store(m, 9);
	first = shown(f);
	CHECK(before(was.st_mtim, first.st_mtim) && before(was.st_ctim, first.st_ctim));
	file_clock_tick();
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(same(shown(f).st_mtim, first.st_mtim));
	store(m, 10); /* clean until now */
	CHECK(before(first.st_mtim, shown(f).st_mtim));
}

SYSTEM_TEST(times_move_with_truncate_and_fallocate)
{
	struct pgc_file *f = open_file(make_old("f", 3 * PAGE, 1), O_RDWR);
	struct stat was = shown(f), is;

	file_clock_tick();
	CHECK_EQ(pgc_ftruncate(f, PAGE), 0);
	is = shown(f);
	CHECK(before(was.st_mtim, is.st_mtim));
	file_clock_tick();
	CHECK_EQ(pgc_fallocate(f, 0, 0, 8 * PAGE), 0);
	CHECK(before(is.st_mtim, shown(f).st_mtim));
}

SYSTEM_TEST(times_do_not_move_with_a_write_out)
{
	char *path = make_old("f", 8 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	struct stat written, synced;

	pwrite_all(f, "abc", 3, 5 * PAGE);
	written = shown(f);
	file_clock_tick();
	CHECK_EQ(pgc_fsync(f), 0);
	synced = shown(f);
	CHECK(same(synced.st_mtim, written.st_mtim));
	CHECK(same(synced.st_ctim, written.st_ctim));
	CHECK(same(stored(path).st_mtim, written.st_mtim)); /* when fsync answers, not some time after */
}

static void mount_at(const char *name, const char *type, const char *options)
{
	CHECK_EQ(mkdir(file_path(name), 0755), 0);
	if (mount(type, file_path(name), type, 0, options) != 0)
		skip_test("what one mounts as root");
}

/* As on btrfs, fstat(2) says another device number there than the table of mounts. */
SYSTEM_TEST(times_and_holes_are_known_where_files_have_a_device_number_of_their_own)
{
	char options[1024], *path;
	struct pgc_file *f;
	struct stat written;
	off_t at;

	if (env.user)
		return; /* only root mounts */
	mount_at("low", "tmpfs", NULL);
	mount_at("high", "tmpfs", NULL);
	CHECK_EQ(mkdir(file_path("high/up"), 0755), 0);
	CHECK_EQ(mkdir(file_path("high/work"), 0755), 0);
	snprintf(options, sizeof(options), "lowerdir=%s,upperdir=%s,workdir=%s,xino=off", file_path("low"), file_path("high/up"), file_path("high/work"));
	mount_at("both", "overlay", options);
	path = make_old("both/f", PAGE, 1);
	CHECK_EQ(truncate(path, 8 * PAGE), 0);
	CHECK(stored(path).st_dev != stored(file_path("both")).st_dev);
	f = open_file(path, O_RDWR);
	CHECK_EQ(pgc_seek(f, 0, SEEK_HOLE, &at), 0);
	CHECK_EQ(at, PAGE);
	pwrite_all(f, "abc", 3, 5 * PAGE);
	written = shown(f);
	file_clock_tick();
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(same(stored(path).st_mtim, written.st_mtim));
	pgc_close(f);
	umount2(file_path("both"), MNT_DETACH);
	umount2(file_path("high"), MNT_DETACH);
	umount2(file_path("low"), MNT_DETACH);
}

SYSTEM_TEST(times_do_not_move_with_a_write_out_in_the_background, .dirty_expire = "100ms")
{
	char *path = make_old("f", 8 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	struct stat written;

	pwrite_all(f, "abc", 3, 5 * PAGE);
	written = shown(f);
	WAIT_UNTIL(store_has_byte(path, 5 * PAGE, 'a'));
	WAIT_UNTIL(same(stored(path).st_mtim, written.st_mtim));
	CHECK(same(shown(f).st_mtim, written.st_mtim));
	CHECK(same(shown(f).st_ctim, written.st_ctim));
}

SYSTEM_TEST(fdatasync_puts_the_mtime_back_soon)
{
	char *path = make_old("f", 8 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	struct stat written;

	pwrite_all(f, "abc", 3, 5 * PAGE);
	written = shown(f);
	file_clock_tick();
	CHECK_EQ(pgc_fdatasync(f), 0);
	CHECK(same(shown(f).st_mtim, written.st_mtim));
	WAIT_UNTIL(same(stored(path).st_mtim, written.st_mtim));
}

SYSTEM_TEST(times_outlive_the_last_handle_and_so_do_the_pages)
{
	char *path = make_old("f", 8 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	char buf[8 * PAGE];
	struct pgc_stat_reply r;
	struct stat written, again;
	uint64_t fills;

	CHECK_EQ(pgc_pread(f, buf, sizeof(buf), 0), sizeof(buf));
	pwrite_all(f, "abc", 3, 5 * PAGE);
	written = shown(f);
	file_clock_tick();
	pgc_close(f);
	WAIT_UNTIL(same(stored(path).st_mtim, written.st_mtim));
	/* Idle: its store is closed. */
	WAIT_UNTIL(ctl_stat(path, &r) == 0 && same(ctime_of(&r), written.st_ctim));
	CHECK(same(mtime_of(&r), written.st_mtim));
	CHECK(before(written.st_ctim, stored(path).st_ctim));
	fills = status().fills;
	f = open_file(path, O_RDWR);
	again = shown(f);
	CHECK(same(again.st_mtim, written.st_mtim) && same(again.st_ctim, written.st_ctim));
	CHECK_EQ(pgc_pread(f, buf, sizeof(buf), 0), sizeof(buf));
	CHECK_EQ(status().fills, fills);
}

SYSTEM_TEST(a_file_that_is_not_kept_leaves_its_mtime_in_the_store, .config = "retain = mapped\n")
{
	char *path = make_old("f", PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	struct stat written;

	pwrite_all(f, "abc", 3, 0);
	written = shown(f);
	file_clock_tick();
	pgc_close(f);
	WAIT_UNTIL(count_files() == 0);
	CHECK(store_has_byte(path, 0, 'a'));
	CHECK(same(stored(path).st_mtim, written.st_mtim));
}

SYSTEM_TEST(a_truncated_file_leaves_its_mtime_in_the_store)
{
	char *path = make_old("f", PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	struct stat cut;

	file_clock_tick();
	CHECK_EQ(pgc_ftruncate(f, 0), 0);
	cut = shown(f);
	pgc_close(f);
	WAIT_UNTIL(count_files() == 0);
	CHECK(same(stored(path).st_mtim, cut.st_mtim));
}

SYSTEM_TEST(a_daemon_that_stops_leaves_the_mtime_in_the_store)
{
	char *path = make_old("f", PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	struct stat written;

	pwrite_all(f, "abc", 3, 0);
	written = shown(f);
	file_clock_tick();
	daemon_stop();
	CHECK(store_has_byte(path, 0, 'a'));
	CHECK(same(stored(path).st_mtim, written.st_mtim));
}

SYSTEM_TEST(an_mtime_set_past_the_cache_stays)
{
	char *path = make_old("f", PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);

	pwrite_all(f, "abc", 3, 0);
	a_while();
	set_mtime(path, 1000000);
	CHECK_EQ(shown(f).st_mtim.tv_sec, 1000000); /* while the page is dirty */
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 0, 'a'));
	CHECK_EQ(shown(f).st_mtim.tv_sec, 1000000);
	CHECK_EQ(stored(path).st_mtim.tv_sec, 1000000);
}

SYSTEM_TEST(a_write_after_an_mtime_was_set_moves_it)
{
	char *path = make_old("f", PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	struct stat written;

	pwrite_all(f, "abc", 3, 0);
	a_while();
	set_mtime(path, 1000000);
	file_clock_tick();
	pwrite_all(f, "xyz", 3, 0);
	written = shown(f);
	CHECK(written.st_mtim.tv_sec > 1000000);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(same(stored(path).st_mtim, written.st_mtim));
}

SYSTEM_TEST(an_mtime_set_right_after_what_is_dirty_was_written_stays, .dirty_expire = "50ms")
{
	char *path = make_old("f", 4 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);

	/* As a program that was not rebuilt does it: no tick between its steps. */
	for (int i = 0; i < 50; i++) {
		pwrite_all(f, "abc", 3, (i % 4) * (off_t)PAGE);
		CHECK_EQ(file_write_out(f, 0, 0, true), 0);
		set_mtime(path, 1000000 + i);
		CHECK_EQ(shown(f).st_mtim.tv_sec, 1000000 + i);
		if (i % 5 == 0)
			CHECK_EQ(pgc_fsync(f), 0);
		CHECK_EQ(shown(f).st_mtim.tv_sec, 1000000 + i);
	}
	pgc_close(f);
	WAIT_UNTIL(file_state("f").handles == 0);
	CHECK_EQ(stored(path).st_mtim.tv_sec, 1000049);
}

SYSTEM_TEST(a_mode_set_past_the_cache_moves_the_ctime_only)
{
	char *path = make_old("f", PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	struct stat written, is;

	pwrite_all(f, "abc", 3, 0);
	CHECK_EQ(pgc_fsync(f), 0);
	written = shown(f);
	file_clock_tick();
	CHECK_EQ(chmod(path, 0640), 0);
	is = shown(f);
	CHECK_EQ(is.st_mode & 07777, 0640);
	CHECK(same(is.st_mtim, written.st_mtim));
	CHECK(same(is.st_ctim, stored(path).st_ctim));
}

/* --- stat of a path --- */

SYSTEM_TEST(the_daemon_knows_of_an_append_that_is_not_written)
{
	char *path = make_old("f", 10, 1), buf[3 * PAGE] = "x";
	struct pgc_file *f = open_file(path, O_RDWR);
	struct pgc_stat_reply r;
	struct stat st;

	file_clock_tick();
	CHECK_EQ(pgc_append(f, buf, sizeof(buf), NULL), sizeof(buf));
	CHECK_EQ(store_size(path), 10);
	CHECK_EQ(ctl_stat(path, &r), 0);
	st = shown(f);
	CHECK_EQ(r.size, 10 + sizeof(buf));
	CHECK_EQ(r.size, st.st_size);
	CHECK_EQ(r.blocks, st.st_blocks);
	CHECK(same(mtime_of(&r), st.st_mtim) && same(ctime_of(&r), st.st_ctim));
	CHECK(before(stored(path).st_mtim, st.st_mtim));
}

SYSTEM_TEST(the_daemon_knows_of_a_file_that_nobody_has_open_but_is_not_written, .seconds = 120)
{
	struct pgc_file *f = open_mem("mem:late", PAGE, 1);
	struct pgc_msg m = { .type = PGC_CTL_STAT };
	struct pgc_ctl_file_reply of;

	inject("mem:late", PGC_INJECT_WRITE_DELAY, 500000, 0);
	pwrite_all(f, "abc", 3, 2 * PAGE);
	pgc_close(f);
	CHECK(cached_file("mem:late", &of));
	m.ctl_stat.dev = of.dev;
	m.ctl_stat.ino = of.ino;
	control_request(&m);
	CHECK_EQ(m.status, 0);
	CHECK_EQ(m.stat_reply.size, 2 * PAGE + 3);
	CHECK(m.stat_reply.blocks > 0);
	inject("mem:late", PGC_INJECT_WRITE_DELAY, 0, 0);
}

SYSTEM_TEST(of_what_is_not_cached_the_kernel_has_the_truth)
{
	struct pgc_stat_reply r;

	CHECK_EQ(ctl_stat(make_old("f", 10, 1), &r), -ENOENT);
}

SYSTEM_TEST(of_an_idle_file_that_changed_in_its_store_the_kernel_has_the_truth)
{
	char *path = make_old("f", PAGE, 1), buf[PAGE];
	struct pgc_file *f = open_file(path, O_RDWR);
	struct pgc_stat_reply r;

	CHECK_EQ(pgc_pread(f, buf, sizeof(buf), 0), sizeof(buf));
	pgc_close(f);
	WAIT_UNTIL(file_state("f").handles == 0);
	CHECK_EQ(ctl_stat(path, &r), 0);
	CHECK_EQ(r.size, PAGE);
	file_clock_tick();
	store_write(path, "more", 4, PAGE);
	WAIT_UNTIL(ctl_stat(path, &r) == -ENOENT);
}

SYSTEM_TEST(a_malformed_stat_ends_the_connection)
{
	int sock = control_connect();
	struct pgc_msg m = { .type = PGC_CTL_STAT, .tag = 1 };

	CHECK_EQ(send(sock, &m, sizeof(m), MSG_NOSIGNAL), sizeof(m)); /* no inode has the number 0 */
	CHECK_EQ(recv(sock, &m, sizeof(m), 0), 0);
	close(sock);
}

SYSTEM_TEST(what_is_not_written_counts_in_blocks)
{
	char *path = make_old("f", 0, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	static char buf[20 * PAGE];
	struct stat st;

	memset(buf, 1, sizeof(buf));
	pwrite_all(f, buf, sizeof(buf), 0);
	CHECK_EQ(stored(path).st_blocks, 0);
	st = shown(f);
	CHECK_EQ(st.st_blocks, 20 * PAGE / 512);
	/* Over a store that has all of it they are not counted twice. */
	CHECK_EQ(pgc_fsync(f), 0);
	pwrite_all(f, buf, sizeof(buf), 0);
	CHECK_EQ(shown(f).st_blocks, stored(path).st_blocks);
}

/* --- SYNC_WRITE --- */

SYSTEM_TEST(write_out_of_a_range_puts_its_bytes_into_the_store)
{
	char *path = make_old("f", 8 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);

	pwrite_all(f, "a", 1, 0);
	pwrite_all(f, "b", 1, 5 * PAGE);
	CHECK_EQ(file_write_out(f, 5 * PAGE, PAGE, true), 0);
	CHECK(store_has_byte(path, 5 * PAGE, 'b'));
	CHECK(!store_has_byte(path, 0, 'a'));
	CHECK_EQ(file_write_out(f, 0, 0, false), 0);
	WAIT_UNTIL(store_has_byte(path, 0, 'a'));
}

SYSTEM_TEST(write_out_does_not_sync_the_store)
{
	struct pgc_file *f = open_mem("mem:m", 4 * PAGE, 1);

	inject("mem:m", PGC_INJECT_SYNC_ERROR, EIO, 0);
	pwrite_all(f, "a", 1, 0);
	CHECK_EQ(file_write_out(f, 0, 0, true), 0);
	CHECK_EQ(pgc_fsync(f), -EIO);
	inject("mem:m", PGC_INJECT_SYNC_ERROR, 0, 0);
}

SYSTEM_TEST(an_error_of_a_write_out_is_left_for_fsync)
{
	struct pgc_file *f = open_mem("mem:m", 4 * PAGE, 1);

	pwrite_all(f, "a", 1, 0);
	inject("mem:m", PGC_INJECT_WRITE_ERROR, ENOSPC, 1);
	CHECK_EQ(file_write_out(f, 0, 0, true), -ENOSPC);
	CHECK_EQ(file_write_out(f, 0, 0, true), -ENOSPC); /* though it was written now */
	CHECK_EQ(pgc_fsync(f), -ENOSPC);
	CHECK_EQ(pgc_fsync(f), 0);
}

/* --- data and holes --- */

static off_t seek(struct pgc_file *f, off_t off, int whence)
{
	off_t at = -1;
	int r = pgc_seek(f, off, whence, &at);

	return r < 0 ? r : at;
}

SYSTEM_TEST(holes_of_a_sparse_file_and_what_is_dirty_in_them)
{
	size_t size = 64 * BLOCK;
	char *path = make_old("f", BLOCK, 1);
	struct pgc_file *f;
	int fd;

	CHECK_EQ(truncate(path, (off_t)size), 0);
	f = open_file(path, O_RDWR);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK_EQ(lseek(fd, 0, SEEK_HOLE), BLOCK); /* else this file system has no holes to look for */
	CHECK_EQ(seek(f, 0, SEEK_DATA), 0);
	CHECK_EQ(seek(f, 0, SEEK_HOLE), BLOCK);
	CHECK_EQ(seek(f, BLOCK, SEEK_DATA), -ENXIO);
	pwrite_all(f, "abc", 3, 20 * BLOCK + 10);
	CHECK_EQ(seek(f, BLOCK, SEEK_DATA), 20 * BLOCK);
	CHECK_EQ(seek(f, 20 * BLOCK, SEEK_HOLE), 20 * BLOCK + PAGE);
	CHECK_EQ(lseek(fd, BLOCK, SEEK_DATA), -1); /* the store does not have it yet */
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(seek(f, BLOCK, SEEK_DATA), lseek(fd, BLOCK, SEEK_DATA));
	CHECK_EQ(seek(f, 20 * BLOCK, SEEK_HOLE), lseek(fd, 20 * BLOCK, SEEK_HOLE));
	close(fd);
}

SYSTEM_TEST(what_was_read_from_a_hole_stays_a_hole)
{
	char *path = make_old("f", BLOCK, 1), buf[PAGE];
	struct pgc_file *f;

	CHECK_EQ(truncate(path, 8 * BLOCK), 0);
	f = open_file(path, O_RDONLY);
	CHECK_EQ(pgc_pread(f, buf, PAGE, 4 * BLOCK), PAGE);
	ZERO_CHECK(buf, PAGE);
	CHECK_EQ(seek(f, BLOCK, SEEK_DATA), -ENXIO);
	CHECK_EQ(seek(f, 4 * BLOCK, SEEK_HOLE), 4 * BLOCK);
}

SYSTEM_TEST(a_store_over_a_hole_is_data_at_once)
{
	char *path = make_old("f", 0, 1);
	struct pgc_file *f;
	uint8_t *m;

	CHECK_EQ(truncate(path, 8 * BLOCK), 0);
	f = open_file(path, O_RDWR);
	m = map(f, 8 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	store(m + 3 * BLOCK + 5 * PAGE, 1);
	CHECK_EQ(seek(f, 0, SEEK_DATA), 3 * BLOCK + 5 * PAGE);
	CHECK(seek(f, 3 * BLOCK + 5 * PAGE, SEEK_HOLE) > (off_t)(3 * BLOCK + 5 * PAGE));
}

SYSTEM_TEST(seeks_that_make_no_sense_are_refused)
{
	struct pgc_file *f = open_file(make_old("f", PAGE, 1), O_RDONLY);

	CHECK_EQ(seek(f, -1, SEEK_DATA), -ENXIO);
	CHECK_EQ(seek(f, PAGE, SEEK_DATA), -ENXIO);
	CHECK_EQ(seek(f, PAGE, SEEK_HOLE), -ENXIO);
	CHECK_EQ(seek(f, PAGE - 1, SEEK_HOLE), PAGE);
	CHECK_EQ(seek(f, 0, SEEK_SET), -EINVAL);
	CHECK_EQ(pgc_seek(NULL, 0, SEEK_DATA, &(off_t){ 0 }), -EBADF);
	CHECK_EQ(pgc_seek(f, 0, SEEK_DATA, NULL), -EFAULT);
}

SYSTEM_TESTS_MAIN("stat",
	cmocka_unit_test(times_move_with_a_write),
	cmocka_unit_test(times_move_with_a_store_to_a_clean_page),
	cmocka_unit_test(times_move_with_truncate_and_fallocate),
	cmocka_unit_test(times_do_not_move_with_a_write_out),
	cmocka_unit_test(times_do_not_move_with_a_write_out_in_the_background),
	cmocka_unit_test(times_and_holes_are_known_where_files_have_a_device_number_of_their_own),
	cmocka_unit_test(fdatasync_puts_the_mtime_back_soon),
	cmocka_unit_test(times_outlive_the_last_handle_and_so_do_the_pages),
	cmocka_unit_test(a_file_that_is_not_kept_leaves_its_mtime_in_the_store),
	cmocka_unit_test(a_truncated_file_leaves_its_mtime_in_the_store),
	cmocka_unit_test(a_daemon_that_stops_leaves_the_mtime_in_the_store),
	cmocka_unit_test(an_mtime_set_past_the_cache_stays),
	cmocka_unit_test(a_write_after_an_mtime_was_set_moves_it),
	cmocka_unit_test(an_mtime_set_right_after_what_is_dirty_was_written_stays),
	cmocka_unit_test(a_mode_set_past_the_cache_moves_the_ctime_only),
	cmocka_unit_test(the_daemon_knows_of_an_append_that_is_not_written),
	cmocka_unit_test(the_daemon_knows_of_a_file_that_nobody_has_open_but_is_not_written),
	cmocka_unit_test(of_what_is_not_cached_the_kernel_has_the_truth),
	cmocka_unit_test(of_an_idle_file_that_changed_in_its_store_the_kernel_has_the_truth),
	cmocka_unit_test(a_malformed_stat_ends_the_connection),
	cmocka_unit_test(what_is_not_written_counts_in_blocks),
	cmocka_unit_test(write_out_of_a_range_puts_its_bytes_into_the_store),
	cmocka_unit_test(write_out_does_not_sync_the_store),
	cmocka_unit_test(an_error_of_a_write_out_is_left_for_fsync),
	cmocka_unit_test(holes_of_a_sparse_file_and_what_is_dirty_in_them),
	cmocka_unit_test(what_was_read_from_a_hole_stays_a_hole),
	cmocka_unit_test(a_store_over_a_hole_is_data_at_once),
	cmocka_unit_test(seeks_that_make_no_sense_are_refused))
