/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking the kernel what a process has mapped at an address (/proc/PID/maps), on the offload thread. Only for what events do not
 * tell: an mremap that makes a mapping longer.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/offload.h"

struct vma_query {
	/* Set by the caller. */
	pid_t pid;
	uint64_t addr;
	bool all;                  /* not the one at addr: how much of the file is mapped in all */
	uint64_t dev, ino;         /* the file that must be mapped there: st_dev and st_ino */
	uint64_t changes;          /* the caller's own */
	void *owner;
	/* 0, -ENOENT (something else or nothing is mapped there), -EACCES or -ESRCH (the process cannot be looked at). May free it. */
	void (*done)(struct vma_query *q, int error);

	/* The answer. */
	uint64_t start, end, off;
	bool shared;
	uint64_t total;            /* with `all`: bytes of address space */

	struct offload_job job;
	int error;
};

/* done() runs on `ring`'s thread. -ENOMEM: nothing was started. */
int vma_query_start(struct vma_query *q, struct ring *ring);
