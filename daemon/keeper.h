/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second holder of forked children's userfaultfds. A client keeps its own descriptor open, but the one that comes with a fork
 * event is the daemon's alone, and when the last descriptor of a userfaultfd closes, its faults read zeros. So a small process, made at
 * start, holds a copy of each: with the daemon gone, the child's faults wait. It ends with the daemon, or, when children are left then,
 * with the last of them.
 */
#pragma once

#include <stdint.h>

/* Makes the process. Main thread, before any other is started. Returns 0 or a negative errno. */
int keeper_start(void);
/*
 * Gives it a copy of `fd`, which it closes when the child is gone; `addr` was mapped there. Never blocks. 0, or -ENOTCONN or another errno:
 * nobody holds it but the caller. Any thread.
 */
int keeper_hold(int fd, uint64_t addr);
/* Before the daemon ends: waits for the process unless it has to stay for somebody. Main thread. */
void keeper_stop(void);
