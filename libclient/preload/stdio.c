/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C library's streams. They read, write and close by calls of its own that a preload library does not see, so a stream on a file of ours is one of
 * fopencookie(3), whose functions work on whatever its descriptor is at the time: a file of ours or not. The position is the descriptor's, buffers,
 * locks and orientation are the C library's, which flushes such streams at exit like any other.
 *
 * stdin, stdout and stderr are variables: they are set to such a stream as soon as their descriptor is ours (at start, by open, dup2 and freopen) and
 * keep it from then on. What the old stream had buffered goes over, so that dup2 finds what it would have found. An *old pointer* that someone kept (C++'s
 * cout, a FILE that freopen put onto a file of ours) stands for the new stream: the functions in streams.c look it up.
 *
 * What is not served: a FILE of a program's own making, not a standard one, whose descriptor dup2 put onto a file of ours behind its back; its calls fail with EPERM
 * or EBADF. Streams of ours have no wide orientation in the C library; streams.c has the common wide functions for them. ",ccs=" is refused.
 * tmpfile(3) is left alone: its file has no name, so nobody else can see it.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "preload.h"
#include "streams.h"

/* Each call of the library costs a system call and more, so a larger buffer than the C library's 4 KiB. */
#define BUFFER (64u << 10)

/* Bits of _flags, which the C library's headers do not give names to, but which programs built long ago have compiled in. */
#define FLAG_UNBUFFERED 0x0002
#define FLAG_NO_READS 0x0004
#define FLAG_NO_WRITES 0x0008
#define FLAG_LINE_BUFFERED 0x0200
#define FLAG_PUTTING 0x0800
#define FLAG_APPENDING 0x1000

/* A stream of ours, from stream_new() until its descriptor is closed. In a list under shim.lock. */
struct stream {
	int fd;
	FILE *f;
	struct stream *next;
	struct wide wide;
	char buffer[BUFFER];
};
static struct stream *streams;

static struct alias { FILE *from, *to; } aliases[64]; /* written under shim.lock; pointers are atomic */
int n_aliases; /* entries that may be used; grows only */

struct mode {
	int flags;                     /* of open(2) */
	int stream;                    /* bits of _flags */
	bool ccs;
};

static struct { FILE **variable, *original; } standard[3] = { { &stdin, NULL }, { &stdout, NULL }, { &stderr, NULL } };
/* freopen sees to the stream itself. Volatile: the C library declares dup3 as a leaf, which never comes back into this file, and ours does. */
static __thread volatile bool reopening __attribute__((tls_model("initial-exec")));

static bool mode_parse(const char *s, struct mode *ret)
{
	struct mode m = { 0 };

	switch (*s++) {
	case 'r':
		m.stream = FLAG_NO_WRITES;
		break;
	case 'w':
		m.flags = O_WRONLY | O_CREAT | O_TRUNC;
		m.stream = FLAG_NO_READS;
		break;
	case 'a':
		m.flags = O_WRONLY | O_CREAT | O_APPEND;
		m.stream = FLAG_NO_READS | FLAG_APPENDING;
		break;
	default:
		errno = EINVAL;
		return false;
	}
	for (; *s && *s != ','; s++) {
		if (*s == '+') {
			m.flags = (m.flags & ~O_ACCMODE) | O_RDWR;
			m.stream &= FLAG_APPENDING;
		} else if (*s == 'x') {
			m.flags |= O_EXCL;
		} else if (*s == 'e') {
			m.flags |= O_CLOEXEC;
		}
	}
	m.ccs = strncmp(s, ",ccs=", 5) == 0;
	*ret = m;
	return true;
}

/* --- what the C library calls for a stream of ours; with the FILE's lock held, outside a scope --- */

static ssize_t do_read(int fd, char *buf, size_t n)
{
	struct iovec iov = { buf, MIN(n, RW_MAX) };

	if (!fd_maybe(fd))
		return REAL(read)(fd, buf, n);
	WITH_OFD(o, fd, REAL(read)(fd, buf, n));
	return shim_result(ofd_read(o, fd, &iov, 1));
}

static ssize_t do_write(int fd, const char *buf, size_t n)
{
	struct iovec iov = { (void *)buf, MIN(n, RW_MAX) };

	if (!fd_maybe(fd))
		return REAL(write)(fd, buf, n);
	WITH_OFD(o, fd, REAL(write)(fd, buf, n));
	return shim_result(ofd_write(o, fd, &iov, 1));
}

