"""Batches on time: prepared ahead in a thread, each a pure function of its step, so that resuming draws the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice

import numpy as np


def step_seed(seed: int, step: int, rank: int = 0, stream: int = 0) -> int:
    """A 63-bit seed of its own for each (run, step, process, use): chance then needs no state to save.

    Args:
        seed: the run's seed.
        step: optimiser step.
        rank: process, where several train together.
        stream: which use, so that augmentation and diffusion noise never share their draws.
    """
    state = np.random.SeedSequence((seed, step, rank, stream)).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def ahead[Batch](make: Callable[[int], Batch], start: int, depth: int) -> Generator[Batch]:
    """`make(start)`, `make(start + 1)`, ... without end, `depth` of them prepared ahead in one thread.

    An exception in `make` is raised where its batch is asked for. Close the iterator to stop the thread.
    """
    if depth == 0:
        yield from map(make, count(start))
        return
    steps = count(start)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Batch]] = deque(pool.submit(make, step) for step in islice(steps, depth))
        try:
            while True:
                waiting.append(pool.submit(make, next(steps)))
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
