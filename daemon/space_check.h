/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a space is there still, and maps anything. See space_check.c. Runs on the file's worker.
 */
#pragma once

#include "daemon/space.h"

/* The process is gone: its owner is told, once. */
void space_set_gone(struct space *s);
/*
 * No mapping is known of any more. An mremap may have left one that is not: looks, and then sets `confirmed` and calls s->changed(), or
 * looks again later.
 */
void space_confirm_unmapped(struct space *s);
/*
 * Every SPACE_CHECK_NS while there is reason to: forked children have no socket that says when they end, so each is asked; and handles
 * that may have lost their last mapping are looked at again. Returns whether there still is reason.
 */
bool spaces_check(struct worker *w);
