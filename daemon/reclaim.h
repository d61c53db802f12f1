/* SPDX-License-Identifier: Apache-2.0 */
/* Room for pages: charging the budget, and dropping clean pages, oldest block first, when it is used up. */
#pragma once

#include "daemon/worker.h"

/* Charges `pages`, making room if it must. false: there is none now; write-outs that will make some have been started: park in w->no_room. */
bool reclaim_charge(struct worker *w, uint64_t pages);
/* -ENOMEM. After all workers' rings exist. */
int reclaim_init(struct worker *w);
void reclaim_free(struct worker *w);
/* Frees at least one block slot of this worker. */
bool reclaim_slots(struct worker *w);
/* Drops about `pages` clean pages of this worker. Returns how many. */
uint64_t reclaim_pages(struct worker *w, uint64_t pages);
