/* SPDX-License-Identifier: Apache-2.0 */
/* Questions to the daemon about files of which there is no handle, over one control connection a process. */
#pragma once

#include "preload.h"

/* STAT of a file by the store's identity, in *ret. -ENOENT: the daemon does not have it, so what the kernel says is true; others: no answer. Opens a scope. */
HIDDEN int ctl_stat(dev_t dev, ino_t ino, struct pgc_stat_reply *ret);
/* What the daemon has of it is on the store when this returns. */
HIDDEN int ctl_sync(dev_t dev, ino_t ino);
