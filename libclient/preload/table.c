/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of descriptors and the ofds behind them.
 *
 * An ofd lives as long as a descriptor or a call under way counts on it. The table is a claim, proved at each use: a descriptor that was closed by code
 * that we do not see, and given out again for something else, is not the placeholder any more, whose inode number is unique.
 *
 * Record locks: those of fcntl(2) belong to the process and the inode, and go when the process closes any descriptor of it. What the library closes
 * for itself must not do that, and what the program closes must, so descriptors of a file on which locks may be held wait in a graveyard until
 * the program closes one.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "preload.h"

#define LOCKED_MAX 64          /* files with record locks whose late descriptors are looked after */
#define GRAVES 16              /* of one file */

struct ofd *fd_table[FD_MAX];

/* Under shim.lock. n: descriptors that wait. */
static struct locked { bool used; dev_t dev; ino_t ino; int n, fd[GRAVES]; } locked[LOCKED_MAX];
static bool any_locked; /* atomic, relaxed: a hint for those who hold no lock themselves */

static struct ofd *entry(int fd)
{
	return (unsigned)fd < FD_MAX ? __atomic_load_n(&fd_table[fd], __ATOMIC_ACQUIRE) : NULL;
}

/* With the lock held. Returns what was there, whose reference is the caller's now; NULL for what has none. */
static struct ofd *replace(int fd, struct ofd *o)
{
	struct ofd *old = entry(fd);

	if ((unsigned)fd < FD_MAX)
		__atomic_store_n(&fd_table[fd], o, __ATOMIC_RELEASE);
	return old == OFD_HIDDEN ? NULL : old;
}

/* Under shim.lock: ofds nobody has. Their memory stays what it is, as who has read of one in the table may count on it a moment too late. */
static struct ofd *unused, *ever;

static struct ofd *ofd_alloc(void)
{
	struct ofd *o;

	pthread_mutex_lock(&shim.lock);
	o = unused;
	if (o) {
		unused = o->next;
	} else if ((o = calloc(1, sizeof(*o)))) {
		o->ever = ever;
		ever = o;
	}
	pthread_mutex_unlock(&shim.lock);
	return o;
}

static void ofd_free(struct ofd *o)
{
	free(o->path);
	memset(o, 0, offsetof(struct ofd, quick));
	pthread_mutex_lock(&shim.lock);
	o->next = unused;
	unused = o;
	pthread_mutex_unlock(&shim.lock);
}

/* Under shim.lock: references that are to be let go later. */
static struct ofd *late;

static void put_later(struct ofd *o)
{
	o->next = late;
	late = o;
}

static void destroy(struct ofd *o)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* it is in the table no more, and then nobody counts on it */
	if (__atomic_load_n(&o->quick, __ATOMIC_ACQUIRE) > 0) {
		/* Perhaps this very thread, and this is a signal's handler. */
		pthread_mutex_lock(&shim.lock);
		o->refs = 1;
		put_later(o);
		pthread_mutex_unlock(&shim.lock);
		return;
	}
	pgc_close(o->file);
	close_fd(&o->real);
	ofd_free(o);
}

/* The descriptor still is what the table says: code that we do not see may have closed it. */
static bool is_placeholder(const struct ofd *o, int fd)
{
	struct stat st;

	return REAL(fstat)(fd, &st) == 0 && st.st_ino == o->holder_ino && st.st_dev == o->holder_dev;
}

static bool may_be_quick(const struct pgc_file *f)
{
	return __atomic_load_n(&f->window, __ATOMIC_RELAXED) || __atomic_load_n(&f->life, __ATOMIC_RELAXED);
}

/* A descriptor of a file, by its device and inode: the last one that was made with such numbers. A claim, as the table. */
#define BY_FILE 256
static int by_file[BY_FILE]; /* atomic, relaxed: plus one; 0: none */

static int *by_file_slot(dev_t dev, ino_t ino)
{
	return &by_file[(ino ^ ino >> 8 ^ dev) % BY_FILE];
}

