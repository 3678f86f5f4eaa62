"""What a helper would have seen of recorded episodes: signals, calibration from them, and what it would have caught."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl.hil.help import Calibration, Signals
from vla_rl.record.episode_file import Columns
from vla_rl.record.store import EpisodeStore
from vla_rl.rollout.collect import STORE
from vla_rl.rollout.statistics import wilson
from vla_rl.types import Array, Outcome, RobotSpec


@dataclass(frozen=True, eq=False)
class Watched:
    """One episode.

    Attributes:
        task: its name.
        failed: whether it failed; nobody helped.
        seconds: when it was looked at, (T,) [s].
        series: the signals then, (T, S).
        length_s: of the episode [s].
    """

    task: str
    failed: bool
    seconds: Array
    series: Array
    length_s: float


@dataclass(frozen=True)
class Coverage:
    """What a calibration does on episodes that it has not seen.

    Attributes:
        successes, failures: how many episodes.
        false_alarm_rate: share of the successful ones in which it calls, with its 95% interval.
        caught: share of the failed ones in which it calls at least `lead_s` before the end, with its interval.
        lead_s: [s].
        called_s: median time of these calls [s], NaN where there is none.
        left: median share of the failed episode that was still to come.
    """

    successes: int
    failures: int
    false_alarm_rate: float
    false_alarm_ci95: tuple[float, float]
    caught: float
    caught_ci95: tuple[float, float]
    lead_s: float
    called_s: float
    left: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def watched(columns: Columns, meta: Mapping[str, Any], candidates: Columns, spec: RobotSpec) -> Watched:
    """The signals of an episode as `vla-rl collect` stores it, at each of its decisions.

    Raises:
        ValueError: no chunks were drawn in it, so nobody can have watched.
    """
    if "row" not in candidates:
        raise ValueError("an episode without candidates: collect with a policy, and --candidates of at least 2")
    signals, rate = Signals(np.array([joint.gripper for joint in spec.joints])), float(meta["fps"])
    joints = spec.from_lerobot(np.asarray(columns["observation.state"]))
    rows, chosen = np.asarray(candidates["row"]), np.asarray(candidates["selected"])
    values = np.asarray(candidates["values"]) if "values" in candidates else np.full((len(rows), 1, 1), np.nan)
    abstained = candidates.get("abstained", np.zeros(len(rows), bool))
    series = []
    for i, row in enumerate(rows):
        said = values[i, :, min(chosen[i], values.shape[2] - 1)]
        chunks = spec.from_lerobot(np.asarray(candidates["chunks"][i], np.float64))
        value, spread, lost = float(said.mean()), float(said.std()), bool(abstained[i])
        series.append(signals.look(row / rate, joints[row], chunks, value, spread, lost))
    failed = meta["outcome"] != Outcome.SUCCESS
    return Watched(str(meta["task"]), failed, rows / rate, np.array(series), len(joints) / rate)


def episodes(folder: str | Path, spec: RobotSpec) -> Iterator[Watched]:
    """The episodes of a folder of `vla-rl collect`.

    Raises:
        ValueError: it is none, or its episodes hold no candidates.
    """
    with EpisodeStore(Path(folder) / STORE, readonly=True) as store:
        for columns, meta, candidates in store.episodes(decode=False):
            yield watched(columns, meta, candidates, spec)


def halves(found: Sequence[Watched], seed: int = 0) -> tuple[list[Watched], list[Watched]]:
    """Episodes to calibrate on, and to test on: a random half each."""
    order = np.random.default_rng(seed).permutation(len(found))
    middle = len(order) // 2
    return [found[i] for i in order[:middle]], [found[i] for i in order[middle:]]


def calibrate(found: Sequence[Watched], false_alarms: float) -> Calibration:
    """From the episodes that succeeded. Raises as `Calibration.fit` does."""
    return Calibration.fit([e.series for e in found if not e.failed], false_alarms)


def coverage(calibration: Calibration, found: Sequence[Watched], lead_s: float = 0.5) -> Coverage:
    """What a calibration does on other episodes than its own."""
    calls = [_first_call(calibration, e) for e in found]
    alarms = [math.isfinite(call) for call, e in zip(calls, found, strict=True) if not e.failed]
    failed = [(call, e.length_s) for call, e in zip(calls, found, strict=True) if e.failed]
    caught = [(call, length) for call, length in failed if call <= length - lead_s]
    return Coverage(
        len(alarms), len(failed),
        sum(alarms) / max(len(alarms), 1), wilson(sum(alarms), len(alarms)),
        len(caught) / max(len(failed), 1), wilson(len(caught), len(failed)), lead_s,
        float(np.median([call for call, _ in caught])) if caught else math.nan,
        float(np.median([1.0 - call / length for call, length in caught])) if caught else math.nan,
    )  # fmt: skip


def _first_call(calibration: Calibration, episode: Watched) -> float:
    """When it calls [s]; infinite where it never does."""
    calls = (calibration.trouble(episode.series) > calibration.threshold).any(-1)
    return float(episode.seconds[calls.argmax()]) if calls.any() else math.inf
