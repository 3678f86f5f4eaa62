"""How fast the real training loop is at its default size, and whether data or computation sets the pace."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl.data.cache import FrameCache
from vla_rl.learn.config import BCConfig

EPISODES, LENGTH = 20, 60


def run(quick: bool = False) -> dict[str, Any]:
    """Train a `tiny` policy on random frames: batch 64, two 96x96 cameras, chunks of 16, augmentation and averaging on.

    Args:
        quick: fewer steps.

    Returns:
        `metrics`: `steps_per_s` of the loop, `data_ms` to make one batch, `data_wait_share` of the time that the loop
        waited for one, `parameters`; and `against`, empty.
    """
    from vla_rl.learn.bc import BehaviourCloning
    from vla_rl.learn.train import Training, make_accelerator

    steps = 10 if quick else 40
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        config = BCConfig(out=str(out), steps=2 * steps, log_interval=steps, tensorboard=False)
        accelerator = make_accelerator(config)
        learner = BehaviourCloning(config, [random_frames()], device=accelerator.device)
        data_ms = _batch_ms(learner, steps)
        result = Training(config, learner, out, accelerator, None, talk=False).run()
        last = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    metrics = {
        "steps_per_s": last["steps_per_s"],
        "data_ms": data_ms,
        "data_wait_share": result["data_wait"],
        "parameters": result["parameters"],
        "bf16": float(result["bf16"]),
    }
    return {"metrics": metrics, "against": {}}


def _batch_ms(learner: Any, batches: int) -> float:
    """Time to gather and augment one batch [ms]."""
    started = time.perf_counter()
    for step in range(batches):
        learner.batch(step)
    return (time.perf_counter() - started) / batches * 1e3


def random_frames(seed: int = 0) -> FrameCache:
    """A data set of an SO-101's shapes that never was: 20 episodes of 2 s, two cameras, three instructions."""
    rng = np.random.default_rng(seed)
    rows = EPISODES * LENGTH
    pixels = (rows, 96, 96, 3)
    tasks = tuple(f"lift the {colour} cube" for colour in ("red", "green", "blue"))
    episode = np.repeat(np.arange(EPISODES), LENGTH)
    names = [f"joint_{i}.pos" for i in range(5)] + ["gripper.pos"]
    columns = {
        "observation.state": rng.normal(0, 30, (rows, 6)).astype(np.float32),
        "action": rng.normal(0, 30, (rows, 6)).astype(np.float32),
        "labels.points": rng.normal(0, 0.2, (rows, 6)).astype(np.float32),
        "labels.pixels.front": rng.uniform(-1, 1, (rows, 4)).astype(np.float32),
        "labels.pixels.wrist": rng.uniform(-1, 1, (rows, 4)).astype(np.float32),
        "task_index": episode % len(tasks),
        "episode_index": episode,
    }
    return FrameCache(
        root=Path("random"),
        source="random",
        fps=30.0,
        images={f"observation.images.{c}": rng.integers(0, 256, pixels, np.uint8) for c in ("front", "wrist")},
        columns=columns,
        names={"observation.state": names, "action": names},
        tasks=tasks,
        starts=np.arange(0, rows + 1, LENGTH),
        episodes=tuple({"instruction": tasks[i % 3], "task": "lift", "episode_index": i} for i in range(EPISODES)),
        robot_type="so101",
        action_spec={},
    )
