/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a file's bytes live. Every operation is asynchronous: it is submitted on the worker's ring and
 * ends with op->done(op, result) on the same thread, never before the call that submitted it returns.
 * result: bytes (read, write), 0 (the others), or a negative errno.
 *
 * A store knows nothing of faults, pages in memory or clients. It belongs to one worker.
 *
 * read:  `buf` and `off` page-aligned, `len` a multiple of a page. May be short; 0 means end of file. A caller
 *        continues a short read at the page boundary below where it stopped.
 * write: `buf` and `off` page-aligned; `len` any (only the last piece of a file is no multiple of a page). May be
 *        short; a caller continues likewise. 0 for len > 0 is an error to the caller. Extends the file when past its end.
 * sync:  when it is done, all that earlier completed writes wrote is durable.
 * restore: puts an mtime back that our own operations moved. Where that is not allowed (or the file system is not one to be asked such things) found and after
 *        tell what there is, and that is no error.
 * seek:  where data (SEEK_DATA) or a hole (SEEK_HOLE) begins from `off` on; the end of file is a hole. -ENXIO as lseek(2); -EOPNOTSUPP: not known.
 * is_hole: 1 when the range reads as zeros because the file is sparse there, 0 when not or not known.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <linux/stat.h>

#include "daemon/ring.h"

struct store;

struct store_op {
	void (*done)(struct store_op *op, ssize_t result);  /* set by the caller */

	/* The store's own, while the operation runs. */
	struct ring_op  ring;
	struct store   *store;
	int             step;
	void           *buf;
	size_t          len;
	uint64_t        off;
	size_t          moved;
	unsigned        again;     /* how often it was begun anew */
	ssize_t         result;
	void           *using;     /* the descriptor it runs on */
	void           *extra;     /* memory that lives until it is done */
	struct __kernel_timespec delay;
};

struct store_stat {
	uint64_t dev, ino, rdev;
	uint64_t size;             /* bytes */
	uint64_t blocks;           /* of 512 bytes */
	uint32_t mode, nlink, uid, gid, blksize;
	struct timespec atime, mtime, ctime;
};

struct store_restore {
	struct timespec to;        /* what it shall be, if now it is `left`, or not before `since` and not in the future: that is our own doing */
	struct timespec since, left;
	struct store_stat found, after; /* before and after that */
};

struct store_ops {
	const char *name;
	void (*stat)(struct store *s, struct store_op *op, struct store_stat *ret);
	void (*read)(struct store *s, struct store_op *op, void *buf, size_t len, uint64_t off);
	void (*write)(struct store *s, struct store_op *op, const void *buf, size_t len, uint64_t off);
	void (*sync)(struct store *s, struct store_op *op, bool data_only);
	void (*truncate)(struct store *s, struct store_op *op, uint64_t size);
	void (*fallocate)(struct store *s, struct store_op *op, int mode, uint64_t off, uint64_t len);
	void (*restore)(struct store *s, struct store_op *op, struct store_restore *r);
	void (*seek)(struct store *s, struct store_op *op, int whence, uint64_t off);
	void (*is_hole)(struct store *s, struct store_op *op, uint64_t off, uint64_t len);
	/* The descriptors that it needs to go on after the daemon's death, at most `max`. NULL: it cannot. */
	unsigned (*descriptors)(struct store *s, int *fds, unsigned max);
	/* Releases everything, the struct too. No operation may be under way. */
	void (*close)(struct store *s);
};

struct store {
	const struct store_ops *ops;
	struct ring            *ring;
	bool                    writable;   /* has a descriptor that may write */
	bool                    direct;     /* transfers go around the kernel's page cache */
};

/* --- store/file_store.c: a regular file or block device, by descriptors that clients passed. Needs the offload threads. --- */

/*
 * Takes the descriptors over on success. `buffered` (never -1) is the file, opened without O_DIRECT;
 * `direct` is another description of the same file with O_DIRECT, or -1. `dio_align`: what statx
 * reported (the larger of memory and offset alignment), 0 when not known; above 4096 `direct` is not used.
 * Access modes are what the descriptors have.
 */
int file_store_open(struct store **ret, struct ring *ring, int buffered, int direct, uint32_t dio_align);
/* Another handle brought descriptors of the same file: keeps those that may do more than what is there, closes the others. Always takes them over. */
void file_store_add(struct store *s, int buffered, int direct, uint32_t dio_align);

/* --- store/mem_store.c: for tests; bytes in a memfd, with injected delays, short transfers and errors --- */

/* `uri`: "mem:NAME" or "mem:NAME?size=BYTES"; one NAME is one object in the process, kept until mem_store_forget_all(). -EINVAL for a bad URI. */
int mem_store_open(struct store **ret, struct ring *ring, const char *uri);
/* Identity of the object, for the file table. Creates it when it is not there yet. */
int mem_store_identity(const char *uri, uint64_t *ret_dev, uint64_t *ret_ino);
/* enum pgc_inject of wire.h; count 0: until changed. Thread-safe. -ENOENT: no such object. */
int mem_store_inject(const char *uri, uint32_t what, uint64_t value, uint32_t count);
void mem_store_forget_all(void);

/* What was asked of an object since it was made, failed and injected operations included; bytes are those that moved. */
struct mem_store_counters { uint64_t reads, writes, syncs, read_bytes, written_bytes; };
/* Thread-safe. -ENOENT: no such object. */
int mem_store_counters(const char *uri, struct mem_store_counters *ret);
/* The object's bytes, as the store has them: a descriptor of the memfd, which the caller closes. Thread-safe. -ENOENT: no such object. */
int mem_store_fd(const char *uri);
