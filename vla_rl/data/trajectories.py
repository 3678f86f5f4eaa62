"""Trajectories: the numbers of whole episodes, one row a step, that chunk transitions are cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Episodes one after the other: N rows, each an observation, the action executed in it and what came of that.

    The last row of a segment that does not end in a terminal serves as an observation only: what its action led to was
    not recorded. Where the last observation of an episode is known, append it as a row of its own.

    Attributes:
        features: of a frozen encoder at some rows, (M, D).
        feature_slot: for each row its place in `features`, -1 where there is none, (N,).
        state: in data units, (N, S).
        action: executed, in data units, (N, A).
        reward: of the action, (N,).
        done: the action led to a terminal state, (N,); a time limit is none.
        truncated: the episode was cut after the action, (N,).
        intervention: a human drove, (N,).
        starts: first row of each episode, and N at the end, (E + 1,).
        success: whether each episode came to success, (E,).
        weight: of each row in a loss, (N,).
        mc_return: discounted sum of the rewards from each row on, (N,), or None.
        candidates: chunks that a policy drew at some rows, (M, K, H, A), or None.
        slot: for each row its place in `candidates`, -1 where none were drawn, (N,).
        kept: rows at which a transition may start, (N,).
        demonstrated: an expert or a human acted, not the policy that drew the candidates, (N,).
    """

    features: Floats
    feature_slot: NDArray[np.int64]
    state: Floats
    action: Floats
    reward: Floats
    done: Flags
    truncated: Flags
    intervention: Flags
    starts: NDArray[np.int64]
    success: Flags
    weight: Floats
    mc_return: Floats | None
    candidates: Floats | None
    slot: NDArray[np.int64]
    kept: Flags
    demonstrated: Flags

    @classmethod
    def of(
        cls,
        *,
        features: ArrayLike,
        action: ArrayLike,
        reward: ArrayLike,
        done: ArrayLike,
        state: ArrayLike | None = None,
        truncated: ArrayLike | None = None,
        intervention: ArrayLike | None = None,
        starts: Sequence[int] | NDArray[np.int64] | None = None,
        success: ArrayLike | None = None,
        weight: ArrayLike | None = None,
        mc_return: ArrayLike | None = None,
        candidates: ArrayLike | None = None,
        candidate_rows: ArrayLike | None = None,
        feature_rows: ArrayLike | None = None,
        kept: ArrayLike | None = None,
        demonstrated: ArrayLike | None = None,
    ) -> Trajectories:
        """From plain arrays, with what is left out filled in.

        Args:
            features, action, reward, done, state, truncated, intervention, weight, mc_return, kept, demonstrated: see
                the attributes; no state has S = 0, missing flags are false, and all rows are kept.
            starts: first row of each episode, with or without N at the end; by default an episode ends at every `done`
                and `truncated`.
            success: (E,); by default an episode succeeds where its rewards sum to more than zero.
            candidates: (N, K, H, A), or (M, K, H, A) together with `candidate_rows`.
            candidate_rows: the rows at which `candidates` were drawn, (M,).
            feature_rows: the rows that have `features`; by default all.

        Raises:
            ValueError: an array has another number of rows; the message names it.
        """
        actions = _floats(action)
        rows = len(actions)
        over = _flags(done, rows) | _flags(truncated, rows)
        begins = _starts(over, rows) if starts is None else np.unique([*np.asarray(starts, np.int64), rows])
        rewards = _floats(reward)
        made = cls(
            features=np.asarray(features, np.float32),
            feature_slot=_slots(feature_rows, rows),
            state=np.zeros((rows, 0), np.float32) if state is None else _floats(state),
            action=actions,
            reward=rewards,
            done=_flags(done, rows),
            truncated=_flags(truncated, rows),
            intervention=_flags(intervention, rows),
            starts=begins,
            success=_successes(success, rewards, begins),
            weight=np.ones(rows, np.float32) if weight is None else _floats(weight),
            mc_return=None if mc_return is None else _floats(mc_return),
            candidates=None if candidates is None else _floats(candidates),
            slot=_slots(candidate_rows, rows) if candidates is not None else np.full(rows, -1),
            kept=np.ones(rows, bool) if kept is None else np.asarray(kept, bool),
            demonstrated=_flags(demonstrated, rows),
        )
        made.check()
        return made

    def __len__(self) -> int:
        """Number of rows, N."""
        return len(self.action)

    @property
    def episode(self) -> NDArray[np.int64]:
        """Number of each row's episode, (N,)."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def check(self) -> None:
        """Raise ValueError where an array does not have N rows, or E."""
        rows = ("feature_slot", "state", "reward", "done", "truncated", "intervention", "weight", "slot", "kept")
        counts = {name: len(self) for name in (*rows, "demonstrated")} | {"success": len(self.starts) - 1}
        counts |= {"mc_return": len(self)} if self.mc_return is not None else {}
        counts |= {"features": int(self.feature_slot.max(initial=-1)) + 1}
        counts |= {"candidates": int(self.slot.max(initial=-1)) + 1} if self.candidates is not None else {}
        for name, wanted in counts.items():
            if len(getattr(self, name)) != wanted:
                raise ValueError(f"'{name}' has {len(getattr(self, name))} rows, {wanted} are needed")

    def segment_ends(self) -> NDArray[np.int64]:
        """For each row the end (exclusive) of the segment that it lies in, (N,).

        A segment ends with its episode, after a `done` or `truncated`, and where `intervention` flips.
        """
        rows = len(self)
        last = np.zeros(rows, bool)
        last[self.starts[1:] - 1] = True
        last |= self.done | self.truncated
        last[:-1] |= self.intervention[:-1] != self.intervention[1:]
        ends = np.flatnonzero(last) + 1
        return np.asarray(ends[np.searchsorted(ends, np.arange(rows), side="right")])


def _floats(values: ArrayLike) -> Floats:
    return np.asarray(values, np.float32)


def _flags(values: ArrayLike | None, rows: int) -> Flags:
    return np.zeros(rows, bool) if values is None else np.asarray(values, bool)


def _starts(over: Flags, rows: int) -> NDArray[np.int64]:
    return np.unique([0, *(np.flatnonzero(over) + 1), rows]).astype(np.int64)


def _slots(where: ArrayLike | None, rows: int) -> NDArray[np.int64]:
    """For each row its place among the rows `where`, -1 for others; None means all."""
    if where is None:
        return np.arange(rows)
    slot, known = np.full(rows, -1, np.int64), np.asarray(where, np.int64)
    slot[known] = np.arange(len(known))
    return slot


def _successes(success: ArrayLike | None, reward: Floats, starts: NDArray[np.int64]) -> Flags:
    if success is not None:
        return np.asarray(success, bool)
    return np.asarray(np.add.reduceat(reward, starts[:-1]) > 0.0)
