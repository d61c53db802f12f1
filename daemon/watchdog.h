/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service manager's watchdog (WatchdogSec=, sd_watchdog_enabled(3)). It is fed only when every worker has gone round its loop since it was fed last, so a
 * worker that is stuck has the daemon replaced. Operations of a store that hangs are asynchronous and keep no worker from its rounds. Main thread, on its ring.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/ring.h"

struct worker;

struct watchdog_seen {
	struct ring_op wake;       /* a round for a worker that had no reason for one */
	uint64_t rounds;           /* when the watchdog was last fed */
	bool     woken;            /* since then */
};

struct watchdog {
	struct ring          *ring;
	struct worker        *workers;
	unsigned              n_workers;
	uint64_t              period;   /* ns; 0: nobody watches */
	struct watchdog_seen *seen;     /* of each worker */
	struct ring_timer     timer;
};

/* Nothing where nobody watches. -ENOMEM. */
int watchdog_start(struct watchdog *d, struct ring *ring, struct worker *workers, unsigned n_workers);
/* Feeds it if it may be fed. Called by the timer, and by who does not run the ring for a while. */
void watchdog_look(struct watchdog *d);
/* After the workers have ended. */
void watchdog_free(struct watchdog *d);
