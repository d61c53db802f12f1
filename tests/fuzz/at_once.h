/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on files are done when they are submitted, by the submitting thread, and only their completions come later. What a ring would give to a thread of
 * the kernel costs a wake-up each; and without those an input does the same each time. For files that cannot make anybody wait. In place of liburing's functions
 * (-Wl,--wrap). Polls, timers and messages are the kernel's as ever.
 */
#pragma once

#include <stdbool.h>

/* Once, on the thread whose submissions are meant. Where the kernel cannot do it (before 6.10) nothing changes. */
void at_once_init(void);
/* Off: the kernel's threads do it, as in the daemon. */
void at_once(bool on);
