/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "pagecached --keep": what a service manager does for the daemon, where there is none. A small process that starts the daemon, keeps the descriptors that it hands
 * over (the protocol of sd_notify(3)), passes them to the next one, and sees to it that there is a next one.
 */
#pragma once

#include <stdint.h>

struct keep_params {
	int argc;
	char **argv;               /* ours; the daemon gets it without --keep */
	unsigned room;             /* descriptors to keep, at most */
	uint64_t pause_min_ms;     /* between a death and the next start: nothing at first, then this, then twice as long each time ... */
	uint64_t pause_max_ms;     /* ... up to this, and never longer than the daemon had served */
	uint64_t settled_ms;       /* who has served for so long died for the first time */
	unsigned starts_max;       /* in a row without ever being ready: no more after that */
};
#define KEEP_PARAMS_DEFAULT .room = 16384, .pause_min_ms = 100, .pause_max_ms = 5000, .settled_ms = 2000, .starts_max = 10

/*
 * Runs until the daemon has ended for good. Returns an exit status: the daemon's, 1 for our own failures and after too many of its. Main thread, with no other; closes
 * all descriptors but 0 to 2 and those of $LISTEN_FDS.
 */
int keep_run(const struct keep_params *p);
