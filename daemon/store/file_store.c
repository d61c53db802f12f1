/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store of local files: regular files and block devices, by the descriptors that clients opened and passed.
 *
 * Access: an operation runs on a descriptor that allows it, so the kernel's check at the client's open is the one that counts.
 * The one exception is reading a file that was only opened for writing: the cache must read what surrounds a partial write,
 * so the daemon tries to open it once more for itself, with its own rights. Nothing so read goes to the write-only client.
 *
 * Transfers: whole pages go through the O_DIRECT description where there is one. The last piece of a file that ends within a page is
 * written through the kernel's cache, as are files that have no O_DIRECT; what that leaves in the kernel's cache is
 * dropped, by RWF_DONTCACHE where the kernel has it and by fadvise after each sync.
 *
 * Invariants:
 * - The flags of a descriptor are shared with the application that opened it: never changed here, nor is its offset used.
 * - A descriptor is closed when it is in no slot and no operation runs on it. io_uring looks descriptors up as late as when
 *   a kernel worker takes the operation on, so counting is needed, and submission alone is no licence to close.
 * - The description that syncs is the one that writes, for as long as it is there: the kernel reports a write-back error once
 *   per description, to those open when it happened.
 *
 * Thread: the worker that owns the file, but for the *_run functions, which see nothing but their job.
 * May call: ring, offload, util.
 */
#include "daemon/store/store.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "daemon/kernel_compat.h"
#include "daemon/offload.h"
#include "daemon/store/inject_store.h"
#include "daemon/util/util.h"

/* One transfer moves at most this; the caller sees a short one. Below the kernel's own limit and a multiple of any page. */
#define TRANSFER_MAX ((size_t)1 << 30)
#define AGAIN_MAX    16u             /* tries of what passes by itself */

struct file_desc {
	int      fd;
	unsigned users;            /* slots of the store and operations */
	bool     readable, writable, direct;
};

enum { BUFFERED, DIRECT };

struct file_store {
	struct store      store;
	struct file_desc *read[2], *write[2];   /* BUFFERED, DIRECT; any may be NULL, and one descriptor may be in two places */
	struct file_desc *seek;                 /* a description of our own, whose offset is ours to move */
	bool              seek_tried;
	uint64_t          dev;                  /* 0: not known yet */
	enum { WILLING_UNKNOWN, WILLING, UNWILLING } willing; /* to be asked for what may wait for ever */
	bool              reopen_tried;         /* for reading, where clients gave only write access */
	bool              direct_refused;       /* the file system failed O_DIRECT transfers with EINVAL */
	bool              dontcache;            /* RWF_DONTCACHE was not refused so far */
	bool              ftruncate_op;         /* the kernel has the opcode */
	bool              cached;               /* something went through the kernel's cache since the last sync */
	bool              device;               /* a block device: has no times that a journal must have */
	bool              atime_due;            /* with relatime, the next read sets it */
};

enum step {
	STEP_FAIL = 1,             /* result is known, only its time has not come */
	STEP_STAT,
	STEP_LOOK,                 /* a restore that only looks */
	STEP_READ,
	STEP_WRITE_HEAD,           /* the whole pages of a direct write */
	STEP_WRITE,                /* all of a buffered one, or what is left after the head */
	STEP_SYNC,
	STEP_SYNC_DROP,
	STEP_PLAIN,                /* nothing follows */
	STEP_MASK      = 0xff,
	STEP_DONTCACHE = 0x100,    /* this transfer was tried with RWF_DONTCACHE */
	STEP_ASYNC     = 0x200,    /* and went to a thread of the kernel at once */
};

static void op_step(struct ring_op *rop, int res, uint32_t cflags);

static struct file_store *file_store(struct store *s)
{
	return container_of(s, struct file_store, store);
}

/* --- descriptors --- */

static void desc_unref(struct ring *ring, struct file_desc *d)
{
	if (!d || --d->users > 0)
		return;
	ring_close_fd(ring, d->fd);
	free(d);
}

static struct file_desc *desc_ref(struct file_desc *d)
{
	if (d)
		d->users++;
	return d;
}

