/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose turn it is on a worker: deficit round robin over clients (Shreedhar and Varghese, 1995), in nanoseconds of the worker's time, with sparse clients
 * first, as fq_codel has it (RFC 8290).
 *
 * A client that wants something after it had wanted nothing for a while is served before those that always want more, for one quantum; then it
 * takes its turn with all others. So somebody who faults now and then waits for the task that is running and not for what a busy
 * client has piled up, in however many handles. A task that took longer than its client's quantum is paid for with the turns that follow.
 *
 * A task is not interrupted: whoever writes one sees to it that it is short, and queues itself again.
 * One thread: the worker's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/util/util.h"

#define DRR_QUANTUM_NS 50000
#define DRR_OWN        0u              /* the flow of what the daemon does by itself, which has no turns: one task comes each time that others may run */
#define DRR_FLOWS      1024u           /* one for each slot of clients (budget_client_slot()) */

/* Work for a later round of the loop: `run` is called once for each time that it was queued. */
struct task {
	struct list link;
	void (*run)(struct task *t);
	uint32_t flow;             /* whose turn it takes */
	bool waiting;              /* the owner's: it is in a list of the owner's, for a timer */
};

struct drr_flow {
	struct list link;          /* drr->sparse or drr->busy; empty: it has nothing to do */
	struct list tasks;
	int64_t deficit;           /* ns that it may still use in this turn */
};

struct drr {
	struct list own;           /* struct task */
	struct list sparse, busy;  /* struct drr_flow */
	struct drr_flow flow[DRR_FLOWS];
	uint64_t (*clock)(void);   /* now_ns(), or a test's */
};

void drr_init(struct drr *d);
/* Queues `t` in its flow; nothing if it is queued already. A queued task is cancelled by list_remove(). */
void drr_queue(struct drr *d, struct task *t);
/* Runs a task of the daemon's own, and clients' for about `ns`, at least one. Returns whether there are more. */
bool drr_run(struct drr *d, uint64_t ns);
/* Whether nothing is queued. */
bool drr_empty(struct drr *d);
