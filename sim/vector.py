"""Many tabletops at once: the engine's `mujoco.batch` moves them on all cores, then each judges and draws for itself.

Each environment behaves bit for bit as it would alone.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import gymnasium
import mujoco
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from mujoco.batch import Batch
from numpy.typing import NDArray

from vla_rl.sim.env import TabletopEnv

FRESH = mujoco.mjtStage.mjSTAGE_VEL.value
NOTHING = mujoco.mjtStage.mjSTAGE_NONE.value


class _Passenger(gymnasium.Wrapper[dict[str, Any], NDArray[np.float32], dict[str, Any], NDArray[np.float32]]):
    """A tabletop that somebody else moves: its step only looks at what came of it."""

    env: TabletopEnv
    fresh = True
    seen: tuple[NDArray[np.float32], NDArray[np.float32]]

    def reset(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self.fresh = True
        return self.env.reset(**kwargs)

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        state, pixels = self.seen
        return self.env.observe(state), *self.env.judge(pixels)


class TabletopVectorEnv(SyncVectorEnv):
    """`num_envs` tabletops of one task, with or without cameras.

    Args:
        num_envs: how many.
        threads: of the engine, 0 for all cores.
        autoreset_mode: when a finished episode starts anew; Gymnasium's and LeRobot's conventions differ.
        kwargs: of `TabletopEnv`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        threads: int = 0,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **kwargs: Any,
    ) -> None:
        make = partial(_make, **kwargs)
        super().__init__([make] * num_envs, autoreset_mode=autoreset_mode)
        self._passengers = cast(list[_Passenger], self.envs)
        world = self._passengers[0].env.world
        self._substeps = world.substeps
        self._batch = Batch(world.model, num_envs, threads, persistent=True)
        self._projection = self._passengers[0].env.projection(self._batch)

    def step(self, actions: NDArray[np.float32]) -> Any:
        """One control period of every tabletop towards joint targets (N, 6) in LeRobot's units.

        Raises:
            ValueError: a value that is not finite, or a wrong size; no world moved.
        """
        targets = self._passengers[0].env.targets(actions, self.num_envs)
        self._load_fresh()
        self._batch.ctrl[:] = targets
        self._batch.step(nstep=self._substeps, stage=FRESH)
        for i, passenger in enumerate(self._passengers):
            self._batch.get_data(i, passenger.env.world.data)
        self._look()
        return super().step(actions)

    def _look(self) -> None:
        """What the environments would each compute alike, for all of them at once."""
        states = self._passengers[0].env.agent_pos(self._batch.qpos)
        pixels = self._projection(np.stack([passenger.env.points for passenger in self._passengers]))
        for passenger, *seen in zip(self._passengers, states, pixels, strict=True):
            passenger.seen = (seen[0], seen[1])

    def _load_fresh(self) -> None:
        """Hand the scenes that were reset since to the engine."""
        fresh = [i for i, passenger in enumerate(self._passengers) if passenger.fresh]
        if not fresh:
            return
        self._batch.set_models([passenger.env.world.model for passenger in self._passengers])
        self._batch.reset(fresh, stage=NOTHING)
        for i in fresh:
            self._batch.state[i] = self._passengers[i].env.world.save()
            self._passengers[i].fresh = False
        self._batch.forward(fresh, stage=FRESH)


def _make(**kwargs: Any) -> _Passenger:
    return _Passenger(TabletopEnv(**kwargs))
