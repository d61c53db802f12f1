/* SPDX-License-Identifier: Apache-2.0 */
/* Write-protection of pages in all mappings of a file that are tracked with faults, before they are written out. Runs on the file's worker. */
#pragma once

#include "daemon/file.h"

/*
 * 0: who stores to one of the pages from here on has a fault, or is found by the next look (track.h). -EAGAIN: once more soon, as a client has not finished an event or
 * what it has mapped is being found out; -EPERM: nobody can be asked: what is written stays dirty.
 */
int protect_pages(struct file *f, uint64_t first, uint64_t n);
