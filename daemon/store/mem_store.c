/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store for tests: objects whose bytes are in a memfd, with errors, delays and short transfers on demand.
 *
 * The transfers are the file store's, on that memfd, so a test sees the same asynchronous paths as a real file; this
 * module only decides, when an operation arrives, what is to go wrong with it.
 *
 * The table of objects is one for the process and behind a mutex: tests and the control connection set injections from other threads
 * than the worker's. That is right for a store that exists for tests, and the reason why no other store looks like this. The
 * mutex is held for a few instructions only, never over I/O.
 *
 * Lifetime: an object is in the table until mem_store_forget_all(), and lives until the last store on it is closed.
 * Thread: operations on the worker that owns the store; what takes a URI on any.
 * May call: file_store, ring, util.
 */
#include "daemon/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/util/util.h"
#include "pagecached/wire.h"

#define NAME_MAX_LEN 128
#define INJECTS (PGC_INJECT_WRITE_ZERO + 1)

struct injection {
	uint64_t value;            /* 0: none */
	uint32_t left;             /* operations, when it is limited */
	bool     limited;
};

struct mem_object {
	struct list link;          /* in `objects`, or in no list when forgotten */
	char        name[NAME_MAX_LEN + 1];
	int         fd;
	unsigned    users;         /* the table and the stores */
	struct injection          inject[INJECTS];
	struct mem_store_counters counters;
};

/* Guards the list and all fields of all objects. */
static pthread_mutex_t objects_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list objects = LIST_INIT(objects);

struct mem_store {
	struct store       store;
	struct store      *inner;  /* a file store on the object's memfd */
	struct mem_object *object;
};

enum kind { KIND_READ, KIND_WRITE, KIND_SYNC, KIND_OTHER };

/* One operation under way: what the caller asked, and the file store's operation that serves it. */
struct mem_call {
	struct store_op  inner;
	struct store_op *outer;
	enum kind        kind;
	const void      *from;
	int              error;    /* injected, negative errno */
	bool             zero;
	bool             data_only;
	struct store_stat *stat;   /* of a stat */
	struct store_restore *restore;
};

/* --- objects --- */

static void lock_release(pthread_mutex_t **m)
{
	pthread_mutex_unlock(*m);
}

#define WITH_OBJECTS_LOCK \
	__attribute__((unused)) CLEANUP(lock_release) pthread_mutex_t *_locked = (pthread_mutex_lock(&objects_lock), &objects_lock)

static int uri_parse(const char *uri, char *ret_name, uint64_t *ret_size)
{
	const char *name, *end;
	uint64_t size = 0;

	if (strncmp(uri, "mem:", 4) != 0)
		return -EINVAL;
	name = uri + 4;
	end = strchrnul(name, '?');
	if (end == name || end - name > NAME_MAX_LEN)
		return -EINVAL;
	if (*end) {
		char *rest;

		if (strncmp(end, "?size=", 6) != 0 || end[6] < '0' || end[6] > '9')
			return -EINVAL;
		errno = 0;
		size = strtoull(end + 6, &rest, 10);
		if (errno != 0 || *rest || size > INT64_MAX)
			return -EINVAL;
	}
	memcpy(ret_name, name, (size_t)(end - name));
	ret_name[end - name] = '\0';
	*ret_size = size;
	return 0;
}

static struct mem_object *object_find(const char *name)
{
	struct mem_object *o;

	list_for_each(o, &objects, link)
		if (strcmp(o->name, name) == 0)
			return o;
	return NULL;
}

static int object_make(struct mem_object **ret, const char *name, uint64_t size)
{
	_cleanup_close_ int fd = memfd_create(name, MFD_CLOEXEC);
	struct mem_object *o;

	if (fd < 0 || fchmod(fd, 0600) < 0 || ftruncate(fd, (off_t)size) < 0)
		return -errno;
	o = calloc(1, sizeof(*o));
	if (!o)
		return -ENOMEM;
	strcpy(o->name, name);
	o->fd = take_fd(&fd);
	o->users = 1;
	list_append(&objects, &o->link);
	*ret = o;
	return 0;
}