static int desc_new(struct file_desc **ret, int fd, bool direct)
{
	int flags = fcntl(fd, F_GETFL);
	struct file_desc *d = NULL;

	if (flags < 0)
		return -errno;
	if (flags & O_PATH)
		return -EBADF;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->fd = fd;
	d->users = 1;
	d->readable = (flags & O_ACCMODE) != O_WRONLY;
	d->writable = (flags & O_ACCMODE) != O_RDONLY;
	d->direct = direct;
	*ret = d;
	return 0;
}

static void slot_set(struct file_store *s, struct file_desc **slot, struct file_desc *d)
{
	struct file_desc *before = *slot;

	*slot = desc_ref(d);
	desc_unref(s->store.ring, before);
}

/* Puts `d` where it can do more than what is there, and lets go of it. */
static void desc_offer(struct file_store *s, struct file_desc *d)
{
	struct file_desc **read = &s->read[d->direct], **write = &s->write[d->direct];

	/* One that does both frees the other's descriptor; not so for writing, see the invariant about sync. */
	if (d->readable && (!*read || (d->writable && !(*read)->writable)))
		slot_set(s, read, d);
	if (d->writable && !*write)
		slot_set(s, write, d);
	desc_unref(s->store.ring, d);
}

static void summary_update(struct file_store *s)
{
	s->store.writable = s->write[BUFFERED] != NULL;
	s->store.direct = s->read[DIRECT] || s->write[DIRECT];
}

static void direct_refuse(struct file_store *s)
{
	s->direct_refused = true;
	slot_set(s, &s->read[DIRECT], NULL);
	slot_set(s, &s->write[DIRECT], NULL);
	summary_update(s);
}

static struct file_desc *desc_any(struct file_store *s)
{
	return s->write[BUFFERED] ? s->write[BUFFERED] : s->read[BUFFERED];
}

/* --- operations --- */

static void op_begin(struct store *s, struct store_op *op, void *buf, size_t len, uint64_t off)
{
	op->ring.done = op_step;
	op->store = s;
	op->buf = buf;
	op->len = len;
	op->off = off;
	op->moved = 0;
	op->again = 0;
	op->result = 0;
	op->using = NULL;
	op->extra = NULL;
}

static void op_use(struct store_op *op, struct file_desc *d)
{
	desc_ref(d);
	desc_unref(op->store->ring, op->using);
	op->using = d;
}

static struct io_uring_sqe *op_sqe(struct store_op *op, struct file_desc *d, int step)
{
	op_use(op, d);
	op->step = step;
	return ring_sqe(op->store->ring, &op->ring);
}

static void op_finish(struct store_op *op, ssize_t result)
{
	op_use(op, NULL);
	free(TAKE_PTR(op->extra));
	op->done(op, result);
}

/* Ends it in the next round: no operation ends before the call that began it returns. */
static void op_finish_later(struct store_op *op, ssize_t result)
{
	op->result = result;
	op_sqe(op, NULL, STEP_FAIL);
}

/* --- jobs for the offload threads --- */

struct file_job {
	struct offload_job job;
	struct store_op   *op;
	int                fd;         /* the operation holds it open */
	int                opened;     /* a new description of the same file, -1: none */
	bool               open;
	int                whence;     /* of a seek */
	uint64_t           off, len;
	ssize_t            result;
	uint64_t           dev;
	int                willing;
	struct store_restore restore;
};

static int description_open(int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
}

static struct file_job *job_new(struct store_op *op, struct file_desc *d, void (*run)(struct offload_job *),
				void (*done)(struct ring_op *, int, uint32_t), bool open)
{
	struct file_store *s = file_store(op->store);
	struct file_job *j = calloc(1, sizeof(*j));

	if (!j) {
		op_finish_later(op, -ENOMEM);
		return NULL;
	}
	*j = (struct file_job){
		.job = { .run = run, .done.done = done, .key = s->dev },
		.op = op, .fd = d->fd, .opened = -1, .open = open, .off = op->off, .len = op->len,
		.dev = s->dev, .willing = s->willing,
	};
	op_use(op, d);
	op->extra = j;
	return j;
}

