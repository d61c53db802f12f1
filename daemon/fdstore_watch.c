/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See fdstore_watch.h. One timer: an idle daemon asks nothing, and a busy one every LOOK_NS.
 * May call offload, ring, fdstore, log, util.
 */
#include "daemon/fdstore_watch.h"

#include <string.h>

#include "daemon/fdstore.h"
#include "daemon/log.h"
#include "daemon/util/util.h"

#define LOOK_NS  (2 * 1000000000ull)
#define JOB_KEY  UINT64_MAX            /* no device: it waits with nobody else's job, as nobody else's should wait for it */

static void look(struct offload_job *job)
{
	container_of(job, struct fdstore_watch, job)->result = fdstore_verify();
}

static void looked(struct ring_op *op, int res, uint32_t cflags)
{
	struct fdstore_watch *w = container_of(op, struct fdstore_watch, job.done);

	if (w->result < 0 && !w->failed)
		log_warning("whether the service manager keeps all descriptors cannot be found out: %s", strerror(-w->result));
	w->failed = w->result < 0;
	ring_timer_arm(w->ring, &w->timer, LOOK_NS);
}

static void look_expired(struct ring_timer *t)
{
	struct fdstore_watch *w = container_of(t, struct fdstore_watch, timer);

	if (!fdstore_unverified() || offload_submit(w->ring, &w->job) < 0)
		ring_timer_arm(w->ring, t, LOOK_NS);
}

void fdstore_watch_start(struct fdstore_watch *w, struct ring *ring)
{
	if (!fdstore_active())
		return;
	*w = (struct fdstore_watch){ .ring = ring, .job = { .run = look, .done = { looked }, .key = JOB_KEY } };
	ring_timer_init(&w->timer, look_expired);
	ring_timer_arm(ring, &w->timer, LOOK_NS);
}
