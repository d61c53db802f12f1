/* SPDX-License-Identifier: Apache-2.0 */
/* Programs that were not rebuilt: descriptors, positions, flags, locks, mappings, and what the library does not see. */
#include "preload_acts.h"

#include <linux/close_range.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define TEXT "0123456789abcdef"

static int make(const char *name, const char *text)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static void reads(int fd, const char *text)
{
	char buf[256] = "";

	CHECK_EQ(read(fd, buf, sizeof(buf) - 1), strlen(text));
	if (strcmp(buf, text) != 0)
		FAIL("read \"%s\", not \"%s\"", buf, text);
}

static void holds(const char *name, const char *text)
{
	int fd = open(name, O_RDONLY);

	CHECK(fd >= 0);
	reads(fd, text);
	CHECK_EQ(close(fd), 0);
}

ACT_TEST(the_descriptor_is_the_lowest_and_reads_what_was_written)
{
	int first = dup(0), fd;

	CHECK_EQ(close(first), 0);
	fd = make("f", TEXT);
	CHECK_EQ(fd, first);
	reads(fd, TEXT);
	CHECK_EQ(read(fd, (char[1]){ 0 }, 1), 0);
	CHECK_EQ(open("f", O_RDONLY), first + 1);
}

ACT_TEST(raw_calls_on_the_descriptor_are_refused)
{
	int fd = make("f", TEXT);
	char buf[4];

	CHECK_EQ(unseen_call(SYS_read, fd, buf, 4), -EBADF);
	CHECK_EQ(unseen_call(SYS_write, fd, buf, 4), -EPERM);
	CHECK_EQ(unseen_call(SYS_ftruncate, fd, NULL, 0), -EPERM);
	reads(fd, TEXT);
}

ACT_TEST(dup_shares_the_position_and_an_open_does_not)
{
	int fd = make("f", TEXT), d = dup(fd), other = open("f", O_RDWR), high = fcntl(fd, F_DUPFD_CLOEXEC, 100);
	char buf[4];

	CHECK_EQ(read(fd, buf, 4), 4);
	CHECK_EQ(lseek(d, 0, SEEK_CUR), 4);
	CHECK_EQ(read(d, buf, 4), 4);
	CHECK_EQ(memcmp(buf, "4567", 4), 0);
	CHECK_EQ(lseek(other, 0, SEEK_CUR), 0);
	CHECK(high >= 100);
	CHECK_EQ(fcntl(high, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(close(fd), 0);
	CHECK_EQ(close(d), 0);
	reads(high, "89abcdef");
	FAILS(read(fd, buf, 1), EBADF);
}

ACT_TEST(dup2_replaces_what_was_there)
{
	int a = make("a", "aaa"), b = make("b", "bbb"), null = open("/dev/null", O_RDONLY);

	CHECK_EQ(dup2(a, b), b);
	reads(b, "aaa");
	CHECK_EQ(dup2(null, b), b);
	CHECK_EQ(read(b, (char[1]){ 0 }, 1), 0);
	CHECK_EQ(dup3(a, null, O_CLOEXEC), null);
	CHECK_EQ(lseek(null, 0, SEEK_SET), 0);
	reads(null, "aaa");
	CHECK_EQ(dup2(a, a), a);
	FAILS(dup3(a, a, 0), EINVAL);
	holds("b", "bbb");
}

ACT_TEST(a_child_shares_the_position)
{
	int fd = make("f", TEXT);
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		char buf[4];

		CHECK_EQ(read(fd, buf, 4), 4);
		CHECK_EQ(write(fd, "XY", 2), 2);
		_exit(0);
	}
	expect_exit_0(pid);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 6);
	reads(fd, "6789abcdef");
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	reads(fd, "0123XY6789abcdef");
}

ACT_TEST(writers_that_share_a_position_lose_nothing, .seconds = 120)
{
	enum { WRITERS = 4, LINES = 500 };
	int fd = open("log", O_RDWR | O_CREAT, 0644), seen[WRITERS] = { 0 };
	char line[40];
	pid_t pid[WRITERS];

	for (int w = 0; w < WRITERS; w++) {
		pid[w] = fork();
		CHECK(pid[w] >= 0);
		if (pid[w] == 0) {
			for (int i = 0; i < LINES; i++) {
				snprintf(line, sizeof(line), "writer %d %06d\n", w, i);
				CHECK_EQ(write(fd, line, 16), 16);
			}
			_exit(0);
		}
	}
	for (int w = 0; w < WRITERS; w++)
		expect_exit_0(pid[w]);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), WRITERS * LINES * 16);
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	for (int i = 0; i < WRITERS * LINES; i++) {
		int w, n;

		CHECK_EQ(read(fd, line, 16), 16);
		line[16] = '\0';
		CHECK_EQ(sscanf(line, "writer %d %d", &w, &n), 2);
		CHECK_EQ(n, seen[w]++);
	}
}

