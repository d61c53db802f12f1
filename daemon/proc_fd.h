/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/self/fd: reopening descriptors of memory files, and the paths behind descriptors. Does not block for either. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Opens /proc/self/fd once, before threads start. Returns 0 or a negative errno. */
int proc_fd_init(void);
/* The number of that folder's descriptor, or -1. */
int proc_fd_dir(void);
/* A new description of a memfd with other flags (O_CLOEXEC is added). Only for files that the daemon made: opening others may block. */
int proc_fd_reopen(int fd, int flags);
/* The path of a descriptor, for people; "?" when it is not known. */
void proc_fd_name(int fd, char *ret, size_t size);
/* Does that path begin with `what`? */
bool proc_fd_is(int fd, const char *what);
