/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Has the service manager asked, soon after descriptors were given to it, whether it keeps them all (fdstore_verify()). Main thread, on its ring; the question
 * itself, which may block, on an offload thread.
 */
#pragma once

#include "daemon/offload.h"

struct fdstore_watch {
	struct ring       *ring;
	struct ring_timer  timer;
	struct offload_job job;
	int                result;     /* of the last look; the job's while one runs */
	bool               failed;     /* a look failed, and that was said */
};

/* After fdstore_init() and offload_start(). Nothing where there is nobody to ask. */
void fdstore_watch_start(struct fdstore_watch *w, struct ring *ring);
