/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon of exerciser-bounded: started, asked and told, and its memory measured from outside. Used by the supervisor, and
 * bounded_connect() by any process.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "pagecached/wire.h"

struct daemon {
	pid_t pid;                 /* 0: not running */
	char dir[300], socket[340], log[340];
	int control;
};

/* What it has at one moment, in bytes. */
struct memory {
	uint64_t used;             /* as it says */
	uint64_t memfds;           /* allocated blocks of its memfds: pages of files, and tables */
	uint64_t own;              /* RssAnon. (RssShmem is no measure: it has the clients' transfer areas as well.) */
};

/* `dir` must be there and empty; `settings` are lines of the configuration file. 0, or a negative errno after a message. */
int bounded_daemon_start(struct daemon *d, const char *program, const char *dir, const char *const *settings, unsigned n);
/* SIGTERM; 0 when it ended well within a minute and without a sanitizer's report, else after a message and the end of the log. */
int bounded_daemon_stop(struct daemon *d);
void bounded_daemon_kill(struct daemon *d); /* shows the end of the log */
void bounded_daemon_remove_files(const struct daemon *d);

/* A control connection; -errno. An answer that takes 20 s is an error. */
int bounded_connect(const char *socket);
/* Sends a request and takes its one reply: 0, -EPIPE or -ETIMEDOUT; the reply's status is the caller's to look at. */
int bounded_ask(int control, struct pgc_msg *m);
/* 0, -errno when it cannot be asked. */
int bounded_memory(const struct daemon *d, struct memory *ret, struct pgc_ctl_status_reply *ret_status);
