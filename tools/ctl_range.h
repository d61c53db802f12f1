/* SPDX-License-Identifier: Apache-2.0 */
/* Ranges of a file on the command line. */
#pragma once

#include <stdint.h>

/*
 * "OFFSET", "OFFSET-" (to the end of file), "OFFSET-END" or "OFFSET+LENGTH": bytes, or numbers with K, M, G or T
 * (powers of 1024). *ret_len 0: to the end. -EINVAL: it is none, or it is empty; -ERANGE: it reaches beyond 2^63.
 */
int ctl_parse_range(const char *s, uint64_t *ret_off, uint64_t *ret_len);
/* "64M": a number of bytes. -EINVAL, -ERANGE. */
int ctl_parse_size(const char *s, uint64_t *ret);
