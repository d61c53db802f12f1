/* SPDX-License-Identifier: Apache-2.0 */
/* Programs that were not rebuilt: which paths are taken over, what stat(2) says, and attributes. */
#include "preload_acts.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fts.h>
#include <ftw.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <termios.h>
#include <utime.h>

#define TEXT "0123456789abcdef"

/* By the instruction itself, which the library cannot see. */
static long raw_call(long number, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return r;
}

/* What the kernel says, by the path. */
static struct stat raw_stat(const char *path)
{
	struct stat st;

	CHECK_EQ(raw_call(SYS_newfstatat, AT_FDCWD, (long)path, (long)&st, 0), 0);
	return st;
}

/* Descriptors that were taken over refuse calls that the library does not see. */
static bool taken_over(int fd)
{
	char c;

	CHECK(fd >= 0);
	return raw_call(SYS_read, fd, (long)&c, 1, 0) == -EBADF;
}

static bool close_taken(int fd)
{
	bool taken = taken_over(fd);

	CHECK_EQ(close(fd), 0);
	return taken;
}

static bool ours(const char *path)
{
	return close_taken(open(path, O_RDONLY));
}

static bool ours_at(int dirfd, const char *path)
{
	return close_taken(openat(dirfd, path, O_RDONLY));
}

static int make(const char *path, const char *text)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
	return fd;
}

static void make_closed(const char *path)
{
	CHECK_EQ(close(make(path, TEXT)), 0);
}

static void holds(const char *path, const char *text)
{
	char buf[64] = "";
	int fd = open(path, O_RDONLY);

	CHECK(fd >= 0);
	CHECK_EQ(read(fd, buf, sizeof(buf) - 1), strlen(text));
	CHECK_EQ(strcmp(buf, text), 0);
	CHECK_EQ(close(fd), 0);
}

/* "served/NAME", absolute. */
static char *served(const char *name)
{
	static char text[2 * PATH_MAX];

	CHECK(getcwd(text, PATH_MAX));
	snprintf(text + strlen(text), PATH_MAX, "/%s", name);
	return text;
}

/* --- which paths --- */

ACT_TEST(every_spelling_of_a_path_is_the_same)
{
	char text[3 * PATH_MAX];

	make_closed("f");
	CHECK_EQ(mkdir("folder", 0755), 0);
	CHECK(ours("f"));
	CHECK(ours("./f"));
	CHECK(ours("folder/../f"));
	CHECK(ours("../served/f"));
	CHECK(ours(served("f")));
	CHECK(ours(served("folder//.././f")));
	snprintf(text, sizeof(text), "/../%s", served("f"));
	CHECK(ours(text));
	CHECK(ours("/proc/self/cwd/f"));
	CHECK(ours("/proc/thread-self/cwd/f"));
	snprintf(text, sizeof(text), "/proc/self/root%s", served("f"));
	CHECK(ours(text));
}

ACT_TEST(what_no_pattern_matches_is_not_taken_over)
{
	make_closed("../outside");
	make_closed("../served.too");
	CHECK(!ours("../outside"));
	CHECK(!ours("../served.too"));
	CHECK(!ours("/proc/self/cwd/../outside"));
	CHECK(!ours("/dev/null"));
	CHECK(!ours("/proc/self/maps"));
}

ACT_TEST(a_path_longer_than_the_kernel_takes_is_its_error)
{
	char path[5000];

	memset(path, 'a', sizeof(path));
	for (size_t i = 0; i < sizeof(path); i += 100)
		path[i] = '/';
	path[sizeof(path) - 1] = '\0';
	FAILS(open(path, O_RDONLY), ENAMETOOLONG);
	path[4095] = '\0';
	FAILS(open(path, O_RDONLY), ENOENT);
	FAILS(open("", O_RDONLY), ENOENT);
}

ACT_TEST(relative_paths_follow_the_current_folder)
{
	int up, here;

	make_closed("f");
	make_closed("../f");
	CHECK_EQ(mkdir("folder", 0755), 0);
	CHECK(ours("f"));
	here = open(".", O_RDONLY | O_DIRECTORY);
	CHECK_EQ(chdir(".."), 0);
	CHECK(!ours("f"));
	CHECK(ours("served/f"));
	up = open(".", O_RDONLY | O_DIRECTORY);
	CHECK_EQ(fchdir(here), 0);
	CHECK(ours("f"));
	CHECK_EQ(chdir("folder"), 0);
	CHECK(ours("../f"));
	CHECK(!ours("../../f"));
	CHECK_EQ(fchdir(up), 0);
	CHECK(!ours("f"));
	FAILS(chdir("nowhere"), ENOENT);
	CHECK(!ours("f"));
	CHECK_EQ(chdir("/"), 0);
	CHECK(!ours("dev/null"));
}

