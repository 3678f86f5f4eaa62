"""What a policy gives to what the gate takes: chunks of joint actions to absolute joint targets in radians."""

from __future__ import annotations

import math

import numpy as np

from vla_rl.types import ActionChunk, ActionKind, ActionSpec, Array, RobotSpec

MAX_LENGTH = 1024
MAX_DT = 1.0
REASONS = (
    "non_finite", "wrong_size", "unknown_joint", "out_of_range", "non_monotone", "stale", "future", "older", "flushed",
)  # fmt: skip


class RejectedError(ValueError):
    """A chunk that is not played at all.

    Attributes:
        reason: one of `REASONS`, for the counters.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ChunkReader:
    """Reads chunks for one robot: in radians, or in LeRobot's names and units; absolute or relative.

    Args:
        spec: the robot.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self._spec, self._own, self._lerobot = spec, spec.action_spec, spec.lerobot_action_spec
        span = spec.high - spec.low
        self._lowest, self._highest = spec.low - span, spec.high + span
        self._zero = spec.from_lerobot(np.zeros(len(span)))

    @property
    def joints(self) -> int:
        """How many the robot has."""
        return len(self._own.names)

    def targets(self, chunk: ActionChunk, origin: Array | None = None) -> Array:
        """A chunk's actions as absolute joint targets, (H, J) [rad], in the robot's order.

        Args:
            chunk: of a joint kind.
            origin: joints measured at the chunk's observation, (J,) [rad], which relative actions start from.

        Raises:
            RejectedError: not finite, a wrong size, other joints than the robot's, far out of range, or no time apart.
        """
        actions = np.asarray(chunk.actions, dtype=np.float64)
        if actions.ndim != 2 or actions.shape[1] != chunk.spec.dim or not 0 < len(actions) <= MAX_LENGTH:
            size = f"(1 to {MAX_LENGTH}, {chunk.spec.dim})"
            raise RejectedError("wrong_size", f"a chunk is {size} actions, got {actions.shape}")
        if not np.isfinite(actions).all():
            raise RejectedError("non_finite", "a chunk holds a value that is not finite")
        if not (math.isfinite(chunk.dt) and 0 < chunk.dt <= MAX_DT):
            raise RejectedError("non_monotone", f"the actions of a chunk are {chunk.dt} s apart")
        targets = self._radians(actions, chunk.spec, origin)
        if far := self.far(targets):
            raise RejectedError(
                "out_of_range", f"targets of {', '.join(far)} are far outside the limits: another unit?"
            )
        return targets

    def far(self, targets: Array) -> list[str]:
        """Names of the joints with a target (..., J) [rad] more than a full range outside the limits."""
        outside = (targets < self._lowest) | (targets > self._highest)
        return [name for i, name in enumerate(self._own.names) if outside[..., i].any()]

    def _radians(self, actions: Array, given: ActionSpec, origin: Array | None) -> Array:
        """Actions (H, A) as `given` describes them in radians, absolute and in the robot's order, (H, J)."""
        relative = given.kind is ActionKind.JOINT_RELATIVE
        if not relative and given.kind is not ActionKind.JOINT_ABSOLUTE:
            raise RejectedError("wrong_size", f"actions of kind '{given.kind}' are no joint targets")
        known = next((s for s in (self._own, self._lerobot) if sorted(s.names) == sorted(given.names)), None)
        if known is None:
            own, theirs = ", ".join(self._own.names), ", ".join(given.names)
            raise RejectedError("unknown_joint", f"joints {theirs} are not the robot's: {own}")
        order = [given.names.index(name) for name in known.names]
        if tuple(given.units[i] for i in order) != known.units:
            raise RejectedError("wrong_size", f"units {given.units} of {given.names} are not {known.units}")
        values = actions[:, order]
        if known is self._lerobot:
            values = self._spec.from_lerobot(values) - (self._zero if relative else 0.0)
        if not relative:
            return values
        if origin is None:
            raise RejectedError("stale", "no joints are remembered from when a relative chunk's observation was taken")
        return values + origin
