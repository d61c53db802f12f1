/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the preload library share. It stands in front of the C library and takes over the file calls for chosen paths.
 *
 * A file that is taken over has
 *   a visible descriptor   the number that the program has: a "placeholder" (placeholder.c), whose kernel description holds the file offset and the
 *                          status flags, so that dup, fork and exec share them. Raw system calls fail on it (read EBADF, write EPERM, mmap EACCES): what
 *                          the library does not see is never answered with wrong bytes.
 *   an ofd                 this process's record of that open file description: the libpagecached handle, identity, path
 *   hidden descriptors     of the handle, at numbers from fd_base on, which the program cannot close
 *
 * Every wrapper first asks fd_maybe() or path_maybe(): what is not ours goes on to the next library, at the price of a load and a branch.
 * What is ours runs between ENTER and the end of its scope: asynchronous signals and cancellation wait (but see take_signals() in shim.c), so that a handler cannot meet our locks and no thread
 * dies with one, and calls that the library itself makes go straight on (shim_depth). Nothing that may wait for the program's own doing (pipes, locks) is done inside.
 *
 * Locks: shim.lock guards the table of descriptors and the ofds' counts. It is never held over a call of libpagecached.
 */
#pragma once

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "libclient/internal.h"

#define EXPORT __attribute__((visibility("default")))
#define HIDDEN __attribute__((visibility("hidden")))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
/* The 64-bit name, which means the same where off_t has 64 bits. */
#define ALSO(type_of, name, target) EXPORT extern __typeof__(type_of) name __attribute__((alias(#target)))

/* --- real.c: the functions that we stand in front of --- */

/* The next definition of that name. One that there is not returns -1 with ENOSYS when it is called. */
HIDDEN void *real_find(const char *name);
/* REAL(read)(fd, buf, n) */
#define REAL(f) ({ \
	static void *real_; \
	void *found_ = __atomic_load_n(&real_, __ATOMIC_RELAXED); \
	if (unlikely(!found_)) { \
		found_ = real_find(#f); \
		__atomic_store_n(&real_, found_, __ATOMIC_RELAXED); \
	} \
	(__typeof__(&f))found_; })

/* --- shim.c: state, the scope of a call, start --- */

#define FD_MAX 65536           /* descriptors above are never ours */

struct ofd {
	struct pgc_file *file;
	int real;                  /* what the kernel opened */
	unsigned refs;             /* descriptors in the table and calls under way */
	int accmode;               /* as the program opened it */
	dev_t holder_dev;          /* identity of the placeholder */
	ino_t holder_ino;
	dev_t dev;                 /* of the file */
	ino_t ino;
	char *path;                /* absolute, as it was opened; for messages, exec, /proc/self/fd */
	struct ofd *next;          /* table.c: to be let go later, or free */
	unsigned quick;            /* atomic: ofd_quick() and no ofd_quick_end() yet; each keeps it, and its file, from being freed */
	struct ofd *ever;          /* table.c: the next of all there have ever been */
};
#define OFD_HIDDEN ((struct ofd *)1) /* a descriptor of the library's own */

struct shim {
	pthread_mutex_t lock;
	int fd_base;               /* hidden descriptors are here and above */
	bool debug;
};
extern HIDDEN struct shim shim;
extern HIDDEN struct ofd *fd_table[FD_MAX]; /* atomic pointers */
extern HIDDEN __thread int shim_depth __attribute__((tls_model("initial-exec")));

struct shim_scope { bool open; int cancel; sigset_t old; };
HIDDEN struct shim_scope shim_enter(void);
HIDDEN void shim_leave(struct shim_scope *s); /* keeps errno; a second time does nothing */
#define ENTER struct shim_scope shim_scope_ CLEANUP(shim_leave) __attribute__((unused)) = shim_enter()

/* Outside a scope, where POSIX has a cancellation point: there is none in what comes after. */
static inline void cancellation_point(void)
{
	if (shim_depth == 0)
		pthread_testcancel();
}

/* A line on stderr with PAGECACHED_DEBUG=1. Keeps errno. */
HIDDEN void shim_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* -errno, or a count: sets errno and returns -1, or returns it. */
static inline ssize_t shim_result(ssize_t r)
{
	if (r >= 0)
		return r;
	errno = (int)-r;
	return -1;
}

/* --- table.c --- */

extern HIDDEN bool paths_folders; /* paths.c: of some descriptor something is known. Atomic, relaxed: never false again */

