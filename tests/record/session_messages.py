"""Messages of a small robot's graph as they would come over the wire."""

import math
import time

import numpy as np

from vla_rl.record import cdr
from vla_rl.record.frames import FramesConfig
from vla_rl.record.marks import STATUS
from vla_rl.record.recorder import Message
from vla_rl.record.recording import RecordingConfig
from vla_rl.record.session import Session, SessionConfig
from vla_rl.robot import arm_spec

SPEC = arm_spec("so101")
NAMES = SPEC.names
PERIOD = round(1e9 / SPEC.rate)
START = 1_700_000_000 * 10**9


def open_session(root, cameras=("front",), **config):
    given = {"min_free": 0, "low_water": 0, **config}
    return Session(root, SPEC, list(cameras), SessionConfig(**given))


def quick(**frames):
    return RecordingConfig(FramesConfig(**frames))


def vector(values, stamp_ns, frame_id="", velocity=()):
    message = cdr.make(
        cdr.JOINT_STATE, header=cdr.header(stamp_ns, frame_id), name=list(values),
        position=np.array(list(values.values()), float), velocity=np.array(velocity, float), effort=np.zeros(0),
    )  # fmt: skip
    return cdr.encode(message, cdr.JOINT_STATE)


def image(picture, stamp_ns):
    height, width = picture.shape[:2]
    message = cdr.make(
        cdr.IMAGE, header=cdr.header(stamp_ns), height=height, width=width, encoding="rgb8", is_bigendian=0,
        step=3 * width, data=np.ascontiguousarray(picture).reshape(-1),
    )  # fmt: skip
    return cdr.encode(message, cdr.IMAGE)


def chunks(actions, stamp_ns, dt=1 / 30, frame_id=""):
    """(K, H, J) as a JointTrajectory."""
    points = []
    for chunk in actions:
        for i, row in enumerate(chunk):
            seconds, nanoseconds = divmod(round((i + 1) * dt * 1e9), 10**9)
            due = cdr.make("builtin_interfaces/msg/Duration", sec=seconds, nanosec=nanoseconds)
            empty = np.zeros(0)
            points.append(
                cdr.make(
                    "trajectory_msgs/msg/JointTrajectoryPoint",
                    positions=np.array(row, float),
                    velocities=empty,
                    accelerations=empty,
                    effort=empty,
                    time_from_start=due,
                )
            )
    message = cdr.make(cdr.TRAJECTORY, header=cdr.header(stamp_ns, frame_id), joint_names=list(NAMES), points=points)
    return cdr.encode(message, cdr.TRAJECTORY)


def split(what, stamp_ns):
    seconds, rest = divmod(stamp_ns, 10**9) if stamp_ns >= 0 else (-1, 0)
    return {f"{what}_s": float(seconds), f"{what}_ns": float(rest)}


def step(stamp_ns, executed, proposed=None, source=0, mode=0, chunk=-1, candidate=-1, why="", **more):
    def joints(what, values):
        return {
            f"{what}/{n}": math.nan if values is None else float(v) for n, v in zip(NAMES, _or(values), strict=True)
        }

    values = joints("executed", executed) | joints("proposed", proposed)
    values |= {"source": source, "mode": mode, **split("chunk_stamp", chunk), "index": 0, "age": 0.0}
    values |= {"candidate": candidate, "clamped": 0.0, **more}
    return vector(values, stamp_ns, why)


def _or(values):
    return np.zeros(len(NAMES)) if values is None else values


def status(recording, outcome=0, discarded=0, ordinal=0, note=""):
    values = {"ordinal": ordinal, "recording": recording, "outcome": outcome, "discarded": discarded}
    return vector({**values, "human_s": 0.0, "takeovers": 0}, time.time_ns(), note)


def message(topic, kind, data, stamped=True, **more):
    return Message(topic, kind, data, time.monotonic_ns(), stamped=stamped, **more)


def joint_states(values, stamp_ns):
    return message("joint_states", cdr.JOINT_STATE, vector(dict(zip(NAMES, values, strict=True)), stamp_ns))


def picture_of(number, size=24):
    """A picture that says which it is."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (size, size, 3), np.uint8)


def camera(name, number, stamp_ns, size=24):
    return message(f"camera/{name}/image_raw", cdr.IMAGE, image(picture_of(number, size), stamp_ns))


def marked(recording, **more):
    return message(STATUS, cdr.JOINT_STATE, status(recording, **more))
