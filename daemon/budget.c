/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The settings of the memory, turned into pages, and the users and cgroups that have limits of their own. A slot of a tenant is never given to
 * another while the daemon runs: pages that were charged to it find it again. A limit that leaves the configuration becomes 0, which is none.
 * budget_configure() and budget_press() run on the main thread; the rest on any.
 */
#include "daemon/budget.h"

#include <string.h>
#include <sys/random.h>

#include "daemon/log.h"
#include "daemon/util/util.h"

#define load(x)     atomic_load_explicit(&(x), memory_order_relaxed)
#define store(x, v) atomic_store_explicit(&(x), (v), memory_order_relaxed)

static bool same_tenant(const struct tenant *t, const struct limit_rule *l)
{
	if (l->cgroup)
		return t->cgroup && strcmp(t->cgroup, l->cgroup) == 0;
	return !t->cgroup && t->uid == l->uid;
}

static void configure_tenants(struct budget *b, const struct config *c)
{
	uint32_t n = MAX(load(b->n_tenants), 1u);
	bool named[TENANTS_MAX + 1] = { false };

	for (size_t i = 0; i < c->n_limits; i++) {
		const struct limit_rule *l = &c->limits[i];
		uint64_t pages = MAX(config_amount_of(&l->memory_max, c->memory_max) / PAGE_SIZE_, 1);
		uint32_t slot = 1;

		while (slot < n && !same_tenant(&b->tenant[slot], l))
			slot++;
		if (slot == n) {
			char *path = NULL;

			if (n > TENANTS_MAX || (l->cgroup && !(path = strdup(l->cgroup)))) {
				if (l->cgroup)
					log_warning("the limit of cgroup %s cannot be taken over: too many since the start", l->cgroup);
				else
					log_warning("the limit of user %u cannot be taken over: too many since the start", l->uid);
				continue;
			}
			b->tenant[slot].cgroup = path;
			b->tenant[slot].uid = l->uid;
			n++;
		}
		store(b->tenant[slot].limit, pages);
		named[slot] = true;
	}
	for (uint32_t i = 1; i < n; i++)
		if (!named[i])
			store(b->tenant[i].limit, 0);
	/* Pairs with the acquire of who walks the table: a slot is whole before it is counted. */
	atomic_store_explicit(&b->n_tenants, n, memory_order_release);
}

uint32_t budget_client_slot(const struct budget *b, pid_t pid)
{
	uint64_t x = (uint64_t)(uint32_t)pid ^ b->secret;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return 1 + (uint32_t)((x ^ x >> 31) % (CLIENT_SLOTS - 1));
}

void budget_configure(struct budget *b, const struct config *c)
{
	uint64_t max = c->memory_max / PAGE_SIZE_, pressed = load(b->pressed);

	if (b->secret == 0 && getrandom(&b->secret, sizeof(b->secret), GRND_NONBLOCK) < 0)
		b->secret = now_ns(); /* hard enough to guess */
	store(b->memory_max, max);
	store(b->memory_min, config_amount_of(&c->memory_min, c->memory_max) / PAGE_SIZE_);
	store(b->max, pressed ? MIN(pressed, max) : max);
	store(b->dirty_background, config_amount_of(&c->dirty_background, c->memory_max) / PAGE_SIZE_);
	store(b->dirty_max, MAX(config_amount_of(&c->dirty_max, c->memory_max) / PAGE_SIZE_, 1));
	store(b->pin_max, config_amount_of(&c->pin_max, c->memory_max) / PAGE_SIZE_);
	store(b->dirty_expire_ms, c->dirty_expire_ms);
	configure_tenants(b, c);
}

void budget_press(struct budget *b, uint64_t pages)
{
	uint64_t max = load(b->memory_max);

	store(b->pressed, pages);
	store(b->max, pages ? MIN(pages, max) : max);
}

/* `path` itself or below `limit`. */
static bool is_within(const char *path, const char *limit)
{
	size_t n = strlen(limit);

	while (n > 1 && limit[n - 1] == '/')
		n--;
	return n == 1 || (strncmp(path, limit, n) == 0 && (path[n] == '/' || path[n] == 0));
}

void budget_tenants_of(struct budget *b, uid_t uid, const char *cgroup, uint32_t *ret_user, uint32_t *ret_cgroup)
{
	uint32_t n = atomic_load_explicit(&b->n_tenants, memory_order_acquire);
	size_t longest = 0;

	*ret_user = *ret_cgroup = 0;
	for (uint32_t i = 1; i < n; i++) {
		struct tenant *t = &b->tenant[i];

		if (load(t->limit) == 0)
			continue;
		if (!t->cgroup && t->uid == uid)
			*ret_user = i;
		if (t->cgroup && *cgroup && is_within(cgroup, t->cgroup) && strlen(t->cgroup) > longest) {
			longest = strlen(t->cgroup);
			*ret_cgroup = i;
		}
	}
}

void budget_free(struct budget *b)
{
	for (uint32_t i = 1; i < load(b->n_tenants); i++)
		free(b->tenant[i].cgroup);
}
