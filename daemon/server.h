/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread: the listening socket, connections until they are handles, control connections, who has how many
 * handles. Everything here runs on the main thread.
 */
#pragma once

#include "daemon/cgroup.h"
#include "daemon/handle.h"

#define SERVER_CONNS_MAX      2048u  /* connections that are no handle yet, control ones included */
#define SERVER_CONNS_USER_MAX 512u   /* of one user other than root and the daemon's own */
#define SERVER_HELLO_NS       10000000000ull

struct server {
	struct ring ring;
	struct config *config;
	struct uffd_caps caps;
	struct state state;
	struct budget budget;
	struct cgroup_table cgroups;
	uint32_t *cgroup_tenant;   /* by slot of it: whose limit it shows */
	struct worker *workers;
	unsigned n_workers;
	struct lanes *lanes;       /* NULL: none */
	int listen_fd, lock_fd;
	bool socket_passed;        /* by the service manager: not ours to unlink */
	struct ring_op accept_poll;
	struct list conns;
	unsigned n_conns, n_clients;
	struct user_count **users;
	size_t n_users;
	struct ring_timer idle_timer, accept_timer;
	uint64_t started;
	struct restored_client *restored; /* by slot of saved_handles; NULL: nothing was taken over */
	unsigned restoring;        /* workers that have not taken over yet */
};

struct conn {
	struct list link;
	struct server *server;
	int sock;
	pid_t pid;
	uid_t uid;
	gid_t gid;
	uint32_t role;             /* 0 before HELLO */
	uint64_t features;
	int pagemap;               /* pagemap.h: of its process; -1: none */
	uint64_t since;            /* ns */
	struct ring_op op;         /* poll, statx: one at a time */
	struct open_job *job;      /* OPEN on its way */
	struct statx statx;
	bool second;               /* the statx is of the second descriptor */
	/* control.c */
	struct pgc_msg request;
	uint32_t cursor;
	struct control_job *control;
	struct pgc_ctl_pin_reply *rows; /* of a PINS listing */
	uint32_t n_rows;
	struct check_job *check;   /* under way, or being listed: control_check.c */
};

/* Takes over `listen_fd` (listening, from the service manager, or `kept`: an earlier daemon has made it) or makes the socket when it is -1. -EADDRINUSE: another daemon is there. */
int server_listen(struct server *s, int listen_fd, bool kept);
void server_watch(struct server *s);
/* No new connections, and those that are no handle end. */
void server_stop(struct server *s);
void server_unlisten(struct server *s);
/* The configuration has changed: what holds while the daemon runs is taken over from it. */
void server_configure(struct server *s);

/* Whose the handles of an earlier daemon are; they count from now on. -ENOMEM. */
int server_find_clients(struct server *s);
/* On a worker: it has taken over what it can. */
void server_worker_restored(struct worker *w);

/* For control.c. */
void conn_watch(struct conn *c, bool for_writing);
void conn_end(struct conn *c, const char *reason);
bool conn_privileged(const struct conn *c);
unsigned server_handles(const struct server *s);

/* --- control.c --- */
/* A message on a control connection. NULL, or what is wrong with it. */
const char *control_begin(struct conn *c, const struct pgc_msg *msg, unsigned n_fds);
/* The socket can take more of a listing. */
void control_continue(struct conn *c);
/* The connection ends while a job of its is on workers. */
void control_abandon(struct conn *c);

/* --- control_check.c --- */
/* Sends the step off; control_continue() is called when its answer is there. -EPERM, -ENOENT, -ENOMEM. */
int control_check_begin(struct conn *c);
/* The next row of the answer, from c->cursor on; false at its end, which *reply then is. */
bool control_check_row(struct conn *c, struct pgc_msg *reply);
/* The listing, or the connection, has ended. */
void control_check_end(struct conn *c);
