/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of a daemon that is gone is lost, damaged or of a version that this one does not know, but its descriptors have come (fdstore.h): what its files' memory
 * has and their stores do not is written to the stores, before the memory goes. What is the same in both was clean, or does not matter.
 */
#pragma once

/* Main thread, before workers start and before fdstore_drop_rest(). Blocks as long as stores take, and tells the service manager so. Logs what was done for each file. */
void salvage_all(void);