ACT_TEST(append_writes_at_the_end_whoever_else_does, .seconds = 120)
{
	enum { WRITERS = 4, LINES = 300 };
	pid_t pid[WRITERS];
	struct stat st;

	for (int w = 0; w < WRITERS; w++) {
		pid[w] = fork();
		CHECK(pid[w] >= 0);
		if (pid[w] == 0) {
			int fd = open("log", O_WRONLY | O_CREAT | O_APPEND, 0644);

			CHECK(fd >= 0);
			for (int i = 0; i < LINES; i++)
				CHECK_EQ(writev(fd, (struct iovec[]){ { "12345678", 8 }, { "abcdefg\n", 8 } }, 2), 16);
			_exit(0);
		}
	}
	for (int w = 0; w < WRITERS; w++)
		expect_exit_0(pid[w]);
	CHECK_EQ(stat("log", &st), 0);
	CHECK_EQ(st.st_size, WRITERS * LINES * 16);
	int fd = open("log", O_RDONLY);
	for (int i = 0; i < WRITERS * LINES; i++) {
		char line[16];

		CHECK_EQ(read(fd, line, 16), 16);
		CHECK_EQ(memcmp(line, "12345678abcdefg\n", 16), 0);
	}
}

ACT_TEST(append_is_a_flag_of_the_description)
{
	int fd = make("f", "one"), d = dup(fd);

	CHECK_EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND), O_RDWR);
	CHECK_EQ(fcntl(d, F_SETFL, O_APPEND), 0);
	CHECK_EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND), O_RDWR | O_APPEND);
	CHECK_EQ(write(fd, " two", 4), 4);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 7);
	CHECK_EQ(pwrite(fd, " three", 6, 0), 6); /* Linux appends here, too */
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 7);
	holds("f", "one two three");
}

ACT_TEST(flags_of_open_mean_what_they_mean)
{
	struct stat st;
	int fd = make("f", TEXT);

	FAILS(open("f", O_RDWR | O_CREAT | O_EXCL, 0644), EEXIST);
	FAILS(open("missing", O_RDONLY), ENOENT);
	CHECK_EQ(open("f", O_WRONLY | O_TRUNC) >= 0, 1);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, 0);
	CHECK_EQ(write(fd, TEXT, 16), 16);
	fd = open("f", O_RDONLY);
	FAILS(write(fd, "x", 1), EBADF);
	FAILS(ftruncate(fd, 1), EINVAL);
	fd = open("f", O_WRONLY);
	FAILS(read(fd, &st, 1), EBADF);
	CHECK_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_WRONLY);
	fd = open("f", O_RDWR | O_SYNC | O_CLOEXEC);
	CHECK_EQ(fcntl(fd, F_GETFL) & O_SYNC, O_SYNC);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(symlink("f", "link"), 0);
	FAILS(open("link", O_RDONLY | O_NOFOLLOW), ELOOP);
	FAILS(open("f", O_RDONLY | O_DIRECTORY), ENOTDIR);
	umask(027);
	CHECK(open("new", O_WRONLY | O_CREAT, 0666) >= 0);
	CHECK_EQ(stat("new", &st), 0);
	CHECK_EQ(st.st_mode & 0777, 0640);
}

ACT_TEST(a_synchronous_write_is_in_the_store)
{
	int fd = open("f", O_RDWR | O_CREAT | O_DSYNC, 0644), raw;
	char buf[4] = "";

	CHECK_EQ(write(fd, "sync", 4), 4);
	/* The store, by a path that is not served. */
	raw = open("/proc/self/cwd/../served/../served/f", O_RDONLY);
	CHECK(raw >= 0);
	CHECK_EQ(syscall(SYS_pread64, raw, buf, 4, 0), 4);
	CHECK_EQ(memcmp(buf, "sync", 4), 0);
}

ACT_TEST(seek_knows_the_size_and_refuses_nonsense)
{
	int fd = make("f", TEXT);

	CHECK_EQ(lseek(fd, -6, SEEK_END), 10);
	reads(fd, "abcdef");
	CHECK_EQ(lseek(fd, 100, SEEK_END), 116);
	CHECK_EQ(write(fd, "z", 1), 1);
	CHECK_EQ(lseek(fd, 0, SEEK_END), 117);
	FAILS(lseek(fd, -1, SEEK_SET), EINVAL);
	FAILS(lseek(fd, -200, SEEK_END), EINVAL);
	FAILS(lseek(fd, 0, 99), EINVAL);
	CHECK_EQ(lseek(fd, 0, SEEK_DATA), 0);
	FAILS(lseek(fd, 117, SEEK_DATA), ENXIO);
	CHECK_EQ(lseek(fd, 117, SEEK_SET), 117);
	CHECK_EQ(lseek(fd, 0, SEEK_HOLE), 117);
}

