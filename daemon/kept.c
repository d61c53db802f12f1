/* SPDX-License-Identifier: Apache-2.0 */
/* See kept.h. May call fdstore and util. */
#include "daemon/kept.h"

#include <stdio.h>

struct removal {
	struct list link;          /* worker->removals */
	char name[FDSTORE_NAME_MAX];
	unsigned n;
	struct slot_pool *pool;
	uint32_t slot;
};

/* Whether all are sent. */
static bool send_removals(struct worker *w)
{
	struct removal *r;

	while ((r = list_first(&w->removals, struct removal, link))) {
		if (fdstore_remove(r->name, r->n) == -EAGAIN)
			return false;
		list_remove(&r->link);
		if (r->pool)
			slot_pool_give(r->pool, r->slot);
		free(r);
	}
	return true;
}

static void run_removals(struct task *t)
{
	struct worker *w = container_of(t, struct worker, removals_task);

	if (!send_removals(w))
		worker_retry(w, t);
}

int kept_add(struct worker *w, const char *name, const int *fds, unsigned n)
{
	if (!fdstore_active())
		return 0;
	return send_removals(w) ? fdstore_add(name, fds, n) : -EAGAIN;
}

void kept_remove(struct worker *w, const char *name, unsigned n, struct slot_pool *pool, uint32_t slot)
{
	struct removal *r;

	if (!fdstore_active() || (send_removals(w) && fdstore_remove(name, n) != -EAGAIN)) {
		if (pool)
			slot_pool_give(pool, slot);
		return;
	}
	r = calloc(1, sizeof(*r));
	if (!r)
		return; /* the slot is lost until the daemon ends, which is better than a name for two */
	*r = (struct removal){ .n = n, .pool = pool, .slot = slot };
	(void)snprintf(r->name, sizeof(r->name), "%s", name);
	list_append(&w->removals, &r->link);
	worker_retry(w, &w->removals_task);
}

void kept_flush(struct worker *w)
{
	struct removal *r;

	for (int tries = 0; tries < 20 && !send_removals(w); tries++)
		usleep(5000);
	while ((r = list_first(&w->removals, struct removal, link))) {
		list_remove(&r->link);
		free(r);
	}
}

void kept_init(struct worker *w)
{
	list_init(&w->removals);
	list_init(&w->removals_task.link);
	w->removals_task.run = run_removals;
}
