"""Replay: batches of two-camera transitions out of the ring, against LeRobot's ReplayBuffer with the same contents."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH, SIZE, JOINTS, EPISODE = 256, 96, 6, 250
SHIFT = 4  # pixels, LeRobot's own
CAMERAS = ("observation.images.front", "observation.images.wrist")


def run(quick: bool = False) -> dict[str, Any]:
    """Sample 256 transitions with two 96x96 cameras on one thread; medians.

    LeRobot's buffer is set as its learner sets it (`optimize_memory`): it keeps and returns float images and moves them
    at random by up to four pixels (`use_drq`). Ours moves them likewise, and gives uint8, as networks here take them.

    Returns:
        `metrics` with `sample_256_ms` and `speedup_vs_lerobot` (both with random shifts), the same with `_unshifted`
        (neither with), `float_256_ms` (what making ours float would add), bytes a step; `against` with LeRobot's.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(1_000 if quick else 4_000, 5 if quick else 30)
    finally:
        torch.set_num_threads(threads)


def _measure(rows: int, times: int) -> dict[str, Any]:
    steps = [_step(number) for number in range(64)]
    ours, theirs, rng = _ours(rows, steps), _theirs(rows, steps), np.random.default_rng(0)
    shifted = _median(lambda: ours.sample(rng, BATCH, shift=SHIFT), times)
    plain = _median(lambda: ours.sample(rng, BATCH), times)
    batch = ours.sample(rng, BATCH)
    theirs_shifted = _median(lambda: theirs.sample(BATCH), times)
    theirs.use_drq = False
    theirs_plain = _median(lambda: theirs.sample(BATCH), times)
    return {
        "metrics": {
            "sample_256_ms": 1e3 * shifted,
            "speedup_vs_lerobot": theirs_shifted / shifted,
            "sample_256_unshifted_ms": 1e3 * plain,
            "speedup_unshifted": theirs_plain / plain,
            "float_256_ms": 1e3 * _median(lambda: _floats(batch), times),
            "bytes_a_step": ours.nbytes / rows,
        },
        "against": {
            "lerobot": {
                "sample_256_ms": 1e3 * theirs_shifted,
                "sample_256_unshifted_ms": 1e3 * theirs_plain,
                "bytes_a_step": sum(t.nbytes for t in theirs.states.values()) / rows,
            }
        },
    }


def _step(number: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(number)
    images = {name: rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8) for name in CAMERAS}
    return {**images, "observation.state": rng.normal(size=JOINTS).astype(np.float32)}


def _ours(rows: int, steps: list[dict[str, NDArray[Any]]]) -> Any:
    from vla_rl.data.replay import ReplayBuffer
    from vla_rl.data.transitions import TransitionConfig

    buffer = ReplayBuffer(rows, TransitionConfig(1, 0.99), steps[0], JOINTS)
    for row in range(rows):
        action = steps[row % len(steps)]["observation.state"]
        buffer.add(steps[row % len(steps)], action, 0.0, truncated=row % EPISODE == EPISODE - 1)
    return buffer


def _theirs(rows: int, steps: list[dict[str, NDArray[Any]]]) -> Any:
    """LeRobot's own, filled with the same."""
    import torch
    from lerobot.rl.buffer import ReplayBuffer

    buffer = ReplayBuffer(rows, "cpu", state_keys=list(steps[0]), optimize_memory=True)
    states = [_as_theirs(step) for step in steps]
    for row in range(rows):
        state, following = states[row % len(steps)], states[(row + 1) % len(steps)]
        cut = row % EPISODE == EPISODE - 1
        buffer.add(state, torch.zeros(1, JOINTS), 0.0, following, done=False, truncated=cut)
    return buffer


def _as_theirs(step: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """One observation as LeRobot stores it: float images, channels first, with a batch axis."""
    import torch

    images = {name: torch.from_numpy(step[name]).permute(2, 0, 1)[None] / 255.0 for name in CAMERAS}
    return {**images, "observation.state": torch.from_numpy(step["observation.state"])[None]}


def _floats(batch: Any) -> list[Any]:
    both = [*batch.observation.values(), *batch.next_observation.values()]
    return [value.float().div_(255.0) for value in both if value.ndim == 4]


def _median(work: Callable[[], Any], times: int) -> float:
    """Seconds of one call, after two that warm up."""
    took = []
    for number in range(times + 2):
        start = time.perf_counter()
        work()
        if number >= 2:
            took.append(time.perf_counter() - start)
    return float(np.median(took))