static void note_by_file(int fd, const struct ofd *o)
{
	if (o)
		__atomic_store_n(by_file_slot(o->dev, o->ino), fd + 1, __ATOMIC_RELAXED);
}

struct ofd *ofd_quick_of(dev_t dev, ino_t ino)
{
	int fd = __atomic_load_n(by_file_slot(dev, ino), __ATOMIC_RELAXED) - 1;
	struct ofd *o = fd < 0 ? NULL : ofd_quick(fd);

	if (!o || (o->dev == dev && o->ino == ino))
		return o;
	ofd_quick_end(o);
	return NULL;
}

struct ofd *ofd_quick(int fd)
{
	struct ofd *o = entry(fd);

	if (!o || o == OFD_HIDDEN || shim_depth > 0)
		return NULL;
	__atomic_add_fetch(&o->quick, 1, __ATOMIC_SEQ_CST);
	if (entry(fd) == o && may_be_quick(o->file) && is_placeholder(o, fd))
		return o;
	ofd_quick_end(o);
	return NULL;
}

void ofd_quick_end(struct ofd *o)
{
	__atomic_sub_fetch(&o->quick, 1, __ATOMIC_RELEASE);
}

void ofd_put(struct ofd *o)
{
	bool last;
	ENTER;

	pthread_mutex_lock(&shim.lock);
	last = --o->refs == 0;
	pthread_mutex_unlock(&shim.lock);
	if (last)
		destroy(o);
}

struct ofd *ofd_get(int fd)
{
	struct ofd *o, *gone = NULL;

	pthread_mutex_lock(&shim.lock);
	o = entry(fd);
	if (o == OFD_HIDDEN)
		o = NULL;
	if (o && !is_placeholder(o, fd)) {
		gone = replace(fd, NULL);
		o = NULL;
	}
	if (o)
		o->refs++;
	pthread_mutex_unlock(&shim.lock);
	if (gone) {
		shim_debug("pagecached: descriptor %d of %s was closed unseen", fd, gone->path);
		ofd_put(gone);
	}
	return o;
}

void table_set(int fd, struct ofd *o)
{
	struct ofd *old;

	pthread_mutex_lock(&shim.lock);
	old = replace(fd, o);
	note_by_file(fd, o);
	pthread_mutex_unlock(&shim.lock);
	if (old)
		ofd_put(old);
}

void table_clear(int fd)
{
	table_set(fd, NULL);
}

void table_plain_closer(int fd)
{
	if (fd_maybe(fd)) {
		ENTER;
		table_clear(fd);
	}
	paths_fd_gone(fd);
}

/* Also called with libpagecached's lock held, so what is let go waits for ofd_new(). */
void table_hide(int fd)
{
	struct ofd *old;

	pthread_mutex_lock(&shim.lock);
	old = replace(fd, OFD_HIDDEN);
	if (old && old->refs > 1) {
		old->refs--;
	} else if (old) {
		put_later(old);
	}
	pthread_mutex_unlock(&shim.lock);
}