static off_t do_seek(int fd, off_t off, int whence)
{
	if (!fd_maybe(fd))
		return REAL(lseek)(fd, off, whence);
	WITH_OFD(o, fd, REAL(lseek)(fd, off, whence));
	return shim_result(ofd_seek(o, fd, off, whence));
}

static ssize_t stream_read(void *cookie, char *buf, size_t n)
{
	struct stream *s = cookie;

	return do_read(s->fd, buf, n);
}

/* All of it, as the C library's own; fewer is an error, of which errno tells. */
static size_t write_all(int fd, const char *buf, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = do_write(fd, buf + done, n - done);

		if (r < 0)
			break;
		done += (size_t)r;
	}
	return done;
}

static ssize_t stream_write(void *cookie, const char *buf, size_t n)
{
	struct stream *s = cookie;

	return (ssize_t)write_all(s->fd, buf, n);
}

static int stream_seek(void *cookie, off64_t *off, int whence)
{
	struct stream *s = cookie;
	off_t to = do_seek(s->fd, *off, whence);

	if (to < 0)
		return -1;
	*off = to;
	return 0;
}

static void streams_lock(void)
{
	pthread_mutex_lock(&shim.lock);
}

static void streams_unlock(void)
{
	pthread_mutex_unlock(&shim.lock);
}

static int stream_close(void *cookie)
{
	struct stream *s = cookie;
	int fd = s->fd;
	NO_CANCEL; /* the C library holds the FILE's lock */

	{
		ENTER;
		streams_lock();
		for (struct stream **p = &streams; *p; p = &(*p)->next)
			if (*p == s) {
				*p = s->next;
				break;
			}
		streams_unlock();
	}
	free(s);
	return close(fd);
}

static struct stream *stream_find(const FILE *f)
{
	struct stream *s;
	ENTER;

	streams_lock();
	for (s = streams; s && s->f != f; s = s->next)
		;
	streams_unlock();
	return s;
}

struct wide *stream_wide(const FILE *f)
{
	struct stream *s;

	/* Streams that never can be wide have no wide data. A cheap look first. */
	if (__atomic_load_n(&streams, __ATOMIC_RELAXED) == NULL || f->_wide_data != (void *)-1L)
		return NULL;
	s = stream_find(f);
	return s ? &s->wide : NULL;
}

/* The descriptor stays the caller's on failure. */
static FILE *stream_new(int fd, const struct mode *m)
{
	static const cookie_io_functions_t functions = { stream_read, stream_write, stream_seek, stream_close };
	struct stream *s = malloc(sizeof(*s));
	const char *how = m->stream & FLAG_NO_WRITES ? "r" : m->stream & FLAG_NO_READS ? "w" : "r+";
	FILE *f;

	if (!s)
		return NULL;
	s->fd = fd;
	s->wide = (struct wide){ 0 };
	f = fopencookie(s, how, functions);
	if (!f) {
		free(s);
		return NULL;
	}
	s->f = f;
	/* For fileno(3). The C library's own marker means only that there is none. */
	f->_fileno = fd;
	f->_flags |= m->stream & FLAG_APPENDING;
	REAL(setvbuf)(f, s->buffer, _IOFBF, BUFFER);
	{
		ENTER;
		streams_lock();
		s->next = streams;
		streams = s;
		streams_unlock();
	}
	/* As the C library: where writing will begin. */
	if ((m->stream & (FLAG_APPENDING | FLAG_NO_READS)) == (FLAG_APPENDING | FLAG_NO_READS)) {
		int saved = errno;

		do_seek(fd, 0, SEEK_END);
		errno = saved;
	}
	return f;
}

/* --- pointers that stand for another stream --- */

FILE *alias_find(FILE *f)
{
	int n = __atomic_load_n(&n_aliases, __ATOMIC_ACQUIRE);

	for (int i = 0; i < n; i++)
		if (__atomic_load_n(&aliases[i].from, __ATOMIC_ACQUIRE) == f)
			return __atomic_load_n(&aliases[i].to, __ATOMIC_ACQUIRE);
	return f;
}

static bool alias_set(FILE *from, FILE *to)
{
	struct alias *a = NULL;
	ENTER;

	streams_lock();
	for (struct alias *b = aliases; b < aliases + 64; b++)
		if (b->from == from || (!b->from && !a)) {
			a = b;
			if (b->from)
				break;
		}
	if (a) {
		__atomic_store_n(&a->to, to, __ATOMIC_RELEASE);
		__atomic_store_n(&a->from, from, __ATOMIC_RELEASE);
		if (a - aliases >= n_aliases)
			__atomic_store_n(&n_aliases, (int)(a - aliases) + 1, __ATOMIC_RELEASE);
	}
	streams_unlock();
	return a != NULL;
}

