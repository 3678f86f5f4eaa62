"""World: a compiled scene in motion, with the questions that tasks, experts and robots ask of it.

After every call the derived quantities (positions, contacts) belong to the state, not to the substep before: a control
period is the second half of a step, whole steps, and the first half of the next one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import mujoco
import numpy as np
from numpy.typing import NDArray

from vla_rl.kinematics import Pose
from vla_rl.sim.arm import FIXED_PADS, GRIPPER_BODIES, GRIPPER_FRAME
from vla_rl.types import Array, RobotSpec

STATE = mujoco.mjtState.mjSTATE_INTEGRATION


class _Alarm:
    """Counts the engine's warnings, of all worlds; the engine's own handler would write a log into any folder."""

    count = 0

    def __call__(self, message: str) -> None:
        self.count += 1


ALARM = _Alarm()
mujoco.set_mju_user_warning(ALARM)


class World:
    """A scene with the arm in it.

    Args:
        model: the compiled scene; it is changed in place by `repaint`.
        robot: names, order and rate of the joints.

    Attributes:
        model, data: the engine's own; `nominal` is the model as it was compiled.
        substeps: engine steps in a control period.
        dt: control period [s].
        arm: where the arm's joints are in the engine's positions.
    """

    def __init__(self, model: mujoco.MjModel, robot: RobotSpec) -> None:
        self.model, self.robot = model, robot
        self.nominal = copy.copy(model)
        self.data = mujoco.MjData(model)
        self.dt = 1.0 / robot.rate
        self.substeps = round(self.dt / model.opt.timestep)
        self._quiet_until = ALARM.count
        self.arm = _span([model.joint(n).qposadr[0] for n in robot.names])
        self._qvel = _span([model.joint(n).dofadr[0] for n in robot.names])
        site = model.site(GRIPPER_FRAME).id
        self._tip, self._tip_rotation = self.data.site_xpos[site], self.data.site_xmat[site].reshape(3, 3)
        bodies = {model.body(n).id for n in GRIPPER_BODIES}
        self._hand = np.isin(model.geom_bodyid, list(bodies))
        fixed = np.isin(np.arange(model.ngeom), [model.geom(n).id for n in FIXED_PADS])
        self._jaws = (fixed, model.geom_bodyid == model.body("moving_jaw").id)
        self._ids: dict[str, int] = {model.body(i).name: i for i in range(model.nbody)}

    @property
    def joints(self) -> Array:
        """Measured joints, (J,) [rad]."""
        return self.data.qpos[self.arm].copy()

    @property
    def velocities(self) -> Array:
        """Measured joint velocities, (J,) [rad/s]."""
        return self.data.qvel[self._qvel].copy()

    @property
    def targets(self) -> Array:
        """The last command, (J,) [rad]."""
        return self.data.ctrl.copy()

    @property
    def gripper(self) -> Pose:
        """Fingertip frame: z along the fingers, x from the moving finger to the fixed one."""
        return Pose(self._tip.copy(), self._tip_rotation.copy())

    def body_id(self, body: str) -> int:
        """Index of a body.

        Raises:
            KeyError: no such body; the message lists those that exist.
        """
        if body not in self._ids:
            raise KeyError(f"no body '{body}' in the scene; there are: {', '.join(self._ids)}")
        return self._ids[body]

    def position(self, body: str) -> Array:
        """Origin of a body, (3,) [m], base frame."""
        return self.data.xpos[self._ids[body]].copy()

    def rotation(self, body: str) -> Array:
        """Rotation matrix of a body, (3, 3)."""
        return self.data.xmat[self._ids[body]].reshape(3, 3).copy()

    def yaw(self, body: str) -> float:
        """Heading of a body's most horizontal axis pair about the vertical [rad]."""
        rotation = self.data.xmat[self._ids[body]].reshape(3, 3)
        axis = rotation[:, int(np.argmin(np.abs(rotation[2])))]
        return math.atan2(axis[1], axis[0])

    def speed(self, body: str) -> float:
        """Speed of a body's centre of mass [m/s]."""
        return float(np.linalg.norm(self.data.cvel[self._ids[body], 3:]))

    def joint(self, name: str) -> float:
        """Position of a scalar joint ([m] or [rad])."""
        return float(self.data.joint(name).qpos[0])

    def set_joint(self, name: str, value: float) -> None:
        """Put a scalar joint somewhere, at rest; `settle` makes it felt."""
        self.data.joint(name).qpos[0] = value
        self.data.joint(name).qvel[0] = 0.0

    def place(self, body: str, position: tuple[float, float, float] | Array, yaw: float = 0.0) -> None:
        """Put a free body or a mocap fixture somewhere, upright, at rest; `settle` makes it felt.

        Raises:
            ValueError: the body is neither free nor a mocap body.
        """
        index = self.body_id(body)
        quat = [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]
        mocap, joint = self.model.body_mocapid[index], self.model.body_jntadr[index]
        if mocap >= 0:
            self.data.mocap_pos[mocap], self.data.mocap_quat[mocap] = position, quat
        elif joint >= 0 and self.model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
            start, dof = self.model.jnt_qposadr[joint], self.model.jnt_dofadr[joint]
            self.data.qpos[start : start + 7] = [*position, *quat]
            self.data.qvel[dof : dof + 6] = 0.0
        else:
            raise ValueError(f"body '{body}' is neither free nor a mocap body: it cannot be placed")

    def place_arm(self, joints: Array) -> None:
        """Put the arm at joints (J,) [rad], or their limits, at rest, its servos holding it there."""
        joints = np.clip(joints, self.robot.low, self.robot.high)
        self.data.qpos[self.arm] = joints
        self.data.qvel[self._qvel] = 0.0
        self.data.ctrl[:] = joints

    def clear(self) -> None:
        """Put everything where the model has it, at rest, at time zero."""
        mujoco.mj_resetData(self.model, self.data)

    def repaint(self, fields: Mapping[str, Array]) -> None:
        """Write model fields (colours, light, cameras, masses ...) and what derives from them; resets the data."""
        for name, values in fields.items():
            getattr(self.model, name)[:] = values
        mujoco.mj_setConst(self.model, self.data)
        self.clear()

    def settle(self) -> None:
        """Bring the derived quantities in line with the state."""
        mujoco.mj_step1(self.model, self.data)

    def advance(self, targets: Array, substeps: int = 0) -> None:
        """Some engine steps towards joint targets (J,) [rad]; 0 for a whole control period.

        A period in slices ends, bit for bit, in the same state as in one piece.
        """
        self.data.ctrl[:] = targets
        mujoco.mj_step2(self.model, self.data)
        mujoco.mj_step(self.model, self.data, (substeps or self.substeps) - 1)
        mujoco.mj_step1(self.model, self.data)

    def warning(self) -> str:
        """Name of the first engine warning since the reset (lost contacts, unstable accelerations), or ""."""
        if ALARM.count == self._quiet_until:  # nobody was warned: spares a look at every step
            return ""
        counts = self.data.warning.number
        if not counts.any():
            self._quiet_until = ALARM.count
        return mujoco.mjtWarning(int(np.flatnonzero(counts)[0])).name if counts.any() else ""

    def save(self) -> Array:
        """The engine's whole state as one vector."""
        state = np.empty(mujoco.mj_stateSize(self.model, STATE))
        mujoco.mj_getState(self.model, self.data, state, STATE)
        return state

    def load(self, state: Array) -> None:
        """Inverse of `save`, bit for bit."""
        mujoco.mj_setState(self.model, self.data, state, STATE)
        self.settle()

    def contacts(self) -> NDArray[np.int32]:
        """Pairs of geoms in contact, (N, 2) indices."""
        return self.data.contact.geom

    def touches(self, body: str) -> bool:
        """Whether any part of the gripper touches a body."""
        pairs, of_body = self.contacts(), self.model.geom_bodyid == self._ids[body]
        return bool((self._hand[pairs] & of_body[pairs[:, ::-1]]).any())

    def holds(self, body: str) -> bool:
        """Whether both jaws touch a body."""
        pairs, of_body = self.contacts(), self.model.geom_bodyid == self._ids[body]
        other = of_body[pairs[:, ::-1]]
        return all((jaw[pairs] & other).any() for jaw in self._jaws)


def _span(addresses: list[int]) -> slice:
    """Addresses in a row as a slice: the arm is built in the order of its joints."""
    return slice(int(addresses[0]), int(addresses[-1]) + 1)
