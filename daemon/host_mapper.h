/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HostFileMapper: the daemon's own mappings of one memfd, in chunks of 2 MiB, each mapped on first use
 * and kept while any page of it is referenced. The daemon never loads or stores through them with the
 * CPU: they are source and target of I/O.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "daemon/frame_refs.h"

#define HOST_CHUNK_SHIFT 21
#define HOST_CHUNK_SIZE  (1ull << HOST_CHUNK_SHIFT)

/* One chunk that is mapped. */
struct host_chunk {
	uint64_t index;            /* offset / 2 MiB */
	char    *addr;
	bool     writable;
};

struct host_mapper {
	int fd;                    /* borrowed */
	struct frame_refs refs;    /* by page; nobody is charged */
	struct host_chunk *chunk;  /* ascending */
	size_t n, allocated;
};

void host_mapper_init(struct host_mapper *m, int fd);
/* Unmaps all and frees; references left are forgotten. */
void host_mapper_free(struct host_mapper *m);
/* Page-aligned, not empty: else -EINVAL. -EOVERFLOW, -ENOMEM: nothing was changed. */
int host_mapper_inc_ref(struct host_mapper *m, struct range r);
/*
 * Unmaps a chunk when its last reference goes. -EINVAL: likewise, or a page has no reference (underflow); -ENOMEM.
 * Nothing was changed then.
 */
int host_mapper_dec_ref(struct host_mapper *m, struct range r);
/*
 * Addresses of [r.start, r.end) as at most `n` pieces (one a chunk, adjoining ones joined when the addresses
 * adjoin). Returns how many, -EINVAL when some page has no reference, -E2BIG when n is too small, or mmap's error.
 * Valid while the references are held, and until host_mapper_unmap_all(). A chunk that was mapped read-only is made
 * writable in place when `write`.
 */
int host_mapper_map(struct host_mapper *m, struct range r, bool write, struct iovec *iov, int n);
/*
 * The file has a new descriptor: puts it under every mapped chunk, at the same address and with the same access.
 * Both descriptors must be open until this returns. On error the old one stays (and what can be of the old
 * mappings is put back): mmap's error.
 */
int host_mapper_regenerate(struct host_mapper *m, int fd);
/* Unmaps every chunk. References stay, so host_mapper_map() maps afresh. */
void host_mapper_unmap_all(struct host_mapper *m);