static void alias_drop(FILE *from)
{
	ENTER;
	streams_lock();
	for (struct alias *a = aliases; a < aliases + 64; a++)
		if (a->from == from)
			__atomic_store_n(&a->from, NULL, __ATOMIC_RELEASE);
	streams_unlock();
}

/* --- standard streams --- */

/* What `from` holds back goes to `to`, and nothing stays: unwritten bytes, or read ones that nobody took. */
static void carry_over(FILE *from, FILE *to)
{
	char *p;
	size_t n;

	if (from->_flags & FLAG_PUTTING) {
		n = (size_t)(from->_IO_write_ptr - from->_IO_write_base);
		p = n ? malloc(n) : NULL;
		if (p) {
			memcpy(p, from->_IO_write_base, n);
			REAL(__fpurge)(from);
			REAL(fwrite)(p, 1, n, to);
			free(p);
		}
		/* No room: putc_unlocked(3) on the old pointer comes to us. */
		from->_IO_write_end = from->_IO_write_ptr;
		return;
	}
	for (p = from->_IO_read_end; p && p > from->_IO_read_ptr; p--)
		REAL(ungetc)((unsigned char)p[-1], to);
	REAL(__fpurge)(from);
}

/* The variable of descriptor `fd` gets a stream of ours, if it still has the C library's. */
static FILE *standard_take(int fd, const struct mode *m, bool keep)
{
	FILE *old = standard[fd].original, *f;

	f = stream_new(fd, m);
	if (!f)
		return NULL;
	REAL(flockfile)(old);
	if (old->_flags & FLAG_UNBUFFERED)
		REAL(setvbuf)(f, NULL, _IONBF, 0);
	else if (old->_flags & FLAG_LINE_BUFFERED)
		REAL(setvbuf)(f, NULL, _IOLBF, 0);
	if (keep && old->_mode <= 0)
		carry_over(old, f);
	*standard[fd].variable = f;
	REAL(funlockfile)(old);
	alias_set(old, f);
	shim_debug("pagecached: the stream of descriptor %d is taken over", fd);
	return f;
}

static bool standard_is_original(int fd)
{
	FILE *f = standard[fd].original;

	return f && *standard[fd].variable == f && f->_fileno == fd;
}

/* Bytes are carried over; wide characters, which lie in a buffer that only the C library knows, are written to where they were meant to go. */
void stdio_fd_changing(int fd)
{
	int saved = errno;

	if (fd >= 1 && fd <= 2 && !reopening && standard_is_original(fd) && standard[fd].original->_mode > 0)
		REAL(fflush)(standard[fd].original);
	errno = saved;
}

void stdio_fd_changed(int fd)
{
	struct mode m = { .stream = fd == 0 ? FLAG_NO_WRITES : FLAG_NO_READS };
	int saved = errno;

	if (fd >= 0 && fd <= 2 && !reopening && fd_maybe(fd) && !fd_is_hidden(fd) && standard_is_original(fd))
		standard_take(fd, &m, true);
	errno = saved;
}

void stdio_adopt(void)
{
	for (int fd = 0; fd <= 2; fd++) {
		standard[fd].original = *standard[fd].variable;
		stdio_fd_changed(fd);
	}
}

/* --- opening --- */

static FILE *open_stream(const char *path, const char *how)
{
	struct mode m;
	FILE *f;
	int fd;

	if (!mode_parse(how, &m))
		return NULL;
	if (m.ccs) {
		shim_debug("pagecached: %s: a stream with a character set of its own is not served", path);
		errno = EINVAL;
		return NULL;
	}
	fd = open(path, m.flags, 0666);
	if (fd < 0)
		return NULL;
	/* A FIFO, a device. */
	f = fd_maybe(fd) ? stream_new(fd, &m) : REAL(fdopen)(fd, how);
	if (!f) {
		int saved = errno;

		close(fd);
		errno = saved;
	}
	return f;
}

static bool ours(const char *path)
{
	char abs[4096];
	int fd;

	return path_may_be_ours(path) && path_is_ours(AT_FDCWD, path, abs, &fd);
}

EXPORT FILE *fopen(const char *path, const char *how)
{
	return ours(path) ? open_stream(path, how) : REAL(fopen)(path, how);
}
ALSO(fopen64, fopen64, fopen);

