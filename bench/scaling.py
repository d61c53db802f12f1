#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What docs/ARCHITECTURE.md ("How far it goes") says of more processors than there were to measure on: a model of faults on pages that are in the cache already.

Each fault maps a block of 64 pages. It costs the worker that owns the file OWN, whoever maps, somebody MAP, and the client CLIENT. What a lane does costs HAND more. All in us of a
processor; measured by pgc-bench --only lanes-0,lanes-1, on two processors and on one (taskset), where nothing else is:
  MAP: 64 pages by UFFDIO_CONTINUE, 16.4 us in a loop of its own; two threads at once 3 to 6 % more on other pages, 12 % on the same in step.
  OWN: what the worker uses for a block without lanes, less MAP: 4.7 us on one processor, 8.5 on two, where it is woken by another one.
  CLIENT: on one processor a block takes OWN + MAP + CLIENT.   HAND: and with a lane so much more.
Scaling itself is assumed: that faults of different processes, or 2 MiB of one, do not wait for each other in the kernel.
Usage: bench/scaling.py [--own US] [--map US] [--client US] [--hand US] [--bandwidth GB/s]"""
import argparse

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--own", type=float, default=6.5)
p.add_argument("--map", type=float, default=16.4)
p.add_argument("--client", type=float, default=5.8)
p.add_argument("--hand", type=float, default=3.0)
p.add_argument("--bandwidth", type=float, default=200.0, help="of the memory, assumed")
a = p.parse_args()
BLOCK_GB = 256 * 1024 / 1e9


def without_lanes(n, workers):
    """Blocks a us: as much as the workers can do, and all processors together."""
    return min(workers / (a.own + a.map), n / (a.own + a.map + a.client))


def with_lanes(n, lanes):
    """One worker: what its lanes cannot take it maps by itself. HAND is taken to be all the worker's."""
    lent = min(lanes / a.map, 1 / (a.own + a.hand))
    alone = max(0.0, 1 - lent * (a.own + a.hand)) / (a.own + a.map)
    return min(lent + alone, n / (a.own + a.map + a.client + (a.hand if lanes else 0)))


print("1000 blocks/s (GB/s that are mapped)\n")
print("| processors | one hot file, no lanes | lanes | the same with lanes | many files, workers = min(processors, 8) | read at once, the memory's limit |")
print("|---|---|---|---|---|---|")
for n in (1, 2, 4, 8, 16, 32, 64):
    lanes = min(n // 4, 16)
    cells = [without_lanes(n, 1), with_lanes(n, lanes), without_lanes(n, min(n, 8))]
    one, more, many = (f"{1000 * c:.0f} ({1e6 * c * BLOCK_GB:.0f})" for c in cells)
    print(f"| {n} | {one} | {lanes} | {more} | {many} | {a.bandwidth / BLOCK_GB / 1000:.0f} ({a.bandwidth:.0f}) |")