ACT_TEST(vectors_and_positions_of_their_own)
{
	int fd = make("f", TEXT);
	char a[4], b[8];
	struct iovec in[] = { { a, 4 }, { b, 8 } }, out[] = { { "AB", 2 }, { "CD", 2 } };

	CHECK_EQ(readv(fd, in, 2), 12);
	CHECK_EQ(memcmp(b, "456789ab", 8), 0);
	CHECK_EQ(preadv(fd, in, 2, 8), 8);
	CHECK_EQ(memcmp(a, "89ab", 4), 0);
	CHECK_EQ(pwritev(fd, out, 2, 1), 4);
	CHECK_EQ(preadv2(fd, in, 1, 0, 0), 4);
	CHECK_EQ(memcmp(a, "0ABC", 4), 0);
	CHECK_EQ(pwritev2(fd, out, 2, -1, RWF_DSYNC), 4);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 16);
	CHECK_EQ(pwritev2(fd, out, 1, 0, RWF_APPEND), 2);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 16);
	FAILS(preadv2(fd, in, 1, 0, RWF_NOWAIT), EOPNOTSUPP);
	FAILS(readv(fd, in, (int)strtol("-1", NULL, 10)), EINVAL);
	FAILS(pread(fd, a, 1, -1), EINVAL);
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	reads(fd, "0ABCD56789abABCDAB");
}

ACT_TEST(a_bad_buffer_is_an_error_and_moves_nothing)
{
	int fd = make("f", TEXT);
	void *volatile nowhere = (void *)8; /* volatile: the compiler would refuse */

	FAILS(read(fd, nowhere, 4), EFAULT);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
	FAILS(write(fd, nowhere, 4), EFAULT);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
}

ACT_TEST(the_limit_of_a_files_size_holds)
{
	struct rlimit limit = { 2 << 20, 2 << 20 };
	int fd = make("f", TEXT);

	signal(SIGXFSZ, SIG_IGN);
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	CHECK_EQ(pwrite(fd, "12", 2, (2 << 20) - 1), 1);
	FAILS(pwrite(fd, "1", 1, 2 << 20), EFBIG);
}

ACT_TEST(copies_between_files_and_pipes)
{
	int fd = make("f", TEXT), to = open("to", O_RDWR | O_CREAT, 0644), p[2], plain;
	off_t off = 4, out = 2;
	char buf[32] = "";

	CHECK_EQ(pipe(p), 0);
	CHECK_EQ(sendfile(to, fd, &off, 4), 4);
	CHECK_EQ(off, 8);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
	CHECK_EQ(sendfile(to, fd, NULL, 100), 16);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 16);
	CHECK_EQ(lseek(to, 0, SEEK_CUR), 20);
	off = 0;
	CHECK_EQ(copy_file_range(fd, &off, to, &out, 2, 0), 2);
	holds("to", "45010123456789abcdef");
	FAILS(copy_file_range(fd, &off, fd, &off, 4, 0), EINVAL);
	off = 0;
	CHECK_EQ(splice(fd, &off, p[1], NULL, 6, 0), 6);
	CHECK_EQ(read(p[0], buf, 32), 6);
	CHECK_EQ(memcmp(buf, "012345", 6), 0);
	CHECK_EQ(write(p[1], "pipe", 4), 4);
	off = 0;
	CHECK_EQ(splice(p[0], NULL, to, &off, 100, 0), 4);
	/* To and from a file that is not served. */
	plain = open("../plain", O_RDWR | O_CREAT, 0644);
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	CHECK_EQ(sendfile(plain, fd, NULL, 16), 16);
	off = 0;
	CHECK_EQ(copy_file_range(plain, &off, to, NULL, 16, 0), 16);
	holds("to", "pipe0123456789abcdef" TEXT);
}

ACT_TEST(size_and_space)
{
	int fd = make("f", TEXT);
	struct stat st;

	CHECK_EQ(ftruncate(fd, 4), 0);
	holds("f", "0123");
	CHECK_EQ(truncate("f", 2), 0);
	holds("f", "01");
	CHECK_EQ(posix_fallocate(fd, 0, 8192), 0);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, 8192);
	CHECK_EQ(pwrite(fd, TEXT, 16, 4096), 16);
	CHECK_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096), 0);
	char buf[16];
	CHECK_EQ(pread(fd, buf, 16, 4096), 16);
	ZERO_CHECK(buf, 16);
	CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL), 0);
	CHECK_EQ(posix_fadvise(fd, 0, 0, 99), EINVAL);
	CHECK_EQ(fsync(fd), 0);
	CHECK_EQ(fdatasync(fd), 0);
	CHECK_EQ(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER), 0);
}