static inline bool fd_maybe(int fd)
{
	return unlikely((unsigned)fd < FD_MAX && __atomic_load_n(&fd_table[fd], __ATOMIC_RELAXED) != NULL) && shim_depth == 0;
}
static inline bool fd_is_hidden(int fd)
{
	return (unsigned)fd < FD_MAX && __atomic_load_n(&fd_table[fd], __ATOMIC_RELAXED) == OFD_HIDDEN;
}
/*
 * The ofd behind a descriptor, with a reference, if the descriptor still is what the table says (code that we do not see may have closed it); else
 * NULL, and the table is put right. Inside a scope.
 */
HIDDEN struct ofd *ofd_get(int fd);
/*
 * The same for what asks nobody (window_read(), stat_shown()): no scope, no lock, no reference, but until ofd_quick_end() it is not freed. NULL: take the long way.
 */
HIDDEN struct ofd *ofd_quick(int fd);
/* Of a file that has a descriptor of ours. NULL: it has none, or none is found. */
HIDDEN struct ofd *ofd_quick_of(dev_t dev, ino_t ino);
HIDDEN void ofd_quick_end(struct ofd *o);
HIDDEN void ofd_put(struct ofd *o);
static inline void ofd_putp(struct ofd **o)
{
	if (*o)
		ofd_put(*o);
}
#define _cleanup_ofd_ CLEANUP(ofd_putp)
/*
 * Opens a scope and looks `fd` up: `o` is the ofd. Where the descriptor is not ours after all, returns `otherwise`, evaluated outside the scope's
 * reach (shim_depth is 0 and signals are as they were). A hidden descriptor is EBADF.
 */
#define WITH_OFD(o, fd, otherwise) \
	bool o##_hidden = false; \
	ENTER; \
	struct ofd *o _cleanup_ofd_ = ofd_get(fd); /* goes inside the scope */ \
	if (!o) { \
		o##_hidden = fd_is_hidden(fd); \
		shim_leave(&shim_scope_); \
		if (o##_hidden) { \
			errno = EBADF; \
			return (__typeof__(otherwise))-1; \
		} \
		return otherwise; \
	}

/* A new descriptor `fd`, a placeholder of `o`; takes over one reference. What the table had there is let go. */
HIDDEN void table_set(int fd, struct ofd *o);
/* The descriptor is closed, or about to be. */
HIDDEN void table_clear(int fd);
/* The kernel has given a number (or -1) to what is not ours: whatever was known of it is old. Returns it. Outside a scope. */
HIDDEN void table_plain_closer(int fd);
static inline int table_plain(int fd)
{
	if (unlikely(fd >= 0 && (fd_maybe(fd) || __atomic_load_n(&paths_folders, __ATOMIC_RELAXED))))
		table_plain_closer(fd);
	return fd;
}
/* close(2), dup2(2) and the like with the table, in one step for other threads. `make` returns a new descriptor or -1. */
HIDDEN int table_close(int fd);
HIDDEN int table_dup(struct ofd *o, int (*make)(void *arg), void *arg);
/* The first descriptor from `fd` on, up to `last`, that has an entry; -1: none. */
HIDDEN int table_find_next(int fd, int last);
/* The descriptor is the library's own from now on (also the hook of libpagecached). */
HIDDEN void table_hide(int fd);
HIDDEN void table_forked(void);

/*
 * A handle on `fd`, what the kernel opened for the program, which is taken over: it is kept, hidden, at a number of its own (its own, if that is from fd_base on). NULL
 * and errno: it is closed. The ofd has one reference.
 */
HIDDEN struct ofd *ofd_new(int fd, const char *path, int accmode);
/*
 * The descriptor of the real file, for what needs no cache: locks, attributes, ownership. It is the program's own description, which nobody else has, so that
 * flock(2) ends with the program's last descriptor. Lives as long as the ofd.
 */
static inline int ofd_real(const struct ofd *o) { return o->real; }
/*
 * close(2) of a description of the real file that is the library's own: closing any would drop the record locks that the program holds on it (fcntl(2)), so it is
 * put off until those are gone.
 */
HIDDEN void real_file_close(int fd);
/* The program took a record lock on the file, or closed a descriptor of it (then all are dropped, as POSIX says). */
HIDDEN void record_locks_taken(const struct ofd *o);
HIDDEN void record_locks_drop(const struct ofd *o);

/* --- placeholder.c --- */

/*
 * A placeholder for the file: `flags` are those of open(2), of which the status flags and O_CLOEXEC count. Returns the descriptor, the lowest free
 * one, or -errno. *ret: its identity. It also tells its own story to a program that inherits it by exec.
 */
