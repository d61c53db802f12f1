/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memfds that hold files. A memfd's name says of which file: whoever was given one may keep it, and an inode's number may be another file's later.
 * `birth` tells such two apart: when the store's file was made, in nanoseconds; 0: its file system does not say. Any thread, after proc_fd_init().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* memfd_create(2)'s errors. */
int memory_create(uint64_t dev, uint64_t ino, uint64_t birth);
/* Of huge pages of 2 MiB, of which there is at least one to be had now. -ENOMEM and the like: there is none, or the kernel has no such thing. */
int memory_create_huge(uint64_t dev, uint64_t ino, uint64_t birth);
bool memory_is_huge(int memfd);
/* Of which file it is, by its name; false: it is no such memfd. */
bool memory_file_of(int memfd, uint64_t *ret_dev, uint64_t *ret_ino);
bool memory_is_of(int memfd, uint64_t dev, uint64_t ino, uint64_t birth);
/* What the name in /proc/PID/fd of memory of that file begins with. */
#define MEMORY_LINK_MAX 80
const char *memory_link(char buf[MEMORY_LINK_MAX], uint64_t dev, uint64_t ino);
/*
 * A description of our own, which may write, of what a client has brought. -ESTALE: it is none that a daemon of our user made for that file, and is left as it
 * was.
 */
int memory_claim(int fd, uint64_t dev, uint64_t ino, uint64_t birth);
/* Bytes [pos, pos + len) of a client's memory: a memfd that cannot shrink, so that they are there while the daemon reads. `pos`: of a page. -EINVAL, mmap(2)'s errors. */
int memory_map_sealed(int fd, uint64_t pos, uint64_t len, void **ret, size_t *ret_len);
