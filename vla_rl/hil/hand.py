"""Hand: what whoever has the arm drives with, once a period: a device of the host's, or the operator's page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_rl.hil.desk import Desk
from vla_rl.hil.device import Command, Device
from vla_rl.hil.mapping import Mapping
from vla_rl.types import Array

PAGE = "page"


class Hand:
    """Says once a period where the arm is wanted; says nothing where its device is lost, and then control holds.

    While the policy acts it goes on saying where a human who took over now would begin, so that control's next command
    after a takeover is the human's.

    Args:
        desk: who has the arm.
        mapping: commands to joint targets.
        device: what everybody drives with; None: each operator's own page.
        gap: with a device farther than this from the arm a takeover is refused [rad]; 0: control follows it slowly.
    """

    def __init__(self, desk: Desk, mapping: Mapping, device: Device | None = None, gap: float = 0.0) -> None:
        self._desk, self._mapping, self._device, self._gap = desk, mapping, device, gap
        self.name = device.name if device else PAGE

    def targets(self, here: Array, now_ns: int, dt: float) -> Array | None:
        """Joint targets (J,) [rad] of now, None where there is nothing to say.

        Args:
            here: what the arm was last commanded, (J,) [rad].
            now_ns: monotonic time [ns].
            dt: since the last call [s].

        Raises:
            ValueError: the device says what is no command for this robot.
        """
        command = self._read(now_ns)
        self._desk.device(self.name, command is not None)
        if command is not None:
            self._press(command.buttons)
        driving = self._desk.driving
        if command is None or self._desk.stranded:
            self._mapping.rest()
            return None
        if not driving:
            self._mapping.rest()
            command = command if command.targets is not None else Command()
        try:
            found = self._mapping.targets(command, here, dt)
        except ValueError as error:
            self._desk.obstacle = str(error)
            raise
        self._desk.obstacle = "" if driving else self._obstacle(found - here)
        return found

    def _read(self, now_ns: int) -> Command | None:
        page = self._desk.page(now_ns)
        if self._device is None:
            return page
        command = self._device.read(now_ns)
        return None if page is None and self._desk.by_page else command  # a page that is gone can not watch

    def _press(self, buttons: Sequence[str]) -> None:
        for button in buttons:
            desk, who = self._desk, self.name
            if button in ("take_over", "hand_back", "toggle"):
                on = not desk.wanted or desk.stranded if button == "toggle" else button == "take_over"
                desk.take_over(on, who)
            else:
                getattr(desk, button)(who)

    def _obstacle(self, away: Array) -> str:
        """Why nobody can take over with a device so far from the arm, (J,) [rad]; "" where one can."""
        if not self._gap or np.abs(away).max() <= self._gap:
            return ""
        pairs = zip(self._mapping.names, away, strict=True)
        far = ", ".join(f"{name} by {np.degrees(a):.0f} deg" for name, a in pairs if abs(a) > self._gap)
        return f"{self.name} is far from the arm: {far}; move it nearer, then take over"