EXPORT FILE *fdopen(int fd, const char *how)
{
	struct mode m;
	int flags;

	if (!fd_maybe(fd))
		return REAL(fdopen)(fd, how);
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || !mode_parse(how, &m))
		return NULL;
	if (m.ccs || ((flags & O_ACCMODE) == O_RDONLY && !(m.stream & FLAG_NO_WRITES)) || ((flags & O_ACCMODE) == O_WRONLY && !(m.stream & FLAG_NO_READS))) {
		errno = EINVAL;
		return NULL;
	}
	if ((m.stream & FLAG_APPENDING) && !(flags & O_APPEND) && fcntl(fd, F_SETFL, flags | O_APPEND) < 0)
		return NULL;
	return stream_new(fd, &m);
}

EXPORT int fclose(FILE *f)
{
	FILE *to = at(f);
	int r, std = -1;

	if (to == f && !__atomic_load_n(&streams, __ATOMIC_RELAXED))
		return REAL(fclose)(f);
	for (int fd = 0; fd <= 2; fd++)
		if (standard[fd].original && *standard[fd].variable == to && to != standard[fd].original)
			std = fd;
	if (std >= 0) {
		/* As after fclose(stdout): the variable is a stream without a descriptor, which exit handlers may still look at. */
		standard[std].original->_fileno = -1;
		alias_drop(standard[std].original);
		*standard[std].variable = standard[std].original;
	}
	/* The position goes back to where the program has read to. The C library knows no position of streams like ours that it could go back from. */
	if (!(to->_flags & FLAG_PUTTING) && stream_find(to))
		REAL(fflush)(to);
	r = REAL(fclose)(to);
	if (to != f && std < 0) {
		int saved = errno;

		alias_drop(f);
		REAL(fclose)(f);
		errno = saved;
	}
	return r;
}

/* --- freopen --- */

/* The description of `from` under the number `to`. */
static int move_fd(int from, int to, int flags)
{
	int r;

	if (to < 0 || from == to)
		return from;
	reopening = true;
	r = dup3(from, to, flags & O_CLOEXEC);
	reopening = false;
	if (r < 0)
		return -1;
	close(from);
	return r;
}

/* A stream of ours goes on with what its descriptor is now. */
static FILE *again_ours(struct stream *s, int fd, const struct mode *m)
{
	FILE *f = s->f;

	REAL(__fpurge)(f);
	REAL(flockfile)(f);
	f->_flags &= ~(FLAG_NO_READS | FLAG_NO_WRITES | FLAG_APPENDING | FLAG_PUTTING | _IO_EOF_SEEN | _IO_ERR_SEEN);
	f->_flags |= m->stream;
	/* As new: neither reading nor writing. */
	f->_IO_read_base = f->_IO_read_ptr = f->_IO_read_end = f->_IO_buf_base;
	f->_IO_write_base = f->_IO_write_ptr = f->_IO_write_end = f->_IO_buf_base;
	f->_fileno = s->fd = fd;
	s->wide = (struct wide){ 0 };
	REAL(funlockfile)(f);
	if (!(f->_flags & FLAG_UNBUFFERED) && isatty(fd))
		REAL(setvbuf)(f, NULL, _IOLBF, 0);
	if ((m->stream & (FLAG_APPENDING | FLAG_NO_READS)) == (FLAG_APPENDING | FLAG_NO_READS))
		do_seek(fd, 0, SEEK_END);
	return f;
}

/*
 * A stream of the C library's that becomes one of ours. The standard ones are replaced; of others the pointer stays valid and stands for the new one, and
 * the old object, without a descriptor, is its shell until it is closed.
 */
static FILE *again_plain(FILE *f, int fd, const struct mode *m)
{
	FILE *new;

	for (int i = 0; i <= 2; i++)
		if (standard[i].original == f && *standard[i].variable == f && i == fd)
			return standard_take(fd, m, false);
	new = stream_new(fd, m);
	if (!new)
		return NULL;
	if (!alias_set(f, new)) {
		REAL(fclose)(new);
		errno = EMFILE;
		return NULL;
	}
	REAL(__fpurge)(f);
	f->_fileno = -1;
	return f;
}

static FILE *reopen_failed(FILE *f)
{
	int saved = errno;

	fclose(f);
	errno = saved;
	return NULL;
}