ACT_TEST(record_locks_exclude_other_processes)
{
	int fd = make("f", TEXT), to[2];
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -6, .l_len = 6 }, probe;
	pid_t pid;
	char c;

	CHECK_EQ(pipe(to), 0);
	CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		probe = (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10 };
		CHECK_EQ(fcntl(fd, F_SETLK, &probe), 0);
		probe.l_len = 11;
		CHECK_EQ(fcntl(fd, F_SETLK, &probe), -1);
		CHECK(errno == EAGAIN || errno == EACCES);
		CHECK_EQ(fcntl(fd, F_GETLK, &probe), 0);
		CHECK_EQ(probe.l_type, F_WRLCK);
		CHECK_EQ(probe.l_start, 10);
		CHECK_EQ(probe.l_pid, getppid());
		CHECK_EQ(write(to[1], "x", 1), 1);
		probe = (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 6 };
		CHECK_EQ(fcntl(fd, F_SETLKW, &probe), 0); /* until the parent lets go */
		_exit(0);
	}
	CHECK_EQ(read(to[0], &c, 1), 1);
	usleep(20000);
	lock.l_type = F_UNLCK;
	CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
	expect_exit_0(pid);
}

static bool locked_for_others(const char *name)
{
	struct flock probe = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		int fd = open(name, O_RDWR);

		_exit(fcntl(fd, F_GETLK, &probe) < 0 ? 2 : probe.l_type != F_UNLCK);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) < 2);
	return WEXITSTATUS(status);
}

ACT_TEST(closing_any_descriptor_drops_record_locks_and_nothing_else_does)
{
	int a = make("f", TEXT), b = open("f", O_RDWR), c = open("f", O_RDWR);
	void *m = mmap(NULL, 4096, PROT_READ, MAP_SHARED, c, 0);
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	CHECK(m != MAP_FAILED);
	CHECK_EQ(close(c), 0);
	CHECK_EQ(fcntl(a, F_SETLK, &lock), 0);
	CHECK(locked_for_others("f"));
	/* The library closes descriptors of its own here; the program closes none. */
	CHECK_EQ(munmap(m, 4096), 0);
	CHECK(open("f", O_RDONLY) >= 0);
	CHECK(locked_for_others("f"));
	CHECK_EQ(close(b), 0);
	CHECK(!locked_for_others("f"));
}

ACT_TEST(flock_belongs_to_the_description)
{
	int a = make("f", TEXT), d = dup(a), b = open("f", O_RDWR);

	CHECK_EQ(flock(a, LOCK_EX), 0);
	CHECK_EQ(flock(d, LOCK_EX | LOCK_NB), 0);
	FAILS(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	CHECK_EQ(close(a), 0);
	FAILS(flock(b, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	CHECK_EQ(close(d), 0);
	CHECK_EQ(flock(b, LOCK_SH | LOCK_NB), 0);
	CHECK_EQ(lockf(b, F_TLOCK, 0), 0);
	CHECK_EQ(lockf(b, F_ULOCK, 0), 0);
}

static void on_alarm(int sig) {}

ACT_TEST(a_signal_ends_the_wait_for_a_lock)
{
	int a = make("f", TEXT), b = open("f", O_RDWR);
	struct sigaction sa = { .sa_handler = on_alarm };

	sigaction(SIGALRM, &sa, NULL);
	CHECK_EQ(flock(a, LOCK_EX), 0);
	ualarm(50000, 0);
	FAILS(flock(b, LOCK_EX), EINTR);
}

ACT_TEST(the_librarys_own_descriptors_cannot_be_closed)
{
	int fd = make("f", TEXT), keep = open("/dev/null", O_RDONLY);
	struct rlimit limit;

	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	for (int n = keep; n < (int)limit.rlim_cur; n++)
		close(n);
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	reads(fd, TEXT);
	keep = open("/dev/null", O_RDONLY);
	CHECK_EQ(close_range((unsigned)keep, ~0u, 0), 0);
	FAILS(fcntl(keep, F_GETFD), EBADF);
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	reads(fd, TEXT);
	CHECK_EQ(write(fd, "!", 1), 1);
	CHECK_EQ(fsync(fd), 0);
	closefrom(fd);
	FAILS(read(fd, &limit, 1), EBADF);
	holds("f", TEXT "!");
}

ACT_TEST(mappings_show_the_file)
{
	int fd = make("f", TEXT), ro = open("f", O_RDONLY), wo = open("f", O_WRONLY);
	char *m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), *p, *r;
	int status;
	pid_t pid;

	CHECK(m != MAP_FAILED);
	CHECK_EQ(memcmp(m, TEXT, 16), 0);
	m[0] = 'M';
	reads(fd, "M123456789abcdef");
	CHECK_EQ(pwrite(fd, "P", 1, 1), 1);
	CHECK_EQ(m[1], 'P');
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, ro, 0);
	CHECK(p != MAP_FAILED);
	p[2] = 'X';
	CHECK_EQ(m[2], '2');
	r = mmap(NULL, 4096, PROT_READ, MAP_SHARED, ro, 0);
	CHECK_EQ(r[1], 'P');
	FAILS(mprotect(r, 4096, PROT_READ | PROT_WRITE), EACCES);
	FAILS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ro, 0), EACCES);
	FAILS(mmap(NULL, 4096, PROT_READ, MAP_SHARED, wo, 0), EACCES);
	CHECK_EQ(close(fd), 0);
	m[3] = 'M';
	CHECK_EQ(r[3], 'M');
	CHECK_EQ(msync(m, 4096, MS_SYNC), 0);
	m = mremap(m, 8192, 4096, 0);
	CHECK(m != MAP_FAILED);
	m = mremap(m, 4096, 65536, MREMAP_MAYMOVE);
	CHECK(m != MAP_FAILED);
	CHECK_EQ(memcmp(m, "MP2M", 4), 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		signal(SIGBUS, SIG_DFL); /* a sanitizer has one of its own */
		(void)*(volatile char *)(m + 32768);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(WIFSIGNALED(status) ? WTERMSIG(status) : -status, SIGBUS);
	CHECK_EQ(mlock(r, 4096), 0);
	CHECK(page_in_core(r));
	CHECK_EQ(madvise(p, 4096, MADV_DONTNEED), 0);
	CHECK_EQ(p[2], '2');
	CHECK_EQ(posix_madvise(r, 4096, POSIX_MADV_WILLNEED), 0);
	CHECK_EQ(munmap(m, 65536), 0);
	CHECK_EQ(munmap(r, 4096), 0);
	holds("f", "MP2M456789abcdef");
}

