/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which paths are ours. Patterns are compared with the absolute path, made so lexically; symbolic links in the middle are not looked at, but the folder that a
 * pattern begins with counts under its real name as well, as that is what the kernel says of the current folder and of descriptors.
 *
 * The current folder is kept until something changes it: `generation` moves before and after each call that may, so that what was read in between is never
 * kept. Where the C library changes it by itself (nftw, fts) those functions are wrapped; where threads have folders of their own nothing is kept.
 *
 * What a descriptor of a folder stands for is asked of the kernel by name once and kept as long as identity, birth and mount are the same: the C library makes and
 * closes descriptors by itself, so nothing less than a look each time is certain. A folder that is renamed while it is kept keeps its old name here: then that name
 * decides who serves the file, and the kernel still finds the file.
 *
 * Any thread, also in a signal's handler: nothing waits and nothing is allocated after paths_init(). What is kept is guarded by sequence numbers, odd while one writes; who
 * meets that asks the kernel instead.
 */
#include <ctype.h>
#include <fcntl.h>
#include <fts.h>
#include <ftw.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "paths_match.h"
#include "preload.h"

#define FOLDERS 64             /* slots for descriptors of folders, by number */
#define FOLDER_NAME 256        /* longer names are not kept */

_Static_assert(PATH_SIZE == 4096, "the interface of path_is_ours()");

bool paths_any, paths_folders;
static struct path_patterns patterns; /* constant after paths_init() */

/* --- sequence numbers --- */

/* Acquire, with the writer's release. */
static unsigned seq_read(const unsigned *seq)
{
	return __atomic_load_n(seq, __ATOMIC_ACQUIRE);
}

/* Was what was read since then whole? */
static bool seq_same(const unsigned *seq, unsigned then)
{
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return !(then & 1) && __atomic_load_n(seq, __ATOMIC_RELAXED) == then;
}

static bool seq_write(unsigned *seq)
{
	unsigned now = __atomic_load_n(seq, __ATOMIC_RELAXED);
	bool won = !(now & 1) && __atomic_compare_exchange_n(seq, &now, now + 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);

	if (won)
		__atomic_thread_fence(__ATOMIC_RELEASE);
	return won;
}

static void seq_written(unsigned *seq)
{
	__atomic_add_fetch(seq, 1, __ATOMIC_RELEASE);
}

/* --- the current folder --- */

static struct {
	unsigned seq;
	unsigned generation;       /* of what follows; 0: nothing yet */
	bool may_match;
	size_t len;
	char path[PATH_SIZE];
} cwd;
static unsigned cwd_generation = 1;
static unsigned cwd_unsure;    /* how many reasons there are not to keep it */

static void cwd_moved(void)
{
	if (__atomic_add_fetch(&cwd_generation, 1, __ATOMIC_SEQ_CST) == 0)
		__atomic_add_fetch(&cwd_generation, 1, __ATOMIC_SEQ_CST);
}

static void cwd_keep(const char *path, size_t len, unsigned generation)
{
	if (__atomic_load_n(&cwd_unsure, __ATOMIC_SEQ_CST) || !seq_write(&cwd.seq))
		return;
	memcpy(cwd.path, path, len);
	cwd.len = len;
	cwd.may_match = path_patterns_may_match_below(&patterns, path, len);
	__atomic_store_n(&cwd.generation, generation, __ATOMIC_RELAXED);
	seq_written(&cwd.seq);
}

/* Into ret, of which PATH_SIZE bytes are there. Its length; 0: it has no name; -1: nothing below can be ours, unless by way of "..". */
static ssize_t cwd_get(char ret[PATH_SIZE], bool up)
{
	unsigned generation = __atomic_load_n(&cwd_generation, __ATOMIC_SEQ_CST), seq = seq_read(&cwd.seq);
	long n;

	if (!__atomic_load_n(&cwd_unsure, __ATOMIC_RELAXED) && __atomic_load_n(&cwd.generation, __ATOMIC_RELAXED) == generation) {
		size_t len = cwd.len;
		bool may = cwd.may_match || up;

		if (may && len < PATH_SIZE)
			memcpy(ret, cwd.path, len);
		if (seq_same(&cwd.seq, seq))
			return may ? (ssize_t)len : -1;
	}
	n = REAL(syscall)(SYS_getcwd, ret, (size_t)PATH_SIZE);
	/* "(unreachable)/...": outside our root. */
	if (n < 2 || ret[0] != '/')
		return 0;
	cwd_keep(ret, (size_t)n - 1, generation);
	return n - 1;
}

