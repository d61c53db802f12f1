/* SPDX-License-Identifier: Apache-2.0 */
/* Weak definitions of what other branches bring; this file goes when they are merged. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "preload.h"
#define WEAK __attribute__((weak))
bool paths_any WEAK;
static char prefix[4096];
WEAK void paths_init(const char *p) { snprintf(prefix, sizeof(prefix), "%.*s", (int)strcspn(p, "*:"), p); paths_any = true; }
WEAK bool path_is_ours(int dirfd, const char *path, char abs[4096], int *ret_fd)
{
	char *r = NULL, cwd[4096];
	*ret_fd = -1;
	if (*path != '/' && dirfd == -100 && getcwd(cwd, sizeof(cwd))) r = cwd;
	if (r) snprintf(abs, 4096, "%s/%s", cwd, path); else snprintf(abs, 4096, "%s", path);
	return strncmp(abs, prefix, strlen(prefix)) == 0;
}
WEAK void paths_fd_gone(int fd) {}
WEAK void paths_fd_dup(int a, int b) {}
WEAK void exec_adopt(void) {}
WEAK void stdio_adopt(void) {}
WEAK void stdio_fd_changing(int fd) {}
WEAK void stdio_fd_changed(int fd) {}
WEAK int pgc_seek(struct pgc_file *f, off_t off, int whence, off_t *ret)
{
	off_t size = (off_t)__atomic_load_n(&f->control->size, __ATOMIC_ACQUIRE);
	if (off < 0 || off >= size) return -ENXIO;
	*ret = whence == SEEK_DATA ? off : size;
	return 0;
}
WEAK int file_write_out(struct pgc_file *f, uint64_t off, uint64_t len, bool wait) { return pgc_fsync(f); }
EXPORT WEAK int fstat(int fd, struct stat *st)
{
	if (!fd_maybe(fd)) return REAL(fstat)(fd, st);
	WITH_OFD(o, fd, REAL(fstat)(fd, st));
	return (int)shim_result(ofd_stat(o, st));
}
EXPORT WEAK int fstat64(int fd, struct stat64 *st) { return fstat(fd, (struct stat *)st); }