ACT_TEST(a_buffer_in_a_mapping_serves_calls_on_other_files)
{
	int fd = open("f", O_RDWR | O_CREAT, 0644), p[2];
	char *m;

	CHECK_EQ(ftruncate(fd, 1 << 20), 0);
	CHECK_EQ(pwrite(fd, TEXT, 16, 600000), 16);
	m = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(m != MAP_FAILED);
	CHECK_EQ(pipe(p), 0);
	CHECK_EQ(write(p[1], m + 600000, 16), 16);
	CHECK_EQ(read(p[0], m + 300000, 16), 16);
	CHECK_EQ(memcmp(m + 300000, TEXT, 16), 0);
}

ACT_TEST(a_number_that_was_closed_unseen_is_what_it_is_now)
{
	int fd = make("f", TEXT), p[2];

	CHECK_EQ(unseen_call(SYS_close, fd, NULL, 0), 0);
	CHECK_EQ(pipe(p), 0);
	CHECK_EQ(p[0], fd);
	CHECK_EQ(write(p[1], "pipe", 4), 4);
	reads(p[0], "pipe");
	holds("f", TEXT);
}

static volatile sig_atomic_t ticks;
static int tick_fd;

static void tick(int sig)
{
	int saved = errno;

	if (write(tick_fd, "t", 1) == 1)
		ticks++;
	errno = saved;
}

ACT_TEST(a_signal_handler_may_write, .seconds = 120)
{
	struct sigaction sa = { .sa_handler = tick, .sa_flags = SA_RESTART };
	int fd = make("f", TEXT);
	struct stat st;
	char buf[16];

	tick_fd = open("ticks", O_WRONLY | O_CREAT | O_APPEND, 0644);
	sigaction(SIGALRM, &sa, NULL);
	ualarm(1000, 1000);
	for (int i = 0; i < 3000; i++)
		CHECK_EQ(pread(fd, buf, 16, 0), 16);
	ualarm(0, 0);
	CHECK(ticks > 0);
	CHECK_EQ(fstat(tick_fd, &st), 0);
	CHECK_EQ(st.st_size, ticks);
}

static void *open_and_close(void *arg)
{
	char name[16], buf[16];

	snprintf(name, sizeof(name), "f%d", (int)(intptr_t)arg);
	for (int i = 0; i < 50; i++) {
		int fd = open(name, O_RDWR | O_CREAT, 0644);

		CHECK(fd >= 0);
		CHECK_EQ(pwrite(fd, name, 2, 0), 2);
		CHECK_EQ(pread(fd, buf, 16, 0), 2);
		CHECK_EQ(memcmp(buf, name, 2), 0);
		CHECK_EQ(close(fd), 0);
	}
	return NULL;
}

