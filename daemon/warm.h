/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Warm starts. When a file loses its last handle, and at shutdown, a record of its hot pages goes to the state folder; the next open of the same
 * file, if it is in the same state, reads those pages in before they are asked for. Runs on the file's worker, but for what touches the folder.
 */
#pragma once

#include "daemon/file.h"

/* Where the records are; the string lives as long as the daemon. Sets file_idle_hook. Once, before workers start. */
void warm_init(const char *state_dir);
/* Of worker_init(). */
void warm_worker_init(struct worker *w);

/* A handle was made: if it is the first since the file was idle, its record is looked for. `who` is charged for what is read in then. */
void warm_opened(struct file *f, const struct toucher *who);
/*
 * The worker's end, everything written back: writes the records of the files that are open. Waits for that, at most two seconds; no file has a job or a
 * prefetch afterwards.
 */
void warm_stop(struct worker *w);
