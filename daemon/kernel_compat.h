/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the running kernel may have but the headers we build with may not: io_uring and the
 * transfer flags. Numbers are the kernel's ABI, fixed for ever; whether the kernel knows them is found out at run time.
 */
#pragma once

#include <sys/syscall.h>

/* io_uring opcode, Linux 6.9: fd, off = the new size. Older kernels complete it with -EINVAL. */
#define KERNEL_IORING_OP_FTRUNCATE 55

/* preadv2/pwritev2 and io_uring rw_flags, Linux 6.14: the page cache drops the pages when the transfer is over. */
#define KERNEL_RWF_DONTCACHE 0x00000080

#ifndef SYS_cachestat                /* Linux 6.5 */
#define SYS_cachestat 451
#endif
