/* SPDX-License-Identifier: Apache-2.0 */
/* Pages whose read failed: SIGBUS for who touches them, until a later read succeeds. Runs on the file's worker. */
#pragma once

#include "daemon/space.h"

#define POISON_MAX 4096u             /* of one file */

/* Poisons the page at `addr` of a space, which is page `page` of the file. 0, or -EAGAIN (try again), -ESRCH and other errors of uffd_poison(). */
int poison_page(struct space *s, uint64_t addr, uint64_t page, bool shared);
/* Pages [first, first + n) have become resident: those of them that are poisoned are mapped. */
void poison_heal(struct file *f, uint64_t first, uint64_t n);
/* The page may have been poisoned where the space has it, by a daemon that is gone: it is read again, and mapped there. */
void poison_restore(struct space *s, uint64_t page);