ACT_TEST(a_child_has_its_own_current_folder)
{
	pid_t pid;

	make_closed("f");
	make_closed("../f");
	CHECK(ours("f"));
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK(ours("f"));
		CHECK_EQ(chdir(".."), 0);
		CHECK(!ours("f"));
		_exit(0);
	}
	expect_exit_0(pid);
	CHECK(ours("f"));
}

static int look_at(const char *path, const struct stat *st, int type, struct FTW *f)
{
	const char *name = path + f->base;

	if (type == FTW_F && strcmp(name, "f") == 0)
		CHECK(ours("f"));
	if (type == FTW_F && strcmp(name, "plain") == 0)
		CHECK(!ours("plain"));
	return 0;
}

ACT_TEST(walks_that_change_the_folder_by_themselves_are_followed)
{
	char *roots[] = { "served", NULL };
	unsigned seen = 0;
	FTSENT *e;
	FTS *fts;

	CHECK_EQ(mkdir("folder", 0755), 0);
	make_closed("folder/f");
	make_closed("f");
	CHECK_EQ(chdir(".."), 0);
	make_closed("plain");
	CHECK(!ours("plain"));
	CHECK_EQ(nftw(".", look_at, 8, FTW_CHDIR | FTW_PHYS), 0);
	CHECK(!ours("plain"));
	fts = fts_open(roots, FTS_PHYSICAL, NULL);
	CHECK(fts);
	while ((e = fts_read(fts)) != NULL)
		if (e->fts_info == FTS_F) {
			CHECK(ours(e->fts_accpath));
			seen++;
		}
	CHECK_EQ(fts_close(fts), 0);
	CHECK_EQ(seen, 2);
	CHECK(!ours("plain"));
}

static bool stop; /* atomic */

static void *keep_looking(void *arg)
{
	struct stat st;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		stat("f", &st);
	return NULL;
}

