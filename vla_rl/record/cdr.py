"""CDR: ROS 2's messages as bytes and back, and their definitions, where ROS itself is not imported (by rosbags)."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

JOINT_STATE, TRAJECTORY = "sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory"
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
STRING = "std_msgs/msg/String"
_LITTLE = 1  # in the encapsulation's second byte


@cache
def _store() -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_KILTED)


def definition(kind: str) -> bytes:
    """The `ros2msg` definition of a message type, with all types inside."""
    return _store().generate_msgdef(kind, ros_version=2)[0].encode()


def decode(data: bytes, kind: str) -> Any:
    """A message with ROS's field names; sequences of numbers are arrays.

    Raises:
        ValueError: the bytes are no such message.
    """
    try:
        return _store().deserialize_cdr(data, kind)
    except Exception as error:  # generated readers run over the end in many ways
        raise ValueError(f"{len(data)} bytes that are no {kind}") from error


def make(kind: str, **fields: Any) -> Any:
    """A message from all of its fields."""
    return _store().types[kind](**fields)


def header(stamp_ns: int, frame_id: str = "") -> Any:
    """A header of a stamp [ns]."""
    seconds, nanoseconds = divmod(stamp_ns, 10**9)
    stamp = make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
    return make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def encode(message: Any, kind: str) -> bytes:
    """Inverse of `decode`."""
    return bytes(_store().serialize_cdr(message, kind))


def string(text: str) -> bytes:
    """A text as a String."""
    return encode(make(STRING, data=text), STRING)


def stamp_ns(data: bytes) -> int:
    """The stamp of a message that begins with a header [ns], without reading the rest; 0 where it is too short."""
    if len(data) < 12:
        return 0
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & _LITTLE else ">iI", data, 4)
    return int(seconds) * 10**9 + int(nanoseconds)
