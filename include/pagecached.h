/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libpagecached: files through pagecached, a page cache in user space.
 *
 * The functions have the shape of the system calls of the same name, so that a port is a rename. Differences that hold
 * for all of them:
 *
 * - Those that return int or ssize_t return a negative errno on failure and do not set errno; pgc_mmap() returns
 *   MAP_FAILED and sets errno as mmap(2) does.
 * - Offsets and lengths are bytes. Outputs are written on success only.
 * - Every function may be called by several threads at once, also on one handle, except that pgc_close() must be the
 *   last call on its handle. No function is async-signal-safe. A thread is not cancelled inside one.
 * - A NULL handle is -EBADF, a NULL output -EFAULT.
 * - Everything that talks to the daemon may also fail with -ECONNREFUSED (no daemon listens), -ECONNRESET (it hung up;
 *   the handle is of no more use), -EPROTO (it sent nonsense, or speaks another version), -EMFILE, -ENFILE, -ENOMEM.
 *   These stand for every function below and are not repeated.
 * - The library starts no thread, prints nothing, installs no signal handler and raises no SIGPIPE. Its descriptors
 *   are close-on-exec.
 *
 * Faults: a load or store in a mapping waits until the daemon has brought the page. It raises SIGBUS past the end of
 * file, and where the store failed to read the page. Where the daemon may not serve faults taken inside system calls,
 * giving such a call a buffer in a page that was never touched fails with EFAULT; pgc_pread() and its kin work in any
 * case.
 *
 * fork(2): handles and mappings work in the child, which connects by itself at first use. _Fork(3) and a clone(2) that
 * bypass pthread_atfork(3) handlers do not support it. exec drops all.
 *
 * The socket of the daemon is $PAGECACHED_SOCKET, or if that is not set the first that answers of
 * /run/pagecached/socket and $XDG_RUNTIME_DIR/pagecached/socket. The variables are ignored in set-user-ID programs.
 */
#ifndef PAGECACHED_H
#define PAGECACHED_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An open file of this process: a handle. */
struct pgc_file;

/*
 * Opens a file by its path, or an object by its URI, which is what begins with a lower-case scheme and a colon
 * ("mem:name"); a file of such a name is opened as "./mem:name". A path is opened by the calling process itself, so
 * the kernel decides as for open(2), with all its errors. The same file opened under two names is cached once.
 *
 * flags: O_RDONLY, O_WRONLY or O_RDWR, and of open(2)'s flags those below. mode: as in open(2), for O_CREAT and
 * O_TMPFILE.
 *   O_CREAT, O_EXCL, O_NOFOLLOW, O_TMPFILE, O_NOATIME, ...   are the kernel's. An object is never created by O_CREAT.
 *   O_TRUNC      truncates through the cache; not with O_RDONLY
 *   O_SYNC, O_DSYNC   each pgc_pwrite() and pgc_append() is followed by pgc_fsync() or pgc_fdatasync()
 *   O_APPEND     has no effect: pgc_pwrite() writes where it says, pgc_append() at the end
 *   O_DIRECT, O_NONBLOCK, O_ASYNC, O_CLOEXEC   have no effect
 *
 * Errors: those of open(2); -EISDIR: a directory; -EINVAL: neither a regular file nor a block device, a wrong access
 * mode, O_TRUNC with O_RDONLY, O_CREAT with O_EXCL on an object; -EBADF: O_PATH; -ENAMETOOLONG: a URI of 200 bytes or
 * more; -ENOENT, -EACCES, -EOPNOTSUPP: the store says so, or the daemon has none for that scheme.
 */
int pgc_open(struct pgc_file **ret, const char *path_or_uri, int flags, mode_t mode);

/*
 * A handle on what an open descriptor stands for, with its access mode and O_SYNC or O_DSYNC. The descriptor stays the
 * caller's and may be closed at once. The library opens the file again for itself where it still may; where it may
 * not, the descriptor's own description serves, unless that has O_DIRECT, or O_APPEND and may write: then the error of
 * opening it.
 *
 * Errors: -EBADF: not open, or O_PATH; -EISDIR; -EINVAL: neither a regular file nor a block device; -EACCES: see
 * above.
 */
int pgc_fdopen(struct pgc_file **ret, int fd);