ACT_TEST(a_change_of_folder_is_seen_whoever_looks_meanwhile)
{
	pthread_t t;

	make_closed("f");
	make_closed("../f");
	CHECK_EQ(pthread_create(&t, NULL, keep_looking, NULL), 0);
	for (int i = 0; i < 300; i++) {
		CHECK(ours("f"));
		CHECK_EQ(chdir(".."), 0);
		CHECK(!ours("f"));
		CHECK_EQ(chdir("served"), 0);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	CHECK_EQ(pthread_join(t, NULL), 0);
}

ACT_TEST(paths_relative_to_a_descriptor_are_found)
{
	int up = open("..", O_RDONLY | O_DIRECTORY), here = open(".", O_PATH), root = open("/", O_RDONLY), copy;
	char text[64];
	struct stat st;

	make_closed("f");
	make_closed("../f");
	for (int again = 0; again < 2; again++) {
		CHECK(ours_at(here, "f"));
		CHECK(!ours_at(up, "f"));
		CHECK(ours_at(up, "served/f"));
		CHECK(!ours_at(here, "../f"));
		CHECK(ours_at(root, served("f") + 1));
		CHECK(ours_at(up, served("f")));
	}
	copy = dup2(here, up);
	CHECK_EQ(copy, up);
	CHECK(ours_at(copy, "f"));
	snprintf(text, sizeof(text), "/proc/self/fd/%d/f", here);
	CHECK(ours(text));
	snprintf(text, sizeof(text), "/dev/fd/%d/../f", here);
	CHECK_EQ(raw_call(SYS_chdir, (long)"/", 0, 0, 0), 0);
	CHECK_EQ(fstatat(here, "f", &st, 0), 0);
	CHECK_EQ(st.st_size, 16);
	FAILS(openat(-1, "f", O_RDONLY), EBADF);
	FAILS(openat(9999, "f", O_RDONLY), EBADF);
}

ACT_TEST(a_number_that_is_another_folder_now_is_that_folder)
{
	DIR *d = opendir(".");
	int n = dirfd(d), m;

	make_closed("f");
	make_closed("../f");
	CHECK_EQ(mkdir("../other", 0755), 0);
	make_closed("../other/f");
	CHECK(ours_at(n, "f"));
	CHECK_EQ(closedir(d), 0);
	CHECK_EQ(open("..", O_RDONLY | O_DIRECTORY), n);
	CHECK(!ours_at(n, "f"));
	/* Behind the library's back, and back again. */
	CHECK_EQ(raw_call(SYS_close, n, 0, 0, 0), 0);
	CHECK_EQ(raw_call(SYS_openat, AT_FDCWD, (long)".", O_RDONLY, 0), n);
	CHECK(ours_at(n, "f"));
	CHECK_EQ(raw_call(SYS_close, n, 0, 0, 0), 0);
	CHECK_EQ(raw_call(SYS_openat, AT_FDCWD, (long)"../other", O_RDONLY, 0), n);
	CHECK(!ours_at(n, "f"));
	/* A socket has no names below it. */
	CHECK_EQ(raw_call(SYS_close, n, 0, 0, 0), 0);
	m = (int)raw_call(SYS_socket, 1, 1, 0, 0);
	CHECK_EQ(m, n);
	FAILS(openat(n, "f", O_RDONLY), ENOTDIR);
}

ACT_TEST(a_folder_made_again_with_the_same_number_is_another)
{
	int n;

	make_closed("../f");
	for (int i = 0; i < 20; i++) {
		CHECK_EQ(mkdir("folder", 0755), 0);
		make_closed("folder/f");
		n = open("folder", O_RDONLY | O_DIRECTORY);
		CHECK(ours_at(n, "f"));
		CHECK_EQ(unlink("folder/f"), 0);
		CHECK_EQ(rmdir("folder"), 0);
		FAILS(openat(n, "f", O_RDWR | O_CREAT, 0644), ENOENT);
		CHECK_EQ(raw_call(SYS_close, n, 0, 0, 0), 0);
		CHECK_EQ(mkdir("../folder", 0755), 0);
		make_closed("../folder/f");
		CHECK_EQ(raw_call(SYS_openat, AT_FDCWD, (long)"../folder", O_RDONLY, 0), n);
		CHECK(!ours_at(n, "f"));
		CHECK_EQ(close(n), 0);
		CHECK_EQ(unlink("../folder/f"), 0);
		CHECK_EQ(rmdir("../folder"), 0);
	}
}

ACT_TEST(a_pattern_that_goes_through_a_link_holds_for_the_folder_itself)
{
	if (!getenv("PGC_TEST_SECOND")) {
		char text[PATH_MAX + 16], *link;

		CHECK_EQ(mkdir("../real", 0755), 0);
		CHECK_EQ(mkdir("../real/[x]", 0755), 0);
		CHECK_EQ(symlink("real/[x]", "../link"), 0);
		link = served("../link");
		snprintf(text, sizeof(text), "%s/*.db", link);
		setenv("PAGECACHED_PATHS", text, 1);
		setenv("PGC_TEST_SECOND", "1", 1);
		execl(act_self, act_self, "--act", "a_pattern_that_goes_through_a_link_holds_for_the_folder_itself", (char *)NULL);
		FAIL("%s", strerror(errno));
	}
	CHECK_EQ(chdir("../link"), 0);
	make_closed("f.db");
	make_closed("f");
	CHECK(ours("f.db"));
	CHECK(!ours("f"));
	CHECK(ours("../../link/f.db"));
	CHECK(ours_at(open("..", O_PATH), "[x]/f.db"));
}

/* --- names of descriptors --- */

ACT_TEST(a_name_of_a_descriptor_opens_the_file)
{
	int fd = make("f", TEXT), again;
	char text[64], buf[16], *names[] = { "/proc/self/fd/%d", "/dev/fd/%d", "/proc/thread-self/fd/%d", "/proc/self/./fd//%d" };
	struct stat st;

	for (size_t i = 0; i < 4; i++) {
		snprintf(text, sizeof(text), names[i], fd);
		again = open(text, O_RDONLY);
		CHECK(taken_over(again));
		CHECK_EQ(read(again, buf, 16), 16);
		CHECK_EQ(memcmp(buf, TEXT, 16), 0);
		CHECK_EQ(close(again), 0);
		CHECK_EQ(stat(text, &st), 0);
		CHECK(S_ISREG(st.st_mode));
		CHECK_EQ(st.st_size, 16);
		CHECK_EQ(st.st_ino, raw_stat("f").st_ino);
		CHECK_EQ(lstat(text, &st), 0);
		CHECK(S_ISLNK(st.st_mode));
	}
	snprintf(text, sizeof(text), "/proc/%d/fd/%d", (int)getpid(), fd);
	CHECK(ours(text));
	CHECK_EQ(dup2(fd, 0), 0);
	CHECK(ours("/dev/stdin"));
	CHECK_EQ(close(fd), 0);
	snprintf(text, sizeof(text), "/proc/self/fd/%d", fd);
	FAILS(stat(text, &st), ENOENT);
}

ACT_TEST(a_name_of_a_bare_descriptor_opens_through_the_cache)
{
	int bare;
	char text[64];

	make_closed("f");
	bare = open("f", O_PATH);
	CHECK(bare >= 0);
	snprintf(text, sizeof(text), "/proc/self/fd/%d", bare);
	CHECK(ours(text));
	holds(text, TEXT);
}

ACT_TEST(links_of_descriptors_say_the_files_path)
{
	int fd = make("f", TEXT);
	char text[64], buf[PATH_MAX] = "", *real;
	ssize_t n;

	snprintf(text, sizeof(text), "/proc/self/fd/%d", fd);
	n = readlink(text, buf, sizeof(buf));
	CHECK(n > 0);
	buf[n] = '\0';
	CHECK_EQ(strcmp(buf, served("f")), 0);
	real = realpath(text, NULL);
	CHECK(real);
	CHECK_EQ(strcmp(real, served("f")), 0);
	CHECK_EQ(rename("f", "g"), 0);
	n = readlinkat(AT_FDCWD, text, buf, sizeof(buf));
	CHECK(n > 0);
	buf[n] = '\0';
	CHECK_EQ(strcmp(buf, served("g")), 0);
	CHECK_EQ(symlink("g", "link"), 0);
	CHECK_EQ(readlink("link", buf, sizeof(buf)), 1);
}

/* --- stat --- */

static void sizes_are(const char *path, off_t size)
{
	const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	int dir = open(".", O_PATH);
	struct stat st;
	struct statx stx;

	CHECK_EQ(stat(path, &st), 0);
	CHECK_EQ(st.st_size, size);
	CHECK(st.st_blocks > 0);
	CHECK_EQ(lstat(path, &st), 0);
	CHECK_EQ(st.st_size, size);
	CHECK_EQ(fstatat(dir, name, &st, 0), 0);
	CHECK_EQ(st.st_size, size);
	CHECK_EQ(statx(dir, name, 0, STATX_BASIC_STATS, &stx), 0);
	CHECK_EQ(stx.stx_size, size);
	CHECK_EQ(stx.stx_mtime.tv_sec, st.st_mtim.tv_sec);
	CHECK_EQ(stx.stx_mtime.tv_nsec, st.st_mtim.tv_nsec);
	CHECK_EQ(statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_SIZE, &stx), 0);
	CHECK(stx.stx_mask & STATX_SIZE);
	CHECK_EQ(stx.stx_size, size);
	CHECK_EQ(close(dir), 0);
}

