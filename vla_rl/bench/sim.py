"""How many control steps a second the simulation does, and how little of that is ours rather than the engine's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

ROUNDS = 10
ENVS = 32


def _demonstration(env: Any) -> tuple[Any, Any]:
    """Actions (T, 6) of the expert from the scene of seed 0 up to its success, and that scene's state."""
    env.reset(seed=0)
    start, expert, actions, done = env.save_state(), env.expert(), [], False
    while not done:
        actions.append(expert.act())
        _, _, terminated, truncated, _ = env.step(actions[-1])
        done = terminated or truncated
    return np.array(actions[:-1]), start


def _best(begin: Callable[[], Any], step: Callable[[Any], Any], actions: Any, rounds: int) -> float:
    """Actions a second in the best of some rounds: what else the machine does can only slow a round down."""
    rates = []
    for _ in range(rounds):
        begin()
        start = time.perf_counter()
        for action in actions:
            step(action)
        rates.append(len(actions) / (time.perf_counter() - start))
    return max(rates)


def _bare_step(env: Any) -> Callable[[Any], None]:
    """The same physics without us: a loop over the engine's step."""
    import mujoco

    model, data, substeps = env.world.model, env.world.data, env.world.substeps

    def step(target: Any) -> None:
        data.ctrl[:] = target
        for _ in range(substeps):
            mujoco.mj_step(model, data)

    return step


def run(quick: bool = False) -> dict[str, Any]:
    """Steps a second with states, with two cameras, against a bare engine loop, and of `mujoco.batch` against one."""
    from vla_rl.sim.env import TabletopEnv
    from vla_rl.sim.vector import TabletopVectorEnv

    rounds = 3 if quick else ROUNDS
    states, seeing, vector = TabletopEnv(cameras=()), TabletopEnv(), TabletopVectorEnv(ENVS, cameras=())
    try:
        actions, start = _demonstration(states)
        targets, tiled = [states.targets(a) for a in actions], [np.tile(a, (ENVS, 1)) for a in actions]
        bare = _best(lambda: states.restore_state(start), _bare_step(states), targets, rounds)
        alone = _best(lambda: states.reset(seed=0), states.step, actions, rounds)
        batch = ENVS * _best(lambda: vector.reset(seed=[0] * ENVS), vector.step, tiled, rounds)
        metrics = {
            "steps_per_s_state": alone,
            "steps_per_s_two_cams_96": _best(lambda: seeing.reset(seed=0), seeing.step, actions, rounds),
            "steps_per_s_batch": batch,
            "physics_efficiency": alone / bare,
            "batch_speedup": batch / alone,
        }
    finally:
        for env in (states, seeing, vector):
            env.close()
    return {"metrics": metrics, "against": {"bare mj_step loop": {"steps_per_s_state": bare}}}
