/* SPDX-License-Identifier: Apache-2.0 */
/* Questions to the daemon about files of which there is no handle, over one control connection a process. */
#pragma once

#include "preload.h"

/*
 * What the cache makes of `st`, what the kernel says of a file, in *ret: size, blocks, mtime and ctime. -ENOENT: it has nothing of the file, so that is the truth; others: no
 * answer. All functions open a scope.
 */
HIDDEN int ctl_stat(const struct stat *st, struct pgc_stat_reply *ret);
/*
 * What the daemon has of it is on the store when this returns. By a connection of its own, with no lock: this is rare, may take long, and the process may be a child that
 * is about to run another program.
 */
HIDDEN int ctl_sync(dev_t dev, ino_t ino);
/* The process that serves now; one that died is waited for. As above. */
HIDDEN int ctl_daemon(pid_t *ret);