ACT_TEST(threads_open_and_close_at_once, .seconds = 120)
{
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, open_and_close, (void *)(intptr_t)i), 0);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(t[i], NULL), 0);
}

ACT_TEST(without_a_daemon_an_open_fails_and_other_files_work, .no_daemon = true)
{
	FAILS(open("f", O_RDWR | O_CREAT, 0644), ECONNREFUSED);
	CHECK(open("../plain", O_RDWR | O_CREAT, 0644) >= 0);
}

static void *close_when_cancelled(void *arg)
{
	pthread_cancel(pthread_self());
	close(*(int *)arg);
	return NULL;
}

ACT_TEST(a_thread_cancelled_in_a_call_leaves_no_lock_behind)
{
	pthread_t t;
	void *result;
	int fd = make("f", TEXT);

	CHECK_EQ(pthread_create(&t, NULL, close_when_cancelled, &fd), 0);
	CHECK_EQ(pthread_join(t, &result), 0);
	CHECK(result == PTHREAD_CANCELED);
	CHECK_EQ(close(fd), 0);
	holds("f", TEXT);
}

static void *read_for_ever(void *arg)
{
	char c;

	for (;;)
		pread(*(int *)arg, &c, 1, 0);
	return NULL;
}

ACT_TEST(reading_is_a_cancellation_point)
{
	pthread_t t;
	int fd = make("f", TEXT);

	CHECK_EQ(pthread_create(&t, NULL, read_for_ever, &fd), 0);
	CHECK_EQ(pthread_cancel(t), 0);
	CHECK_EQ(pthread_join(t, NULL), 0);
	reads(fd, TEXT);
}

/* Each pass is of one letter, so that bytes of the other's cannot hide. */
static void writes_and_reads(int fd, char letter)
{
	char text[4096], buf[4096];
	struct stat st;

	for (int i = 0; i < 300; i++) {
		memset(text, letter + i % 10, sizeof(text));
		CHECK_EQ(pwrite(fd, text, sizeof(text), 0), sizeof(text));
		CHECK_EQ(pread(fd, buf, sizeof(buf), 0), sizeof(buf));
		CHECK(memcmp(buf, text, sizeof(buf)) == 0);
		CHECK_EQ(stat(letter == 'A' ? "f" : "g", &st), 0);
		CHECK_EQ(st.st_size, letter == 'A' ? 4096 : 5000);
	}
}

ACT_TEST(a_child_whose_fork_was_not_seen_keeps_to_itself, .seconds = 120)
{
	int f = make("f", ""), g = make("g", "");
	struct stat st;
	pid_t pid;

	CHECK_EQ(ftruncate(f, 4096), 0);
	CHECK_EQ(ftruncate(g, 5000), 0);
	CHECK_EQ(pwrite(f, "x", 1, 0), 1);
	CHECK_EQ(pwrite(g, "x", 1, 0), 1);
	CHECK_EQ(stat("f", &st), 0);
	pid = (pid_t)unseen_call(SYS_clone, SIGCHLD, NULL, 0);
	CHECK(pid >= 0);
	if (pid == 0) {
		writes_and_reads(g, 'a');
		CHECK_EQ(close(f), 0);
		_exit(0);
	}
	writes_and_reads(f, 'A');
	expect_exit_0(pid);
	writes_and_reads(f, 'A');
	CHECK_EQ(pread(g, (char[1]){ 0 }, 1, 0), 1);
}

static bool flushed_enough; /* atomic */

static void *flush_all(void *arg)
{
	FILE *f = arg;

	while (!__atomic_load_n(&flushed_enough, __ATOMIC_RELAXED)) {
		fputc('x', f);
		fflush(NULL);
	}
	return NULL;
}

ACT_TEST(a_fork_beside_a_flush_of_all_streams_goes_on, .seconds = 120)
{
	FILE *f = fopen("f", "w");
	pthread_t t;

	CHECK(f != NULL);
	CHECK_EQ(pthread_create(&t, NULL, flush_all, f), 0);
	for (int i = 0; i < 300; i++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			fflush(NULL);
			_exit(0);
		}
		expect_exit_0(pid);
	}
	__atomic_store_n(&flushed_enough, true, __ATOMIC_RELAXED);
	CHECK_EQ(pthread_join(t, NULL), 0);
	CHECK_EQ(fclose(f), 0);
}

#ifdef __SANITIZE_ADDRESS__
#define SANITIZER_STACK 131072 /* its frames are larger */
#else
#define SANITIZER_STACK 0
#endif

static void *works_on_a_file(void *arg)
{
	int fd = open("f", O_RDWR);
	struct stat st;

	(void)arg;
	CHECK(fd >= 0);
	reads(fd, TEXT);
	CHECK_EQ(write(fd, "more", 4), 4);
	CHECK_EQ(stat("f", &st), 0);
	CHECK_EQ(st.st_size, 20);
	CHECK_EQ(close(fd), 0);
	return NULL;
}

