/* SPDX-License-Identifier: Apache-2.0 */
/* Names of cgroups, which the daemon knows by the inode numbers of their folders. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct ctl_cgroup {
	uint64_t id;
	char *path;                    /* in its hierarchy, "/" for its root; NULL: not found. malloc()ed */
};

/*
 * Fills the paths of those of `n` cgroups that can be found: first in the hierarchy that counts memory, then in version
 * 2's. `mountinfo` is "/proc/self/mountinfo". What cannot be read or allocated stays NULL.
 */
void ctl_cgroup_find(struct ctl_cgroup *cgroups, size_t n, const char *mountinfo);
