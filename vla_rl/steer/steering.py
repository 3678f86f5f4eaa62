"""Steering: candidates in, the chosen chunk out, within a deadline and whatever the critic does."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from vla_rl.steer.choose import Chooser, ChooserConfig
from vla_rl.steer.scorer import Critic, Scorer, Scores
from vla_rl.steer.selectors import BLIND, Choice
from vla_rl.types import ActionChunk, ActionKind, Array, Candidates

TROUBLE = {
    "other_joints": "refused candidates for other joints",
    "shape": "refused candidates of no usable shape",
    "stamp_zero": "refused candidates without a stamp",
    "other_length": "refused candidates of another length than before",
    "out_of_order": "refused candidates no newer than the last",
    "stale": "refused stale candidates",
    "future": "refused candidates from the future",
    "nothing_finite": "no candidate was finite",
    "candidates_not_finite": "left out a candidate that is not finite",
    "late": "the critic was late",
    "values_not_finite": "the critic said what is not finite",
}


@dataclass(frozen=True, kw_only=True)
class SteeringConfig(ChooserConfig):
    """How a candidate is chosen, and when at the latest.

    Attributes:
        deadline_s: the critic's time from the arrival of a set to the choice [s].
        slice: candidates scored at once at most; when time runs out, whole slices count.
        executed_steps: actions of a chunk that the rule compares, those that will be executed; 0 takes all.
        max_age_s: a set whose observation is older than this is stale [s].
        max_future_s: a set stamped further ahead of the robot's clock than this is refused [s].
        seed: of rules that draw, together with the stamp of each set.
    """

    deadline_s: float = 0.05
    slice: int = 32
    executed_steps: int = 0
    max_age_s: float = 0.5
    max_future_s: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown selector, or times and counts that make no sense."""
        super().__post_init__()
        if not (self.deadline_s > 0 and self.slice >= 1 and self.executed_steps >= 0 and self.max_age_s > 0):
            raise ValueError(f"deadline_s and max_age_s must be positive, slice at least 1: {self}")


@dataclass(frozen=True, eq=False)
class Decision:
    """What was chosen, and why.

    Attributes:
        chunk: to be executed.
        index: which candidate it is.
        reason: the rule's, or why the rule could not be followed.
        values: what the critic said of the first n candidates, (E, n), None where nothing in time.
        abstained: "" where the rule was followed, else why the critic was not trusted.
    """

    chunk: ActionChunk
    index: int
    reason: str
    values: Array | None = None
    abstained: str = ""


class Foresight(Protocol):
    """Knows what control will make of a candidate: `execute.foresight`."""

    def executed(self, candidates: Candidates) -> Array:
        """What would be executed from the observation on, were each candidate chosen, (K, h, J) [rad]."""

    def chosen(self, chunk: ActionChunk) -> None:
        """This one was sent."""

    def restart(self) -> None:
        """Nothing is under way."""