ACT_TEST(a_thread_with_the_smallest_stack_may_use_files)
{
	pthread_attr_t attr;
	pthread_t t;

	close(make("f", TEXT));
	CHECK_EQ(pthread_attr_init(&attr), 0);
	CHECK_EQ(pthread_attr_setstacksize(&attr, (size_t)sysconf(_SC_THREAD_STACK_MIN) + SANITIZER_STACK), 0);
	CHECK_EQ(pthread_create(&t, &attr, works_on_a_file, NULL), 0);
	CHECK_EQ(pthread_join(t, NULL), 0);
	holds("f", TEXT "more");
}

static sem_t to_die, dead;

static void daemon_dies(void)
{
	CHECK_EQ(sem_post(&to_die), 0);
	CHECK_EQ(sem_wait(&dead), 0);
}

static void *works_on_a_file_while_daemons_die(void *arg)
{
	struct stat st;
	int fd;

	(void)arg;
	daemon_dies();
	fd = open("f", O_RDWR);
	CHECK(fd >= 0);
	daemon_dies();
	reads(fd, TEXT);
	daemon_dies();
	CHECK_EQ(write(fd, "more", 4), 4);
	daemon_dies();
	CHECK_EQ(stat("f", &st), 0);
	CHECK_EQ(st.st_size, 20);
	CHECK_EQ(close(fd), 0);
	return NULL;
}

/* The keeper's child that is a daemon; its twin may still be there. */
static pid_t daemon_under(pid_t keeper)
{
	char path[64], text[64] = "";
	FILE *f;
	pid_t pid = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", keeper, keeper);
	f = fopen(path, "r");
	for (int child; !pid && f && fscanf(f, "%d", &child) == 1;) {
		FILE *comm;

		snprintf(path, sizeof(path), "/proc/%d/comm", child);
		comm = fopen(path, "r");
		if (comm && fgets(text, sizeof(text), comm) && strcmp(text, "pagecached\n") == 0)
			pid = child;
		if (comm)
			fclose(comm);
	}
	if (f)
		fclose(f);
	return pid;
}

ACT_TEST_BESIDE(a_thread_with_the_smallest_stack_may_wait_for_a_daemon, .keep = true)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", (int)env.daemon);
	setenv("KEEPER", text, 1);
	expect_exit_0(act_start("a_thread_with_the_smallest_stack_may_wait_for_a_daemon"));
}

ACT_OF(a_thread_with_the_smallest_stack_may_wait_for_a_daemon)
{
	pid_t keeper = atoi(getenv("KEEPER")), pid;
	pthread_attr_t attr;
	pthread_t t;

	close(make("f", TEXT));
	CHECK(sem_init(&to_die, 0, 0) == 0 && sem_init(&dead, 0, 0) == 0);
	CHECK_EQ(pthread_attr_init(&attr), 0);
	CHECK_EQ(pthread_attr_setstacksize(&attr, (size_t)sysconf(_SC_THREAD_STACK_MIN) + SANITIZER_STACK), 0);
	CHECK_EQ(pthread_create(&t, &attr, works_on_a_file_while_daemons_die, NULL), 0);
	for (int i = 0; i < 4; i++) {
		CHECK_EQ(sem_wait(&to_die), 0);
		WAIT_UNTIL((pid = daemon_under(keeper)) > 0);
		CHECK_EQ(kill(keeper, SIGSTOP), 0);
		kill(pid, SIGKILL);
		CHECK_EQ(sem_post(&dead), 0);
		usleep(50000);
		CHECK_EQ(kill(keeper, SIGCONT), 0);
	}
	CHECK_EQ(pthread_join(t, NULL), 0);
	holds("f", TEXT "more");
}

static struct stat found_by_handler;

static void looks_at_others(int sig)
{
	int fd = open("/dev/null", O_RDONLY);

	(void)sig;
	CHECK(fd >= 0);
	CHECK_EQ(close(fd), 0);
	CHECK_EQ(stat("/dev/null", &found_by_handler), 0);
	CHECK_EQ(access("/dev/null", R_OK), 0);
}