/* The object of `uri`; made when `make`. The lock is held. */
static int object_get(struct mem_object **ret, const char *uri, bool make)
{
	char name[NAME_MAX_LEN + 1];
	uint64_t size;
	int r;

	r = uri_parse(uri, name, &size);
	if (r < 0)
		return r;
	*ret = object_find(name);
	if (*ret)
		return 0;
	return make ? object_make(ret, name, size) : -ENOENT;
}

static void object_unref(struct mem_object *o)
{
	if (--o->users > 0)
		return;
	close(o->fd);
	free(o);
}

int mem_store_identity(const char *uri, uint64_t *ret_dev, uint64_t *ret_ino)
{
	struct mem_object *o;
	struct stat st;
	WITH_OBJECTS_LOCK;
	int r = object_get(&o, uri, true);

	if (r < 0)
		return r;
	if (fstat(o->fd, &st) < 0)
		return -errno;
	*ret_dev = st.st_dev;
	*ret_ino = st.st_ino;
	return 0;
}

int mem_store_inject(const char *uri, uint32_t what, uint64_t value, uint32_t count)
{
	bool is_error = what >= PGC_INJECT_READ_ERROR && what <= PGC_INJECT_SYNC_ERROR;
	struct mem_object *o;
	WITH_OBJECTS_LOCK;
	int r;

	if (what < PGC_INJECT_READ_ERROR || what >= INJECTS || (is_error && value > 4095))
		return -EINVAL;
	r = object_get(&o, uri, false);
	if (r < 0)
		return r;
	o->inject[what] = (struct injection){ .value = value, .left = count, .limited = count > 0 };
	return 0;
}

void mem_store_forget_all(void)
{
	struct mem_object *o, *next;
	WITH_OBJECTS_LOCK;

	list_for_each_safe(o, next, &objects, link) {
		list_remove(&o->link);
		object_unref(o);
	}
}

int mem_store_counters(const char *uri, struct mem_store_counters *ret)
{
	struct mem_object *o;
	WITH_OBJECTS_LOCK;
	int r = object_get(&o, uri, false);

	if (r < 0)
		return r;
	*ret = o->counters;
	return 0;
}

int mem_store_fd(const char *uri)
{
	struct mem_object *o;
	WITH_OBJECTS_LOCK;
	int r = object_get(&o, uri, false);

	if (r < 0)
		return r;
	r = fcntl(o->fd, F_DUPFD_CLOEXEC, 3);
	return r < 0 ? -errno : r;
}

/* The value that applies to the operation at hand, 0 for none; counts it down. */
static uint64_t injection_take(struct mem_object *o, enum pgc_inject what)
{
	struct injection *i = &o->inject[what];
	uint64_t value = i->value;

	if (value != 0 && i->limited && --i->left == 0)
		i->value = 0;
	return value;
}

/* --- operations --- */

static struct mem_store *mem_store(struct store *s)
{
	return container_of(s, struct mem_store, store);
}

static void call_finish(struct mem_call *c, ssize_t result)
{
	struct store_op *op = c->outer;
	struct mem_object *o = mem_store(op->store)->object;

	if (result > 0 && c->kind <= KIND_WRITE) {
		WITH_OBJECTS_LOCK;
		if (c->kind == KIND_READ)
			o->counters.read_bytes += (uint64_t)result;
		else
			o->counters.written_bytes += (uint64_t)result;
	}
	op->extra = NULL;
	free(c);
	op->done(op, result);
}