/*
 * Maps len bytes of the file from off on, as mmap(2): len is rounded up to pages and may reach past the end of file,
 * where a touch raises SIGBUS. flags: MAP_SHARED or MAP_PRIVATE, with any of MAP_FIXED, MAP_FIXED_NOREPLACE,
 * MAP_POPULATE, MAP_NONBLOCK, MAP_LOCKED, MAP_NORESERVE, MAP_32BIT, MAP_STACK. The mapping outlives pgc_close().
 * munmap(2), mremap(2), mprotect(2), mlock(2) and the like work on it. A failed call with MAP_FIXED may have unmapped
 * what was there.
 *
 * MAP_SHARED through a read-only handle shows every change at once, but is a private mapping in the kernel's eyes:
 * mprotect(2) to PROT_WRITE is not refused, and what is stored after it stays in the process. MAP_LOCKED locks pages
 * as they come.
 *
 * Of a file that the service keeps in huge pages (`huge` in pagecached.conf(5)) what encloses the range is mapped, in whole ones of 2 MiB: munmap(2) and
 * the like take borders of those alone, pgc_munmap() the range that was mapped as well. EINVAL: MAP_FIXED or MAP_FIXED_NOREPLACE with an address, an
 * offset or a length of parts of them; EOPNOTSUPP: PROT_WRITE.
 *
 * Errors (errno): EACCES: a write-only handle, or MAP_SHARED with PROT_WRITE through a read-only one; EINVAL: len is
 * 0, off is not a multiple of the page size, neither or both of MAP_SHARED and MAP_PRIVATE, MAP_ANONYMOUS,
 * MAP_HUGETLB, MAP_GROWSDOWN; EOPNOTSUPP: both (which is MAP_SHARED_VALIDATE) with a flag that is not listed, such as
 * MAP_SYNC; EOVERFLOW: off is negative or off + len exceeds the largest offset; ENOMEM: no room, or too many mappings,
 * here or in the daemon; EEXIST: MAP_FIXED_NOREPLACE; EAGAIN, EPERM: MAP_LOCKED beyond RLIMIT_MEMLOCK; ENOSPC: the
 * daemon's table of mappings is full.
 */
void *pgc_mmap(struct pgc_file *f, void *addr, size_t len, int prot, int flags, off_t off);

/*
 * As munmap(2), which works as well. This one also frees what a closed handle held, and does not wait for a daemon
 * that is dead.
 */
int pgc_munmap(void *addr, size_t len);

/*
 * As msync(2). After 0 for MS_SYNC the store has the bytes of the range. MS_ASYNC starts their write-out and returns.
 * On parts that are no mapping of this library it is msync(2) without the wait. What is mapped is asked of the kernel,
 * so it does not matter what mremap(2), munmap(2) or fork(2) did; where /proc/self/maps cannot be read, whole files are
 * written, and the error is returned if that may not be all.
 *
 * Errors: -EINVAL: MS_SYNC with MS_ASYNC, an unknown flag, addr not page-aligned; -ENOMEM: a part is not mapped (the
 * rest is synced); -EBUSY: MS_INVALIDATE of a locked range; -EIO, -ENOSPC, ...: as pgc_fsync().
 */
int pgc_msync(void *addr, size_t len, int flags);

/*
 * As madvise(2), for all of its advice. MADV_NORMAL, MADV_RANDOM and MADV_SEQUENTIAL steer the daemon's readahead for
 * this range of addresses; MADV_WILLNEED reads up to 32 MiB in, without waiting; MADV_POPULATE_READ and
 * MADV_POPULATE_WRITE fill and map the range; MADV_COLD has its pages given up before others when room is needed;
 * MADV_PAGEOUT gives them up now, dirty ones once they are written, for all who map them; the others are the kernel's.
 */
int pgc_madvise(void *addr, size_t len, int advice);

/*
 * As posix_fadvise(2). NORMAL, RANDOM and SEQUENTIAL hold for read calls on the handle, and for those of its mappings
 * that have no advice of their own; after NOREUSE nothing that is used through the handle counts as used; WILLNEED reads
 * up to 32 MiB in, without waiting; DONTNEED starts the write-out of what is dirty and drops clean pages that nobody has
 * mapped. len 0: to the end. -EINVAL: off or len is negative, or the advice is unknown.
 */
int pgc_fadvise(struct pgc_file *f, off_t off, off_t len, int advice);

/*
 * As pread(2) and preadv(2): at most 0x7ffff000 bytes, a short count at the end of file, 0 at and past it. The bytes
 * are those of all stores and writes made before, by any process. More than 1 MiB is not read at one moment.
 * What is in the cache is read without a system call, if the handle is read often; it is never SIGBUS.
 * Errors: -EBADF: a write-only handle; -EINVAL: off is negative, iovcnt is negative or exceeds IOV_MAX; -EFAULT:
 * nothing could be put into the buffer (or SIGSEGV, as of memcpy(3)); -EIO, ...: the store failed. Where some bytes were read before an error their
 * count is returned.
 */
