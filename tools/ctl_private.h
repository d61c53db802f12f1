/* SPDX-License-Identifier: Apache-2.0 */
/* A daemon of one's own, for as long as a command runs. */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#include "tools/ctl_conn.h"

#define CTL_PRIVATE_NAME "pagecached-run-XXXXXX"

struct ctl_private {
	pid_t guard;                   /* 0: not started, or reaped */
	int status;                    /* its wait status, once it is reaped */
	int log;                       /* what the daemon says */
	char folder[80], socket[108];
	struct ctl_conn conn;
};

struct ctl_private_params {
	const char *program;           /* the daemon */
	const char *config;            /* its configuration; NULL: none */
	const char *memory;            /* memory_max; NULL: its default */
	const sigset_t *mask;          /* signals blocked in what it starts */
	const sigset_t *wait;          /* signals blocked here; those that end a program end the wait */
};

/*
 * Starts it in a folder of its own below $XDG_RUNTIME_DIR, or /tmp, and waits until it answers. 0; or a signal that came meanwhile; or a negative
 * errno after a message. After anything but 0 there is nothing to stop.
 */
int ctl_private_start(struct ctl_private *d, const struct ctl_private_params *p);
/* Whether it runs; reaps it. */
bool ctl_private_alive(struct ctl_private *d);
/* How many handles and mapped ranges it has; 0 as well when it has ended. */
unsigned long long ctl_private_used(struct ctl_private *d);
/*
 * Ends it: it writes everything first, which no signal of `wait` cuts short. Whether all is written; if not, what it said is on stderr, but where it had ended
 * before. The folder is gone then, as it is when this program is killed.
 */
bool ctl_private_stop(struct ctl_private *d, const sigset_t *wait);
/* What it has said, on stderr. */
void ctl_private_print_log(const struct ctl_private *d);

/* Does this signal end a program by default? */
bool ctl_signal_ends(int signal);
