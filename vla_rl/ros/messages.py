"""Types to messages and back. What comes in is checked by name, size and finiteness; ValueError says what was wrong."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, JointState
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_rl.execute.arbiter import Edge
from vla_rl.execute.control import Tick
from vla_rl.observe.encoded import Encoded
from vla_rl.types import ActionChunk, ActionSpec, Array, CameraSpec, Candidates, Image, Mode

SECOND = 1_000_000_000
MAX_POINTS = 1 << 16  # 256 candidates of 256 actions
MODES = tuple(Mode)
JPEG_QUALITY = 90


def time(stamp_ns: int) -> Time:
    """Nanoseconds as a stamp."""
    seconds, nanoseconds = divmod(int(stamp_ns), SECOND)
    return Time(sec=seconds, nanosec=nanoseconds)


def stamp_ns(stamp: Time | Duration) -> int:
    """A stamp or a duration as nanoseconds."""
    return int(stamp.sec) * SECOND + int(stamp.nanosec)


def header(stamp: int, frame_id: str = "") -> Header:
    """A header of a stamp [ns]."""
    return Header(stamp=time(stamp), frame_id=frame_id)


def joint_state(
    names: Sequence[str], positions: Array, stamp: int, velocities: Array | None = None, frame_id: str = ""
) -> JointState:
    """Joints (J,) [rad] and, where known, their velocities (J,) [rad/s]."""
    message = JointState(header=header(stamp, frame_id), name=list(names), position=_doubles(positions))
    if velocities is not None:
        message.velocity = _doubles(velocities)
    return message


def joints_of(message: JointState, names: Sequence[str]) -> Array:
    """Positions (J,) [rad] in the order of `names`, whatever the order of the message.

    Raises:
        ValueError: a joint is missing, named twice or unknown, or a value is not finite.
    """
    given = message.name
    if len(given) != len(names) or len(message.position) != len(names):
        raise ValueError(
            f"{len(given)} names and {len(message.position)} positions where the robot has {len(names)} joints"
        )
    if tuple(given) == tuple(names):
        values = np.array(message.position)
    elif set(given) == set(names):
        index = {name: i for i, name in enumerate(given)}
        values = np.array(message.position)[[index[name] for name in names]]
    else:
        raise ValueError(f"joints {_some(given)} where the robot has {', '.join(names)}")
    if not np.isfinite(values).all():
        raise ValueError("a joint value is not finite")
    return values


def image(picture: Image, stamp: int, frame_id: str) -> ImageMessage:
    """An (H, W, 3) uint8 RGB picture, raw."""
    height, width = picture.shape[:2]
    data = array("B")  # bytes or an array are copied, a list would be walked
    data.frombytes(memoryview(np.ascontiguousarray(picture)).cast("B"))
    return ImageMessage(
        header=header(stamp, frame_id), height=height, width=width, encoding="rgb8", step=width * 3, data=data
    )


def image_of(message: ImageMessage) -> Image:
    """An (H, W, 3) uint8 RGB view of a raw image, rgb8 or bgr8.

    Raises:
        ValueError: another encoding, or sizes that contradict each other.
    """
    height, width, step = message.height, message.width, message.step
    if message.encoding not in ("rgb8", "bgr8"):
        raise ValueError(f"image encoding '{message.encoding[:20]}'; there are: rgb8, bgr8")
    if not height or not width or step < width * 3 or len(message.data) != height * step:
        raise ValueError(f"an image of {height} x {width} with step {step} has {len(message.data)} bytes")
    rows = np.frombuffer(message.data, np.uint8).reshape(height, step)
    picture = rows[:, : width * 3].reshape(height, width, 3)
    return picture if message.encoding == "rgb8" else picture[..., ::-1]


def compressed(picture: Image, stamp: int, frame_id: str, quality: int = JPEG_QUALITY) -> CompressedImage:
    """An (H, W, 3) uint8 RGB picture as JPEG."""
    import cv2

    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"cannot encode a picture of shape {picture.shape}")
    return CompressedImage(header=header(stamp, frame_id), format="rgb8; jpeg compressed bgr8", data=data.tobytes())


def compressed_of(message: CompressedImage, size: tuple[int, int] | None = None) -> Image:
    """The (H, W, 3) uint8 RGB picture of a JPEG or PNG.

    Args:
        message: the picture.
        size: height and width that were promised; another size is refused before it is decoded.

    Raises:
        ValueError: not a picture, or of another size.
    """
    encoded = Encoded(message.data)
    if size is not None and encoded.size != size:
        raise ValueError(f"a compressed image of {encoded.size} where {size} was promised (height, width)")
    return encoded.decode()


def camera_info(camera: CameraSpec, stamp: int, frame_id: str) -> CameraInfo:
    """A pinhole of the camera's vertical field of view, centred, without distortion; K is zero where it is unknown."""
    message = CameraInfo(header=header(stamp, frame_id), height=camera.height, width=camera.width)
    if camera.fovy > 0:
        focal = camera.height / 2 / math.tan(math.radians(camera.fovy) / 2)
        cx, cy = (camera.width - 1) / 2, (camera.height - 1) / 2
        message.distortion_model = "plumb_bob"
        message.d = [0.0] * 5
        message.k = [focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0]
        message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        message.p = [focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message


def candidates(found: Candidates) -> JointTrajectory:
    """K chunks back to back; a new candidate starts where `time_from_start` falls back."""
    count, horizon, width = found.chunks.shape
    message = JointTrajectory(header=header(found.stamp_ns), joint_names=list(found.spec.names))
    due = [_duration((i + 1) * found.dt) for i in range(horizon)] * count
    rows = np.ascontiguousarray(found.chunks, np.float64).reshape(count * horizon, width)
    message.points = [
        JointTrajectoryPoint(positions=_doubles(row), time_from_start=t) for row, t in zip(rows, due, strict=True)
    ]
    return message


def candidates_of(message: JointTrajectory, spec: ActionSpec) -> Candidates:
    """The K chunks of a message as absolute joint targets [rad].

    Args:
        message: chunks back to back, each with the same evenly spaced times.
        spec: names and order of the joints.

    Raises:
        ValueError: other joints, no points or too many, chunks of different length, uneven times. Values that are
            not finite pass: who chooses excludes that candidate, who executes rejects that chunk.
    """
    order = _order(message.joint_names, spec.names)
    if not 0 < len(message.points) <= MAX_POINTS:
        raise ValueError(f"{len(message.points)} points; 1 to {MAX_POINTS} make chunks")
    if any(len(point.positions) != len(order) for point in message.points):
        raise ValueError(f"a point without exactly {len(order)} positions")
    due = np.array([stamp_ns(point.time_from_start) for point in message.points])
    horizon = int(np.argmax(due[1:] <= due[:-1])) + 1 if (due[1:] <= due[:-1]).any() else len(due)
    if len(due) % horizon or (due.reshape(-1, horizon) != due[:horizon]).any():
        raise ValueError("candidates of different length or time")
    dt = due[0] / SECOND
    if dt <= 0 or np.abs(due[:horizon] - np.arange(1, horizon + 1) * due[0]).max() > horizon * 1000:
        raise ValueError("time_from_start is not evenly spaced from the first action on")
    rows = np.array([point.positions for point in message.points])[:, order]
    chunks = rows.reshape(-1, horizon, len(order))
    return Candidates(chunks, spec, float(dt), stamp_ns(message.header.stamp))


def chunk(chosen: ActionChunk, frame_id: str = "") -> JointTrajectory:
    """One chunk; `frame_id` says which candidate it was."""
    message = candidates(Candidates(chosen.actions[None], chosen.spec, chosen.dt, chosen.stamp_ns))
    message.header.frame_id = frame_id
    return message


def chunk_of(message: JointTrajectory, spec: ActionSpec) -> ActionChunk:
    """Inverse of `chunk`.

    Raises:
        ValueError: as `candidates_of`, or more than one chunk.
    """
    found = candidates_of(message, spec)
    if len(found.chunks) != 1:
        raise ValueError(f"{len(found.chunks)} chunks where one was expected")
    return found.chunk(0)


def vector(
    values: Mapping[str, float], stamp: int, frame_id: str = "", spread: Mapping[str, float] | None = None
) -> JointState:
    """A stamped named vector; `spread` goes into the velocities."""
    numbers = np.fromiter(values.values(), np.float64, len(values))
    spreads = np.array([spread[name] for name in values]) if spread is not None else None
    return joint_state(list(values), numbers, stamp, spreads, frame_id)


def vector_of(message: JointState) -> dict[str, float]:
    """Inverse of `vector`.

    Raises:
        ValueError: names and numbers differ in length, or a name occurs twice.
    """
    if len(message.name) != len(message.position) or len(set(message.name)) != len(message.name):
        raise ValueError(f"{len(message.name)} names, not all different, and {len(message.position)} numbers")
    return dict(zip(message.name, message.position, strict=True))


def step(tick: Tick, names: Sequence[str], stamp: int, edges: Sequence[Edge] = (), count: int = 0) -> JointState:
    """One control period as a stamped vector; NaN where nothing was sent or proposed. `frame_id` says why it holds.

    `mode` counts AUTONOMOUS, PAUSED, CORRECTING, STOPPED from 0; `source` is `types.Source`; a stamp of -1 s: no chunk.

    Args:
        tick: what happened.
        names: of the joints.
        stamp: of the period, robot clock [ns].
        edges: changes of the mode since the step before, told as `edge/<number>/mode` and `edge/<number>/age` [s].
        count: of all changes so far, so that a reader who missed a step knows: `edges`.
    """
    values = _joints("executed", names, tick.command) | _joints("proposed", names, tick.proposed)
    values |= {
        "source": float(tick.source), "mode": float(MODES.index(tick.mode)),
        **_split("chunk_stamp", tick.chunk_stamp_ns), "index": float(tick.index),
        "age": tick.age_s, "candidate": float(tick.candidate), "clamped": float(len(tick.clamped)),
        **_split("joints_stamp", tick.joints_stamp_ns), **_split("human_stamp", tick.human_stamp_ns),
        "edges": float(count),
    }  # fmt: skip
    for edge in edges:
        values[f"edge/{edge.number}/mode"] = float(MODES.index(edge.mode))
        values[f"edge/{edge.number}/age"] = (stamp - edge.stamp_ns) * 1e-9
    return vector(values, stamp, tick.hold or ",".join(tick.clamped))


def _split(what: str, stamp: int) -> dict[str, float]:
    """A stamp [ns] as two numbers that a double holds exactly; -1 s where there is none."""
    seconds, nanoseconds = divmod(stamp, SECOND) if stamp >= 0 else (-1, 0)
    return {f"{what}_s": float(seconds), f"{what}_ns": float(nanoseconds)}


def _joints(what: str, names: Sequence[str], values: Array | None) -> dict[str, float]:
    numbers = [math.nan] * len(names) if values is None else values.tolist()
    return {f"{what}/{name}": number for name, number in zip(names, numbers, strict=True)}


def diagnostics(name: str, stamp: int, level: int, summary: str, values: Mapping[str, object]) -> DiagnosticArray:
    """One status of one node; `level` 0 is well, 1 a warning, 2 an error."""
    pairs = [KeyValue(key=key, value=_shown(value)) for key, value in values.items()]
    status = DiagnosticStatus(level=bytes([level]), name=name, message=summary, hardware_id="", values=pairs)
    return DiagnosticArray(header=header(stamp), status=[status])


def _doubles(values: Array | NDArray[np.float32]) -> array:
    return array("d", np.ascontiguousarray(values, np.float64).tobytes())


def _duration(seconds: float) -> Duration:
    whole, rest = divmod(round(seconds * SECOND), SECOND)
    return Duration(sec=whole, nanosec=rest)


def _order(given: Sequence[str], names: Sequence[str]) -> list[int]:
    """Where each joint of ours stands in the message."""
    if len(given) != len(names) or set(given) != set(names):
        raise ValueError(f"joints {_some(given)} where the robot has {', '.join(names)}")
    index = {name: i for i, name in enumerate(given)}
    return [index[name] for name in names]


def _some(names: Sequence[str]) -> str:
    """Names of a stranger, cut short."""
    shown = ", ".join(repr(str(name)[:24]) for name in list(names)[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown or "none"


def _shown(value: object) -> str:
    return format(value, ".4g") if isinstance(value, float) else str(value)
