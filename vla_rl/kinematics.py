"""Forward and inverse kinematics of a RobotSpec, on any MuJoCo model that has its joints.

Inverse kinematics is a few steps of the differential kind (mink): each step solves a quadratic programme for the joint
displacement that brings the gripper's frame to the target within the joints' limits.
"""

from __future__ import annotations

from dataclasses import dataclass

import mink
import mujoco
import numpy as np

from vla_rl.types import Array, RobotSpec


@dataclass(frozen=True, eq=False)
class Pose:
    """A frame in the base frame: position (3,) [m] and rotation matrix (3, 3)."""

    position: Array
    rotation: Array


@dataclass(frozen=True)
class InverseConfig:
    """How inverse kinematics trades and stops.

    Attributes:
        position_cost: weight of a metre of position error.
        orientation_cost: weight of a radian of orientation error; small, because five joints can't have both.
        damping: Levenberg-Marquardt damping, for the neighbourhood of singular poses.
        iterations: at most so many steps.
        tolerance: stop once a step moves no joint by more than this [rad].
    """

    position_cost: float = 1.0
    orientation_cost: float = 0.02
    damping: float = 1e-6
    iterations: int = 12
    tolerance: float = 2e-4


def chain_model(spec: RobotSpec, frame: str = "gripper_frame") -> mujoco.MjModel:
    """A robot's kinematic chain alone, as a MuJoCo model: hinges with their limits, a site at the tip, no shapes.

    Args:
        spec: the robot; its joints need their frames, and it needs a tip.
        frame: the name that the tip gets.

    Raises:
        ValueError: a frame is missing.
    """
    if spec.tip is None or any(joint.frame is None for joint in spec.joints):
        raise ValueError(f"robot '{spec.name}' has no kinematic chain: a joint's frame or the tip is missing")
    found = mujoco.MjSpec()
    found.compiler.degree = False
    bodies = {"": found.worldbody}
    for joint in spec.joints:
        assert joint.frame is not None
        place = {"pos": joint.frame.position, "quat": joint.frame.quaternion}
        parent = bodies.get(joint.frame.parent, found.worldbody)
        body = bodies[joint.link] = parent.add_body(name=joint.link, **place)
        body.mass, body.inertia, body.explicitinertial = 1.0, [1.0, 1.0, 1.0], True
        body.add_joint(name=joint.name, axis=joint.axis, range=[joint.low, joint.high], limited=True)
    bodies[spec.tip.parent].add_site(name=frame, pos=spec.tip.position, quat=spec.tip.quaternion)
    return found.compile()


class Kinematics:
    """Where the gripper is for given joints, and which joints bring it somewhere.

    Args:
        spec: the robot; the order of every joint vector.
        model: a MuJoCo model with a hinge for every joint of `spec`, the base frame at its origin.
        frame: name of the site that is the gripper's frame.
        config: costs and stopping of the inverse.

    Raises:
        ValueError: the model lacks a joint or the frame.
    """

    def __init__(
        self, spec: RobotSpec, model: mujoco.MjModel, frame: str = "gripper_frame", config: InverseConfig | None = None
    ) -> None:
        self.spec = spec
        self.config = config or InverseConfig()
        missing = [n for n in spec.names if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, n) < 0]
        if missing:
            raise ValueError(f"the model has no joint {', '.join(missing)}, which robot '{spec.name}' needs")
        if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, frame) < 0:
            raise ValueError(f"the model has no site '{frame}' to be the gripper's frame")
        self._model = model
        self._qpos = np.array([model.joint(n).qposadr[0] for n in spec.names])
        self._arm = np.array([not j.gripper for j in spec.joints])
        self._configuration = mink.Configuration(model)
        self._site = self._configuration.data.site(frame)
        self._task = mink.FrameTask(
            frame, "site", self.config.position_cost, self.config.orientation_cost, lm_damping=self.config.damping
        )
        self._limits = [mink.ConfigurationLimit(model)]
        others = self._other_dofs(model)
        self._frozen = [mink.DofFreezingTask(model, others)] if others else []

    def _other_dofs(self, model: mujoco.MjModel) -> list[int]:
        """Degrees of freedom that the inverse must leave alone: the gripper, and whatever else the model has."""
        arm = {int(model.joint(n).dofadr[0]) for n, is_arm in zip(self.spec.names, self._arm, strict=True) if is_arm}
        return [d for d in range(model.nv) if d not in arm]

    def _update(self, joints: Array) -> None:
        q = self._configuration.q.copy()
        q[self._qpos] = joints
        self._configuration.update(q)

    def forward(self, joints: Array) -> Pose:
        """Pose of the gripper's frame for joints (J,) [rad]."""
        self._update(joints)
        return Pose(self._site.xpos.copy(), self._site.xmat.reshape(3, 3).copy())

    def inverse(self, pose: Pose, start: Array) -> Array:
        """Joints that bring the gripper's frame to a pose, or as near as the limits allow.

        Args:
            pose: the target.
            start: joints to start from, (J,) [rad]; the solution is on the same branch. The gripper keeps its value.

        Returns:
            Joints (J,) [rad] within the limits.
        """
        self._update(np.clip(start, self.spec.low, self.spec.high))
        rotation = mink.SO3.from_matrix(pose.rotation)
        self._task.set_target(mink.SE3.from_rotation_and_translation(rotation, pose.position))
        for _ in range(self.config.iterations):
            velocity = mink.solve_ik(
                self._configuration, [self._task], 1.0, "daqp", damping=1e-9, limits=self._limits,
                constraints=self._frozen,
            )  # fmt: skip
            self._configuration.integrate_inplace(velocity, 1.0)
            if np.abs(velocity).max() < self.config.tolerance:
                break
        return np.clip(self._configuration.q[self._qpos], self.spec.low, self.spec.high)
