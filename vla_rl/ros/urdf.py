"""A RobotSpec as URDF: links without shapes, the joints with their limits, a frame at the tip and one a camera.

A camera whose place is known has the frame that its pictures name, `camera_<name>`.
"""

from __future__ import annotations

import math
from xml.etree import ElementTree

from vla_rl.execute.chain import rotation
from vla_rl.types import FrameSpec, JointSpec, RobotSpec

_EFFORT = 10.0  # URDF demands a number; nobody here reads it


def urdf(spec: RobotSpec) -> str:
    """The robot's kinematic chain as an XML document; joints of unknown place are left out."""
    robot = ElementTree.Element("robot", name=spec.name)
    joints = [joint for joint in spec.joints if joint.frame is not None]
    placed = [(f"{spec.name}_tip", spec.tip), *((f"camera_{camera.name}", camera.frame) for camera in spec.cameras)]
    fixed = [(name, frame) for name, frame in placed if frame is not None]
    parents = {joint.frame.parent for joint in joints if joint.frame} | {frame.parent for _, frame in fixed}
    links = parents | {joint.link for joint in joints} | {name for name, _ in fixed}
    for link in sorted(links):
        ElementTree.SubElement(robot, "link", name=link)
    for joint in joints:
        _hinge(robot, joint)
    for name, frame in fixed:
        _joint(robot, f"{name}_joint", "fixed", frame, name)
    ElementTree.indent(robot)
    return ElementTree.tostring(robot, encoding="unicode", xml_declaration=True)


def _hinge(robot: ElementTree.Element, joint: JointSpec) -> None:
    assert joint.frame is not None
    element = _joint(robot, joint.name, "revolute", joint.frame, joint.link)
    ElementTree.SubElement(element, "axis", xyz=_numbers(joint.axis))
    ElementTree.SubElement(
        element, "limit", lower=str(joint.low), upper=str(joint.high), velocity=str(joint.velocity), effort=str(_EFFORT)
    )


def _joint(robot: ElementTree.Element, name: str, kind: str, frame: FrameSpec, child: str) -> ElementTree.Element:
    element = ElementTree.SubElement(robot, "joint", name=name, type=kind)
    ElementTree.SubElement(element, "parent", link=frame.parent)
    ElementTree.SubElement(element, "child", link=child)
    ElementTree.SubElement(element, "origin", xyz=_numbers(frame.position), rpy=_numbers(_rpy(frame.quaternion)))
    return element


def _rpy(quaternion: tuple[float, float, float, float]) -> tuple[float, float, float]:
    """Roll, pitch and yaw about fixed axes [rad]: R = Rz(yaw) Ry(pitch) Rx(roll)."""
    r = rotation(quaternion)
    pitch = math.asin(max(-1.0, min(1.0, -r[2, 0])))
    if abs(r[2, 0]) > 1 - 1e-12:  # looking straight up or down: roll is free, and taken as 0
        return 0.0, pitch, math.atan2(-r[0, 1], r[1, 1])
    return math.atan2(r[2, 1], r[2, 2]), pitch, math.atan2(r[1, 0], r[0, 0])


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.9g}" for value in values)