class Steering:
    """Chooses among the candidates of one robot.

    Args:
        config: how.
        names: the robot's joint names; sets for other joints are refused.
        critic: who says what candidates are worth, None for selectors that need none.
        foresight: the critic values what will be executed; None: what was proposed.

    Attributes:
        counts: sets and candidates refused, deadlines missed, by reason.
    """

    def __init__(
        self,
        config: SteeringConfig,
        names: tuple[str, ...],
        critic: Critic | None = None,
        foresight: Foresight | None = None,
    ) -> None:
        self.config, self.counts = config, Counter[str]()
        self._names, self._chooser = names, Chooser(config, critic)
        self._scorer = None if critic is None else Scorer(critic, config.slice, self._chooser.tau)
        self._last: ActionChunk | None = None
        self._foresight = foresight
        self._told = Counter[str]()

    def restart(self, under_way: ActionChunk | None = None) -> None:
        """Forget the chunk under way, or take another for it: the clock has stepped, or another task has begun."""
        self._last = under_way
        if self._foresight is not None:
            self._foresight.restart()
            if under_way is not None:
                self._foresight.chosen(under_way)

    def decide(self, candidates: Candidates, now_ns: int | None = None) -> Decision | None:
        """Choose, at the latest when the deadline has passed.

        Args:
            candidates: K chunks of absolute joint targets [rad].
            now_ns: the robot's clock [ns], None where it is not known; then only the order of sets is judged.

        Returns:
            The decision, or None where the set is refused (counted by reason).
        """
        until_ns = time.monotonic_ns() + round(self.config.deadline_s * 1e9)
        if reason := self._misfit(candidates, now_ns):
            self.counts[reason] += 1
            return None
        scores = self._scores(candidates, until_ns)
        choice = self._choose(candidates, scores, np.random.default_rng([self.config.seed, candidates.stamp_ns]))
        if choice is None:
            self.counts["nothing_finite"] += 1
            return None
        actions = np.asarray(choice.of(candidates.chunks), np.float64)
        self._last = replace(candidates.chunk(choice.index), actions=actions)
        if self._foresight is not None:
            self._foresight.chosen(self._last)
        self.counts["decided"] += 1
        if choice.abstained:
            self.counts[f"abstained_{choice.abstained}"] += 1
        values = None if scores is None else scores.values
        return Decision(self._last, choice.index, choice.reason, values, choice.abstained)

    def problems(self) -> list[str]:
        """What has gone wrong since this was last asked, one line each."""
        new = Counter({name: self.counts[name] - self._told[name] for name in TROUBLE})
        self._told = self.counts.copy()
        lines = [f"{TROUBLE[name]} ({count} times)" for name, count in new.items() if count]
        if lines and self._scorer is not None and self._scorer.error:
            lines.append(f"critic failed: {self._scorer.error}")
        return lines

    def close(self) -> None:
        """Let the critic's thread end."""
        if self._scorer is not None:
            self._scorer.close()

    def _misfit(self, candidates: Candidates, now_ns: int | None) -> str:
        """Why a set cannot be used, or ""."""
        count, horizon, joints = candidates.chunks.shape if candidates.chunks.ndim == 3 else (0, 0, 0)
        if candidates.spec.names != self._names or candidates.spec.kind is not ActionKind.JOINT_ABSOLUTE:
            return "other_joints"
        if not count or not horizon or joints != len(self._names) or candidates.dt <= 0:
            return "shape"
        if candidates.stamp_ns <= 0:
            return "stamp_zero"
        if self._last is not None and len(self._last.actions) != horizon:
            return "other_length"
        if self._last is not None and candidates.stamp_ns <= self._last.stamp_ns:
            return "out_of_order"
        age_s = 0.0 if now_ns is None else (now_ns - candidates.stamp_ns) / 1e9
        if age_s > self.config.max_age_s:
            return "stale"
        return "future" if age_s < -self.config.max_future_s else ""

    def _scores(self, candidates: Candidates, until_ns: int) -> Scores | None:
        if self._scorer is None:
            return None
        seen = candidates
        if self._foresight is not None:
            seen = replace(candidates, chunks=self._foresight.executed(candidates))
        scores = self._scorer.score(seen, until_ns)
        if scores is None or scores.values.shape[1] < len(candidates.chunks):
            self.counts["late"] += 1
        return scores

    def _choose(self, candidates: Candidates, scores: Scores | None, rng: np.random.Generator) -> Choice | None:
        steps = self.config.executed_steps or None
        chunks, previous = candidates.chunks[:, :steps], self._under_way(candidates)
        finite = np.asarray(np.isfinite(candidates.chunks).all((1, 2)))
        self.counts["candidates_not_finite"] += int((~finite).sum())
        chunks = np.where(finite[:, None, None], chunks, np.nan)
        if scores is None:
            choice = self._chooser.choose(chunks, None, previous, rng)
            missed = self._scorer is not None and self.config.selector not in BLIND
            return replace(choice, reason="first: critic late") if choice and missed else choice
        if not np.isfinite(scores.values).all():
            self.counts["values_not_finite"] += 1
        return self._chooser.choose(chunks, scores.values, previous, rng, scores.distance)

    def _under_way(self, candidates: Candidates) -> Array | None:
        """What is left of the last chunk at the candidates' time, (H', A), None where nothing is."""
        if self._last is None:
            return None
        passed = round((candidates.stamp_ns - self._last.stamp_ns) / 1e9 / self._last.dt)
        return self._last.actions[passed:] if 0 <= passed < len(self._last.actions) else None