static void inner_done(struct store_op *inner, ssize_t result)
{
	struct mem_call *c = container_of(inner, struct mem_call, inner);

	/* A memfd has no name, but the object has: it is no file that was unlinked, and may stay cached without a handle. */
	if (c->stat && result == 0)
		c->stat->nlink = 1;
	if (c->restore && result == 0)
		c->restore->found.nlink = c->restore->after.nlink = 1;
	call_finish(c, result);
}

/* What the caller asked goes ahead, or fails as was decided when it arrived. */
static void call_go(struct mem_call *c)
{
	struct store_op *op = c->outer;
	struct store *inner = mem_store(op->store)->inner;

	if (c->error || c->zero)
		call_finish(c, c->error);
	else if (c->kind == KIND_READ)
		inner->ops->read(inner, &c->inner, op->buf, op->len, op->off);
	else if (c->kind == KIND_WRITE)
		inner->ops->write(inner, &c->inner, c->from, op->len, op->off);
	else
		inner->ops->sync(inner, &c->inner, c->data_only);
}

static void delay_done(struct ring_op *rop, int res, uint32_t cflags)
{
	struct store_op *op = container_of(rop, struct store_op, ring);

	if (op->extra)
		call_go(op->extra);
	else
		op->done(op, -ENOMEM);
}

/* NULL: there was no memory, and the caller is going to be told so. */
static struct mem_call *call_begin(struct store *s, struct store_op *op, enum kind kind, size_t len, uint64_t off)
{
	struct mem_call *c = calloc(1, sizeof(*c));

	op->store = s;
	op->ring.done = delay_done;
	op->extra = c;
	op->len = len;
	op->off = off;
	if (!c) {
		ring_sqe(s->ring, &op->ring);
		return NULL;
	}
	c->outer = op;
	c->kind = kind;
	c->inner.done = inner_done;
	return c;
}

/* Goes ahead after `us`. Where the outcome is injected it takes a turn of the ring at least, as every operation does. */
static void call_start(struct mem_call *c, uint64_t us)
{
	struct store_op *op = c->outer;
	struct io_uring_sqe *sqe;

	if (us == 0 && !c->error && !c->zero) {
		call_go(c);
		return;
	}
	sqe = ring_sqe(op->store->ring, &op->ring);
	if (us > 0) {
		op->delay = (struct __kernel_timespec){ .tv_sec = (int64_t)(us / 1000000), .tv_nsec = (int64_t)(us % 1000000) * 1000 };
		io_uring_prep_timeout(sqe, &op->delay, 0, 0);
	}
}

static void mem_read(struct store *s, struct store_op *op, void *buf, size_t len, uint64_t off)
{
	struct mem_object *o = mem_store(s)->object;
	struct mem_call *c = call_begin(s, op, KIND_READ, len, off);
	uint64_t us, cap;

	if (!c)
		return;
	op->buf = buf;
	{
		WITH_OBJECTS_LOCK;
		o->counters.reads++;
		us = injection_take(o, PGC_INJECT_READ_DELAY);
		c->error = -(int)injection_take(o, PGC_INJECT_READ_ERROR);
		cap = injection_take(o, PGC_INJECT_READ_SHORT);
	}
	if (cap)
		op->len = MIN(len, cap);
	call_start(c, us);
}

static void mem_write(struct store *s, struct store_op *op, const void *buf, size_t len, uint64_t off)
{
	struct mem_object *o = mem_store(s)->object;
	struct mem_call *c = call_begin(s, op, KIND_WRITE, len, off);
	uint64_t us, cap;

	if (!c)
		return;
	c->from = buf;
	{
		WITH_OBJECTS_LOCK;
		o->counters.writes++;
		us = injection_take(o, PGC_INJECT_WRITE_DELAY);
		c->error = -(int)injection_take(o, PGC_INJECT_WRITE_ERROR);
		cap = injection_take(o, PGC_INJECT_WRITE_SHORT);
		c->zero = injection_take(o, PGC_INJECT_WRITE_ZERO) != 0;
	}
	if (cap)
		op->len = MIN(len, cap);
	call_start(c, us);
}

