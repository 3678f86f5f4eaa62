"""How many control steps a second the simulation does, and how little of that is ours rather than the engine's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

ROUNDS = 5
ENVS = 16


def _demonstration(env: Any) -> tuple[Any, Any]:
    """Actions (T, 6) of the expert from the scene of seed 0, and that scene's state."""
    env.reset(seed=0)
    start, expert, actions, done = env.save_state(), env.expert(), [], False
    while not done:
        actions.append(expert.act())
        _, _, terminated, truncated, _ = env.step(actions[-1])
        done = terminated or truncated
    return np.array(actions), start


def _best(work: Callable[[], int], rounds: int) -> float:
    """The best of some rounds, in steps a second: what else the machine does can only slow a round down."""
    rates = []
    for _ in range(rounds):
        start = time.perf_counter()
        rates.append(work() / (time.perf_counter() - start))
    return max(rates)


def _env_steps(env: Any, actions: Any) -> int:
    env.reset(seed=0)
    for action in actions:
        env.step(action)
    return len(actions)


def _bare_steps(env: Any, actions: Any, start: Any) -> int:
    """The same physics without us: a loop over the engine's step."""
    import mujoco

    env.restore_state(start)
    model, data, targets = env.world.model, env.world.data, [env.targets(a) for a in actions]
    for target in targets:
        data.ctrl[:] = target
        for _ in range(env.world.substeps):
            mujoco.mj_step(model, data)
    return len(actions)


def _vector_steps(env: Any, actions: Any) -> int:
    env.reset(seed=[0] * ENVS)
    for action in actions:
        env.step(np.tile(action, (ENVS, 1)))
    return ENVS * len(actions)


def run(quick: bool = False) -> dict[str, Any]:
    """Steps a second with states, with two cameras, against a bare engine loop, and of `mujoco.batch` against one."""
    from vla_rl.sim.env import TabletopEnv
    from vla_rl.sim.vector import TabletopVectorEnv

    rounds = 2 if quick else ROUNDS
    states, seeing, vector = TabletopEnv(cameras=()), TabletopEnv(), TabletopVectorEnv(ENVS, cameras=())
    try:
        actions, start = _demonstration(states)
        actions = actions[:-1]
        bare = _best(lambda: _bare_steps(states, actions, start), 2 * rounds)
        alone = _best(lambda: _env_steps(states, actions), 2 * rounds)
        metrics = {
            "steps_per_s_state": alone,
            "steps_per_s_two_cams_96": _best(lambda: _env_steps(seeing, actions), rounds),
            "physics_efficiency": alone / bare,
            "steps_per_s_batch": (batch := _best(lambda: _vector_steps(vector, actions), rounds)),
            "batch_speedup": batch / alone,
        }
    finally:
        for env in (states, seeing, vector):
            env.close()
    return {"metrics": metrics, "against": {"bare mj_step loop": {"steps_per_s_state": bare}}}
