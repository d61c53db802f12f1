/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Domains: a policy and a second-chance buffer for the pages of one owner (struct domain of worker.h). Runs on the worker.
 */
#pragma once

#include "daemon/worker.h"

/* The first domain, of all who have no limit. -ENOMEM. */
int domain_init(struct worker *w);
void domain_free_all(struct worker *w);
/* The domain of these tenants, made if need be; the first one where there is no memory for it. */
struct domain *domain_get(struct worker *w, uint32_t user, uint32_t cgroup);

/* The bytes of a slot. */
static inline char *domain_slot(struct domain *d, uint32_t slot) { return d->second + slot * PAGE_SIZE_; }
/* A slot gets bytes, which is charged if it holds no memory yet. */
void domain_use_slot(struct worker *w, struct domain *d, uint32_t slot);
/* Its bytes are not needed any more. A little of such memory is kept for the next. */
void domain_put_slot(struct worker *w, struct domain *d, uint32_t slot);
/* The policy of a domain follows what the domain holds, now that there is no more to be had. */
void domain_fit(struct worker *w, struct domain *d);
