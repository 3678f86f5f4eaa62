"""smoothness: how the arm moves, and how often it succeeds, for every way of joining chunks and delays of inference.

The shipped policy answers one observation at a time, as live: the next is taken when the answer is there, at most every
`REPLAN` periods. The arm goes on meanwhile. Everything behind the policy is the `Controller` that runs live, on a
simulated clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla_rl import build
from vla_rl.execute.config import ControlConfig
from vla_rl.execute.control import Controller
from vla_rl.execute.player import JOINING
from vla_rl.types import ActionChunk, ActionSpec, Array

DELAYS = (0, 3, 6, 12)  # periods of 33 ms: 0, 100, 200 and 400 ms
REPLAN = 4  # periods between two observations that are answered, at least
SETTLED = 24  # periods after which motion is judged: the start from standstill is the same sprint for all
SEED = 1_000_000
BATCH = 12  # episodes at once
Result = dict[str, float]


def run(quick: bool = False) -> dict[str, Any]:
    """Success rate, jerk and tracking error for each joining mode and delay, on the same scenes of all six tasks.

    Returns:
        `metrics`: for every `<joining>_<delay>ms` `success_...`; `jerk_rms_...` [rad/s^3] and `tracking_rms_...` [rad]
        of the measured arm joints; `hold_fraction_...` of periods without an action to play, `clamped_fraction_...` of
        those in which a limit cut a target. And by how many points the best success at 200 ms falls short of the best
        without delay.
    """
    scenes = [(task, SEED + i) for task in build.task_names() for i in range(1 if quick else 10)]
    policy, results = _load(), dict[str, Result]()
    for joining in JOINING:
        for delay in DELAYS:
            results[f"{joining}_{round(delay * 1000 / 30)}ms"] = _measure(policy, scenes, joining, delay)
    metrics = {f"{figure}_{name}": value for name, result in results.items() for figure, value in result.items()}
    best = {d: max(results[f"{j}_{d}ms"]["success"] for j in JOINING) for d in (0, 200)}
    return {"metrics": metrics | {"episodes": len(scenes), "loss_at_200ms_points": 100 * (best[0] - best[200])}}


def _load() -> Any:
    import torch

    from vla_rl.policy.modeling_vla_rl import VLAPolicy

    torch.set_num_threads(1)
    return VLAPolicy.from_pretrained(build.check_policy("tabletop")).eval()


@dataclass(eq=False)
class _Episode:
    """One arm with its controller, what its policy is thinking about, and how it has moved."""

    env: Any
    controller: Controller
    noise: Any
    answer: tuple[int, ActionChunk] | None = None  # period in which it arrives
    asked: int = -REPLAN
    joints: list[Array] = field(default_factory=list)
    errors: list[Array] = field(default_factory=list)
    holds: int = 0
    clamped: int = 0
    success: bool = False
    done: bool = False

    def step(self, period: int) -> None:
        """One control period at a simulated time."""
        now = stamp_ns(period)
        self.controller.observe(self.env.world.joints, now, now)
        if self.answer is not None and self.answer[0] <= period:
            self.controller.chunk(self.answer[1], 0, now)
            self.answer = None
        tick = self.controller.tick(now)
        self.holds += bool(tick.hold)
        self.clamped += bool(tick.clamped)
        command = self.env.world.targets if tick.command is None else tick.command
        self.env.world.advance(command)
        _, terminated, truncated, info = self.env.judge()
        self.joints.append(self.env.world.joints[:-1])
        self.errors.append((command - self.env.world.joints)[:-1])
        self.success, self.done = bool(info["is_success"]), terminated or truncated

    def result(self) -> Result:
        """What came of it."""
        jerk = np.diff(self.joints[SETTLED:], n=3, axis=0) * self.controller.spec.rate**3
        return {
            "success": float(self.success),
            "jerk_rms": float(np.sqrt(np.mean(jerk**2))),
            "tracking_rms": float(np.sqrt(np.mean(np.square(self.errors[SETTLED:])))),
            "hold_fraction": self.holds / len(self.joints),
            "clamped_fraction": self.clamped / len(self.joints),
        }


def stamp_ns(period: int) -> int:
    """The simulated time of a period; never 0."""
    return round((period + 1) * 1e9 / 30)


def _measure(policy: Any, scenes: list[tuple[str, int]], joining: str, delay: int) -> Result:
    """Mean figures of one joining mode at one delay [periods]."""
    waiting, running, results = deque(scenes), list[_Episode](), list[Result]()
    while waiting or running:
        while waiting and len(running) < BATCH:
            running.append(_begin(*waiting.popleft(), joining, policy))
        for period in _periods(running):
            _ask(policy, [e for e in running if e.answer is None and period - e.asked >= REPLAN], period, delay)
            for episode in running:
                episode.step(period)
            for episode in [e for e in running if e.done]:
                results.append(episode.result())
                episode.env.close()
                running.remove(episode)
    return {key: float(np.mean([result[key] for result in results])) for key in results[0]}


def _periods(running: list[_Episode]) -> Any:
    period = 0
    while running:
        yield period
        period += 1


def _begin(task: str, seed: int, joining: str, policy: Any) -> _Episode:
    import torch

    from vla_rl.sim.env import TabletopEnv

    env = TabletopEnv(task, render_mode=None)
    env.reset_scene(seed)
    controller = Controller(env.spec_robot, ControlConfig(joining=joining, simulated_time=True))
    controller.activate()
    return _Episode(env, controller, torch.Generator().manual_seed(seed))


def _ask(policy: Any, episodes: list[_Episode], period: int, delay: int) -> None:
    """Show the policy what these episodes see now; it answers `delay` periods later."""
    import torch

    from vla_rl.policy.inputs import observation_batch

    if not episodes:
        return
    config = policy.config
    frames = [[_columns(episode.env)] for episode in episodes]
    noise = torch.stack([torch.randn((1, config.horizon, config.action_dim), generator=e.noise) for e in episodes])
    with torch.inference_mode():
        context = policy.encode(observation_batch(frames, [e.env.task_description for e in episodes], config))
        chunks = policy.sample(context, 1, noise=noise).double().numpy()
    spec = ActionSpec.from_dict(config.action_spec)
    for episode, chunk in zip(episodes, chunks[:, 0], strict=True):
        episode.asked = period
        episode.answer = (period + delay, ActionChunk(chunk, spec, 1.0 / config.fps, stamp_ns(period)))


def _columns(env: Any) -> dict[str, Any]:
    """What a tabletop shows, named as in a data set."""
    seen = env.observe()
    images = {f"observation.images.{camera}": image for camera, image in seen["pixels"].items()}
    return {**images, "observation.state": seen["agent_pos"]}