#define CWD_CALL(call) ({ \
	cwd_moved(); \
	__typeof__(call) cwd_result_ = (call); \
	cwd_moved(); \
	cwd_result_; })

EXPORT int chdir(const char *path)
{
	return CWD_CALL(REAL(chdir)(path));
}

EXPORT int fchdir(int fd)
{
	return CWD_CALL(REAL(fchdir)(fd));
}

EXPORT int chroot(const char *path)
{
	return CWD_CALL(REAL(chroot)(path));
}

/* From here on a thread may have a current folder of its own. */
EXPORT int unshare(int flags)
{
	if (flags & (CLONE_FS | CLONE_NEWNS | CLONE_NEWUSER))
		__atomic_add_fetch(&cwd_unsure, 1, __ATOMIC_SEQ_CST);
	return REAL(unshare)(flags);
}

EXPORT int setns(int fd, int type)
{
	__atomic_add_fetch(&cwd_unsure, 1, __ATOMIC_SEQ_CST);
	return REAL(setns)(fd, type);
}

/* These go through folders; the program's function runs in between. */
EXPORT int nftw(const char *path, __nftw_func_t fn, int descriptors, int flags)
{
	int r;

	if (!(flags & FTW_CHDIR))
		return REAL(nftw)(path, fn, descriptors, flags);
	__atomic_add_fetch(&cwd_unsure, 1, __ATOMIC_SEQ_CST);
	r = CWD_CALL(REAL(nftw)(path, fn, descriptors, flags));
	__atomic_sub_fetch(&cwd_unsure, 1, __ATOMIC_SEQ_CST);
	return r;
}
ALSO(nftw64, nftw64, nftw);

EXPORT FTSENT *fts_read(FTS *fts)
{
	return CWD_CALL(REAL(fts_read)(fts));
}

EXPORT FTSENT *fts_children(FTS *fts, int options)
{
	return CWD_CALL(REAL(fts_children)(fts, options));
}

EXPORT int fts_close(FTS *fts)
{
	return CWD_CALL(REAL(fts_close)(fts));
}
ALSO(fts64_read, fts64_read, fts_read);
ALSO(fts64_children, fts64_children, fts_children);
ALSO(fts64_close, fts64_close, fts_close);

/* --- descriptors of folders --- */

struct folder_id {
	uint64_t ino, mount, born_s;
	uint32_t dev_major, dev_minor, born_ns;
};
static struct folder {
	unsigned seq;
	unsigned number;           /* of the descriptor, and 1; 0: none. Atomic */
	struct folder_id id;
	size_t len;
	char path[FOLDER_NAME];
} folders[FOLDERS];

static struct folder *folder_slot(int fd)
{
	return &folders[(unsigned)fd % FOLDERS];
}

