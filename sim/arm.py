"""The SO-101 follower as MJCF, built from one table.

Kinematics, inertia, limits and actuators are those of the real arm (The Robot Studio; MuJoCo Menagerie's
`robotstudio_so101`, Apache-2.0). It is drawn from its collision primitives: the meshes would cost a factor of 90.
Frames: position [m] and quaternion (w, x, y, z) of a body in its parent; every hinge turns about its body's z.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco

from vla_rl.robot import arm_spec
from vla_rl.types import RobotSpec

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]

IDENTITY: Quaternion = (1.0, 0.0, 0.0, 0.0)
GRIPPER_FRAME = "gripper_frame"
GRIPPER_BODIES = ("gripper", "camera_mount", "moving_jaw")
FIXED_PADS = tuple(f"fixed_pad{i}" for i in range(4))
MOVING_PADS = tuple(f"moving_pad{i}" for i in range(2))

SHELL = (0.93, 0.92, 0.90, 1.0)
SERVO = (0.16, 0.17, 0.19, 1.0)
JAW = (0.78, 0.79, 0.82, 1.0)
PAD = (0.30, 0.31, 0.34, 1.0)


@dataclass(frozen=True)
class Box:
    """A box of a body: half sizes [m], position [m] and quaternion in the body."""

    size: Vector
    pos: Vector
    quat: Quaternion = IDENTITY
    colour: tuple[float, float, float, float] = SHELL
    solid: bool = True


@dataclass(frozen=True)
class Link:
    """A body of the chain; `joint` names the hinge about its z, None for a fixed body."""

    name: str
    parent: str | None
    pos: Vector
    quat: Quaternion
    mass: float
    com: Vector
    inertia: Vector
    inertia_quat: Quaternion
    joint: str | None
    boxes: tuple[Box, ...] = ()


LINKS: tuple[Link, ...] = (
    Link(
        "base", None, (0, 0, 0), IDENTITY, 0.147,
        (0.013718, -0.000052, 0.033484), (1.361e-4, 1.318e-4, 1.132e-4), (0.420519, 0.558763, 0.57198, 0.428704), None,
        (
            Box((0.046, 0.034, 0.012), (0.002, 0, 0.012), solid=False),
            Box((0.026, 0.026, 0.022), (0.018, 0, 0.044), colour=SERVO, solid=False),
        ),
    ),
    Link(
        "shoulder", "base", (0.0388353, 0, 0.0624), (0, 0, -1, 0), 0.100006,
        (-0.03076, -0.000017, -0.025271), (8.378e-5, 8.104e-5, 2.396e-5), (0.999865, 0.001496, 0.009708, 0.013204),
        "shoulder_pan",
        (
            Box((0.023, 0.015, 0.010), (-0.030399, 0.000422, -0.0387), (0.5, 0.5, 0.5, -0.5), SERVO),
            Box((0.038, 0.025, 0.020), (-0.025, 0, 0), (0.5, 0.5, -0.5, 0.5)),
        ),
    ),
    Link(
        "upper_arm", "shoulder", (-0.0303992, -0.0182778, -0.0542), (0.5, -0.5, -0.5, -0.5), 0.103,
        (-0.089847, -0.008382, 0.018409), (1.509e-4, 1.425e-4, 3.725e-5), (0.453195, 0.454063, 0.541891, 0.542951),
        "shoulder_lift",
        (
            Box((0.010, 0.070, 0.030), (-0.060, 0, 0.020), (0, -0.707107, 0.707107, 0)),
            Box((0.010, 0.020, 0.015), (-0.120, -0.014, 0.0182), (0, 1, 0, 0), SERVO),
        ),
    ),
    Link(
        "lower_arm", "upper_arm", (-0.11257, -0.028, 0), (0.707107, 0, 0, 0.707107), 0.104,
        (-0.09807, 0.003244, 0.018283), (1.603e-4, 1.453e-4, 2.831e-5), (0.510729, 0.517006, 0.487966, 0.483477),
        "elbow_flex",
        (
            Box((0.070, 0.010, 0.030), (-0.050, 0, 0.0182), (0, 1, 0, 0)),
            Box((0.023, 0.013, 0.018), (-0.125, 0.005, 0.018), (0, -1, 0, 0), SERVO),
        ),
    ),
    Link(
        "wrist", "lower_arm", (-0.1349, 0.0052, 0), (0.707107, 0, 0, -0.707107), 0.079,
        (-0.000103, -0.038614, 0.028116), (3.683e-5, 2.745e-5, 1.894e-5), (0.967143, 0.254226, 0.001622, -0.000146),
        "wrist_flex",
        (
            Box((0.029, 0.015, 0.018), (0, -0.0424, 0.0256), (0.5, 0.5, 0.5, -0.5), SERVO),
            Box((0.027, 0.010, 0.030), (0, -0.020, 0.0191), (0.5, -0.5, -0.5, -0.5)),
        ),
    ),
    Link(
        "gripper", "wrist", (0, -0.0611, 0.0181), (0.017209, -0.017209, 0.706897, 0.706897), 0.087,
        (0.000214, 0.000245, -0.025187), (4.337e-5, 3.772e-5, 2.428e-5), (0.600717, 0.355993, 0.35863, 0.61951),
        "wrist_roll",
        (
            Box((0.0325, 0.015, 0.015), (-0.0025, 0, -0.022), colour=SERVO),
            Box((0.010, 0.015, 0.005), (-0.024, 0, -0.040)),
            Box((0.003, 0.016, 0.034), (-0.0157, -0.0002, -0.0709), (0.998630, 0, -0.052336, 0), JAW),
        ),
    ),
    Link(
        "camera_mount", "gripper", (0, 0, 0), IDENTITY, 0.012,
        (-0.000932, 0.05016, -0.035438), (4.872e-6, 3.834e-6, 1.173e-6), (-0.370991, 0.603918, -0.598015, -0.3742),
        None,
        (Box((0.010, 0.020, 0.004), (0, 0.034, -0.028), (0.959662, -0.281157, 0, 0), SERVO, solid=False),),
    ),
    Link(
        "moving_jaw", "gripper", (0.0202, 0.0188, -0.0234), (0.707107, 0.707107, 0, 0), 0.012,
        (-0.001575, -0.030024, 0.019276), (6.636e-6, 5.291e-6, 1.865e-6), (0.695265, 0.717965, -0.024562, -0.02301),
        "gripper",
        (
            Box((0.010, 0.010, 0.015), (0, -0.013, 0.019), colour=SERVO),
            Box((0.0081, 0.0202, 0.0122), (-0.0016, -0.0423, 0.0189), (0.99945, 0, 0, -0.03316), JAW),
            Box((0.003, 0.0103, 0.0072), (-0.0073, -0.0725, 0.0189), (0.995480, 0, 0, -0.094976), JAW),
        ),
    ),
)  # fmt: skip

PADS: dict[str, tuple[Box, ...]] = {
    "gripper": (
        Box((0.001, 0.004, 0.004), (-0.009, 0, -0.0982), colour=PAD),
        Box((0.001, 0.005, 0.006), (-0.0108, 0, -0.0905), colour=PAD),
        Box((0.001, 0.009, 0.008), (-0.0125, 0, -0.0727), colour=PAD),
        Box((0.001, 0.010, 0.008), (-0.0143, 0, -0.053), colour=PAD),
    ),
    "moving_jaw": (
        Box((0.001, 0.004, 0.004), (-0.0113, -0.076, 0.01875), colour=PAD),
        Box((0.001, 0.005, 0.006), (-0.0093, -0.067, 0.01875), colour=PAD),
    ),
}

DAMPING, FRICTIONLOSS, ARMATURE = 0.60, 0.052, 0.028
KP, KV, TORQUE = 998.22, 2.731, 2.94


def _add_box(body: mujoco.MjsBody, box: Box, name: str = "") -> mujoco.MjsGeom:
    """Add one box of the arm; it weighs nothing, because the inertia comes from the table."""
    geom = body.add_geom(
        name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=box.size, pos=box.pos, quat=box.quat, rgba=box.colour, mass=0
    )
    if not box.solid:
        geom.contype = geom.conaffinity = 0
    return geom


def _add_pads(body: mujoco.MjsBody, names: tuple[str, ...]) -> None:
    """Add the rubber of a jaw: contacts that resist sliding, twisting and rolling."""
    for name, box in zip(names, PADS[body.name], strict=True):
        pad = _add_box(body, box, name)
        pad.condim, pad.friction, pad.priority = 6, [1, 0.005, 0.0005], 1
        pad.solref = [0.01, 1]


def _add_link(spec: mujoco.MjSpec, link: Link) -> None:
    parent = spec.worldbody if link.parent is None else spec.body(link.parent)
    body = parent.add_body(
        name=link.name, pos=link.pos, quat=link.quat, mass=link.mass, ipos=link.com, inertia=link.inertia,
        iquat=link.inertia_quat, explicitinertial=True,
    )  # fmt: skip
    for box in link.boxes:
        _add_box(body, box)
    if link.name in PADS:
        _add_pads(body, FIXED_PADS if link.name == "gripper" else MOVING_PADS)


def _add_servo(spec: mujoco.MjSpec, body: str, name: str, low: float, high: float) -> None:
    """The hinge `name` about the body's z, and the STS3215 that drives it."""
    spec.body(body).add_joint(
        name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, 1], range=[low, high],
        limited=mujoco.mjtLimited.mjLIMITED_TRUE, damping=[DAMPING, 0, 0], frictionloss=FRICTIONLOSS, armature=ARMATURE,
    )  # fmt: skip
    servo = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    servo.set_to_position(kp=KP, kv=KV)
    servo.ctrlrange, servo.ctrllimited = [low, high], True
    servo.forcerange, servo.forcelimited = [-TORQUE, TORQUE], True


def add_arm(spec: mujoco.MjSpec, robot: RobotSpec) -> None:
    """Add the arm with its base at the world's origin, its servos, the fingertip site and the wrist camera.

    Args:
        spec: the scene to add to.
        robot: names and limits of the joints.
    """
    for link in LINKS:
        _add_link(spec, link)
    bodies = {link.joint: link.name for link in LINKS}
    for joint in robot.joints:
        _add_servo(spec, bodies[joint.name], joint.name, joint.low, joint.high)
    spec.body("gripper").add_site(
        name=GRIPPER_FRAME, pos=[0.012, -0.000218, -0.098127], quat=[0, 0, 1, 0], size=[0.004, 0.004, 0.004], group=4
    )
    spec.body("camera_mount").add_camera(
        name="wrist", pos=[0, 0.055, -0.045], quat=[0.959662, -0.281157, 0, 0], fovy=48.5
    )


def new_spec() -> mujoco.MjSpec:
    """An empty MJCF with the physics that holds grasps: 8 substeps in a control period of 30 Hz."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = 1 / 240
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    return spec


def arm_model() -> mujoco.MjModel:
    """The arm alone: for kinematics."""
    spec = new_spec()
    add_arm(spec, arm_spec("so101"))
    return spec.compile()
