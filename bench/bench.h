/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of pgc-bench share: the file under test, ends with a message, and figures over several runs.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define PAGE     4096ull
#define RUNS_MAX 99
#define ELEMS(x) (sizeof(x) / sizeof((x)[0]))
#define MIN_OF(a, b) ((a) < (b) ? (a) : (b))

/* The file under test. A file that was made here goes with the program, also when it dies. */
extern char bench_path[512];
/* Does what must be done before die() ends the program; NULL: nothing. */
extern void (*bench_cleanup)(void);

void die(const char *what, ...) __attribute__((noreturn, format(printf, 1, 2)));
double bench_now(void);                                     /* CLOCK_MONOTONIC, seconds */
uint64_t bench_mix(uint64_t x);                             /* a number without a pattern; one to one */
uint32_t *bench_shuffled(uint32_t n, uint64_t seed);        /* 0 to n-1 in an order without a pattern */
uint64_t bench_parse_size(const char *option, const char *s); /* K, M, G suffixes; whole MiB, at least 16 */
unsigned bench_parse_number(const char *option, const char *s, unsigned min, unsigned max);

/* The 8-byte word at `off` of a file made by bench_make_file(). */
static inline uint64_t bench_word(uint64_t off)
{
	return bench_mix(off + 1);
}
/* Real blocks with bytes that do not compress and are never zero pages. In `dir`, or as `keep`, which is used again when it is there and fits. */
void bench_make_file(const char *dir, const char *keep, uint64_t size);
void bench_remove_file(void);
void bench_fill_file(const char *path, uint64_t size);      /* the same bytes; a new file */

/* Empties the kernel's cache of the file, and looks that it is empty. */
void bench_kernel_drop(uint64_t size);
void bench_kernel_drop_file(const char *path, uint64_t size); /* any file */
int bench_control(const char *name);                        /* a control connection to the daemon; -errno */

void bench_beside(const char *name, char ret[512]);          /* the path of a file beside this program */

/* Zeros that this process shares with those that it makes, and with what they execute if they get *ret_fd (close-on-exec). */
void *bench_shared(size_t size, int *ret_fd);

struct figures { double median, min, max; };
struct figures bench_figures(const double *values, int n);
void bench_print_figures(const struct figures *f);          /* " median (min - max) |" on stdout */

int out_of_core_main(int argc, char **argv);
int fairness_main(int argc, char **argv);
int pause_main(int argc, char **argv);