void paths_fd_forget(int fd)
{
	struct folder *f = folder_slot(fd);
	unsigned number = (unsigned)fd + 1;

	if (unlikely(__atomic_load_n(&f->number, __ATOMIC_RELAXED) == number))
		__atomic_compare_exchange_n(&f->number, &number, 0, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static bool folder_identify(int fd, struct folder_id *ret)
{
	struct statx st;

	if (REAL(statx)(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_INO | STATX_BTIME | STATX_MNT_ID, &st) < 0 || !S_ISDIR(st.stx_mode))
		return false;
	*ret = (struct folder_id){
		.ino = st.stx_ino, .mount = st.stx_mnt_id, .dev_major = st.stx_dev_major, .dev_minor = st.stx_dev_minor,
		.born_s = st.stx_mask & STATX_BTIME ? (uint64_t)st.stx_btime.tv_sec : 0,
		.born_ns = st.stx_mask & STATX_BTIME ? st.stx_btime.tv_nsec : 0,
	};
	return true;
}

/* What the kernel calls it. The length, or 0 where that is no name in the file system. */
static size_t fd_name(int fd, char ret[PATH_SIZE])
{
	static const char deleted[] = " (deleted)";
	char link[40];
	struct stat st;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = REAL(readlink)(link, ret, PATH_SIZE);
	if (n <= 0 || n >= PATH_SIZE || ret[0] != '/')
		return 0;
	ret[n] = '\0';
	/* Only if it is so: it may be part of the name. */
	if (n >= (ssize_t)sizeof(deleted) && strcmp(ret + n - (sizeof(deleted) - 1), deleted) == 0 && REAL(stat)(ret, &st) < 0)
		return 0;
	return (size_t)n;
}

/* A folder's name. The length, or 0: none is known. */
static ssize_t folder_get(int fd, char ret[PATH_SIZE])
{
	struct folder *f = folder_slot(fd);
	unsigned seq = seq_read(&f->seq), number = (unsigned)fd + 1;
	struct folder_id id;
	size_t len;

	if (fd < 0 || !folder_identify(fd, &id))
		return 0;
	if (__atomic_load_n(&f->number, __ATOMIC_RELAXED) == number && memcmp(&f->id, &id, sizeof(id)) == 0) {
		len = f->len;
		if (len < FOLDER_NAME) {
			memcpy(ret, f->path, len);
			if (seq_same(&f->seq, seq))
				return (ssize_t)len;
		}
	}
	len = fd_name(fd, ret);
	if (len > 0 && len < FOLDER_NAME && seq_write(&f->seq)) {
		f->id = id;
		memcpy(f->path, ret, len);
		f->len = len;
		__atomic_store_n(&paths_folders, true, __ATOMIC_RELAXED);
		__atomic_store_n(&f->number, number, __ATOMIC_RELAXED);
		seq_written(&f->seq);
	}
	return (ssize_t)len;
}

/* --- names of descriptors --- */

/* Goes on behind the component, or is NULL where it is another. */
static const char *component(const char *path, const char *name)
{
	size_t n = strlen(name);

	return strncmp(path, name, n) == 0 && (path[n] == '/' || path[n] == '\0') ? path + n : NULL;
}

/* As the kernel reads them: digits, and no zero before them. */
static const char *number(const char *path, long *ret)
{
	long n = 0;

	if (path[0] == '0' && isdigit((unsigned char)path[1]))
		return NULL;
	if (!isdigit((unsigned char)path[0]))
		return NULL;
	for (; isdigit((unsigned char)*path); path++) {
		n = n * 10 + (*path - '0');
		if (n > INT_MAX)
			return NULL;
	}
	*ret = n;
	return *path == '/' || *path == '\0' ? path : NULL;
}

/* "/proc/self" and its other names; returns what follows. */
static const char *own_proc(const char *path)
{
	const char *rest = component(path, "/proc/self");
	long pid;

	if (!rest)
		rest = component(path, "/proc/thread-self");
	if (!rest && strncmp(path, "/proc/", 6) == 0 && (rest = number(path + 6, &pid)) != NULL && pid != getpid())
		rest = NULL;
	return rest;
}

enum magic { MAGIC_NONE, MAGIC_FD, MAGIC_CWD, MAGIC_ROOT };

/* Links in /proc and /dev that no lexical look follows. *ret_rest: what follows, "" or from a '/' on. */
static enum magic magic(const char *path, int *ret_fd, const char **ret_rest)
{
	static const char *const standard[] = { "/dev/stdin", "/dev/stdout", "/dev/stderr" };
	const char *rest, *proc;
	long n;

	for (int i = 0; i < 3; i++)
		if (strcmp(path, standard[i]) == 0) {
			*ret_fd = i;
			*ret_rest = "";
			return MAGIC_FD;
		}
	proc = own_proc(path);
	if (proc && (*ret_rest = component(proc, "/cwd")) != NULL)
		return MAGIC_CWD;
	if (proc && (*ret_rest = component(proc, "/root")) != NULL)
		return MAGIC_ROOT;
	rest = proc ? component(proc, "/fd") : component(path, "/dev/fd");
	if (!rest || *rest != '/' || !(rest = number(rest + 1, &n)))
		return MAGIC_NONE;
	*ret_fd = (int)n;
	*ret_rest = rest;
	return MAGIC_FD;
}

/* The path of a file of ours. */
static bool fd_ours(int fd, char abs[PATH_SIZE])
{
	struct ofd *o _cleanup_ofd_ = NULL;
	ENTER;

	o = ofd_get(fd);
	if (!o || strlen(o->path) >= PATH_SIZE)
		return false;
	strcpy(abs, o->path);
	return true;
}

static bool matches_below(char abs[PATH_SIZE], ssize_t len, const char *rest)
{
	if (len <= 0)
		return false;
	len = path_append(abs, len == 1 ? 0 : (size_t)len, rest);
	return len > 0 && path_patterns_match(&patterns, abs, (size_t)len);
}

static __attribute__((noinline)) bool magic_is_ours(char abs[PATH_SIZE], size_t len, int *ret_fd)
{
	char rest[PATH_SIZE];
	const char *behind;
	int fd = -1;
	enum magic what = magic(abs, &fd, &behind);

	if (what == MAGIC_NONE)
		return path_patterns_match(&patterns, abs, len);
	strcpy(rest, behind);
	switch (what) {
	case MAGIC_CWD:
		return matches_below(abs, cwd_get(abs, true), rest);
	case MAGIC_ROOT:
		abs[0] = '/';
		return matches_below(abs, 1, rest);
	default:
		break;
	}
	if (*rest)
		return matches_below(abs, folder_get(fd, abs), rest);
	if (fd_maybe(fd)) {
		if (!fd_ours(fd, abs))
			return false;
		*ret_fd = fd;
		return true;
	}
	/* Some other descriptor (O_PATH perhaps) of what is ours by its name. */
	return matches_below(abs, (ssize_t)fd_name(fd, abs), "");
}

/* --- all together --- */

static inline bool maybe_magic(const char *path)
{
	return unlikely((path[1] == 'p' && strncmp(path, "/proc/", 6) == 0) || (path[1] == 'd' && strncmp(path, "/dev/", 5) == 0));
}

static __attribute__((noinline)) bool look_closer(int dirfd, const char *path, const struct path_look *look, char abs[PATH_SIZE], int *ret_fd)
{
	ssize_t len = 0;

	if (path[0] != '/') {
		len = dirfd == AT_FDCWD ? cwd_get(abs, look->up) : folder_get(dirfd, abs);
		if (len <= 0)
			return false;
	}
	len = path_append(abs, len == 1 ? 0 : (size_t)len, path);
	if (len < 0)
		return false;
	return maybe_magic(abs) ? magic_is_ours(abs, (size_t)len, ret_fd) : path_patterns_match(&patterns, abs, (size_t)len);
}

bool path_is_other(const char *path)
{
	struct path_look look = path_look(path);
	const char *rest;
	int fd;

	return look.plain && look.len < PATH_SIZE && !path_patterns_match(&patterns, path, look.len) &&
	       (!maybe_magic(path) || magic(path, &fd, &rest) == MAGIC_NONE);
}

bool path_is_ours(int dirfd, const char *path, char abs[PATH_SIZE], int *ret_fd)
{
	int saved = errno;
	struct path_look look = path_look(path);
	bool ours;

	*ret_fd = -1;
	if (look.len == 0 || look.len >= PATH_SIZE)
		return false;
	if (likely(look.plain) && !maybe_magic(path)) {
		if (!path_patterns_match(&patterns, path, look.len))
			return false;
		memcpy(abs, path, look.len + 1);
		return true;
	}
	ours = look_closer(dirfd, path, &look, abs, ret_fd);
	errno = saved;
	return ours;
}

static void forked(void)
{
	/* Who was writing is not here. */
	cwd.seq = 0;
	cwd.generation = 0;
	for (struct folder *f = folders; f < folders + FOLDERS; f++) {
		f->seq = 0;
		f->number = 0;
	}
}

static void rejected(const char *pattern)
{
	shim_debug("pagecached: PAGECACHED_PATHS: %s: not an absolute path, or too long", pattern);
}

/* A name as a pattern. `ret` has room for twice its length. */
static void protect(const char *name, char *ret)
{
	for (; *name; name++) {
		if (strchr("*?[\\:", *name))
			*ret++ = '\\';
		*ret++ = *name;
	}
	*ret = '\0';
}

/* The pattern with the folder that it begins with, as far as that is there, under its real name; NULL where that is the same. */
static char *real_pattern(const struct path_pattern *p)
{
	char *folder = strndup(p->text, p->literal), *real = NULL, *slash, *pattern = NULL;
	size_t n = 0;

	while (folder && !real && (slash = strrchr(folder, '/')) != NULL && slash > folder) {
		*slash = '\0';
		n = (size_t)(slash - folder);
		real = REAL(realpath)(folder, NULL);
	}
	if (real && strcmp(real, folder) != 0)
		pattern = malloc(2 * strlen(real) + p->len - n + 1);
	if (pattern) {
		protect(real, pattern);
		strcat(pattern, p->text + n);
	}
	free(real);
	free(folder);
	return pattern;
}

void paths_init(const char *globs)
{
	size_t n;

	if (path_patterns_add(&patterns, globs, rejected) < 0)
		shim_debug("pagecached: no memory for the patterns");
	n = patterns.n;
	for (size_t i = 0; i < n; i++) {
		char *real = real_pattern(&patterns.list[i]);

		if (real)
			path_patterns_add(&patterns, real, rejected);
		free(real);
	}
	pthread_atfork(NULL, NULL, forked);
	paths_any = patterns.n > 0;
}
