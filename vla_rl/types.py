"""The nouns that every room shares: plain data with shapes, units and clocks; numpy and the standard library only.

Inside the product joints are in radians and seconds are SI. LeRobot's units (degrees, gripper 0..100) exist only at the
LeRobot border; `RobotSpec.to_lerobot` and `RobotSpec.from_lerobot` are the one mapping, used in both directions.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Image = NDArray[np.uint8]


class Source(enum.IntEnum):
    """Who acted in a step."""

    POLICY = 0
    HUMAN = 1
    EXPERT = 2
    RAMP = 3
    HOLD = 4


class Mode(enum.StrEnum):
    """Who may act: the state of the arbiter."""

    AUTONOMOUS = "AUTONOMOUS"
    PAUSED = "PAUSED"
    CORRECTING = "CORRECTING"
    STOPPED = "STOPPED"


class Outcome(enum.StrEnum):
    """What an episode came to; never guessed: an unmarked episode is `UNKNOWN`."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


class Termination(enum.StrEnum):
    """Why an episode ended, which says nothing about its outcome. `TIME_LIMIT` is a truncation, never a terminal."""

    SUCCESS = "success"
    FAILURE = "failure"
    TIME_LIMIT = "time_limit"
    OPERATOR = "operator"
    FAULT = "fault"


class ActionKind(enum.StrEnum):
    """How an action vector is to be read. `RAW` is for Gymnasium environments only and never reaches a robot."""

    JOINT_ABSOLUTE = "joint_absolute"
    JOINT_RELATIVE = "joint_relative"
    EE_ABSOLUTE = "ee_absolute"
    EE_RELATIVE = "ee_relative"
    RAW = "raw"


@dataclass(frozen=True)
class ActionSpec:
    """What the numbers of an action mean: travels with policy and data set.

    Attributes:
        kind: how the vector is read.
        names: one name a dimension, (A,).
        units: one unit a dimension, (A,): "rad", "deg", "percent", "m" or "1".
        low: lower bounds in `units`, (A,); -inf where there is none.
        high: upper bounds in `units`, (A,); inf where there is none.
    """

    kind: ActionKind
    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise ValueError where the five fields do not describe the same number of dimensions."""
        sizes = {len(self.names), len(self.units), len(self.low), len(self.high)}
        if len(sizes) != 1:
            raise ValueError(f"ActionSpec: names, units, low and high differ in length: {sorted(sizes)}")

    @property
    def dim(self) -> int:
        """Number of action dimensions A."""
        return len(self.names)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; infinities become None."""
        bounds = {k: [v if math.isfinite(v) else None for v in getattr(self, k)] for k in ("low", "high")}
        return {"kind": str(self.kind), "names": list(self.names), "units": list(self.units), **bounds}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ActionSpec:
        """Inverse of `to_dict`."""
        return cls(
            ActionKind(data["kind"]),
            tuple(data["names"]),
            tuple(data["units"]),
            tuple(-math.inf if v is None else float(v) for v in data["low"]),
            tuple(math.inf if v is None else float(v) for v in data["high"]),
        )


@dataclass(frozen=True, eq=False)
class Observation:
    """What the robot knew at one instant.

    Attributes:
        joints: measured positions, (J,) [rad], in the order of RobotSpec.
        images: camera name to (H, W, 3) uint8 RGB.
        instruction: what to do, in words.
        stamp_ns: capture time of the newest stream, robot clock [ns].
        ages: stream name to the age of its sample at `stamp_ns` [s].
    """

    joints: Array
    images: Mapping[str, Image]
    instruction: str
    stamp_ns: int
    ages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ActionChunk:
    """Actions to execute from one observation on.

    ::

        stamp_ns        +dt      +2 dt            +H dt
           |-------------|---------|----- ... ------|
           o           a[0] due  a[1]             a[H-1]

    Attributes:
        actions: (H, A) in the units of `spec`.
        spec: what the A numbers mean.
        dt: time between two actions [s].
        stamp_ns: stamp of the observation that the chunk answers, robot clock [ns].
    """

    actions: Array
    spec: ActionSpec
    dt: float
    stamp_ns: int