ACT_TEST(stat_by_path_sees_what_another_process_has_not_written_out)
{
	int pipes[2];
	char go = 1;
	pid_t pid;

	make_closed("f");
	CHECK_EQ(pipe(pipes), 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		int fd = open("f", O_WRONLY | O_APPEND);

		CHECK_EQ(write(fd, TEXT, 16), 16);
		CHECK_EQ(write(pipes[1], &go, 1), 1);
		pause();
	}
	CHECK_EQ(read(pipes[0], &go, 1), 1);
	sizes_are("f", 32);
	sizes_are(served("f"), 32);
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	sizes_are("f", 32);
}

ACT_TEST(stat_sees_an_overwrites_time_and_it_is_no_more_after_the_write_out)
{
	struct timespec old[2] = { { 1000000000, 0 }, { 1000000000, 0 } };
	struct stat before, after;
	int fd;

	make_closed("f");
	CHECK_EQ(utimensat(AT_FDCWD, "f", old, 0), 0);
	CHECK_EQ(stat("f", &before), 0);
	CHECK_EQ(before.st_mtim.tv_sec, 1000000000);
	fd = open("f", O_WRONLY);
	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_EQ(raw_stat("f").st_mtim.tv_sec, 1000000000);
	CHECK_EQ(stat("f", &before), 0);
	CHECK(before.st_mtim.tv_sec > 1000000000);
	usleep(30000);
	CHECK_EQ(fsync(fd), 0);
	CHECK_EQ(stat("f", &after), 0);
	CHECK_EQ(memcmp(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim)), 0);
}

/* Older binaries call these; new ones cannot be linked with them. */
static int (*old_stat)(int version, const char *path, struct stat *st), (*old_lstat)(int version, const char *path, struct stat *st);
static int (*old_fstat)(int version, int fd, struct stat *st);
static int (*old_fstatat)(int version, int dirfd, const char *path, struct stat *st, int flags);

static void *function(const char *name)
{
	void *p = dlsym(RTLD_DEFAULT, name);

	CHECK(p);
	return p;
}

