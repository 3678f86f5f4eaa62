"""ServoReplay: the arm alone, its servos given setpoints: what would it have done with other gains?"""

from __future__ import annotations

import copy
from typing import ClassVar

import mujoco
import numpy as np
from mujoco import rollout

from vla_rl.robot import arm_spec
from vla_rl.sim.arm import arm_model
from vla_rl.types import Array, RobotSpec

_STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS


class ServoReplay:
    """The simulated arm without a table, in many variants at once.

    Attributes:
        spec: the joints, (J,).
        step_s: length of an engine step [s].
        ARMS: those that there is a model of, with their `middle` and `reach`.
        middle, reach: a swing in the air, through where gravity pulls at most and where at least, (J,) [rad].
    """

    ARMS: ClassVar = {"so101": ((0.0, -0.5, -0.3, -0.1, 0.0, 0.5), (0.8, 0.5, 0.6, 0.6, 0.8, 0.3))}

    def __init__(self, arm: str = "so101") -> None:
        if arm not in self.ARMS:
            raise ValueError(f"there is no dynamic model of arm '{arm}'; there are: {', '.join(self.ARMS)}")
        self.middle, self.reach = map(np.array, self.ARMS[arm])
        self.spec: RobotSpec = arm_spec(arm)
        self._model = arm_model()
        self._data = mujoco.MjData(self._model)
        self.step_s = float(self._model.opt.timestep)

    def __call__(self, setpoints: Array, gains: Array, start: Array) -> Array:
        """Joints after every step.

        Args:
            setpoints: where the servos pull in each step, (P, T, J) [rad], in P variants.
            gains: multiples of their stiffness and damping, (P, J).
            start: joints at the beginning, at rest, (J,) [rad].

        Returns:
            (P, T, J) [rad].
        """
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = np.clip(start, self.spec.low, self.spec.high)
        state = np.empty(mujoco.mj_stateSize(self._model, _STATE))
        mujoco.mj_getState(self._model, self._data, state, _STATE)
        models = [self._variant(gain) for gain in gains]
        initial = np.tile(state, (len(models), 1))
        states, _ = rollout.rollout(models, self._data, initial, np.ascontiguousarray(setpoints))
        return np.asarray(states[:, :, 1 : 1 + len(start)])  # a state is the time, the positions, the velocities

    def _variant(self, gain: Array) -> mujoco.MjModel:
        model = copy.copy(self._model)
        model.actuator_gainprm[:, 0] *= gain
        model.actuator_biasprm[:, 1:3] *= gain[:, None]
        return model
