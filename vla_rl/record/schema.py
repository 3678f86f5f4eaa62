"""What every episode of a store has in common: columns, rate, robot, names and units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.record.episode_file import DTYPES, is_image


class SchemaError(ValueError):
    """An episode does not fit the store, or is not well formed; the message names both sides."""


@dataclass(frozen=True)
class Schema:
    """The fixed part of a store.

    Attributes:
        fps: frames per second.
        columns: name to (dtype name, shape of one row).
        robot_type: which robot.
        names: column to one name a dimension (joint names in their order, for one).
        units: column to one unit a dimension.
        action_spec: what an action means, as `ActionSpec.to_dict`.
    """

    fps: float
    columns: Mapping[str, tuple[str, tuple[int, ...]]]
    robot_type: str = ""
    names: Mapping[str, list[str]] = field(default_factory=dict)
    units: Mapping[str, list[str]] = field(default_factory=dict)
    action_spec: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, columns: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Schema:
        """The schema that one episode has.

        Raises:
            SchemaError: no `fps`, no frames, columns of different length, or a dtype that is not stored.
        """
        if float(meta.get("fps") or 0) <= 0:
            raise SchemaError("an episode's meta needs 'fps' above 0")
        lengths = {name: len(values) if values.ndim else 0 for name, values in columns.items()}
        if not lengths or min(lengths.values()) < 1 or len(set(lengths.values())) != 1:
            raise SchemaError(f"columns need one length of at least 1, got {lengths or 'none'}")
        described = {name: (values.dtype.name, tuple(values.shape[1:])) for name, values in columns.items()}
        for name, (dtype, _) in described.items():
            if dtype not in DTYPES or "/" in name:
                raise SchemaError(f"column '{name}' of {dtype}: names have no '/', and dtypes are {', '.join(DTYPES)}")
        optional = {key: meta[key] for key in ("robot_type", "names", "units", "action_spec") if meta.get(key)}
        return cls(float(meta["fps"]), described, **optional)

    @property
    def cameras(self) -> list[str]:
        """Names of the image columns."""
        return [name for name, (dtype, shape) in self.columns.items() if is_image(np.dtype(dtype), shape)]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        columns = {name: [dtype, list(shape)] for name, (dtype, shape) in self.columns.items()}
        return {**vars(self), "columns": columns}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schema:
        """Inverse of `to_dict`."""
        columns = {name: (dtype, tuple(shape)) for name, (dtype, shape) in data["columns"].items()}
        return cls(**{**data, "columns": columns})

    def require(self, other: Schema) -> None:
        """Refuse `other` where it differs from this schema.

        Raises:
            SchemaError: names what differs, with the value in the store and the value offered.
        """
        for key, value in other.columns.items():
            if self.columns.get(key) != value:
                both = f"the store has {self._column(key)}, the episode {other._column(key)}"
                raise SchemaError(f"column '{key}': {both}")
        missing = sorted(set(self.columns) - set(other.columns))
        if missing:
            raise SchemaError(f"the store has columns that the episode lacks: {', '.join(missing)}")
        for key in ("fps", "robot_type", "names", "units", "action_spec"):
            if getattr(self, key) != getattr(other, key):
                raise SchemaError(f"{key}: the store has {getattr(self, key)}, the episode {getattr(other, key)}")

    def _column(self, name: str) -> str:
        dtype, shape = self.columns.get(name, ("none", ()))
        return f"{dtype}{list(shape)}" if dtype != "none" else "none"