ACT_TEST(the_old_names_of_stat_say_the_same)
{
	int fd;
	struct stat st;

	old_stat = function("__xstat");
	old_lstat = function("__lxstat64");
	old_fstat = function("__fxstat64");
	old_fstatat = function("__fxstatat");
	/* What the store has is shorter. */
	make_closed("f");
	fd = open("f", O_WRONLY | O_APPEND);
	CHECK_EQ(fsync(fd), 0);
	CHECK_EQ(write(fd, TEXT, 16), 16);
	CHECK_EQ(old_stat(1, "f", &st), 0);
	CHECK_EQ(st.st_size, 32);
	CHECK_EQ(old_lstat(1, "f", &st), 0);
	CHECK_EQ(st.st_size, 32);
	CHECK_EQ(old_fstat(1, fd, &st), 0);
	CHECK_EQ(st.st_size, 32);
	CHECK_EQ(old_fstatat(1, AT_FDCWD, "f", &st, 0), 0);
	CHECK_EQ(st.st_size, 32);
	FAILS(old_fstat(99, fd, &st), EINVAL);
	FAILS(old_stat(1, "nothing", &st), ENOENT);
}

ACT_TEST(stat_of_a_descriptor_is_the_files)
{
	int fd = make("f", TEXT);
	struct stat st, real = raw_stat("f");
	struct statx stx;

	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, 16);
	CHECK_EQ(st.st_dev, real.st_dev);
	CHECK_EQ(st.st_ino, real.st_ino);
	CHECK_EQ(st.st_mode, real.st_mode);
	CHECK_EQ(st.st_uid, real.st_uid);
	CHECK_EQ(fstatat(fd, "", &st, AT_EMPTY_PATH), 0);
	CHECK_EQ(st.st_ino, real.st_ino);
	CHECK_EQ(st.st_size, 16);
	CHECK_EQ(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx), 0);
	CHECK_EQ(stx.stx_ino, real.st_ino);
	CHECK_EQ(stx.stx_size, 16);
	FAILS(fstatat(fd, "f", &st, 0), ENOTDIR);
	FAILS(statx(fd, "", 0, STATX_BASIC_STATS, &stx), ENOENT);
}

static bool is_there(const char *name) { return access(name, F_OK) == 0; }

/* The daemon stands still meanwhile. */
ACT_TEST_BESIDE(of_what_is_open_nobody_is_asked)
{
	pid_t pid = act_start("of_what_is_open_nobody_is_asked");

	WAIT_UNTIL(is_there(file_path("ready")));
	stop_process(env.daemon);
	make_file("go", 1, 1);
	WAIT_UNTIL(is_there(file_path("done")));
	CHECK_EQ(kill(env.daemon, SIGCONT), 0);
	expect_exit_0(pid);
}

ACT_OF(of_what_is_open_nobody_is_asked)
{
	int fd = make("f", TEXT), other = open("f", O_RDONLY);
	struct stat st, by_path;
	struct statx stx;

	for (int i = 0; i < 10; i++)
		CHECK(fstat(fd, &st) == 0 && fstat(other, &st) == 0);
	CHECK_EQ(pwrite(fd, "x", 1, 20), 1);
	CHECK_EQ(raw_stat("f").st_size, 0);
	make_file("../ready", 1, 1);
	while (!is_there("../go"))
		usleep(1000);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, 21);
	CHECK_EQ(st.st_blocks, 8);
	CHECK_EQ(fstat(other, &by_path), 0);
	CHECK_EQ(memcmp(&st, &by_path, sizeof(st)), 0);
	CHECK_EQ(stat("f", &by_path), 0);
	CHECK_EQ(memcmp(&st, &by_path, sizeof(st)), 0);
	CHECK_EQ(lstat(served("f"), &by_path), 0);
	CHECK_EQ(memcmp(&st, &by_path, sizeof(st)), 0);
	CHECK_EQ(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &stx), 0);
	CHECK_EQ(stx.stx_size, 21);
	CHECK_EQ(stx.stx_mtime.tv_nsec, st.st_mtim.tv_nsec);
	CHECK_EQ(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx), 0);
	CHECK_EQ(stx.stx_size, 21);
	make_file("../done", 1, 1);
}

ACT_TEST(a_link_itself_is_not_the_file)
{
	struct stat st;

	CHECK_EQ(close(make("f", TEXT TEXT)), 0);
	CHECK_EQ(symlink("f", "link"), 0);
	CHECK_EQ(lstat("link", &st), 0);
	CHECK(S_ISLNK(st.st_mode));
	CHECK_EQ(st.st_size, 1);
	CHECK_EQ(stat("link", &st), 0);
	CHECK_EQ(st.st_size, 32);
}

static void *stat_often(void *arg)
{
	struct stat st;

	for (int i = 0; i < 200; i++) {
		CHECK_EQ(stat("f", &st), 0);
		CHECK_EQ(st.st_size, 16);
	}
	return NULL;
}