static void put_late(void)
{
	struct ofd *o, *next;

	if (!__atomic_load_n(&late, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&shim.lock);
	o = late;
	late = NULL;
	pthread_mutex_unlock(&shim.lock);
	for (; o; o = next) {
		next = o->next;
		ofd_put(o);
	}
}

int table_close(int fd)
{
	struct ofd *old;
	int r, saved;

	pthread_mutex_lock(&shim.lock);
	old = replace(fd, NULL);
	r = REAL(close)(fd);
	saved = errno;
	pthread_mutex_unlock(&shim.lock);
	if (old)
		ofd_put(old);
	errno = saved;
	return r;
}

int table_dup(struct ofd *o, int (*make)(void *arg), void *arg)
{
	struct ofd *old = NULL;
	int fd, saved;

	pthread_mutex_lock(&shim.lock);
	fd = make(arg);
	saved = errno;
	/* A number beyond the table stays a placeholder that nobody serves: it refuses. */
	if (fd >= 0 && fd < FD_MAX && entry(fd) != o) {
		old = replace(fd, o);
		note_by_file(fd, o);
		if (o)
			o->refs++;
	}
	pthread_mutex_unlock(&shim.lock);
	if (old)
		ofd_put(old);
	errno = saved;
	return fd;
}

int table_find_next(int fd, int last)
{
	last = MIN(last, FD_MAX - 1);
	for (fd = MAX(fd, 0); fd <= last; fd++)
		if (__atomic_load_n(&fd_table[fd], __ATOMIC_RELAXED))
			return fd;
	return -1;
}

struct ofd *ofd_new(int fd, const char *path, int accmode)
{
	struct ofd *o = ofd_alloc();
	struct stat st;
	int r;

	put_late();
	if (o)
		o->path = strdup(path);
	if (!o || !o->path)
		r = -ENOMEM;
	else if (REAL(fstat)(fd, &st) < 0)
		r = -errno;
	else
		r = pgc_fdopen(&o->file, fd);
	if (r < 0) {
		if (o)
			ofd_free(o);
		real_file_close(fd);
		errno = -r;
		return NULL;
	}
	o->real = fd_keep(fd);
	o->refs = 1;
	o->accmode = accmode;
	o->dev = st.st_dev;
	o->ino = st.st_ino;
	return o;
}

/* --- record locks --- */

static struct locked *locked_find(dev_t dev, ino_t ino)
{
	for (struct locked *l = locked; l < locked + LOCKED_MAX; l++)
		if (l->used && l->dev == dev && l->ino == ino)
			return l;
	return NULL;
}

static bool bury(int fd)
{
	struct locked *l;
	struct stat st;
	bool buried = false;

	if (!__atomic_load_n(&any_locked, __ATOMIC_RELAXED) || REAL(fstat)(fd, &st) < 0)
		return false;
	pthread_mutex_lock(&shim.lock);
	l = locked_find(st.st_dev, st.st_ino);
	if (l && l->n < GRAVES) {
		l->fd[l->n++] = fd;
		if ((unsigned)fd < FD_MAX)
			__atomic_store_n(&fd_table[fd], OFD_HIDDEN, __ATOMIC_RELEASE);
		buried = true;
	}
	pthread_mutex_unlock(&shim.lock);
	return buried;
}

void real_file_close(int fd)
{
	if (!bury(fd))
		REAL(close)(fd);
}

void record_locks_taken(const struct ofd *o)
{
	struct locked *l;

	pthread_mutex_lock(&shim.lock);
	l = locked_find(o->dev, o->ino);
	for (struct locked *m = locked; !l && m < locked + LOCKED_MAX; m++)
		if (!m->used) {
			*m = (struct locked){ .used = true, .dev = o->dev, .ino = o->ino };
			l = m;
		}
	__atomic_store_n(&any_locked, true, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&shim.lock);
}

static void dig_up(struct locked *l)
{
	for (int i = 0; i < l->n; i++) {
		if ((unsigned)l->fd[i] < FD_MAX)
			__atomic_store_n(&fd_table[l->fd[i]], NULL, __ATOMIC_RELEASE);
		REAL(close)(l->fd[i]);
	}
	l->used = false;
	l->n = 0;
}

void record_locks_drop(const struct ofd *o)
{
	struct flock all = { .l_type = F_UNLCK, .l_whence = SEEK_SET };
	struct locked *l;

	if (!__atomic_load_n(&any_locked, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&shim.lock);
	l = locked_find(o->dev, o->ino);
	if (l) {
		REAL(fcntl)(ofd_real(o), F_SETLK, &all);
		dig_up(l);
	}
	pthread_mutex_unlock(&shim.lock);
}

void table_forked(void)
{
	/* Other threads' reads are not here. */
	for (struct ofd *o = ever; o; o = o->ever)
		o->quick = 0;
	/* A child has no record locks. */
	for (struct locked *l = locked; l < locked + LOCKED_MAX; l++)
		if (l->used)
			dig_up(l);
	any_locked = false;
}
