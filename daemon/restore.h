/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A daemon takes over from one that is gone: each worker its own files, as the first thing that it does. See restore.c for the order of things.
 */
#pragma once

#include "daemon/server.h"

/* Main thread, after the workers were initialised and before they start: has each of them take over its share. -ENOMEM. */
int restore_begin(struct server *s);
