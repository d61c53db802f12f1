/* SPDX-License-Identifier: Apache-2.0 */
/* Other processes by their numbers, which the kernel gives again: a number and a start time together name one for ever. Any thread; blocks for nobody. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Opens /proc once, before threads start. Returns 0 or a negative errno. */
int process_init(void);
/* That folder's descriptor, or -1. */
int process_dir(void);

struct process_stat {
	pid_t parent;
	uint64_t start;            /* clock ticks since boot */
};

/* Has the process a descriptor of something whose name in /proc/PID/fd begins with `name`? True as well if it cannot be looked at. For an offload thread: it may be many. */
bool process_holds(pid_t pid, const char *name);

/* Of /proc/PID/stat. -ESRCH: there is none, or it is hidden from us. */
int process_stat(pid_t pid, struct process_stat *ret);
/* 0: not known. */
uint64_t process_start(pid_t pid);
/* Is there a process of that number, which started then (0: not known)? One that is hidden from us may be it. */
bool process_lives(pid_t pid, uint64_t start);
