/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A handle: one open file of one client, a socket and a space. Made on the file's worker from what the main
 * thread has read of the connection. Runs on the worker.
 *
 * Lifetime
 *   handle_open()  (from a struct open_job) -> OPENING, while the store is asked for its size
 *   OPEN           requests are read and answered
 *   CLOSING        the client said CLOSE: ends by itself with its last mapping
 *   handle_end()   -> ENDED: the socket and the space are closed; freed when its poll has completed
 */
#pragma once

#include "daemon/fault.h"

struct server;

/* An OPEN or CLONE on its way from the main thread to a worker. Owns its descriptors until they are taken (-1). */
struct open_job {
	struct ring_op op;         /* posted to the worker */
	struct pgc_msg msg;
	int sock, uffd, buffered, direct, memfd; /* memfd: CLONE's */
	uint64_t dev, ino;
	uint32_t dio_align;
	bool readable, writable;
	bool kernel_faults;        /* its userfaultfd serves faults inside system calls */
	pid_t pid;
	uid_t uid;
	uint32_t cgroup_slot;
	struct pgc_cgroup_entry *cgroup;
	uint32_t tenant[2];        /* slots of budget->tenant */
	char name[PGC_NAME_MAX];   /* the end of the path, for people */
	/* What holds for the file by its path: config_file_settings(). */
	enum retain retain;
	bool warm_start;
	uint64_t readahead_max;

	struct list link;          /* file->opening */
	struct worker *worker;
	struct file *file;
	struct store_op stat_op;
	struct store_stat stat;
};

/* A client's transfer area, mapped read-only and only handed to system calls. Writes under way hold it after the handle's end. */
struct xfer {
	char *mem;
	unsigned refs;
};
void xfer_unref(struct xfer *x);

struct handle {
	struct list link;          /* worker's handles with a socket: worker->sockets */
	struct worker *worker;
	struct file *file;
	struct space *space;
	int sock;
	bool readable, writable;
	bool closing, ended;
	pid_t pid;
	uid_t uid;
	uint32_t cgroup_slot;
	uint32_t errseq;           /* of the file, as this handle has heard of it */
	struct ring_op poll;
	unsigned pins;
	struct task task;          /* more to read */
	struct task ending;
	struct list requests;      /* struct request */
	unsigned n_requests, data_writes; /* data_writes: with a data memfd, at most one */
	struct xfer *xfer;         /* NULL: none yet */
	struct readahead_set readahead; /* of its read calls */
};

/* Runs on the worker, by the job's op. */
void handle_open(struct open_job *job);
/* Releases a job and what it still owns; `ring`: the calling thread's. */
void open_job_free(struct ring *ring, struct open_job *job);
/* Ends the connection. `reason`: logged when it is not NULL. */
void handle_end(struct handle *h, const char *reason);
/* Sends a reply; a client that does not read ends its connection. */
void handle_reply(struct handle *h, const struct pgc_msg *reply, const int *fds, unsigned n_fds);
/* All handles of a worker end, at shutdown. */
void handle_end_all(struct worker *w);

/*
 * Up, set by server.c, called on the worker, posted to the main thread: a handle that handle_open() made or refused is gone, or (delta 1) a
 * forked child has become one more.
 */
extern void (*handle_count_hook)(struct worker *w, uid_t uid, uint32_t cgroup_slot, int delta);