ACT_TEST(threads_and_forked_children_ask_at_once)
{
	pthread_t t[3];
	pid_t pid[3];

	make_closed("f");
	stat_often(NULL);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, stat_often, NULL), 0);
	for (int i = 0; i < 3; i++) {
		pid[i] = fork();
		CHECK(pid[i] >= 0);
		if (pid[i] == 0) {
			stat_often(NULL);
			_exit(0);
		}
	}
	for (int i = 0; i < 3; i++) {
		expect_exit_0(pid[i]);
		CHECK_EQ(pthread_join(t[i], NULL), 0);
	}
}

ACT_TEST(stat_leaves_the_programs_descriptors_alone)
{
	struct stat st;
	int fd;

	make_closed("f");
	fd = dup(0);
	CHECK_EQ(close(fd), 0);
	CHECK_EQ(stat("f", &st), 0);
	CHECK_EQ(dup(0), fd);
	CHECK_EQ(dup(0), fd + 1);
	closefrom(fd);
	CHECK_EQ(stat("f", &st), 0);
	CHECK_EQ(st.st_size, 16);
}

ACT_TEST(without_a_daemon_stat_is_the_kernels)
{
	struct stat st;

	CHECK_EQ(setenv("PAGECACHED_SOCKET", "/nonexistent/socket", 1), 0);
	CHECK_EQ(symlink("nowhere", "link"), 0);
	CHECK_EQ(raw_call(SYS_openat, AT_FDCWD, (long)"f", O_CREAT | O_WRONLY, 0644) >= 0, true);
	CHECK_EQ(stat("f", &st), 0);
	CHECK_EQ(st.st_size, 0);
	FAILS(stat("link", &st), ENOENT);
}

/* --- times --- */

/* Each changes a file with bytes that are not written yet. */
static void set_by_utimensat(int fd, time_t when)
{
	CHECK_EQ(utimensat(AT_FDCWD, "f", (struct timespec[2]){ { when, 1 }, { when, 0 } }, 0), 0);
}

static void set_by_descriptor(int fd, time_t when)
{
	CHECK_EQ(futimens(fd, (struct timespec[2]){ { when, 1 }, { when, 0 } }), 0);
}

static void set_by_futimes(int fd, time_t when)
{
	CHECK_EQ(futimes(fd, (struct timeval[2]){ { when, 1 }, { when, 0 } }), 0);
}

static void set_by_utimes(int fd, time_t when)
{
	CHECK_EQ(utimes(served("f"), (struct timeval[2]){ { when, 1 }, { when, 0 } }), 0);
}

static void set_by_lutimes(int fd, time_t when)
{
	CHECK_EQ(lutimes("f", (struct timeval[2]){ { when, 1 }, { when, 0 } }), 0);
}

static void set_by_utime(int fd, time_t when)
{
	CHECK_EQ(utime("f", &(struct utimbuf){ when, when }), 0);
}

static void set_by_name_of_descriptor(int fd, time_t when)
{
	char text[64];

	snprintf(text, sizeof(text), "/proc/self/fd/%d", fd);
	CHECK_EQ(utimensat(AT_FDCWD, text, (struct timespec[2]){ { when, 1 }, { when, 0 } }, 0), 0);
}

ACT_TEST(times_that_are_set_stay_over_a_write_out)
{
	void (*const set[])(int fd, time_t when) = {
		set_by_utimensat, set_by_descriptor, set_by_futimes, set_by_utimes, set_by_lutimes, set_by_utime, set_by_name_of_descriptor,
	};
	struct stat st;

	for (size_t i = 0; i < sizeof(set) / sizeof(set[0]); i++) {
		int fd = make("f", TEXT);
		time_t when = (time_t)(1000000000 + i);

		set[i](fd, when);
		CHECK_EQ(stat("f", &st), 0);
		CHECK_EQ(st.st_mtim.tv_sec, when);
		CHECK_EQ(st.st_size, 16);
		CHECK_EQ(fsync(fd), 0);
		CHECK_EQ(fstat(fd, &st), 0);
		CHECK_EQ(st.st_mtim.tv_sec, when);
		CHECK_EQ(raw_stat("f").st_mtim.tv_sec, when);
		CHECK_EQ(close(fd), 0);
	}
}

ACT_TEST(times_of_a_closed_file_that_may_not_be_read_stay)
{
	struct stat st;
	int fd = open("f", O_WRONLY | O_CREAT, 0200);

	CHECK_EQ(write(fd, TEXT, 16), 16);
	CHECK_EQ(close(fd), 0);
	CHECK_EQ(utimensat(AT_FDCWD, "f", (struct timespec[2]){ { 1, 0 }, { 1, 0 } }, 0), 0);
	CHECK_EQ(raw_stat("f").st_size, 16);
	CHECK_EQ(stat("f", &st), 0);
	CHECK_EQ(st.st_mtim.tv_sec, 1);
}

