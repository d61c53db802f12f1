/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See drr.h. What the daemon does by itself (room for pages, write-outs) is what all wait for: no client's turns come before it, nor does it before theirs. A flow is in one list or none: `sparse` when its first task came while it was in none, then `busy` until it is found there
 * without a task. Flows whose tasks were cancelled are found without a task, too.
 */
#include "daemon/drr.h"

void drr_init(struct drr *d)
{
	list_init(&d->own);
	list_init(&d->sparse);
	list_init(&d->busy);
	for (unsigned i = 0; i < DRR_FLOWS; i++) {
		list_init(&d->flow[i].link);
		list_init(&d->flow[i].tasks);
	}
	d->clock = now_ns;
}

void drr_queue(struct drr *d, struct task *t)
{
	struct drr_flow *f = &d->flow[t->flow];

	if (!list_empty(&t->link))
		return;
	if (t->flow == DRR_OWN) {
		list_append(&d->own, &t->link);
		return;
	}
	list_append(&f->tasks, &t->link);
	if (!list_empty(&f->link))
		return;
	f->deficit = DRR_QUANTUM_NS;
	list_append(&d->sparse, &f->link);
}

/* The flow whose turn it is, with a task; NULL: there is none. */
static struct drr_flow *next_flow(struct drr *d)
{
	for (;;) {
		struct drr_flow *f = list_first(&d->sparse, struct drr_flow, link);
		bool sparse = f != NULL;

		if (!f)
			f = list_first(&d->busy, struct drr_flow, link);
		if (!f)
			return NULL;
		if (!list_empty(&f->tasks) && f->deficit > 0)
			return f;
		list_remove(&f->link);
		if (!list_empty(&f->tasks))
			f->deficit += DRR_QUANTUM_NS;
		/* One that has become idle stays for a round of the others: else it could be sparse again at once, and always first. */
		if (!list_empty(&f->tasks) || (sparse && !list_empty(&d->busy)))
			list_append(&d->busy, &f->link);
	}
}

bool drr_empty(struct drr *d) { return list_empty(&d->own) && next_flow(d) == NULL; }

bool drr_run(struct drr *d, uint64_t ns)
{
	struct task *own = list_first(&d->own, struct task, link);
	uint64_t start, now;
	struct drr_flow *f;

	if (own) {
		list_remove(&own->link);
		own->run(own);
	}
	start = now = d->clock();
	f = next_flow(d);
	for (bool first = true; f && (first || now - start < ns); first = false) {
		struct task *t = list_first(&f->tasks, struct task, link);
		uint64_t begun = now;

		list_remove(&t->link);
		t->run(t);
		now = d->clock();
		f->deficit -= (int64_t)(now - begun);
		f = next_flow(d);
	}
	return f || !list_empty(&d->own);
}
