"""Arm files: hardware/arms/*.yaml, or a person's own, to RobotSpec; every error of a file is told at once.

Units are declared in the file and never guessed::

    units: {angle: rad, length: m}        # or deg, mm: numbers are converted here and nowhere else

A driver's own section (`lerobot`, `ros2_control`) stays plain data; the driver reads it with `Checked` as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from vla_rl.types import CameraSpec, FrameSpec, JointSpec, RobotSpec

ANGLES = {"rad": 1.0, "deg": math.pi / 180}
LENGTHS = {"m": 1.0, "mm": 1e-3}
LEROBOT_UNITS = ("degrees", "percent")
DRIVERS = ("lerobot", "ros2_control")
BASE = "base"
_TURNS = 4 * math.pi  # a limit beyond two turns [rad] was meant in degrees


class ArmFileError(ValueError):
    """An arm's file is wrong: one line with every error.

    Attributes:
        errors: one phrase each, the key first.
    """

    def __init__(self, file: str, errors: Sequence[str]) -> None:
        self.errors = tuple(errors)
        count = f"{len(errors)} errors" if len(errors) > 1 else "1 error"
        super().__init__(f"{file}: {count}: {'; '.join(errors)}")


class Checked:
    """Reads plain data and notes what is wrong with it instead of stopping at the first fault.

    Every reader takes the mapping, the key and where the mapping stands (`joints[2]`), and returns a value that goes on
    fitting its type where it was wrong.

    Args:
        file: what the errors are of.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.errors: list[str] = []

    def done(self) -> None:
        """Raise ArmFileError where anything was wrong."""
        if self.errors:
            raise ArmFileError(self.file, self.errors)

    def note(self, where: str, key: str, what: str) -> None:
        """Write down a fault of a key."""
        place = ".".join(part for part in (where, key) if part)
        self.errors.append(f"{place} {what}" if place else what)

    def mapping(self, value: Any, where: str, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Any]:
        """A mapping that has what is required and nothing unknown."""
        if not isinstance(value, Mapping):
            self.note(where, "", f"must be a mapping, not {_said(value)}")
            return {}
        required, known = list(required), [*required, *optional]
        for key in (key for key in required if key not in value):
            self.note(where, key, "is missing")
        for unknown in (key for key in value if key not in known):
            self.note(where, str(unknown), f"is unknown; there are: {', '.join(known)}")
        return dict(value)

    def sequence(self, data: Mapping[str, Any], key: str, where: str = "") -> list[Any]:
        """A list with something in it."""
        value = data.get(key, ())
        if key in data and (not isinstance(value, (list, tuple)) or not value):
            self.note(where, key, f"must be a list with something in it, not {_said(value)}")
        return list(value) if isinstance(value, (list, tuple)) else []

    def number(
        self,
        data: Mapping[str, Any],
        key: str,
        where: str = "",
        low: float = -math.inf,
        high: float = math.inf,
        default: float = 1.0,
    ) -> float:
        """A finite number above `low` and at most `high`."""
        if key not in data:
            return default
        value = data[key]
        if not _is_number(value) or not low < value <= high:
            above = f" above {low:g}" if math.isfinite(low) else ""
            upto = f" up to {high:g}" if math.isfinite(high) else ""
            self.note(where, key, f"must be a finite number{above}{upto}, not {_said(value)}")
            return default
        return float(value)

    def text(self, data: Mapping[str, Any], key: str, where: str = "", among: Iterable[str] = ()) -> str:
        """A word, one of `among` where there is a choice; "" where it is missing."""
        value, among = data.get(key, ""), tuple(among)
        if key in data and (not isinstance(value, str) or not value or (among and value not in among)):
            self.note(where, key, f"must be {'one of ' + ', '.join(among) if among else 'a word'}, not {_said(value)}")
        return value if isinstance(value, str) else ""

    def flag(self, data: Mapping[str, Any], key: str, where: str = "") -> bool:
        """True or false; false where it is missing."""
        value = data.get(key, False)
        if not isinstance(value, bool):
            self.note(where, key, f"must be true or false, not {_said(value)}")
        return value is True

    def vector(
        self, data: Mapping[str, Any], key: str, where: str = "", default: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> tuple[float, ...]:
        """As many finite numbers as `default` has, which also stands for none."""
        value = data.get(key, default)
        if not isinstance(value, (list, tuple)) or len(value) != len(default) or not all(map(_is_number, value)):
            self.note(where, key, f"must be {len(default)} finite numbers, not {_said(value)}")
            return tuple(default)
        return tuple(float(v) for v in value)

    def unique(self, where: str, key: str, values: Iterable[str]) -> None:
        """Note what is there twice."""
        values = [value for value in values if value]
        for value in sorted({value for value in values if values.count(value) > 1}):
            self.note(where, key, f"'{value}' is there {values.count(value)} times")


def read(path: str | Path | Traversable) -> dict[str, Any]:
    """A file as plain data.

    Raises:
        ArmFileError: no such file, no YAML, or not a mapping.
    """
    where = Path(path) if isinstance(path, str) else path
    try:
        data = yaml.safe_load(where.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ArmFileError(str(path), [f"can not be read: {error}"]) from error
    except yaml.YAMLError as error:
        raise ArmFileError(str(path), [f"is no YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(data, Mapping):
        raise ArmFileError(str(path), [f"must be a mapping, not {_said(data)}"])
    return dict(data)


def load(path: str | Path | Traversable) -> RobotSpec:
    """The RobotSpec of an arm's file.

    Raises:
        ArmFileError: what is wrong with it, all of it.
    """
    return parse(read(path), where_of(path))


def where_of(path: str | Path | Traversable) -> str:
    """A file's name in an error."""
    return path.name if isinstance(path, Traversable) else str(path)


def parse(data: Mapping[str, Any], file: str) -> RobotSpec:
    """The RobotSpec of an arm file's content.

    Raises:
        ArmFileError: what is wrong with it, all of it.
    """
    return _ArmFile(file).robot(data)


class _ArmFile(Checked):
    """Reads an arm's file with its units."""

    _angle = _length = 1.0

    def robot(self, data: Mapping[str, Any]) -> RobotSpec:
        data = self.mapping(data, "", ("name", "units", "rate", "workspace", "joints"), ("tip", "cameras", *DRIVERS))
        self._units(data)
        joints = tuple(self._joint(value, f"joints[{i}]") for i, value in enumerate(self.sequence(data, "joints")))
        for key in ("name", "lerobot_name"):
            self.unique("joints", key, (getattr(joint, key) for joint in joints))
        given = self.sequence(data, "cameras") if data.get("cameras") else []
        cameras = tuple(self._camera(value, f"cameras[{i}]") for i, value in enumerate(given))
        self.unique("cameras", "name", (camera.name for camera in cameras))
        tip = self._frame(data, "tip", "") if data.get("tip") is not None else None
        self._connected(joints, cameras, tip)
        rate = self.number(data, "rate", low=0.0, high=1000.0)
        name, workspace = self.text(data, "name"), self._workspace(data)
        self.done()
        return RobotSpec(name, joints, cameras, rate, workspace, tip)

    def _units(self, data: Mapping[str, Any]) -> None:
        if "units" not in data:
            return
        units = self.mapping(data["units"], "units", ("angle", "length"))
        self._angle = ANGLES.get(self.text(units, "angle", "units", ANGLES), 1.0)
        self._length = LENGTHS.get(self.text(units, "length", "units", LENGTHS), 1.0)

    def _joint(self, value: Any, where: str) -> JointSpec:
        limits = ("low", "high", "velocity", "acceleration", "jerk")
        name = value.get("name") if isinstance(value, Mapping) else None
        where = f"{where} ({name})" if isinstance(name, str) else where
        data = self.mapping(
            value, where, ("name", *limits, "lerobot_name", "lerobot_unit"),
            ("offset", "gripper", "link", "frame", "axis"),
        )  # fmt: skip
        low, high = (self.number(data, key, where) * self._angle for key in limits[:2])
        if _is_number(data.get("low")) and _is_number(data.get("high")):
            self._range(where, low, high)
        magnitudes = [self.number(data, key, where, low=0.0) * self._angle for key in limits[2:]]
        axis = self.vector(data, "axis", where, (0.0, 0.0, 1.0))
        if not any(axis):
            self.note(where, "axis", "must not be zero")
        frame = self._frame(data, "frame", where) if data.get("frame") is not None else None
        if frame is not None and not data.get("link"):
            self.note(where, "link", "is missing: a joint with a frame moves a link")
        return JointSpec(
            self.text(data, "name", where), low, high, magnitudes[0], magnitudes[1], magnitudes[2],
            self.text(data, "lerobot_name", where), self.text(data, "lerobot_unit", where, LEROBOT_UNITS),
            self.number(data, "offset", where, default=0.0) * self._angle, self.flag(data, "gripper", where),
            self.text(data, "link", where), frame, (axis[0], axis[1], axis[2]),
        )  # fmt: skip

    def _range(self, where: str, low: float, high: float) -> None:
        if max(abs(low), abs(high)) > _TURNS:
            self.note(where, "low, high", "are more than two turns; if they are degrees, say units: {angle: deg, ...}")
        elif low >= high:
            self.note(where, "low", f"must be below high: {low:g} is not below {high:g} [rad]")

    def _frame(self, data: Mapping[str, Any], key: str, where: str) -> FrameSpec:
        place = ".".join(part for part in (where, key) if part)
        found = self.mapping(data[key], place, ("parent",), ("position", "quaternion"))
        x, y, z = (v * self._length for v in self.vector(found, "position", place))
        w, i, j, k = self.vector(found, "quaternion", place, (1.0, 0.0, 0.0, 0.0))
        if not any((w, i, j, k)):
            self.note(place, "quaternion", "must not be zero")
        return FrameSpec(self.text(found, "parent", place), (x, y, z), (w, i, j, k))

    def _camera(self, value: Any, where: str) -> CameraSpec:
        data = self.mapping(value, where, ("name", "width", "height"), ("fovy", "frame"))
        width, height = (int(self.number(data, key, where, low=0.0, high=16384.0)) for key in ("width", "height"))
        frame = self._frame(data, "frame", where) if data.get("frame") is not None else None
        fovy = self.number(data, "fovy", where, low=-1e-9, high=180.0, default=0.0)
        return CameraSpec(self.text(data, "name", where), width, height, fovy, frame)

    def _workspace(self, data: Mapping[str, Any]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        corners = self.sequence(data, "workspace")
        named = dict(zip(("low", "high"), corners, strict=False))
        if "workspace" in data and len(corners) != 2:
            self.note("", "workspace", "must be two corners, [[x, y, z], [x, y, z]]")
        low, high = (tuple(v * self._length for v in self.vector(named, k, "workspace")) for k in ("low", "high"))
        if len(named) == 2 and not all(a < b for a, b in zip(low, high, strict=True)):
            self.note("", "workspace", f"must run from its lower corner to its upper one, not from {low} to {high} [m]")
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def _connected(self, joints: Sequence[JointSpec], cameras: Sequence[CameraSpec], tip: FrameSpec | None) -> None:
        """Every frame stands in the base or in a link that a joint before it moves."""
        links = [BASE]
        for index, joint in enumerate(joints):
            self._stands(joint.frame, links, f"joints[{index}] ({joint.name}).frame")
            links.append(joint.link)
        for index, camera in enumerate(cameras):
            self._stands(camera.frame, links, f"cameras[{index}] ({camera.name}).frame")
        self._stands(tip, links, "tip")
        self.unique("joints", "link", links)

    def _stands(self, frame: FrameSpec | None, links: Sequence[str], where: str) -> None:
        if frame is not None and frame.parent and frame.parent not in links:
            there = ", ".join(link for link in links if link)
            self.note(where, "parent", f"'{frame.parent}' is no link yet; there are: {there}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _said(value: Any) -> str:
    """A wrong value in a few words."""
    if value is None:
        return "nothing"
    return repr(value) if len(repr(value)) <= 40 else f"a {type(value).__name__}"