ACT_TEST(times_that_are_wrong_are_refused)
{
	make_closed("f");
	FAILS(utimes("f", (struct timeval[2]){ { 1, 1000000 }, { 1, 0 } }), EINVAL);
	FAILS(utimensat(AT_FDCWD, "f", (struct timespec[2]){ { 1, 0 }, { 1, -5 } }, 0), EINVAL);
	FAILS(utime("nothing", NULL), ENOENT);
	CHECK_EQ(utime("f", NULL), 0);
	CHECK_EQ(utimes("f", NULL), 0);
}

/* --- attributes --- */

ACT_TEST(mode_and_owner_are_the_files)
{
	int fd = make("f", TEXT);
	char text[64];

	CHECK_EQ(fchmod(fd, 0600), 0);
	CHECK_EQ(raw_stat("f").st_mode & 07777, 0600);
	snprintf(text, sizeof(text), "/proc/self/fd/%d", fd);
	CHECK_EQ(chmod(text, 0640), 0);
	CHECK_EQ(raw_stat("f").st_mode & 07777, 0640);
	CHECK_EQ(fchmodat(AT_FDCWD, text, 0644, 0), 0);
	CHECK_EQ(raw_stat("f").st_mode & 07777, 0644);
	CHECK_EQ(fchown(fd, getuid(), getgid()), 0);
	CHECK_EQ(fchownat(fd, "", getuid(), getgid(), AT_EMPTY_PATH), 0);
	CHECK_EQ(chown(text, getuid(), getgid()), 0);
	if (getuid() == 0) {
		CHECK_EQ(fchown(fd, 1, 2), 0);
		CHECK_EQ(raw_stat("f").st_uid, 1);
		CHECK_EQ(fchownat(fd, "", 3, 4, AT_EMPTY_PATH), 0);
		CHECK_EQ(raw_stat("f").st_gid, 4);
		CHECK_EQ(chown(text, 5, 6), 0);
		CHECK_EQ(raw_stat("f").st_uid, 5);
	}
	CHECK_EQ(access(text, R_OK), 0);
	CHECK_EQ(access("f", R_OK), 0);
	FAILS(access("nothing", F_OK), ENOENT);
}

ACT_TEST(extended_attributes_are_the_files)
{
	int fd = make("f", TEXT);
	char text[64], value[8] = "", list[64];

	if (fsetxattr(fd, "user.a", "one", 4, 0) < 0 && errno == EOPNOTSUPP)
		skip_test("the file system has no extended attributes");
	CHECK_EQ(getxattr("f", "user.a", value, sizeof(value)), 4);
	CHECK_EQ(strcmp(value, "one"), 0);
	CHECK_EQ(fgetxattr(fd, "user.a", value, sizeof(value)), 4);
	CHECK(flistxattr(fd, list, sizeof(list)) >= 7);
	snprintf(text, sizeof(text), "/proc/self/fd/%d", fd);
	CHECK_EQ(setxattr(text, "user.a", "two", 4, XATTR_REPLACE), 0);
	CHECK_EQ(getxattr("f", "user.a", value, sizeof(value)), 4);
	CHECK_EQ(strcmp(value, "two"), 0);
	CHECK_EQ(fremovexattr(fd, "user.a"), 0);
	FAILS(getxattr("f", "user.a", value, sizeof(value)), ENODATA);
}

ACT_TEST(the_file_system_is_the_files)
{
	int fd = make("f", TEXT);
	struct statfs a, b;
	struct statvfs v, w;

	CHECK_EQ(statfs(".", &a), 0);
	CHECK_EQ(fstatfs(fd, &b), 0);
	CHECK_EQ(a.f_type, b.f_type);
	CHECK_EQ(memcmp(&a.f_fsid, &b.f_fsid, sizeof(a.f_fsid)), 0);
	CHECK_EQ(statvfs(".", &v), 0);
	CHECK_EQ(fstatvfs(fd, &w), 0);
	CHECK_EQ(v.f_fsid, w.f_fsid);
	CHECK_EQ(fpathconf(fd, _PC_NAME_MAX), pathconf(".", _PC_NAME_MAX));
}

