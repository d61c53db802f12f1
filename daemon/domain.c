/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Domains. The second-chance buffer is anonymous memory, reserved whole and touched slot by slot. A touched slot is charged whether it holds a page
 * or not, so that what is counted is what the kernel counts; when more than SLACK lie idle, they are given back.
 * Runs on the worker. May call policy and budget.
 */
#include "daemon/domain.h"

#include <sys/mman.h>

#define SLACK 128u                   /* slots */

static int domain_new(struct worker *w, uint32_t user, uint32_t cgroup, struct domain **ret)
{
	struct budget *b = w->budget;
	uint64_t pages = atomic_load_explicit(&b->memory_max, memory_order_relaxed), slots;
	struct domain *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return -ENOMEM;
	d->tenant[0] = user;
	d->tenant[1] = cgroup;
	for (int i = 0; i < 2; i++)
		if (d->tenant[i])
			pages = MIN(pages, MAX(atomic_load_explicit(&b->tenant[d->tenant[i]].limit, memory_order_relaxed), 64));
	slots = w->config->policy == POLICY_ADAPTIVE ? MIN(pages / 100 * w->config->second_chance, UINT32_MAX - 1) : 0;
	if (slots < 64)
		slots = 0; /* too little to be worth a call */
	if (slots) {
		d->second = mmap(NULL, slots * PAGE_SIZE_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		d->touched = calloc((slots + 63) / 64, sizeof(*d->touched));
		if (d->second == MAP_FAILED || !d->touched) {
			if (d->second != MAP_FAILED)
				munmap(d->second, slots * PAGE_SIZE_);
			d->second = NULL;
			slots = 0;
		} else {
			/* Slots are given back one by one, which a huge page would not let go of. */
			(void)madvise(d->second, slots * PAGE_SIZE_, MADV_NOHUGEPAGE);
			(void)madvise(d->second, slots * PAGE_SIZE_, MADV_DONTDUMP);
		}
	}
	d->second_slots = (uint32_t)slots;
	r = policy_new(&d->policy, w->config->policy, MAX(pages, 64), d->second_slots);
	if (r < 0) {
		if (d->second)
			munmap(d->second, slots * PAGE_SIZE_);
		free(d->touched);
		free(d);
		return r;
	}
	list_init(&d->chunks);
	list_append(&w->domains, &d->link);
	*ret = d;
	return 0;
}

int domain_init(struct worker *w)
{
	struct domain *d;

	list_init(&w->domains);
	return domain_new(w, 0, 0, &d);
}

void domain_free_all(struct worker *w)
{
	struct domain *d;

	while (w->domains.next && (d = list_first(&w->domains, struct domain, link))) {
		list_remove(&d->link);
		policy_free(d->policy);
		if (d->second)
			munmap(d->second, d->second_slots * PAGE_SIZE_);
		budget_charge_tables(w, -(int64_t)d->tables);
		atomic_fetch_sub_explicit(&w->budget->used, d->second_touched, memory_order_relaxed);
		free(d->touched);
		free(d);
	}
}

struct domain *domain_get(struct worker *w, uint32_t user, uint32_t cgroup)
{
	struct domain *d;

	list_for_each(d, &w->domains, link)
		if (d->tenant[0] == user && d->tenant[1] == cgroup)
			return d;
	return domain_new(w, user, cgroup, &d) == 0 ? d : worker_domain(w);
}

void domain_use_slot(struct worker *w, struct domain *d, uint32_t slot)
{
	uint64_t bit = 1ull << (slot % 64);

	d->second_used++;
	w->stats->second_chance++;
	if (d->touched[slot / 64] & bit)
		return;
	d->touched[slot / 64] |= bit;
	d->second_touched++;
	budget_charge(w, d, 1);
}

void domain_put_slot(struct worker *w, struct domain *d, uint32_t slot)
{
	d->second_used--;
	w->stats->second_chance--;
	if (d->second_touched - d->second_used <= SLACK)
		return;
	if (madvise(domain_slot(d, slot), PAGE_SIZE_, MADV_DONTNEED) < 0)
		return;
	d->touched[slot / 64] &= ~(1ull << (slot % 64));
	d->second_touched--;
	budget_uncharge(w, d, 1);
}

void domain_fit(struct worker *w, struct domain *d)
{
	uint64_t max = atomic_load_explicit(&w->budget->max, memory_order_relaxed), was = d->fitted, now = d->used;
	uint64_t used = atomic_load_explicit(&w->budget->used, memory_order_relaxed), tables = page_up(policy_memory(d->policy));

	/* When the memory has become less: what will be left of it. */
	if (used > max)
		now = (uint64_t)((unsigned __int128)now * max / used);
	now = MAX(now, 64);
	budget_charge_tables(w, (int64_t)(tables - d->tables));
	d->tables = tables;
	if (now * 16 > was * 15 && now * 16 < was * 17)
		return;
	if (policy_resize(d->policy, now) == 0)
		d->fitted = now;
}
