"""How a robot is controlled."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from vla_rl.execute.player import Player, PlayerConfig


@dataclass(frozen=True)
class ControlConfig:
    """How a robot is controlled; every time in seconds.

    Attributes:
        joining: how chunks that overlap are joined: latest, temporal, adaptive or blend.
        max_open_loop_s: motion goes on for so long after the newest observation that a policy has answered.
        max_future_s: a stamp further ahead of the robot's clock is rejected.
        max_chunk_age_s: a chunk whose observation is older when it arrives is rejected.
        max_joint_age_s: without joint states for so long, hold.
        max_human_age_s: without a human's command for so long while correcting, hold.
        max_following_error: an arm joint this far from every command of the last quarter of a second is a reason to
            hold [rad].
        max_human_gap: a human who takes over farther than this from the arm is followed slowly first [rad].
        max_align_speed: how fast, until the arm has caught up [rad/s].
        ramp_s: how long the policy takes to get the arm back from a human.
        max_rejections: so many chunks rejected in a row latch a stop.
        simulated_time: the robot's clock does not go with ours (lock-step, or faster than real time).
    """

    joining: str = "temporal"
    max_open_loop_s: float = 0.5
    max_future_s: float = 0.05
    max_chunk_age_s: float = 0.5
    max_joint_age_s: float = 0.2
    max_human_age_s: float = 0.05
    max_following_error: float = 0.3
    max_human_gap: float = 0.15
    max_align_speed: float = 0.5
    ramp_s: float = 0.5
    max_rejections: int = 3
    simulated_time: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a bound that is not positive and finite, or an unknown joining mode."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in ("float", "int") and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{field.name} must be a positive number, got {value}")
        Player(self.player)

    @property
    def player(self) -> PlayerConfig:
        """The part of it that decides how chunks are played."""
        return PlayerConfig(self.joining, self.max_open_loop_s, self.max_future_s, self.max_chunk_age_s)

    def loosened(self, other: ControlConfig) -> list[str]:
        """Which bounds `other` loosens, by name."""
        bounds = [field.name for field in fields(self) if field.name.startswith("max_")]
        return [name for name in bounds if getattr(other, name) > getattr(self, name)]
