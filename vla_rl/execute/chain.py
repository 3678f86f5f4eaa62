"""The kinematic chain of a RobotSpec in numpy: where its tip is, for any number of joint vectors at once."""

from __future__ import annotations

import numpy as np

from vla_rl.types import Array, FrameSpec, JointSpec, RobotSpec


class Chain:
    """Position of a robot's tip from its joints.

    The rotation of a hinge with cross-product matrix K is I + sin(q) K + (1 - cos(q)) K^2 (Rodrigues). With its frame's
    rotation F before it, that is A + sin(q) B + cos(q) C with A = F (I + K^2), B = F K and C = -F K^2.

    Args:
        spec: the robot; its joints need their frames, and it needs a tip.

    Attributes:
        joints: which of the robot's move the tip, from the tip to the root.

    Raises:
        ValueError: a frame is missing, or the links don't connect the tip to a root.
    """

    def __init__(self, spec: RobotSpec) -> None:
        if spec.tip is None or any(joint.frame is None for joint in spec.joints):
            missing = ["tip"] if spec.tip is None else [f"{j.name}.frame" for j in spec.joints if j.frame is None]
            raise ValueError(f"robot '{spec.name}' has no kinematic chain: it lacks {', '.join(missing)}")
        movers = {joint.link: i for i, joint in enumerate(spec.joints)}
        self.joints: list[int] = []
        parent = spec.tip.parent
        while parent in movers and len(self.joints) < len(spec.joints):
            self.joints.append(movers[parent])
            parent = _frame(spec.joints[movers[parent]]).parent
        if not self.joints or parent in movers:
            raise ValueError(
                f"robot '{spec.name}': no joint moves the tip's link '{spec.tip.parent}', or a loop of links"
            )
        self._parts = [_hinge(spec.joints[i]) for i in self.joints]
        self._tip = np.array(spec.tip.position)

    def tip(self, joints: Array) -> Array:
        """Position of the tip in the base frame, (..., 3) [m], for joints (..., J) [rad]."""
        sines, cosines = np.sin(joints), np.cos(joints)
        point = np.broadcast_to(self._tip, (*joints.shape[:-1], 3))
        for i, (origin, parts) in zip(self.joints, self._parts, strict=True):
            turned = point @ parts
            s, c = sines[..., i, None], cosines[..., i, None]
            point = origin + turned[..., :3] + s * turned[..., 3:6] + c * turned[..., 6:]
        return point


def _frame(joint: JointSpec) -> FrameSpec:
    assert joint.frame is not None
    return joint.frame


def _hinge(joint: JointSpec) -> tuple[Array, Array]:
    """Origin (3,) of a joint, and A, B and C side by side, transposed for row vectors (3, 9)."""
    x, y, z = np.array(joint.axis) / np.linalg.norm(joint.axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    frame, square = rotation(_frame(joint).quaternion), cross @ cross
    parts = (frame @ (np.eye(3) + square), frame @ cross, -frame @ square)
    return np.array(_frame(joint).position), np.concatenate([part.T for part in parts], axis=1)


def rotation(quaternion: tuple[float, float, float, float]) -> Array:
    """Rotation matrix (3, 3) of a quaternion (w, x, y, z), normalised first."""
    w, x, y, z = np.array(quaternion) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
