/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of the exerciser that lets the daemon fail (a build with -Dfailure_injection=true, $PGC_INJECT): a file that the daemon has mapped says what fails,
 * and its first byte whether anything does. Failures are on while the workers work and off while everything is compared: what was acknowledged must be
 * there then, and everything must work again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Writes the file, with failures off, and sets $PGC_INJECT for the daemon that is started next. */
int inject_prepare(const char *dir, const char *spec, uint64_t seed);
/* By any process: the file is mapped before the first fork. Nothing without inject_prepare(). */
void inject_switch(bool on);
void inject_remove(void);
bool injecting(void);

/* Is it an error that a failure of the daemon, or of its store, may have in a client? */
bool inject_expects(long error);
/*
 * Shall what has failed with `error` be tried again? After a pause; false without failures, for another error, and after half a minute. *since: 0 at
 * the first try.
 */
bool inject_again(long error, uint64_t *since);