static void job_go(struct store_op *op)
{
	struct file_job *j = op->extra;

	if (offload_submit(op->store->ring, &j->job) < 0)
		op_finish_later(op, -ENOMEM);
}

static void job_submit(struct store_op *op, struct file_desc *d, void (*run)(struct offload_job *),
		       void (*done)(struct ring_op *, int, uint32_t), bool open)
{
	if (job_new(op, d, run, done, open))
		job_go(op);
}

/* Of the descriptor's mount, as /proc/self/mountinfo has it, without a question to the file system; -1: not known. */
static int mount_id(int fd)
{
	char path[48], line[128];
	int id = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	while (f && id < 0 && fgets(line, sizeof(line), f))
		sscanf(line, "mnt_id: %d", &id);
	if (f)
		fclose(f);
	return id;
}

/*
 * A file system that a program of anybody's serves may never answer, and the offload threads are few. Which one it is must be found out without asking
 * it: what has a device is none, for others it is in the table of mounts. One that is not there is not known, so not asked.
 */
static void learn_willing(struct file_job *j)
{
	char *line = NULL;
	size_t room = 0;
	FILE *f;
	int mount;

	if (j->willing != WILLING_UNKNOWN)
		return;
	/* Only what lies in memory has seals, and a memfd is in no table. */
	j->willing = major(j->dev) != 0 || fcntl(j->fd, F_GET_SEALS) >= 0 ? WILLING : UNWILLING;
	f = j->willing == WILLING ? NULL : fopen("/proc/self/mountinfo", "re");
	/* The mount tells also where files have another device number than their file system (btrfs, overlayfs); the number, where it is another namespace's mount. */
	mount = f ? mount_id(j->fd) : -1;
	while (f && getline(&line, &room, f) > 0) {
		const char *type = strstr(line, " - ");
		unsigned ma, mi;
		int id;

		if (!type || sscanf(line, "%d %*u %u:%u", &id, &ma, &mi) != 3 || (id != mount && makedev(ma, mi) != j->dev))
			continue;
		j->willing = strncmp(type + 3, "fuse", 4) == 0 ? UNWILLING : WILLING;
		break;
	}
	free(line);
	if (f)
		fclose(f);
}

/* Another description of the same file for the store's own use, from a finished job; NULL when there is none. */
static struct file_desc *job_take_desc(struct file_job *j)
{
	struct file_desc *d = NULL;

	if (j->opened < 0)
		return NULL;
	if (desc_new(&d, j->opened, false) < 0) {
		ring_close_fd(j->op->store->ring, j->opened);
		return NULL;
	}
	return d;
}

static void reopen_run(struct offload_job *job)
{
	struct file_job *j = container_of(job, struct file_job, job);

	j->opened = description_open(j->fd);
}

static void hole_run(struct offload_job *job)
{
	struct file_job *j = container_of(job, struct file_job, job);
	off_t data;

	if (j->open) {
		j->opened = description_open(j->fd);
		j->fd = j->opened;
	}
	if (j->fd < 0)
		return;
	data = lseek(j->fd, (off_t)j->off, SEEK_DATA);
	if (data >= 0)
		j->result = (uint64_t)data - j->off >= j->len;
	else
		j->result = errno == ENXIO;    /* no data from here to the end of file */
}

static void seek_run(struct offload_job *job)
{
	struct file_job *j = container_of(job, struct file_job, job);
	off_t at;

	learn_willing(j);
	j->result = -EOPNOTSUPP;
	if (j->willing == UNWILLING) {
		j->open = false;
		return;
	}
	if (j->open) {
		j->opened = description_open(j->fd);
		j->fd = j->opened;
	}
	if (j->fd < 0)
		return;
	at = lseek(j->fd, (off_t)j->off, j->whence);
	if (at >= 0)
		j->result = at;
	else if (errno == ENXIO)
		j->result = -ENXIO;
}

