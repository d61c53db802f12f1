/* SPDX-License-Identifier: Apache-2.0 */
/* Closing descriptors where nobody may be kept waiting and there is no ring: close(2) of a file of FUSE waits for its server, who may never answer. */
#pragma once

/*
 * Closes those that cannot wait, and leaves the rest to a thread, which ends when that is done. When this returns the numbers may still be open for a moment. Any thread.
 */
void slow_close(const int *fds, unsigned n);