ACT_TEST(other_files_ask_for_little_stack)
{
	size_t room = ((size_t)sysconf(_SC_MINSIGSTKSZ) + SANITIZER_STACK + 2048 + 4095) & ~4095ul;
	char *stack = mmap(NULL, room + 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct sigaction act = { .sa_handler = looks_at_others, .sa_flags = SA_ONSTACK };
	stack_t alternate = { .ss_size = room };

	CHECK(stack != MAP_FAILED);
	alternate.ss_sp = stack + 65536;
	CHECK_EQ(mprotect(alternate.ss_sp, room, PROT_READ | PROT_WRITE), 0);
	looks_at_others(0); /* the linker's work is done once */
	CHECK_EQ(sigaltstack(&alternate, NULL), 0);
	CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
	CHECK_EQ(raise(SIGUSR1), 0);
}

ACT_TEST(high_numbers_that_were_closed_unseen_are_taken_by_the_library)
{
	struct rlimit limit;
	int fd, high[12];

	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	close(make("f", TEXT));
	for (int i = 0; i < 12; i++) {
		fd = open("f", O_RDONLY);
		CHECK(fd >= 0);
		high[i] = fcntl(fd, F_DUPFD, (int)limit.rlim_cur / 2); /* where the library has its own */
		CHECK(high[i] > fd);
		CHECK_EQ(close(fd), 0);
	}
	for (int i = 0; i < 12; i++)
		CHECK_EQ(unseen_call(SYS_close, high[i], NULL, 0), 0);
	for (int i = 0; i < 3; i++)
		CHECK(open("f", O_RDONLY) >= 0);
	holds("f", TEXT);
}

ACT_TEST(what_is_mapped_over_a_mapping_is_writable)
{
	int fd;
	char *p;

	close(make("f", TEXT));
	fd = open("f", O_RDONLY);
	p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	FAILS(mprotect(p, 4096, PROT_READ | PROT_WRITE), EACCES);
	CHECK(mmap(p, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
	CHECK_EQ(mprotect(p, 4096, PROT_READ | PROT_WRITE), 0);
	*p = 1;
}

ACT_TEST(reading_goes_with_a_limit_of_no_bytes_for_files)
{
	struct rlimit limit = { 0, 0 };

	close(make("f", TEXT));
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	holds("f", TEXT);
}

ACT_TEST(what_is_no_regular_file_is_left_alone)
{
	int fd, other;

	CHECK_EQ(mkfifo("fifo", 0644), 0);
	CHECK_EQ(mkdir("folder", 0755), 0);
	fd = open("fifo", O_RDWR | O_NONBLOCK);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	CHECK_EQ(fcntl(fd, F_GETFD), 0);
	fd = open("folder", O_RDONLY);
	CHECK(fd >= 0);
	other = openat(fd, "../folder/f", O_RDWR | O_CREAT, 0644);
	CHECK(other >= 0);
	CHECK_EQ(write(other, TEXT, 16), 16);
	holds("folder/f", TEXT);
}

ACTS_MAIN("preload_fd", ACT(the_descriptor_is_the_lowest_and_reads_what_was_written), ACT(raw_calls_on_the_descriptor_are_refused),
	  ACT(dup_shares_the_position_and_an_open_does_not), ACT(dup2_replaces_what_was_there), ACT(a_child_shares_the_position),
	  ACT(writers_that_share_a_position_lose_nothing), ACT(append_writes_at_the_end_whoever_else_does), ACT(append_is_a_flag_of_the_description),
	  ACT(flags_of_open_mean_what_they_mean), ACT(a_synchronous_write_is_in_the_store), ACT(seek_knows_the_size_and_refuses_nonsense),
	  ACT(vectors_and_positions_of_their_own), ACT(a_bad_buffer_is_an_error_and_moves_nothing), ACT(the_limit_of_a_files_size_holds),
	  ACT(copies_between_files_and_pipes), ACT(size_and_space), ACT(record_locks_exclude_other_processes),
	  ACT(closing_any_descriptor_drops_record_locks_and_nothing_else_does), ACT(flock_belongs_to_the_description),
	  ACT(a_signal_ends_the_wait_for_a_lock), ACT(the_librarys_own_descriptors_cannot_be_closed), ACT(mappings_show_the_file),
	  ACT(a_buffer_in_a_mapping_serves_calls_on_other_files), ACT(a_number_that_was_closed_unseen_is_what_it_is_now),
	  ACT(a_signal_handler_may_write), ACT(a_thread_cancelled_in_a_call_leaves_no_lock_behind), ACT(reading_is_a_cancellation_point), ACT(a_child_whose_fork_was_not_seen_keeps_to_itself),
	  ACT(a_fork_beside_a_flush_of_all_streams_goes_on), ACT(a_thread_with_the_smallest_stack_may_use_files), ACT(a_thread_with_the_smallest_stack_may_wait_for_a_daemon),
	  ACT(other_files_ask_for_little_stack), ACT(high_numbers_that_were_closed_unseen_are_taken_by_the_library),
	  ACT(what_is_mapped_over_a_mapping_is_writable),
	  ACT(reading_goes_with_a_limit_of_no_bytes_for_files), ACT(threads_open_and_close_at_once), ACT(without_a_daemon_an_open_fails_and_other_files_work),
	  ACT(what_is_no_regular_file_is_left_alone))
