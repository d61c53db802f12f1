/* SPDX-License-Identifier: Apache-2.0 */
/*
 * retain=mapped: pages that no mapping covers any more are written and freed. Runs on the file's worker.
 */
#pragma once

#include "daemon/file.h"

/* A mapping of these bytes has gone; others may still be there. Nothing where the file's pages stay (retain=lru). */
void retain_unmapped(struct file *f, struct range r);
