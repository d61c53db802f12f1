/* SPDX-License-Identifier: Apache-2.0 */
/* A test build's store in front of another: errors, EAGAIN, short transfers and delays as inject.h says. In other builds it is the other one itself. */
#pragma once

#include "daemon/store/store.h"

#ifdef PGC_FAILURE_INJECTION
/* Always with the same `behind`. */
const struct store_ops *inject_store(const struct store_ops *behind);
/* What a transfer that gave `res` says: less, or that it was not done. `some`: it may say less. */
ssize_t inject_transfer(ssize_t res, bool some);
#else
#define inject_store(behind) (behind)
#define inject_transfer(res, some) (res)
#endif