@dataclass(frozen=True, eq=False)
class Candidates:
    """K chunks decoded from ONE encoding of one observation.

    Attributes:
        chunks: (K, H, A) in the units of `spec`.
        spec: what the A numbers mean.
        dt: time between two actions [s].
        stamp_ns: stamp of the observation, robot clock [ns].
        context: features they were decoded from, (D,), or None where the policy exposes none.
        seed: seed of the generator that drew them, so that they can be drawn again.
        observation: what they answer, as far as it travels with them (over topics without its images), for a critic
            that reads the state or has eyes of its own; None where it does not.
    """

    chunks: Array
    spec: ActionSpec
    dt: float
    stamp_ns: int
    context: NDArray[np.float32] | None = None
    seed: int = 0
    observation: Observation | None = None

    def chunk(self, index: int) -> ActionChunk:
        """The candidate at `index` as a chunk of its own."""
        return ActionChunk(self.chunks[index], self.spec, self.dt, self.stamp_ns)


@dataclass(frozen=True, eq=False)
class Step:
    """One control period as it happened: what was seen, proposed, executed, by whom, and what came of it.

    Attributes:
        observation: what was seen before acting.
        proposed: the policy's action for this step, (A,), or None where no policy ran.
        executed: what was sent after every limit, (A,).
        source: who acted.
        mode: state of the arbiter.
        chunk_stamp_ns: stamp of the chunk in use, -1 where none.
        chunk_index: position of the action within its chunk, -1 where none.
        chunk_age: age of the chunk's observation at this step [s].
        candidate: index of the selected candidate, -1 where none.
        values: what the critic said of the K candidates, (K,), empty where there is no critic.
        clamped: whether a limit changed the action.
        reward: reward of this step.
        terminated: a terminal state was reached (success or failure), never a time limit.
        truncated: the episode was cut short, by a time limit for one.
        success: the task's predicate after this step.
        labels: privileged simulation state for auxiliary training targets; never an input at inference.
    """

    observation: Observation
    proposed: Array | None
    executed: Array
    source: Source
    mode: Mode = Mode.AUTONOMOUS
    chunk_stamp_ns: int = -1
    chunk_index: int = -1
    chunk_age: float = 0.0
    candidate: int = -1
    values: Array = field(default_factory=lambda: np.zeros(0))
    clamped: bool = False
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    success: bool = False
    labels: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Episode:
    """Steps in order, what was asked, what it came to and, apart from that, why it ended."""

    steps: Sequence[Step]
    instruction: str
    outcome: Outcome
    termination: Termination
    fps: float
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FrameSpec:
    """A frame fixed in a link.

    Attributes:
        parent: name of the link.
        position: of the frame's origin in the link, (x, y, z) [m].
        quaternion: of the frame in the link, (w, x, y, z); normalised where it is used.
    """

    parent: str
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quaternion: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FrameSpec:
        """Inverse of `dataclasses.asdict`; lists (from YAML or JSON) become tuples."""
        x, y, z = data.get("position", (0.0, 0.0, 0.0))
        w, i, j, k = data.get("quaternion", (1.0, 0.0, 0.0, 0.0))
        return cls(data["parent"], (float(x), float(y), float(z)), (float(w), float(i), float(j), float(k)))


@dataclass(frozen=True)
class JointSpec:
    """One hinge: limits in SI units, its place in LeRobot's convention and in the kinematic chain.

    Attributes:
        name: joint name, with the arm's prefix where there are several arms.
        low, high: position limits [rad].
        velocity, acceleration, jerk: magnitudes [rad/s], [rad/s^2], [rad/s^3].
        lerobot_name: LeRobot's key, `shoulder_pan.pos` for one.
        lerobot_unit: "degrees", or "percent" for a gripper that runs 0..100 over `low`..`high`.
        offset: our zero minus LeRobot's zero on this very arm [rad] (so a calibration fits the model).
        gripper: whether this joint opens and closes the gripper.
        link: name of the link that the joint moves.
        frame: where the joint sits in its parent link, None where the chain is not known.
        axis: of rotation, in the joint's frame.
    """

    name: str
    low: float
    high: float
    velocity: float
    acceleration: float
    jerk: float
    lerobot_name: str
    lerobot_unit: str
    offset: float = 0.0
    gripper: bool = False
    link: str = ""
    frame: FrameSpec | None = None
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JointSpec:
        """Inverse of `dataclasses.asdict`; specs from before the chain have no `link`, `frame` and `axis`."""
        frame, axis = data.get("frame"), tuple(float(v) for v in data.get("axis", (0, 0, 1)))
        return cls(**{**data, "frame": frame and FrameSpec.from_dict(frame), "axis": axis})


