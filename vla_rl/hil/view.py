"""What an operator sees, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from vla_rl.hil.episodes import EpisodeMark, Statistics
from vla_rl.types import Array, Mode, Source


@dataclass(frozen=True)
class Stream:
    """How a stream is doing: age of its newest message [s], rate [Hz], and whether that is well."""

    age_s: float
    rate_hz: float
    well: bool


@dataclass(frozen=True, eq=False)
class Plan:
    """The chunk under way and its rivals, as paths of the gripper's tip.

    Attributes:
        paths: of each candidate in the base frame, (K, H, 3) [m].
        chosen: index of the one that is executed.
        pixels: camera name to the same paths in its picture, (K, H, 2), right and down from its centre in heights of
            the picture, NaN where a point is behind the camera; empty for a camera whose place is not known.
        values: what the critic said of each, (K,), empty where there is none.
    """

    paths: Array
    chosen: int
    pixels: Mapping[str, Array]
    values: Array


@dataclass(frozen=True)
class Message:
    """A line for the operator: system time [s], level 0 well, 1 warning, 2 error."""

    time_s: float
    level: int
    text: str


@dataclass(frozen=True, eq=False)
class Frame:
    """A camera's newest picture: a number that grows with each, and what makes a JPEG of it once somebody looks."""

    number: int
    draw: Callable[[], bytes]

    @cached_property
    def jpeg(self) -> bytes:
        """The picture as JPEG."""
        return self.draw()


@dataclass(frozen=True, eq=False)
class View:
    """All that an operator sees at one instant, the pictures aside.

    Attributes:
        mode: who may act; None before control was heard.
        source: who acts; None before.
        reason: why the arm holds, or why it was stopped, "" where neither.
        operator: who has the arm by its lease, "" where nobody.
        device: what that operator drives with.
        device_alive: whether it is heard, and was all the time since the takeover: one that comes back does not drive.
        help: why a human is asked for, "" where none is.
        instruction: what is to be done.
        episode: the one that goes on, or the last; None before the first.
        episode_s: how long it has been [s].
        episodes: the closed ones, oldest first.
        statistics: of the session.
        streams: name to health.
        values: (seconds ago, value of the chosen chunk, spread), oldest first.
        plan: the chunk under way, None where nothing is known of it.
        cameras: names of those that have sent a picture.
        messages: newest last.
    """

    mode: Mode | None
    source: Source | None
    reason: str
    operator: str
    device: str
    device_alive: bool
    help: str
    instruction: str
    episode: EpisodeMark | None
    episode_s: float
    episodes: tuple[EpisodeMark, ...]
    statistics: Statistics
    streams: Mapping[str, Stream]
    values: tuple[tuple[float, float, float], ...]
    plan: Plan | None
    cameras: tuple[str, ...]
    messages: tuple[Message, ...]
