"""Foresight: what control will execute of a candidate, so that a critic can value that, and not what was proposed.

::

    observation |o---o---o---o---o---o---o---o            the critic's window
    under way    x---x---x                                until the chosen chunk arrives
    candidate                c---c---c---c---c            then joined with what is still under way
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from vla_rl.execute.actions import RejectedError
from vla_rl.execute.player import Player, PlayerConfig
from vla_rl.types import ActionChunk, Array, Candidates


@dataclass(frozen=True)
class ForesightConfig:
    """What control does with chunks.

    Attributes:
        player: how it plays and joins them.
        delay_s: from an observation to the moment at which its chunk is accepted [s]. A constant, not the clock's: the
            same candidates have the same values when a session is replayed.
        steps: actions that are looked ahead; 0 for all of a chunk.
    """

    player: PlayerConfig
    delay_s: float = 0.07
    steps: int = 0


class Foresight:
    """Control's player once more, fed with what was chosen.

    Args:
        config: of control.
    """

    def __init__(self, config: ForesightConfig) -> None:
        self._config = config
        self.restart()

    def executed(self, candidates: Candidates) -> Array:
        """What would be executed from the observation on, were each candidate chosen, (K, steps, J) [rad]."""
        chunks, stamp_ns = candidates.chunks, candidates.stamp_ns
        steps = self._config.steps or chunks.shape[1]
        return self._player.preview(chunks, candidates.dt, stamp_ns, self._accepted_ns(stamp_ns), steps)

    def chosen(self, chunk: ActionChunk) -> None:
        """This one was sent."""
        with suppress(RejectedError):  # as control refuses it
            self._player.accept(chunk.actions, chunk.dt, chunk.stamp_ns, self._accepted_ns(chunk.stamp_ns))

    def restart(self) -> None:
        """Nothing is under way."""
        self._player = Player(self._config.player)

    def _accepted_ns(self, stamp_ns: int) -> int:
        return stamp_ns + round(self._config.delay_s * 1e9)
