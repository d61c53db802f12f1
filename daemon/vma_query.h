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

#define VMA_SEGS_MAX 16384u
struct vma_seg { uint64_t start, end, off; bool shared; };

struct vma_query {
	/* Set by the caller. */
	pid_t pid;
	uint64_t addr;
	bool all;                  /* not the one at addr: how much of the file is mapped in all */
	bool list;                 /* with `all`: and what, in `segs` */
	bool want_pagemap;         /* and its pagemap.h descriptor */
	uint64_t dev, ino;         /* the file that must be mapped there: st_dev and st_ino */
	uint64_t changes;          /* the caller's own */
	void *owner;
	/* 0, -ENOENT (something else or nothing is mapped there), -EACCES or -ESRCH (the process cannot be looked at), -EAGAIN (out of memory or descriptors). May free it. */
	void (*done)(struct vma_query *q, int error);

	/* The answer. */
	uint64_t start, end, off;
	bool shared;
	uint64_t total;            /* with `all`: bytes of address space */
	struct vma_seg *segs;      /* with `list`: ascending, at most VMA_SEGS_MAX; to be freed by whoever is told */
	size_t n_segs;
	int pagemap;               /* -1: it cannot be had. To be closed by whoever is told */

	struct offload_job job;
	int error;
};

/* The look itself, on an offload thread: what done() would be told. */
int vma_query_look(struct vma_query *q);
/* done() runs on `ring`'s thread. -ENOMEM: nothing was started. */
int vma_query_start(struct vma_query *q, struct ring *ring);