ACT_TEST(ioctls_know_the_size_and_refuse_what_goes_past_the_cache)
{
	int fd = make("f", TEXT), other = make("../plain", TEXT), n = -1;
	struct termios tio;
	struct fiemap map = { .fm_length = 4096 };

	CHECK_EQ(lseek(fd, 6, SEEK_SET), 6);
	CHECK_EQ(ioctl(fd, FIONREAD, &n), 0);
	CHECK_EQ(n, 10);
	FAILS(ioctl(fd, TCGETS, &tio), ENOTTY);
	CHECK_EQ(isatty(fd), 0);
	FAILS(ioctl(fd, FICLONE, other), EOPNOTSUPP);
	FAILS(ioctl(other, FICLONE, fd), EOPNOTSUPP);
	FAILS(ioctl(other, FICLONERANGE, &(struct file_clone_range){ .src_fd = fd }), EOPNOTSUPP);
	FAILS(ioctl(fd, FS_IOC_FIEMAP, &map), EOPNOTSUPP);
	CHECK_EQ(ioctl(fd, FIOCLEX), 0);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(ioctl(fd, FIONBIO, &(int){ 1 }), 0);
	CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

ACT_TEST(a_file_without_a_name_gets_one)
{
	int fd = open(".", O_TMPFILE | O_RDWR, 0644);
	char text[64];

	if (fd < 0 && errno == EOPNOTSUPP)
		skip_test("the file system has no O_TMPFILE");
	CHECK(taken_over(fd));
	CHECK_EQ(write(fd, TEXT, 16), 16);
	snprintf(text, sizeof(text), "/proc/self/fd/%d", fd);
	CHECK_EQ(linkat(AT_FDCWD, text, AT_FDCWD, "named", AT_SYMLINK_FOLLOW), 0);
	holds("named", TEXT);
	if (getuid() == 0) {
		CHECK_EQ(linkat(fd, "", AT_FDCWD, "second", AT_EMPTY_PATH), 0);
		holds("second", TEXT);
	}
}

ACT_TEST(truncate_by_path_is_the_caches)
{
	struct stat st;

	make_closed("f");
	CHECK_EQ(truncate("f", 4), 0);
	holds("f", "0123");
	CHECK_EQ(stat("f", &st), 0);
	CHECK_EQ(st.st_size, 4);
	CHECK_EQ(truncate(served("f"), 100), 0);
	CHECK_EQ(stat("f", &st), 0);
	CHECK_EQ(st.st_size, 100);
	FAILS(truncate("f", -1), EINVAL);
	FAILS(truncate("nothing", 1), ENOENT);
	FAILS(truncate(".", 1), EISDIR);
	CHECK_EQ(mkfifo("fifo", 0644), 0);
	FAILS(truncate("fifo", 1), EINVAL);
	make_closed("../plain");
	CHECK_EQ(truncate("../plain", 3), 0);
	CHECK_EQ(raw_stat("../plain").st_size, 3);
}

ACTS_MAIN("preload_path", ACT(every_spelling_of_a_path_is_the_same), ACT(what_no_pattern_matches_is_not_taken_over),
	  ACT(a_path_longer_than_the_kernel_takes_is_its_error), ACT(relative_paths_follow_the_current_folder), ACT(a_child_has_its_own_current_folder),
	  ACT(walks_that_change_the_folder_by_themselves_are_followed), ACT(a_change_of_folder_is_seen_whoever_looks_meanwhile),
	  ACT(paths_relative_to_a_descriptor_are_found), ACT(a_number_that_is_another_folder_now_is_that_folder),
	  ACT(a_folder_made_again_with_the_same_number_is_another), ACT(a_pattern_that_goes_through_a_link_holds_for_the_folder_itself),
	  ACT(a_name_of_a_descriptor_opens_the_file), ACT(a_name_of_a_bare_descriptor_opens_through_the_cache), ACT(links_of_descriptors_say_the_files_path),
	  ACT(stat_by_path_sees_what_another_process_has_not_written_out),
	  ACT(stat_sees_an_overwrites_time_and_it_is_no_more_after_the_write_out), ACT(the_old_names_of_stat_say_the_same),
	  ACT(stat_of_a_descriptor_is_the_files), ACT(of_what_is_open_nobody_is_asked), ACT(a_link_itself_is_not_the_file), ACT(threads_and_forked_children_ask_at_once),
	  ACT(stat_leaves_the_programs_descriptors_alone), ACT(without_a_daemon_stat_is_the_kernels), ACT(times_that_are_set_stay_over_a_write_out),
	  ACT(times_of_a_closed_file_that_may_not_be_read_stay), ACT(times_that_are_wrong_are_refused), ACT(mode_and_owner_are_the_files),
	  ACT(extended_attributes_are_the_files), ACT(the_file_system_is_the_files), ACT(ioctls_know_the_size_and_refuse_what_goes_past_the_cache),
	  ACT(a_file_without_a_name_gets_one), ACT(truncate_by_path_is_the_caches))