EXPORT FILE *freopen(const char *path, const char *how, FILE *f)
{
	FILE *to = at(f), *r;
	struct stream *s = stream_find(to);
	struct mode m;
	char link[40];
	int old = to->_fileno, fd;

	if (!s && !ours(path))
		return REAL(freopen)(path, how, to);
	if (!mode_parse(how, &m) || m.ccs) {
		errno = EINVAL;
		return reopen_failed(f);
	}
	REAL(fflush)(to);
	if (!path) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", old);
		path = link;
		m.flags &= ~(O_CREAT | O_EXCL);
	}
	fd = open(path, m.flags, 0666);
	if (fd < 0)
		return reopen_failed(f);
	if (!s && !fd_maybe(fd)) {
		/* Of ours by name, but a FIFO or a device: the C library opens it by itself. */
		close(fd);
		return REAL(freopen)(path, how, to);
	}
	if (old >= 0) {
		int n = move_fd(fd, old, m.flags);

		if (n < 0) {
			close(fd);
			return reopen_failed(f);
		}
		fd = n;
	}
	r = s ? again_ours(s, fd, &m) : again_plain(to, fd, &m);
	if (!r)
		return reopen_failed(f);
	/* A pointer that stood for the stream goes on doing so, unless it is a standard one, whose variable says what it is. */
	return to != f && f->_fileno != fd ? f : r;
}
ALSO(freopen64, freopen64, freopen);

/* --- files with made-up names: the C library opens them by a call of its own --- */

#define NOT_REAL (O_APPEND | O_DIRECT | O_ASYNC)

static int make_temporary(char *template, int suffix, int flags)
{
	char abs[4096];
	int fd, n;

	if (!path_maybe(template))
		return REAL(mkostemps)(template, suffix, flags);
	fd = REAL(mkostemps)(template, suffix, (flags & ~NOT_REAL) | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (!path_is_ours(AT_FDCWD, template, abs, &n)) {
		if (flags & NOT_REAL)
			REAL(fcntl)(fd, F_SETFL, REAL(fcntl)(fd, F_GETFL) | (flags & NOT_REAL));
		if (!(flags & O_CLOEXEC))
			REAL(fcntl)(fd, F_SETFD, 0);
		return fd;
	}
	fd = open_take_over(fd, abs, flags | O_RDWR, false);
	if (fd < 0) {
		int saved = errno;

		unlink(template);
		errno = saved;
	}
	stdio_fd_changed(fd);
	return fd;
}

EXPORT int mkstemp(char *template)
{
	return make_temporary(template, 0, 0);
}
ALSO(mkstemp64, mkstemp64, mkstemp);

EXPORT int mkostemp(char *template, int flags)
{
	return make_temporary(template, 0, flags);
}
ALSO(mkostemp64, mkostemp64, mkostemp);

EXPORT int mkstemps(char *template, int suffix)
{
	return make_temporary(template, suffix, 0);
}
ALSO(mkstemps64, mkstemps64, mkstemps);

EXPORT int mkostemps(char *template, int suffix, int flags)
{
	return make_temporary(template, suffix, flags);
}
ALSO(mkostemps64, mkostemps64, mkostemps);

/* --- formatted writing to a descriptor --- */

EXPORT int vdprintf(int fd, const char *format, va_list ap)
{
	char *text;
	size_t done;
	int n;

	if (!fd_maybe(fd))
		return REAL(vdprintf)(fd, format, ap);
	n = vasprintf(&text, format, ap);
	if (n < 0)
		return -1;
	done = write_all(fd, text, (size_t)n);
	free(text);
	return done == (size_t)n ? n : -1;
}

EXPORT int dprintf(int fd, const char *format, ...)
{
	va_list ap;
	int r;

	va_start(ap, format);
	r = vdprintf(fd, format, ap);
	va_end(ap);
	return r;
}

EXPORT int __vdprintf_chk(int fd, int flag, const char *format, va_list ap);
EXPORT int __vdprintf_chk(int fd, int flag, const char *format, va_list ap)
{
	/* What the checked form adds is a stop at %n in writable memory. */
	return fd_maybe(fd) ? vdprintf(fd, format, ap) : REAL(__vdprintf_chk)(fd, flag, format, ap);
}

EXPORT int __dprintf_chk(int fd, int flag, const char *format, ...);
EXPORT int __dprintf_chk(int fd, int flag, const char *format, ...)
{
	va_list ap;
	int r;

	va_start(ap, format);
	r = __vdprintf_chk(fd, flag, format, ap);
	va_end(ap);
	return r;
}
