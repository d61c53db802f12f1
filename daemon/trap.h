/* SPDX-License-Identifier: Apache-2.0 */
/* A test build's proof that nothing blocks on a worker. */
#pragma once

/* With the build option trap_blocking: from here on, a system call of this thread that may block ends the daemon with SIGSYS. Else nothing. */
void trap_blocking_calls(void);
