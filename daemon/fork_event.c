/* SPDX-License-Identifier: Apache-2.0 */
/* See fork_event.h. May call fault and space. */
#include "daemon/fork_event.h"

#include <assert.h>

#include "daemon/fault.h"
#include "daemon/kill_point.h"
#include "daemon/log.h"

void fault_fork_event(struct space *parent, int uffd)
{
	struct space *child;

	parent->worker->stats->events_fork++;
	kill_point("fork.held");
	if (space_new(&child, parent->file, uffd) < 0) {
		assert(false); /* read_messages() has seen to it */
		return;
	}
	child->last_addr = space_some_address(parent);
	kill_point("fork.space_made");
	if (space_copy(child, parent) < 0) {
		/* What it lacks is asked for when it is touched; but what it has writable of that is not known until then. */
		child->blind = true;
		log_at(LOG_LEVEL_ERROR, parent->file->e->name, parent->pid, "out of memory: a forked child lacks mappings, its pages stay dirty");
	}
	if (child->kernel_faults)
		child->file->e->kernel_fault_handles++;
	kill_point("fork.copied");
	if (parent->forked)
		parent->forked(child, parent);
	fault_watch(child);
}
