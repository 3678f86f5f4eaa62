"""ScriptedOperator: whoever watches a policy in place of a person, takes over when it gets nowhere, and hands back.

::

    progress   .1 .2 .3 .3 .3 .3 .3 .3 | .3 .4 .5 .6 | .6 .7 ...
                        |-- patience --|   regain    |
    drives      policy                 | operator    | policy

What it sees is one number in [0, 1] a step: how far the task has come. Its parameters are fixed before a session, so
that a session with it can be repeated, and measured without a person.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

SKILLS = ("careful", "clumsy")


@dataclass(frozen=True)
class OperatorConfig:
    """How patient an operator is, and how skilled.

    Attributes:
        patience: time without `gain` more progress than ever before after which the operator takes over [s].
        hope: the same where progress is above `nearly`: what is almost done is let be for longer [s].
        nearly: in [0, 1].
        gain: least progress that counts.
        fall: progress lost since the best moment at which the operator takes over at once.
        regain: progress made since the takeover at which the arm is handed back; above 1 the operator drives on to
            the end.
        least: shortest correction [s].
        skill: of the corrections: careful, or clumsy (misses, hesitates, visits the wrong thing).
        pace: speed of the corrections, a multiple of the usual one.
        noise: of the hand, standard deviation on the arm's joints [rad].
    """

    patience: float = 0.8
    hope: float = 1.8
    nearly: float = 0.7
    gain: float = 0.02
    fall: float = 0.35
    regain: float = 0.3
    least: float = 0.5
    skill: str = "careful"
    pace: float = 1.0
    noise: float = 0.0

    @classmethod
    def parse(cls, texts: Sequence[str]) -> OperatorConfig:
        """An operator in words, `patience=1.5 skill=clumsy`; what is not named keeps its default.

        Raises:
            ValueError: an unknown name or a value that does not fit; the message lists the names.
        """
        kinds: dict[str, type] = {f.name: str if f.name == "skill" else float for f in fields(cls)}
        given: dict[str, Any] = {}
        for text in texts:
            name, found, value = text.partition("=")
            if not found or name not in kinds:
                raise ValueError(f"an operator is name=value with a name of: {', '.join(kinds)}; got '{text}'")
            try:
                given[name] = kinds[name](value)
            except ValueError as error:
                raise ValueError(f"an operator's {name} is a number, got '{value}'") from error
        return cls(**given)

    def __post_init__(self) -> None:
        """Raise ValueError, in one line, where a field cannot be."""
        if self.skill not in SKILLS:
            raise ValueError(f"unknown skill '{self.skill}' of an operator; there are: {', '.join(SKILLS)}")
        for name in ("patience", "hope", "nearly", "gain", "fall", "regain", "least", "pace"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"an operator's {name} must be above 0, got {getattr(self, name)}")
        if not 0.0 <= self.noise < math.inf:
            raise ValueError(f"an operator's noise must be at least 0, got {self.noise}")


class ScriptedOperator:
    """Decides who drives, step by step; what the corrections are is somebody else's business.

    Args:
        config: patience and skill.
        dt: time between two steps [s].

    Attributes:
        drives: whether the operator has the arm.
        edge: what the last step began: "take_over", "hand_back" or "".
        reason: why, in words; "" where there is no edge.
    """

    def __init__(self, config: OperatorConfig, dt: float) -> None:
        self.config = config
        self._dt = dt
        self.begin()

    def begin(self) -> None:
        """A new episode: the policy drives, nothing was seen yet."""
        self.drives, self.edge, self.reason = False, "", ""
        self._best, self._steps, self._start = -math.inf, 0, 0.0

    def watch(self, progress: float, may_hand_back: bool = True) -> bool:
        """Look at one more step.

        Args:
            progress: how far the task has come, in [0, 1].
            may_hand_back: whether the policy could drive from this very step on.

        Returns:
            Whether the operator drives in it.

        Raises:
            ValueError: the progress is not a number.
        """
        if not math.isfinite(progress):
            raise ValueError(f"an operator needs progress as a finite number, got {progress}")
        self.edge = self.reason = ""
        self._steps += 1
        if self.drives:
            self._hand_back(progress, may_hand_back)
        else:
            self._take_over(progress)
        return self.drives

    def _take_over(self, progress: float) -> None:
        """Where progress fell, or stalled for too long."""
        config = self.config
        if progress > self._best + config.gain:
            self._best, self._steps = progress, 0
        if progress < self._best - config.fall:
            self._turn(progress, "take_over", f"progress fell from {self._best:.2f} to {progress:.2f}")
        elif self._steps * self._dt >= (patience := config.hope if progress > config.nearly else config.patience):
            self._turn(progress, "take_over", f"progress stalled at {progress:.2f} for {patience:g} s")

    def _hand_back(self, progress: float, allowed: bool) -> None:
        """Where enough was made good."""
        made = progress - self._start
        if allowed and self._steps * self._dt >= self.config.least and made >= self.config.regain:
            self._turn(progress, "hand_back", f"made good {made:.2f}")

    def _turn(self, progress: float, edge: str, reason: str) -> None:
        self.edge, self.reason, self.drives = edge, reason, edge == "take_over"
        self._best = self._start = progress
        self._steps = 0
