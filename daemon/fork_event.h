/* SPDX-License-Identifier: Apache-2.0 */
/* A fork that the kernel tells of. Runs on the file's worker. */
#pragma once

#include "daemon/space.h"

/* `uffd` serves the child's mappings: a space for it, which is watched. It takes the descriptor. */
void fault_fork_event(struct space *parent, int uffd);
