/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors that outlive the daemon: in the service manager's descriptor store, or in that of "pagecached --keep", which speaks the same protocol
 * (sd_notify(3): FDSTORE=1, FDNAME=, FDPOLL=0, FDSTOREREMOVE=1 as datagrams to $NOTIFY_SOCKET; sd_listen_fds_with_names(3) on the way back).
 *
 * A name stands for a set of descriptors. Once fdstore_add() has returned 0 the descriptors survive the daemon, at whatever instruction it dies: the datagram is
 * in the receiver's queue.
 *
 * Names: "f<slot>" memfd, control page and store descriptors of a file (fdstore_add() may be called again for more); "h<slot>" socket and userfaultfd of a
 * handle; "c<slot>" userfaultfd of a forked child; "o<slot>" those of children of a handle or child, which nobody knew of yet (twin.h); "L<worker>.<incarnation>" read end of a ring's lifeline; "listen" the listening socket of a daemon that made
 * it itself.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define FDSTORE_NAME_MAX 24
#define FDSTORE_FDS_MAX  8           /* of one call */
#define FDSTORE_NAMES_MAX (127u << 10) /* bytes of all names, each with a separator: they are passed in one environment string, of 128 KiB at most */

struct fdstore_fd {
	char name[FDSTORE_NAME_MAX];
	int fd;                    /* -1: taken */
};

/*
 * Main thread, before any other starts and before anything else looks at $LISTEN_FDS or $NOTIFY_SOCKET, which stays set for sd_notify(3). Takes over what was passed.
 * 0 or a negative errno. Nobody who keeps descriptors is no error.
 */
int fdstore_init(void);
/* Is there somebody who keeps descriptors? */
bool fdstore_active(void);
/* The socket to it, or -1; and whether somebody still listens there. For a process that has the daemon's descriptors. */
int fdstore_socket(void);
bool fdstore_alive(void);
/* A listening socket that was passed, by the service manager or kept by an earlier daemon; the caller's from now on. -1: none. *ret_kept: it is one of ours. */
int fdstore_take_listening(bool *ret_kept);
/* What else was passed, until it is taken (fd -1). *ret_n entries. */
struct fdstore_fd *fdstore_passed(unsigned *ret_n);
/* Memory of a file is among it. */
bool fdstore_has_files(void);
/* Closes what nobody has taken, and has it forgotten: but a name of which something was taken is kept whole. Main thread. */
void fdstore_drop_rest(void);

/* "f12", in `buf` of FDSTORE_NAME_MAX bytes, which it returns. */
const char *fdstore_name(char *buf, char kind, uint32_t slot);

/*
 * Any thread, never blocks. -EAGAIN: the receiver's queue is full, try again a little later; -ENFILE: there is no room for more; -ENOTCONN: nobody keeps descriptors
 * (fdstore_active() is false). What clients bring ("h", "c") is refused while there is still some room for what the daemon itself cannot do without.
 */
int fdstore_add(const char *name, const int *fds, unsigned n);
/* All descriptors of that name. Nothing if there are none, or nobody keeps any. -EAGAIN as above. `n`: how many there are, for the count of what is kept. */
int fdstore_remove(const char *name, unsigned n);

/* fdstore_verify() is due: there is somebody to ask, and something was added since the last look, or that found the store full. Any thread. */
bool fdstore_unverified(void);
/*
 * A service manager drops what is beyond its maximum and says nothing: this asks it what it may keep and does. When it is full, or keeps less than was given to
 * it, that is logged; when it is full, fdstore_add() is refused from then on, until a later look finds room. Blocks, so not on a worker; one thread at a time.
 * 0, or a negative errno: it could not be asked. Nothing to do with "pagecached --keep".
 */
int fdstore_verify(void);