ssize_t pgc_pread(struct pgc_file *f, void *buf, size_t n, off_t off);
ssize_t pgc_preadv(struct pgc_file *f, const struct iovec *iov, int iovcnt, off_t off);

/*
 * As pwrite(2) and pwritev(2): visible through every mapping and to every read at once; on the store after pgc_fsync()
 * or in time. A write beyond the end leaves a hole of zeros. More than 256 KiB is not written at one moment.
 * Errors: -EBADF: a read-only handle; -EINVAL, -EFAULT: as pgc_pread(); -EFBIG: beyond the largest offset or
 * RLIMIT_FSIZE (no SIGXFSZ; a limit below 1 MiB refuses every write); -EIO, -ENOSPC, ...: the store failed. Where some
 * bytes were written before an error their count is returned. With O_SYNC or O_DSYNC an error of the sync is returned
 * although the bytes are in the cache.
 */
ssize_t pgc_pwrite(struct pgc_file *f, const void *buf, size_t n, off_t off);
ssize_t pgc_pwritev(struct pgc_file *f, const struct iovec *iov, int iovcnt, off_t off);

/*
 * Writes at the end of file, in one piece whatever its size: appends of other processes come before or after. The
 * offset where the bytes went is stored in *ret_off unless that is NULL. Errors: as pgc_pwrite().
 */
ssize_t pgc_append(struct pgc_file *f, const void *buf, size_t n, off_t *ret_off);

/*
 * As fsync(2) and fdatasync(2): after 0 the store has every byte that was stored or written before, by any process. A
 * failed write-out since the last call is reported once to each handle that was open then, and its pages are tried
 * again.
 * Errors: -EIO, -ENOSPC, -EDQUOT, ...: what the store said.
 */
int pgc_fsync(struct pgc_file *f);
int pgc_fdatasync(struct pgc_file *f);

/* As ftruncate(2). -EINVAL: size is negative, or a handle that may not write; -EFBIG: more than the store can have. */
int pgc_ftruncate(struct pgc_file *f, off_t size);

/*
 * As fallocate(2), for mode 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, and
 * FALLOC_FL_ZERO_RANGE with or without FALLOC_FL_KEEP_SIZE. Errors: -EOPNOTSUPP: another mode, or not in the store;
 * -EINVAL: off is negative or len not positive; -EBADF: a read-only handle; -EFBIG; -ENOSPC; -EIO.
 */
int pgc_fallocate(struct pgc_file *f, int mode, off_t off, off_t len);

/*
 * As fstat(2): size, blocks and times as they are with what the cache holds, the rest as the store has it. Times change when the file is
 * written or stored to, and not when the cache writes it out.
 */
int pgc_fstat(struct pgc_file *f, struct stat *ret);

/*
 * As lseek(2) with SEEK_DATA or SEEK_HOLE, which are all of `whence`; there is no file offset to move. What was stored or written is data
 * at once, whether the store has it yet or not. Where the store cannot tell, all is data up to the end of file.
 * Errors: -ENXIO: off is negative, at or past the end of file, or, with SEEK_DATA, in a hole that reaches it; -EINVAL: another `whence`.
 */
int pgc_seek(struct pgc_file *f, off_t off, int whence, off_t *ret);

/*
 * Says that the pages that hold any byte of the range are, or with false are no longer, written by something that page
 * protection does not notice, such as a device. While it is on they are written out by every sync and stay dirty; the
 * one after it is off makes them clean.
 * Errors: -EINVAL: off is negative, len is not positive, or off + len exceeds the largest offset; -EBADF: a read-only
 * handle.
 */
int pgc_keep(struct pgc_file *f, off_t off, off_t len, bool on);

/*
 * Ends a handle. Its mappings stay, and keep what they need of it until they are unmapped. Dirty pages are written out
 * in time; to know whether that succeeded call pgc_fsync() before. Ending the last handle or mapping closes
 * descriptors of the file, and with them the process's POSIX record locks on it go, as with close(2). Returns 0 or
 * -EBADF.
 */
int pgc_close(struct pgc_file *f);

/* The version of the library, "MAJOR.MINOR.PATCH". Static. */
const char *pgc_version(void);

#ifdef __cplusplus
}
#endif
#endif
