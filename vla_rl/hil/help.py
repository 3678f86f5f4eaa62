"""Asking for help: signals of a policy in trouble, and when they are rare enough to call a human.

A threshold is calibrated on episodes that succeeded without help (split conformal prediction: Vovk, Gammerman and
Shafer 2005; over a whole episode by its worst moment, as FAIL-Detect does: Xu et al. 2025). With n of them and a rate
a, the ceil((n + 1)(1 - a))-th smallest worst moment is passed by a further successful episode with a probability of at
most a, whatever the signals are, as long as its scene is drawn as theirs were.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl.types import Array

SIGNALS = ("elapsed", "stillness", "disagreement", "decline", "spread", "abstained")
WORDS = {
    "elapsed": "it takes longer than it should", "stillness": "the arm gets nowhere",
    "disagreement": "the policy does not know what to do", "decline": "the value falls",
    "spread": "the critics disagree", "abstained": "the critic is not trusted here",
}  # fmt: skip
STILL_S, RECENT = 1.0, 10
_LARGEST = 1_000_000  # bytes of a calibration


class Signals:
    """What is seen of a policy at work, each the larger the more trouble it is in.

    ============  ===================================================================================
    elapsed       time since it began to act [s]
    stillness     minus the farthest that an arm joint was from here within the last second [rad]
    disagreement  of its candidates: their standard deviation, root mean square over the chunk [rad]
    decline       how far the value of what was chosen is below its best so far
    spread        of the critics about what was chosen
    abstained     share of the last decisions in which the critic was not trusted
    ============  ===================================================================================

    Args:
        gripper: which joints open and close a gripper, (J,) bool.
    """

    def __init__(self, gripper: Array) -> None:
        self._arm, self._ordinal = ~np.asarray(gripper, dtype=bool), -1
        self.begin()

    def begin(self, seconds: float = math.nan) -> None:
        """The policy begins to act; where the time is not known yet, with the next look."""
        self._began, self._best = seconds, -math.inf
        self._places: deque[tuple[float, Array]] = deque()
        self._abstained: deque[bool] = deque(maxlen=RECENT)

    def episode(self, ordinal: int, seconds: float) -> None:
        """Told of an episode that goes on: where it is a new one the policy begins to act; a note changes nothing."""
        if ordinal != self._ordinal:
            self._ordinal = ordinal
            self.begin(seconds)

    def look(
        self,
        seconds: float,
        joints: Array,
        chunks: Array | None = None,
        value: float = math.nan,
        spread: float = math.nan,
        abstained: bool = False,
    ) -> Array:
        """The signals at a decision, (S,) in the order of `SIGNALS`; NaN where one is not known.

        Args:
            seconds: the time [s].
            joints: measured, (J,) [rad].
            chunks: all candidates, (K, H, J) [rad]; fewer than two can not disagree.
            value, spread: what the critics said of the chosen one.
            abstained: whether they were not trusted.
        """
        self._began = seconds if math.isnan(self._began) else self._began
        self._best = self._best if math.isnan(value) else max(self._best, value)
        self._abstained.append(abstained)
        return np.array([
            seconds - self._began, self._stillness(seconds, joints[self._arm]),
            _disagreement(chunks, self._arm), self._best - value, spread, sum(self._abstained) / RECENT,
        ])  # fmt: skip

    def _stillness(self, seconds: float, joints: Array) -> float:
        places = self._places
        places.append((seconds, joints))
        while len(places) > 1 and places[1][0] <= seconds - STILL_S:
            places.popleft()
        if places[0][0] > seconds - STILL_S:
            return math.nan
        return -max(float(np.abs(place - joints).max()) for _, place in places)


@dataclass(frozen=True)
class Calibration:
    """When to call.

    Attributes:
        signals: those that are looked at.
        centre, scale: of each one's worst moment in a successful episode: its median, and from there to its 90th
            percentile.
        threshold: call where a signal is so many scales above its centre.
        false_alarms: share of successful episodes in which that happens, at most.
        episodes: how many it was calibrated on.
    """

    signals: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    threshold: float
    false_alarms: float
    episodes: int

    @classmethod
    def fit(cls, episodes: Sequence[Array], false_alarms: float = 0.1, seed: int = 0) -> Calibration:
        """From the signals of successful episodes, each (T, S): scales from one half of them, threshold from the other.

        Raises:
            ValueError: a rate that is none, or too few episodes for it.
        """
        if not 0.0 < false_alarms < 1.0:
            raise ValueError(f"a false-alarm rate is between 0 and 1, got {false_alarms}")
        order = np.random.default_rng(seed).permutation(len(episodes))
        first, second = order[: len(order) // 2], order[len(order) // 2 :]
        rank, least = math.ceil((len(second) + 1) * (1.0 - false_alarms)), math.ceil(1.0 / false_alarms - 1.0)
        if rank > len(second) or len(first) < 2:
            raise ValueError(
                f"{false_alarms:.0%} false alarms need {max(2 * least, 4)} successful episodes, got {len(episodes)}"
            )
        names, centre, scale = _scales(np.stack([_worst(episodes[i]) for i in first]))
        found = cls(names, centre, scale, math.inf, false_alarms, len(episodes))
        moments = sorted(float(found.trouble(episodes[i]).max(initial=-np.inf)) for i in second)
        return cls(found.signals, found.centre, found.scale, moments[rank - 1], false_alarms, len(episodes))

    def trouble(self, series: Array) -> Array:
        """How far each signal of (..., S) is above its centre [scales], (..., len(signals)); -inf where not known."""
        rows = np.asarray(series)[..., [SIGNALS.index(name) for name in self.signals]]
        above = (rows - np.array(self.centre)) / np.array(self.scale)
        return np.where(np.isnan(above), -np.inf, above)

    def call(self, row: Array) -> str:
        """Why a human is called for with signals (S,), "" where none is."""
        above = self.trouble(row)
        worst = int(above.argmax()) if self.signals else -1
        return WORDS[self.signals[worst]] if self.signals and above[worst] > self.threshold else ""

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            OSError: the file can not be read.
            ValueError: it holds something else.
        """
        try:
            if Path(path).stat().st_size > _LARGEST:
                raise ValueError("it is too large")
            return cls._from_dict(json.loads(Path(path).read_text()))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no calibration of `vla-rl calibrate`: {error}") from None

    @classmethod
    def _from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        names, centre, scale = tuple(data["signals"]), tuple(data["centre"]), tuple(data["scale"])
        if not set(names) <= set(SIGNALS) or not len(names) == len(centre) == len(scale):
            raise ValueError(f"its signals are {names}; there are: {', '.join(SIGNALS)}")
        if not all(math.isfinite(float(v)) for v in (*centre, *scale, data["threshold"])) or min(scale, default=1) <= 0:
            raise ValueError("a number is not finite")
        return cls(names, centre, scale, float(data["threshold"]), float(data["false_alarms"]), int(data["episodes"]))


def _disagreement(chunks: Array | None, arm: Array) -> float:
    """Standard deviation of candidates (K, H, J), root mean square over time and the arm's joints [rad]."""
    if chunks is None or len(chunks) < 2:
        return math.nan
    return math.sqrt(np.nanmean(np.nanvar(chunks[..., arm], axis=0)))


def _scales(worst: Array) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    """Of the signals that most episodes know, and that differ between episodes: names, centres and scales."""
    known = (np.isfinite(worst).mean(0) > 0.5).nonzero()[0]
    centre = {SIGNALS[i]: float(np.nanmedian(worst[:, i])) for i in known}
    scale = {SIGNALS[i]: float(np.nanpercentile(worst[:, i], 90)) - centre[SIGNALS[i]] for i in known}
    names = tuple(name for name in centre if scale[name] > 0)
    return names, tuple(centre[name] for name in names), tuple(scale[name] for name in names)


def _worst(series: Array) -> Array:
    """The worst moment of each signal in (T, S), (S,); NaN where it was never known."""
    known = np.where(np.isnan(series), -np.inf, series).max(0)
    return np.where(np.isneginf(known), np.nan, known)
