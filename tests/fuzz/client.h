/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients of a served daemon (serve.h), in the same thread, over the bare protocol. What would wait for the daemon (faults, munmap) is done by a thread of its
 * own; it uses memory by system calls, so that what is refused is EFAULT and no signal. Where the kernel does not let a userfaultfd serve those, such faults
 * are refused at once.
 */
#pragma once

#include "pagecached/wire.h"
#include "tests/fuzz/serve.h"

#define CLIENT_MAPS 4u

struct client_map { uint8_t *at; size_t len; };

struct client {
	int sock;                  /* -1: there is none */
	uint32_t role;             /* 0: no HELLO yet */
	int uffd, memfd, control;  /* -1: none */
	bool opened;
	struct pgc_open_reply reply;
	struct client_map map[CLIENT_MAPS];
	uint64_t tag;
	uint64_t sent, answered;   /* requests and answers; lists have many */
	bool lists;                /* it has asked for a list */
};

/* Once: these are all clients there are, so what the daemon finds mapped is theirs. */
void client_init(struct client *c, unsigned n);

/* The files that clients have beside "mem:" stores. */
#define CLIENT_FILES 3u
/* As they were: their sizes, and bytes. */
void client_files_reset(void);
/* A descriptor of one of them, opened in that way; -1: that cannot be. The caller's. */
int client_file(unsigned n, int flags);

int client_uffd(int flags);
/* `size` bytes, sealed against shrinking or not. The caller's. */
int client_memfd(size_t size, bool sealed);

/* Connects as root, or as nobody where that can be; what it has mapped is still there. False: the daemon does not take it now. */
bool client_connect(struct served *d, struct client *c, bool nobody);
/* -errno. Descriptors stay the caller's. */
int client_send(struct client *c, const void *bytes, size_t n, const int *fds, unsigned n_fds);
/* Reads what the daemon has said, and checks that it may say that. False: it has hung up. */
bool client_receive(struct client *c);
/* Hangs up and closes what it has. */
void client_end(struct client *c);

/* --- memory --- */

enum client_act { ACT_LOAD, ACT_STORE, ACT_CUT, ACT_MREMAP, ACT_DONTNEED, ACT_REMOVE, ACT_MLOCK, ACTS };

/* Maps `len` bytes of its memfd and registers them. Whether it could. */
bool client_mmap(struct client *c, unsigned slot, size_t len, uint64_t off, bool shared, bool writable);
/*
 * Begins an act on `len` bytes of a mapping from `off` on, while the daemon is turned for some rounds. ACT_CUT and ACT_MREMAP take away all from there on. It may go
 * on after that; then those that follow are left out.
 */
void client_do(struct served *d, struct client *c, unsigned slot, enum client_act act, size_t off, size_t len);
/* All clients have hung up: waits for the act that goes on, and for the daemon, and unmaps everything. */
void client_forget(struct served *d, struct client *c, unsigned n);