HIDDEN int placeholder_make(const struct ofd *o, int flags, struct stat *ret);
#define PLACEHOLDER_NAME "pagecached-file"
struct placeholder {
	int accmode, flags;
	int real;                  /* the real file's descriptor, which survives exec beside it */
	dev_t dev;
	ino_t ino;
	struct stat self;
	char path[4096];
};
/* Is `fd` a placeholder, and what does it say? 1, 0 or -errno. */
HIDDEN int placeholder_read(int fd, struct placeholder *ret);

/* --- paths.c --- */

HIDDEN void paths_init(const char *patterns); /* PAGECACHED_PATHS */
extern HIDDEN bool paths_any;  /* is there any pattern? */
/*
 * Is a path, relative to `dirfd` (or AT_FDCWD), one that is taken over? Then its absolute, lexically normalised form is put into `abs`. Not for "" and NULL.
 * Keeps errno. /proc/self/fd/N, /dev/fd/N, /dev/stdin and the like of a descriptor of ours: true with that file's own path, and *ret_fd is N (else -1).
 */
HIDDEN bool path_is_ours(int dirfd, const char *path, char abs[4096], int *ret_fd);
/* Is there a path at all? The C library's headers call it nonnull, so the compiler must not see where it comes from; programs try calls with NULL. */
static inline bool path_given(const char *path)
{
	__asm__("" : "+r"(path));
	return path != NULL;
}
static inline bool path_maybe(const char *path) { return unlikely(paths_any) && path_given(path) && shim_depth == 0; }
/* An absolute path that is not ours, told without much stack: signal handlers that are not about files of ours may have 2 KiB. False: not known yet. */
HIDDEN bool path_is_other(const char *path);
static inline bool path_may_be_ours(const char *path) { return path_maybe(path) && !path_is_other(path); }
/* `fd` was closed, or has become something else: what is known of it as a folder is forgotten. */
HIDDEN void paths_fd_forget(int fd);
static inline void paths_fd_gone(int fd)
{
	if (unlikely(__atomic_load_n(&paths_folders, __ATOMIC_RELAXED)))
		paths_fd_forget(fd);
}

/* --- mem.c --- */

/*
 * A system call said EFAULT: where the daemon may not serve faults taken in the kernel, that is what buffers in mappings of ours that were not touched yet
 * look like. True: something was filled, so try again.
 */
HIDDEN bool mem_fault_in(const struct iovec *iov, int n, bool write);

/* --- open.c --- */

/*
 * What open(2) opened, as a file of ours: takes `fd` over, returns the placeholder's number or -1 with errno. A kind of file that is not
 * cached (folder, FIFO, device) is returned as it is. `truncate`: O_TRUNC was asked for and left out of the open.
 */
HIDDEN int open_take_over(int fd, const char *abs, int flags, bool truncate);
/* openat(2) of the program, for a path that is ours, outside a scope. */
HIDDEN int open_ours(int dirfd, const char *path, const char *abs, int flags, mode_t mode);

/* --- io.c: on an ofd, inside a scope; results are counts or -errno --- */

HIDDEN ssize_t ofd_read(struct ofd *o, int fd, const struct iovec *iov, int n);
HIDDEN ssize_t ofd_write(struct ofd *o, int fd, const struct iovec *iov, int n);
HIDDEN off_t ofd_seek(struct ofd *o, int fd, off_t off, int whence);
HIDDEN ssize_t ofd_pread(struct ofd *o, const struct iovec *iov, int n, off_t off);
/* With O_APPEND on the description at the end, whatever `off`: as pwrite(2) of Linux. */
HIDDEN ssize_t ofd_pwrite(struct ofd *o, int fd, const struct iovec *iov, int n, off_t off);
static inline uint64_t ofd_size(const struct ofd *o) { return __atomic_load_n(&o->file->control->size, __ATOMIC_ACQUIRE); }
HIDDEN int ofd_stat(struct ofd *o, struct stat *ret);

/* --- stat.c --- */

/* `st`, which the kernel said of a file by its path, gets size, blocks and times as the cache knows them. 0 or -errno. */
HIDDEN int stat_overlay(struct stat *st);

/* --- exec.c --- */

/* Descriptors that came by exec are taken over. At start. */
HIDDEN void exec_adopt(void);
/* What the cache has of a file that the kernel or the loader is about to read by itself is written out. Outside a scope. */
HIDDEN void exec_write_out(const char *path);

/* --- stdio.c --- */

/* stdin, stdout and stderr, where their descriptors are ours, become streams through the library. At start, after exec_adopt(). */
HIDDEN void stdio_adopt(void);
/* Around a change of what descriptor `fd` stands for, when the old or the new is ours. Outside a scope. */
HIDDEN void stdio_fd_changing(int fd);
HIDDEN void stdio_fd_changed(int fd);