static void mem_sync(struct store *s, struct store_op *op, bool data_only)
{
	struct mem_object *o = mem_store(s)->object;
	struct mem_call *c = call_begin(s, op, KIND_SYNC, 0, 0);

	if (!c)
		return;
	c->data_only = data_only;
	{
		WITH_OBJECTS_LOCK;
		o->counters.syncs++;
		c->error = -(int)injection_take(o, PGC_INJECT_SYNC_ERROR);
	}
	call_start(c, 0);
}

static void mem_stat(struct store *s, struct store_op *op, struct store_stat *ret)
{
	struct mem_call *c = call_begin(s, op, KIND_OTHER, 0, 0);
	struct store *inner = mem_store(s)->inner;

	if (!c)
		return;
	c->stat = ret;
	inner->ops->stat(inner, &c->inner, ret);
}

static void mem_truncate(struct store *s, struct store_op *op, uint64_t size)
{
	struct mem_call *c = call_begin(s, op, KIND_OTHER, 0, 0);
	struct store *inner = mem_store(s)->inner;

	if (c)
		inner->ops->truncate(inner, &c->inner, size);
}

static void mem_fallocate(struct store *s, struct store_op *op, int mode, uint64_t off, uint64_t len)
{
	struct mem_call *c = call_begin(s, op, KIND_OTHER, 0, 0);
	struct store *inner = mem_store(s)->inner;

	if (c)
		inner->ops->fallocate(inner, &c->inner, mode, off, len);
}

static void mem_is_hole(struct store *s, struct store_op *op, uint64_t off, uint64_t len)
{
	struct mem_call *c = call_begin(s, op, KIND_OTHER, 0, 0);
	struct store *inner = mem_store(s)->inner;

	if (c)
		inner->ops->is_hole(inner, &c->inner, off, len);
}

static void mem_restore(struct store *s, struct store_op *op, struct store_restore *r)
{
	struct mem_call *c = call_begin(s, op, KIND_OTHER, 0, 0);
	struct store *inner = mem_store(s)->inner;

	if (!c)
		return;
	c->restore = r;
	inner->ops->restore(inner, &c->inner, r);
}

static void mem_seek(struct store *s, struct store_op *op, int whence, uint64_t off)
{
	struct mem_call *c = call_begin(s, op, KIND_OTHER, 0, off);
	struct store *inner = mem_store(s)->inner;

	if (c)
		inner->ops->seek(inner, &c->inner, whence, off);
}

static void mem_close(struct store *store)
{
	struct mem_store *s = mem_store(store);
	WITH_OBJECTS_LOCK;

	s->inner->ops->close(s->inner);
	object_unref(s->object);
	free(s);
}

static const struct store_ops mem_store_ops = {
	.name = "mem",
	.stat = mem_stat,
	.read = mem_read,
	.write = mem_write,
	.sync = mem_sync,
	.truncate = mem_truncate,
	.fallocate = mem_fallocate,
	.restore = mem_restore,
	.seek = mem_seek,
	.is_hole = mem_is_hole,
	.close = mem_close,
};

int mem_store_open(struct store **ret, struct ring *ring, const char *uri)
{
	_cleanup_free_ struct mem_store *s = calloc(1, sizeof(*s));
	_cleanup_close_ int fd = -1;
	struct mem_object *o;
	WITH_OBJECTS_LOCK;
	int r;

	if (!s)
		return -ENOMEM;
	r = object_get(&o, uri, true);
	if (r < 0)
		return r;
	fd = fcntl(o->fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return -errno;
	r = file_store_open(&s->inner, ring, fd, -1, 0);
	if (r < 0)
		return r;
	take_fd(&fd);
	s->store = (struct store){ .ops = &mem_store_ops, .ring = ring, .writable = true };
	s->object = o;
	o->users++;
	*ret = &TAKE_PTR(s)->store;
	return 0;
}