@dataclass(frozen=True)
class CameraSpec:
    """One camera: name, size in pixels and vertical field of view [deg] (0 where unknown).

    `frame` is its optical frame (x right, y down, z ahead) in the base or in a link, None where nobody measured it.
    """

    name: str
    width: int
    height: int
    fovy: float = 0.0
    frame: FrameSpec | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CameraSpec:
        """Inverse of `dataclasses.asdict`; specs from before the pose have no `frame`."""
        frame = data.get("frame")
        return cls(**{**data, "frame": frame and FrameSpec.from_dict(frame)})


@dataclass(frozen=True)
class RobotSpec:
    """One or several arms as one vector of joints.

    Attributes:
        name: which robot.
        joints: in the order of every joint vector, grippers included.
        cameras: the cameras it carries.
        rate: control rate [Hz].
        workspace: lower and upper corner of the gripper's box, base frame, ((x, y, z), (x, y, z)) [m].
        tip: the gripper's frame (z along the fingers), which `workspace` bounds; None where the chain is not known.
    """

    name: str
    joints: tuple[JointSpec, ...]
    cameras: tuple[CameraSpec, ...]
    rate: float
    workspace: tuple[tuple[float, float, float], tuple[float, float, float]]
    tip: FrameSpec | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Joint names, (J,)."""
        return tuple(j.name for j in self.joints)

    @property
    def low(self) -> Array:
        """Lower position limits, (J,) [rad]."""
        return np.array([j.low for j in self.joints])

    @property
    def high(self) -> Array:
        """Upper position limits, (J,) [rad]."""
        return np.array([j.high for j in self.joints])

    @property
    def action_spec(self) -> ActionSpec:
        """Absolute joint targets in radians: what `Robot.command` takes."""
        n = len(self.joints)
        return ActionSpec(
            ActionKind.JOINT_ABSOLUTE, self.names, ("rad",) * n, tuple(self.low.tolist()), tuple(self.high.tolist())
        )

    @property
    def lerobot_action_spec(self) -> ActionSpec:
        """Absolute joint targets in LeRobot's names and units: what our data sets and Gymnasium environments carry."""
        units = {"degrees": "deg", "percent": "percent"}
        return ActionSpec(
            ActionKind.JOINT_ABSOLUTE,
            tuple(j.lerobot_name for j in self.joints),
            tuple(units[j.lerobot_unit] for j in self.joints),
            tuple(self.to_lerobot(self.low).tolist()),
            tuple(self.to_lerobot(self.high).tolist()),
        )

    @cached_property
    def _affine(self) -> tuple[Array, Array]:
        """Scale and shift, (J,) each, with lerobot = scale * rad + shift."""
        scale = [100.0 / (j.high - j.low) if j.lerobot_unit == "percent" else math.degrees(1.0) for j in self.joints]
        shift = [
            -j.low * s if j.lerobot_unit == "percent" else -j.offset * s
            for j, s in zip(self.joints, scale, strict=True)
        ]
        return np.array(scale), np.array(shift)

    def to_lerobot(self, joints: Array) -> Array:
        """Radians (..., J) to LeRobot's units (..., J): degrees, gripper 0..100."""
        scale, shift = self._affine
        return np.asarray(joints, dtype=np.float64) * scale + shift

    def from_lerobot(self, values: Array) -> Array:
        """LeRobot's units (..., J) to radians (..., J)."""
        scale, shift = self._affine
        return (np.asarray(values, dtype=np.float64) - shift) / scale

    def to_dict(self) -> dict[str, Any]:
        """JSON- and YAML-ready form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RobotSpec:
        """Inverse of `to_dict`.

        Raises:
            KeyError, TypeError: a field is missing or unknown, by name.
        """
        low, high = data["workspace"]
        return cls(
            name=data["name"],
            joints=tuple(JointSpec.from_dict(j) for j in data["joints"]),
            cameras=tuple(CameraSpec.from_dict(c) for c in data["cameras"]),
            rate=float(data["rate"]),
            workspace=((low[0], low[1], low[2]), (high[0], high[1], high[2])),
            tip=data.get("tip") and FrameSpec.from_dict(data["tip"]),
        )
