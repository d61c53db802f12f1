/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a command with the preload library. */
#pragma once

enum {
	CTL_RUN_FAILED = 125,          /* we ourselves, not the command: as env(1) and nohup(1) have it */
	CTL_RUN_CANNOT_RUN = 126,
	CTL_RUN_NOT_FOUND = 127,
};

/*
 * `argv[0]` is "run", its options and the command follow; `socket` is --socket before it, or NULL. Without a daemon of its own it becomes the command and
 * returns only where it cannot. Returns an exit status: the command's own, or one of those above after a message.
 */
int ctl_run(int argc, char **argv, const char *socket);
