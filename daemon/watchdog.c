/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See watchdog.h. Four looks in a period: one finds a worker that has not moved and wakes it, the next one finds that it has. So an idle daemon feeds the watchdog, and
 * wakes its workers, twice in a period; a look that comes late costs nothing.
 *
 * May call worker.h, ring.
 */
#include "daemon/watchdog.h"

#include <errno.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "daemon/worker.h"

#define LOOKS 4

static void woken(struct ring_op *op, int res, uint32_t cflags) { }

void watchdog_look(struct watchdog *d)
{
	bool all = true;

	if (d->period == 0)
		return;
	for (unsigned i = 0; i < d->n_workers; i++) {
		struct watchdog_seen *s = &d->seen[i];
		uint64_t rounds = atomic_load_explicit(&d->workers[i].rounds, memory_order_relaxed);

		if (rounds != s->rounds || rounds == WORKER_ENDED)
			continue;
		all = false;
		if (!s->woken)
			s->woken = ring_post(d->ring, &d->workers[i].ring, &s->wake, 0) == 0;
	}
	ring_flush(d->ring);
	if (!all)
		return;
	for (unsigned i = 0; i < d->n_workers; i++) {
		d->seen[i].rounds = atomic_load_explicit(&d->workers[i].rounds, memory_order_relaxed);
		d->seen[i].woken = false;
	}
	(void)sd_notify(0, "WATCHDOG=1");
}

static void look_expired(struct ring_timer *t)
{
	struct watchdog *d = container_of(t, struct watchdog, timer);

	watchdog_look(d);
	ring_timer_arm(d->ring, t, d->period / LOOKS);
}

int watchdog_start(struct watchdog *d, struct ring *ring, struct worker *workers, unsigned n_workers)
{
	uint64_t usec = 0;

	if (sd_watchdog_enabled(0, &usec) <= 0 || usec == 0)
		return 0;
	d->seen = calloc(n_workers, sizeof(*d->seen));
	if (!d->seen)
		return -ENOMEM;
	for (unsigned i = 0; i < n_workers; i++)
		d->seen[i].wake.done = woken;
	d->ring = ring;
	d->workers = workers;
	d->n_workers = n_workers;
	d->period = usec * 1000;
	ring_timer_init(&d->timer, look_expired);
	ring_timer_arm(ring, &d->timer, d->period / LOOKS);
	return 0;
}

void watchdog_free(struct watchdog *d)
{
	d->period = 0;
	free(d->seen);
	d->seen = NULL;
}