static int stat_here(int fd, struct store_stat *ret)
{
	struct stat st;
	uint64_t size;

	if (fstat(fd, &st) < 0)
		return -errno;
	size = (uint64_t)st.st_size;
	if (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, &size) < 0)
		return -errno;
	*ret = (struct store_stat){
		.dev = st.st_dev, .ino = st.st_ino, .rdev = st.st_rdev, .size = size, .blocks = (uint64_t)st.st_blocks,
		.mode = st.st_mode, .nlink = (uint32_t)st.st_nlink, .uid = st.st_uid, .gid = st.st_gid, .blksize = (uint32_t)st.st_blksize,
		.atime = st.st_atim, .mtime = st.st_mtim, .ctime = st.st_ctim,
	};
	return 0;
}

static bool times_equal(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

static void restore_run(struct offload_job *job)
{
	struct file_job *j = container_of(job, struct file_job, job);
	struct store_restore *r = &j->restore;
	const struct timespec set[2] = { { .tv_nsec = UTIME_OMIT }, r->to };
	struct timespec now;

	learn_willing(j);
	j->result = -EOPNOTSUPP;
	if (j->willing == UNWILLING)
		return;
	j->result = stat_here(j->fd, &r->found);
	if (j->result < 0)
		return;
	r->after = r->found;
	clock_gettime(CLOCK_REALTIME, &now);
	if (times_equal(r->found.mtime, r->to) ||
	    (!times_equal(r->found.mtime, r->left) && !pgc_mtime_within(r->found.mtime, r->since, now)))
		return;
	/* Who may write a file may not always set its times: then what there is stays. */
	if (futimens(j->fd, set) == 0)
		j->result = stat_here(j->fd, &r->after);
}

static void truncate_run(struct offload_job *job)
{
	struct file_job *j = container_of(job, struct file_job, job);

	j->result = ftruncate(j->fd, (off_t)j->off) < 0 ? -errno : 0;
}

/* --- read and write --- */

/*
 * What sets times goes to a thread of the kernel at once: ext4 asks its journal for that, whatever IOCB_NOWAIT says, and when the journal waits
 * for a disk so would the worker. A write always may; a read the first time after a write.
 */
static void transfer(struct file_store *s, struct store_op *op, struct file_desc *d, size_t len, int step)
{
	struct io_uring_sqe *sqe;
	char *buf = (char *)op->buf + op->moved;

	if (!d->direct && s->dontcache)
		step |= STEP_DONTCACHE;
	if (!s->device && ((step & STEP_MASK) != STEP_READ || s->atime_due))
		step |= STEP_ASYNC;
	sqe = op_sqe(op, d, step);
	if ((step & STEP_MASK) == STEP_READ)
		io_uring_prep_read(sqe, d->fd, buf, (unsigned)len, op->off + op->moved);
	else
		io_uring_prep_write(sqe, d->fd, buf, (unsigned)len, op->off + op->moved);
	if (step & STEP_DONTCACHE)
		sqe->rw_flags = KERNEL_RWF_DONTCACHE;
	if (step & STEP_ASYNC)
		io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
	if (!d->direct)
		s->cached = true;
}

static void reopen_done(struct ring_op *rop, int res, uint32_t cflags);

static void read_start(struct file_store *s, struct store_op *op)
{
	struct file_desc *d = s->read[DIRECT] ? s->read[DIRECT] : s->read[BUFFERED];

	if (d)
		transfer(s, op, d, op->len, STEP_READ);
	else if (!s->reopen_tried)
		job_submit(op, desc_any(s), reopen_run, reopen_done, true);
	else
		op_finish_later(op, -EBADF);
}

static void reopen_done(struct ring_op *rop, int res, uint32_t cflags)
{
	struct file_job *j = container_of(rop, struct file_job, job.done);
	struct store_op *op = j->op;
	struct file_store *s = file_store(op->store);
	struct file_desc *d = job_take_desc(j);

	s->reopen_tried = true;
	if (d)
		desc_offer(s, d);
	free(TAKE_PTR(op->extra));
	read_start(s, op);
}

static void write_start(struct file_store *s, struct store_op *op)
{
	size_t head = align_down(op->len, PAGE_SIZE_);

	if (!s->write[BUFFERED])
		op_finish_later(op, -EBADF);
	else if (s->write[DIRECT] && head > 0)
		transfer(s, op, s->write[DIRECT], head, STEP_WRITE_HEAD);
	else
		transfer(s, op, s->write[BUFFERED], op->len, STEP_WRITE);
}

/* Was the transfer refused for how it was asked, rather than for what? Then it is asked for in another way. */
static bool transfer_retry(struct file_store *s, struct store_op *op, int step, ssize_t res)
{
	struct file_desc *d = op->using;

	if (d->direct && res == -EINVAL) {
		direct_refuse(s);
	} else if ((step & STEP_DONTCACHE) && (res == -EINVAL || res == -EOPNOTSUPP)) {
		s->dontcache = false;
		if ((step & STEP_MASK) == STEP_WRITE) {
			transfer(s, op, d, op->len - op->moved, STEP_WRITE);
			return true;
		}
	} else {
		return false;
	}
	if ((step & STEP_MASK) == STEP_READ)
		read_start(s, op);
	else
		write_start(s, op);
	return true;
}

static void write_head_done(struct file_store *s, struct store_op *op, ssize_t res)
{
	size_t head = align_down(op->len, PAGE_SIZE_);

	if (res < 0 || (size_t)res < head || head == op->len) {
		op_finish(op, res);
		return;
	}
	op->moved = head;
	transfer(s, op, s->write[BUFFERED], op->len - head, STEP_WRITE);
}

static void write_done(struct store_op *op, ssize_t res)
{
	if (res < 0)
		op_finish(op, op->moved > 0 ? (ssize_t)op->moved : res);
	else
		op_finish(op, (ssize_t)op->moved + res);
}

/* --- the rest --- */

static void sync_start(struct store_op *op, struct file_desc *d)
{
	struct io_uring_sqe *sqe = op_sqe(op, d, STEP_SYNC);

	io_uring_prep_fsync(sqe, d->fd, op->len ? IORING_FSYNC_DATASYNC : 0);
}

static void sync_done(struct file_store *s, struct store_op *op, ssize_t res)
{
	struct io_uring_sqe *sqe;
	struct file_desc *d = op->using;

	if (res < 0 || !s->cached) {
		op_finish(op, res);
		return;
	}
	s->cached = false;
	sqe = op_sqe(op, d, STEP_SYNC_DROP);
	io_uring_prep_fadvise(sqe, d->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static struct timespec timespec_of(const struct statx_timestamp *t)
{
	return (struct timespec){ .tv_sec = t->tv_sec, .tv_nsec = t->tv_nsec };
}

static int stat_take(struct store_op *op, int res, struct store_stat *ret)
{
	const struct statx *x = op->extra;
	uint64_t size;

	if (res < 0)
		return res;
	size = x->stx_size;
	file_store(op->store)->dev = makedev(x->stx_dev_major, x->stx_dev_minor);
	file_store(op->store)->device = S_ISBLK(x->stx_mode);
	/* A device's inode has no size. The ioctl only reads a field of the open device. */
	if (S_ISBLK(x->stx_mode) && ioctl(((struct file_desc *)op->using)->fd, BLKGETSIZE64, &size) < 0)
		return -errno;
	*ret = (struct store_stat){
		.dev = makedev(x->stx_dev_major, x->stx_dev_minor),
		.ino = x->stx_ino,
		.rdev = makedev(x->stx_rdev_major, x->stx_rdev_minor),
		.size = size,
		.blocks = x->stx_blocks,
		.mode = x->stx_mode,
		.nlink = x->stx_nlink,
		.uid = x->stx_uid,
		.gid = x->stx_gid,
		.blksize = x->stx_blksize,
		.atime = timespec_of(&x->stx_atime),
		.mtime = timespec_of(&x->stx_mtime),
		.ctime = timespec_of(&x->stx_ctime),
	};
	return 0;
}

static void look_done(struct store_op *op, int res)
{
	struct store_restore *r = op->buf;

	res = stat_take(op, res, &r->found);
	if (res == 0)
		r->after = r->found;
	op_finish(op, res);
}

/* Was it interrupted, or is the kernel short of something for a moment? Then it is asked once more, a few times: no caller can do better. */
static bool begin_again(struct file_store *s, struct store_op *op, ssize_t res)
{
	if ((res != -EAGAIN && res != -EINTR && res != -ECANCELED) || op->again >= AGAIN_MAX)
		return false;
	op->again++;
	switch (op->step & STEP_MASK) {
	case STEP_READ:
		read_start(s, op);
		return true;
	case STEP_WRITE_HEAD:
		write_start(s, op);
		return true;
	case STEP_WRITE:
		transfer(s, op, op->using, op->len - op->moved, STEP_WRITE);
		return true;
	case STEP_SYNC:
		sync_start(op, op->using);
		return true;
	default:
		return false;
	}
}

static void op_step(struct ring_op *rop, int res, uint32_t cflags)
{
	struct store_op *op = container_of(rop, struct store_op, ring);
	struct file_store *s = file_store(op->store);
	int step = op->step & STEP_MASK;

	if (step >= STEP_READ && step <= STEP_SYNC)
		res = (int)inject_transfer(res, step != STEP_SYNC);
	if (begin_again(s, op, res))
		return;
	switch (step) {
	case STEP_FAIL:
		op_finish(op, op->result);
		break;
	case STEP_STAT:
		op_finish(op, stat_take(op, res, op->buf));
		break;
	case STEP_LOOK:
		look_done(op, res);
		break;
	case STEP_READ:
		if ((op->step & STEP_ASYNC) && res >= 0)
			s->atime_due = false;
		if (!transfer_retry(s, op, op->step, res))
			op_finish(op, res);
		break;
	case STEP_WRITE_HEAD:
		s->atime_due = true;
		if (!transfer_retry(s, op, op->step, res))
			write_head_done(s, op, res);
		break;
	case STEP_WRITE:
		s->atime_due = true;
		if (!transfer_retry(s, op, op->step, res))
			write_done(op, res);
		break;
	case STEP_SYNC:
		sync_done(s, op, res);
		break;
	case STEP_SYNC_DROP:
		op_finish(op, 0);    /* the advice may fail, the sync did not */
		break;
	case STEP_PLAIN:
		op_finish(op, MIN(res, 0));
		break;
	default:
		assert(false);
	}
}

static void stat_start(struct store_op *op, int step)
{
	struct file_desc *d = desc_any(file_store(op->store));
	struct io_uring_sqe *sqe;

	op->extra = calloc(1, sizeof(struct statx));
	if (!op->extra) {
		op_finish_later(op, -ENOMEM);
		return;
	}
	sqe = op_sqe(op, d, step);
	io_uring_prep_statx(sqe, d->fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, op->extra);
}

static void file_stat(struct store *store, struct store_op *op, struct store_stat *ret)
{
	op_begin(store, op, ret, sizeof(*ret), 0);
	stat_start(op, STEP_STAT);
}

static void file_read(struct store *store, struct store_op *op, void *buf, size_t len, uint64_t off)
{
	op_begin(store, op, buf, MIN(len, TRANSFER_MAX), off);
	if (off > INT64_MAX - TRANSFER_MAX)
		op_finish_later(op, -EINVAL);
	else
		read_start(file_store(store), op);
}

static void file_write(struct store *store, struct store_op *op, const void *buf, size_t len, uint64_t off)
{
	op_begin(store, op, (void *)(uintptr_t)buf, MIN(len, TRANSFER_MAX), off);
	if (off > INT64_MAX - TRANSFER_MAX)
		op_finish_later(op, -EFBIG);
	else
		write_start(file_store(store), op);
}

static void file_sync(struct store *store, struct store_op *op, bool data_only)
{
	op_begin(store, op, NULL, data_only, 0);
	sync_start(op, desc_any(file_store(store)));
}

static void job_result_done(struct ring_op *rop, int res, uint32_t cflags)
{
	struct file_job *j = container_of(rop, struct file_job, job.done);

	op_finish(j->op, j->result);
}

static void file_truncate(struct store *store, struct store_op *op, uint64_t size)
{
	struct file_store *s = file_store(store);
	struct file_desc *d = s->write[BUFFERED];
	struct io_uring_sqe *sqe;

	op_begin(store, op, NULL, 0, size);
	if (!d || size > INT64_MAX) {
		op_finish_later(op, d ? -EFBIG : -EBADF);
		return;
	}
	if (!s->ftruncate_op) {
		job_submit(op, d, truncate_run, job_result_done, false);
		return;
	}
	sqe = op_sqe(op, d, STEP_PLAIN);
	io_uring_prep_rw(KERNEL_IORING_OP_FTRUNCATE, sqe, d->fd, NULL, 0, size);
}

static void file_fallocate(struct store *store, struct store_op *op, int mode, uint64_t off, uint64_t len)
{
	struct file_store *s = file_store(store);
	struct file_desc *d = s->write[BUFFERED];
	struct io_uring_sqe *sqe;

	op_begin(store, op, NULL, 0, off);
	if (!d || off > INT64_MAX || len > INT64_MAX) {
		op_finish_later(op, d ? -EFBIG : -EBADF);
		return;
	}
	sqe = op_sqe(op, d, STEP_PLAIN);
	io_uring_prep_fallocate(sqe, d->fd, mode, (off_t)off, (off_t)len);
}

static void hole_done(struct ring_op *rop, int res, uint32_t cflags)
{
	struct file_job *j = container_of(rop, struct file_job, job.done);
	struct file_store *s = file_store(j->op->store);
	struct file_desc *d = job_take_desc(j);

	if (j->open)
		s->seek_tried = true;
	if (d && !s->seek)
		slot_set(s, &s->seek, d);
	desc_unref(s->store.ring, d);
	op_finish(j->op, j->result);
}

static void file_is_hole(struct store *store, struct store_op *op, uint64_t off, uint64_t len)
{
	struct file_store *s = file_store(store);

	op_begin(store, op, NULL, len, off);
	if (off > INT64_MAX || (s->seek_tried && !s->seek))
		op_finish_later(op, 0);
	else if (s->seek)
		job_submit(op, s->seek, hole_run, hole_done, false);
	else
		job_submit(op, desc_any(s), hole_run, hole_done, true);
}

/* Before the first stat the device is not known. */
static void job_learned(struct file_job *j)
{
	struct file_store *s = file_store(j->op->store);

	if (s->dev)
		s->willing = j->willing;
}

static void seek_done(struct ring_op *rop, int res, uint32_t cflags)
{
	struct file_job *j = container_of(rop, struct file_job, job.done);

	job_learned(j);
	hole_done(rop, res, cflags);
}

static void file_seek(struct store *store, struct store_op *op, int whence, uint64_t off)
{
	struct file_store *s = file_store(store);
	struct file_job *j;

	op_begin(store, op, NULL, 0, off);
	if (off > INT64_MAX || s->willing == UNWILLING || (s->seek_tried && !s->seek)) {
		op_finish_later(op, -EOPNOTSUPP);
		return;
	}
	j = job_new(op, s->seek ? s->seek : desc_any(s), seek_run, seek_done, !s->seek);
	if (j) {
		j->whence = whence;
		job_go(op);
	}
}

static void restore_done(struct ring_op *rop, int res, uint32_t cflags)
{
	struct file_job *j = container_of(rop, struct file_job, job.done);
	struct store_op *op = j->op;
	struct store_restore *r = op->buf;

	job_learned(j);
	if (j->result == -EOPNOTSUPP) {
		free(TAKE_PTR(op->extra));
		stat_start(op, STEP_LOOK);
		return;
	}
	if (j->result == 0) {
		r->found = j->restore.found;
		r->after = j->restore.after;
	}
	op_finish(op, j->result);
}

static void file_restore(struct store *store, struct store_op *op, struct store_restore *r)
{
	struct file_store *s = file_store(store);
	struct file_job *j;

	op_begin(store, op, r, 0, 0);
	if (!s->write[BUFFERED]) {
		op_finish_later(op, -EBADF);
		return;
	}
	if (s->willing == UNWILLING) {
		stat_start(op, STEP_LOOK);
		return;
	}
	j = job_new(op, s->write[BUFFERED], restore_run, restore_done, false);
	if (j) {
		j->restore = *r;
		job_go(op);
	}
}

static void file_close(struct store *store)
{
	struct file_store *s = file_store(store);

	for (int i = BUFFERED; i <= DIRECT; i++) {
		slot_set(s, &s->read[i], NULL);
		slot_set(s, &s->write[i], NULL);
	}
	slot_set(s, &s->seek, NULL);
	free(s);
}

static unsigned file_descriptors(struct store *store, int *fds, unsigned max)
{
	struct file_store *s = file_store(store);
	struct file_desc *d[] = { s->read[BUFFERED], s->write[BUFFERED], s->read[DIRECT], s->write[DIRECT] };
	unsigned n = 0;

	for (unsigned i = 0; i < ELEMENTSOF(d) && n < max; i++) {
		bool seen = !d[i];

		for (unsigned k = 0; k < n && !seen; k++)
			seen = fds[k] == d[i]->fd;
		if (!seen)
			fds[n++] = d[i]->fd;
	}
	return n;
}

static const struct store_ops file_store_ops = {
	.name = "file",
	.stat = file_stat,
	.read = file_read,
	.write = file_write,
	.sync = file_sync,
	.truncate = file_truncate,
	.fallocate = file_fallocate,
	.restore = file_restore,
	.seek = file_seek,
	.is_hole = file_is_hole,
	.descriptors = file_descriptors,
	.close = file_close,
};

/* Our buffers and offsets are page-aligned, and no more. */
static bool direct_usable(uint32_t dio_align)
{
	return dio_align == 0 || PAGE_SIZE_ % dio_align == 0;
}

static bool ftruncate_op_known(struct ring *ring)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(&ring->uring);
	bool known;

	if (!probe)
		return false;
	known = io_uring_opcode_supported(probe, KERNEL_IORING_OP_FTRUNCATE);
	io_uring_free_probe(probe);
	return known;
}

int file_store_open(struct store **ret, struct ring *ring, int buffered, int direct, uint32_t dio_align)
{
	struct file_desc *b = NULL, *d = NULL;
	struct file_store *s;
	int r;

	r = desc_new(&b, buffered, false);
	if (r < 0)
		return r;
	s = calloc(1, sizeof(*s));
	if (!s) {
		free(b);
		return -ENOMEM;
	}
	if (direct >= 0 && direct_usable(dio_align)) {
		r = desc_new(&d, direct, true);
		if (r < 0) {
			free(s);
			free(b);
			return r;
		}
	} else {
		ring_close_fd(ring, direct);
	}
	s->store = (struct store){ .ops = inject_store(&file_store_ops), .ring = ring };
	s->dontcache = s->atime_due = true;
	s->ftruncate_op = ftruncate_op_known(ring);
	desc_offer(s, b);
	if (d)
		desc_offer(s, d);
	summary_update(s);
	*ret = &s->store;
	return 0;
}

void file_store_add(struct store *store, int buffered, int direct, uint32_t dio_align)
{
	struct file_store *s = file_store(store);
	struct file_desc *d = NULL;

	if (buffered < 0) {
		/* only another with O_DIRECT */
	} else if (desc_new(&d, buffered, false) == 0) {
		/* Another name or mount may be readable where the first was not. */
		s->reopen_tried = s->seek_tried = false;
		desc_offer(s, d);
	} else {
		ring_close_fd(store->ring, buffered);
	}
	if (direct >= 0 && direct_usable(dio_align) && !s->direct_refused && desc_new(&d, direct, true) == 0)
		desc_offer(s, d);
	else
		ring_close_fd(store->ring, direct);
	summary_update(s);
}
