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
	int sock, uffd, buffered, direct, memfd, fourth; /* memfd: CLONE's and ATTACH's */
	uint64_t dev, ino;
	uint64_t birth;            /* of the store's file, ns; 0: not known */
	struct timespec mtime, ctime; /* and its size: as the main thread saw them */
	uint64_t size;
	uint32_t dio_align;
	bool readable, writable;
	bool kernel_faults;        /* its userfaultfd serves faults inside system calls */
	pid_t pid;
	uint64_t start_time;       /* of that process; 0: not known */
	uid_t uid;
	struct user_count *user;   /* which it counts for; NULL: none */
	uint32_t cgroup_slot;
	struct pgc_cgroup_entry *cgroup;
	uint32_t tenant[2];        /* slots of budget->tenant */
	char name[PGC_NAME_MAX];   /* the end of the path, for people */
	/* What holds for the file by its path: config_file_settings(). */
	enum retain retain;
	bool warm_start, huge;
	uint64_t readahead_max;
	/* Tracking without faults (track.h). */
	int pagemap;               /* its process's; -1: none */
	bool async, dead;          /* its userfaultfd tracks so; of a daemon that is gone, with this row of bits, UINT32_MAX: there is none */
	uint32_t track_row;

	struct list link;          /* file->opening, or worker->attach_jobs */
	uint64_t parked_since;     /* attach.c */
	struct worker *worker;
	struct file *file;
	struct store_op stat_op;
	struct store_stat stat;
	uint64_t moves;            /* file.h: when that was asked for */
	struct handle *handle;     /* made, and being kept for the next daemon */
	struct task task;
};

/* A client's transfer area, mapped read-only and only handed to system calls. Writes under way hold it after the handle's end. */
struct xfer {
	char *mem;
	unsigned refs;
};
void xfer_unref(struct xfer *x);

/* Tags of the first requests since the daemon took over: a client has at most so many without an answer when it hears of that. */
struct restored_tags { unsigned n; uint64_t tag[PGC_REQUESTS_MAX]; };

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
	struct user_count *user;
	uint32_t cgroup_slot;
	uint32_t errseq;           /* of the file, as this handle has heard of it */
	struct ring_op poll;
	unsigned pins;
	struct task task;          /* more to read */
	struct task ending;
	struct list requests;      /* struct request */
	unsigned n_requests, data_writes; /* data_writes: with a data memfd, at most one */
	struct open_job *attaching; /* an ATTACH: answered when it is known what is mapped */
	struct restored_tags *restored; /* it was an earlier daemon's; NULL: it was not */
	struct xfer *xfer;         /* NULL: none yet */
	struct readahead_set readahead; /* of its read calls */
};

/* For restore.c: a handle of what the job says, which is not read from and answers no fault before fault_watch() and handle_watch(). -ENOMEM. */
int handle_make(struct open_job *job, struct handle **ret);
void handle_watch(struct handle *h);
/* A space without a socket is a forked child's, and who is charged for it. */
void handle_set_up_child(struct space *s);
/* Its userfaultfd goes to who keeps descriptors, now or as soon as that takes it. */
void handle_keep_child(struct space *s);
/* While a parent is being restored: a new space of its file is its child's. */
void handle_adopt_child(struct space *child, struct space *parent);
void handle_count_child(struct space *s, uid_t uid, struct user_count *user, uint32_t cgroup_slot);
/* Runs on the worker, by the job's op. */
void handle_open(struct open_job *job);
/* CHILD, from the twin of the daemon before: answers and ends the job. restore.c; NULL: nothing was taken over. */
extern void (*handle_late_child_hook)(struct open_job *job);
/* For attach.c: it goes on with this file, `dead`: of a daemon that is gone, not yet revived; or it is refused. */
void handle_open_on(struct open_job *job, struct file *f, bool dead);
void handle_open_failed(struct open_job *job, int error);
/* Releases a job and what it still owns; `ring`: the calling thread's. */
void open_job_free(struct ring *ring, struct open_job *job);
/* Ends the connection. `reason`: logged when it is not NULL. */
void handle_end(struct handle *h, const char *reason);
/* The reply to what has made the handle. */
void handle_answer_open(struct handle *h, const struct pgc_msg *request);
/* Sends a reply; a client that does not read ends its connection. */
void handle_reply(struct handle *h, const struct pgc_msg *reply, const int *fds, unsigned n_fds);
/* All handles of a worker end, at shutdown. */
void handle_end_all(struct worker *w);

/*
 * Up, set by server.c, called on the worker: a handle that handle_open() made or refused is gone, or (delta 1) a forked child has become one
 * more. The user's count changes at once, all others when the main thread has its message.
 */
extern void (*handle_count_hook)(struct worker *w, struct user_count *user, uint32_t cgroup_slot, int delta);
