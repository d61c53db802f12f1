/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room for pages: charging the budget, giving pages up as the policy says, and the second-chance buffer. Runs on the worker.
 */
#pragma once

#include "daemon/worker.h"

struct tracker;
struct file;

/*
 * Charges `pages` to a domain, making room if it must. false: there is none now, and what will make some has been started: park in
 * w->no_room. `ahead`: for pages that nobody has asked for yet, which make room only at the expense of what is worth less.
 */
bool reclaim_charge(struct worker *w, struct domain *d, uint64_t pages, bool ahead);
/* -ENOMEM. After all workers' rings exist. */
int reclaim_init(struct worker *w);
void reclaim_free(struct worker *w);
/* Frees at least one block slot of this worker. */
bool reclaim_slots(struct worker *w);
/* Gives up about `pages` clean pages of this worker. Returns how many. */
uint64_t reclaim_pages(struct worker *w, uint64_t pages);
/* A huge page goes, if there is one that may; else the other workers are asked for one. Whether one is free now. */
bool reclaim_huge_page(struct worker *w);
/* The budget or its limits may have changed, or much has become dirty: starts what is due in the background, here and on the other workers. */
void reclaim_wake(struct worker *w);
/* May its client have more mapped that it can store to unseen? Else something of its own has been given up, or written out, and it tries again. */
bool reclaim_may_track(struct tracker *t);
/* For a worker that has nothing else to do: makes some of the room that is wanted in the background. Whether it did. */
bool reclaim_idle(struct worker *w);
/* Brings pages of a block back from the second-chance buffer: resident, or, where that fails, forgotten. `flags`: POLICY_*. */
void reclaim_restore(struct block *b, uint64_t pages, unsigned flags);
