/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A seccomp filter for worker threads, in test builds: what workers call is listed, everything else (open, read, fsync, connect, poll,
 * nanosleep, accept, ...) kills the process. Opening is allowed only below /proc/self/fd's own descriptor (memfds), waiting only
 * inside io_uring_enter, and the calls that take MSG_DONTWAIT or RWF_NOWAIT only with it.
 */
#include "daemon/trap.h"

#ifdef PGC_TRAP_BLOCKING
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "daemon/kernel_compat.h"
#include "daemon/proc_fd.h"
#include "daemon/process.h"

#define NR       (offsetof(struct seccomp_data, nr))
#define ARG(n)   (offsetof(struct seccomp_data, args) + 8 * (n))
#define LOAD(o)  BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (o))
#define ALLOW    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define PASS(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), ALLOW
/* The call is allowed if its argument n equals, or has the bit, k. */
#define PASS_EQ(name, n, k)  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 4), LOAD(ARG(n)), \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (k), 0, 1), ALLOW, LOAD(NR)
#define PASS_BIT(name, n, k) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 4), LOAD(ARG(n)), \
	BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (k), 0, 1), ALLOW, LOAD(NR)

/* The C library's allocator opens /proc/sys/vm/overcommit_memory when it first gives memory of a thread's arena back, once in the process: before the filter. */
static void let_allocator_shrink(void)
{
	void *volatile chunks[16];

	for (unsigned i = 0; i < 16; i++)
		chunks[i] = malloc(64 << 10);
	for (unsigned i = 16; i > 0; i--)
		free(chunks[i - 1]);
}

void trap_blocking_calls(void)
{
	struct sock_filter filter[] = {
		LOAD(NR),
		PASS(io_uring_enter), PASS(restart_syscall), PASS(io_uring_register), PASS(ioctl), PASS(read), /* read: a userfaultfd that has been polled */ PASS(pwrite64), PASS(pread64), PASS(preadv), PASS(pwritev), /* of memfds: the stores use the ring */
		PASS(ftruncate), PASS(fallocate), PASS(memfd_create), PASS(fchmod), PASS(fcntl), PASS(fstat), PASS(newfstatat), PASS(fstatfs), /* of memfds */
		PASS(readlinkat), PASS(readlink), PASS(lseek), PASS(cachestat),
		PASS(mmap), PASS(munmap), PASS(mprotect), PASS(mremap), PASS(madvise), PASS(mlock), PASS(brk), PASS(close), PASS(shutdown),
		PASS(clock_gettime), PASS(gettid), PASS(getpid), PASS(geteuid), PASS(tgkill), PASS(kill), PASS(rt_sigprocmask), PASS(rt_sigaction), PASS(rt_sigreturn),
		PASS(userfaultfd), PASS(vmsplice), PASS(splice), /* of memfds, into a pipe that has room */
		PASS(sched_yield), PASS(sched_getaffinity), PASS(sched_setaffinity), PASS(exit), PASS(exit_group), PASS(futex), PASS(write), PASS(writev), /* the allocator's lock; the log */
		PASS(set_robust_list), PASS(rseq), PASS(sigaltstack), PASS(getrandom), PASS(prctl), PASS(sysinfo), /* the last: qsort(3), once */
		PASS_BIT(sendmsg, 2, MSG_DONTWAIT), PASS_BIT(recvmsg, 2, MSG_DONTWAIT),
		PASS_BIT(preadv2, 5, RWF_NOWAIT),
		PASS_EQ(poll, 2, 0), PASS_EQ(ppoll, 1, 1),
		PASS_EQ(openat, 0, (unsigned)proc_fd_dir()),
		PASS_EQ(openat, 0, (unsigned)process_dir()),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	let_allocator_shrink();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) {
		perror("pagecached: the filter for blocking calls cannot be set");
		abort();
	}
}
#else
void trap_blocking_calls(void) {}
#endif
