"""Chunk transitions: what was executed for h steps, what it earned, and where it led; never across a segment's end.

::

    segment     . . . . t . . . . . . . e      e: end (exclusive) of the episode, of a takeover, of an autonomous part
    chunk               a a a a                h actions executed from t on
    reward              r r r r                sum_{i<n} gamma^i r_{t+i}, n = n_step
    next                        o              row t + n, inside the segment; at a terminal there is none, and
                                               the discount gamma^n is 0 instead

Q-chunking (arXiv:2507.07969): the n-step return is unbiased, because the executed actions are the chunk.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_rl.data.trajectories import Trajectories

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ChunkBatch:
    """B transitions; states and actions in data units.

    Attributes:
        features: of the observation, (B, D) float32.
        state: (B, S) float32.
        chunk: actions that were EXECUTED, (B, h, A) float32; behind the segment's end the last one is repeated.
        valid: which of them the reward and the next observation come from, (B, h) bool; all with `ends="exact"`.
        reward: sum_{i<n} gamma^i r_i, (B,).
        discount: gamma^n, 0 where the transition ends in a terminal, (B,).
        next_features: (B, D); where the discount is 0 those of the observation itself.
        next_state: (B, S); likewise.
        next_chunk: what was executed from the next observation on, (B, h, A); likewise.
        next_valid: which of its actions were executed there, (B, h) bool; behind the segment's end none was.
        candidates: chunks that the policy drew at the observation, (B, K, H, A), or None; K and H are the least of all
            sets.
        next_candidates: the same at the next observation, (B, K, H, A), or None.
        mc_return: discounted sum of the rewards until the episode's end, (B,), or None.
        weight: (B,).
        success: whether the episode came to success, (B,) bool.
        human: whether a human drove, (B,) bool.
        demonstrated: whether an expert or a human acted, and candidates of the policy are known beside it, (B,) bool.
        index: row of the observation, (B,) int64, counted through all sets (as in `ChunkDataset` without a filter).
    """

    features: Tensor
    state: Tensor
    chunk: Tensor
    valid: Tensor
    reward: Tensor
    discount: Tensor
    next_features: Tensor
    next_state: Tensor
    next_chunk: Tensor
    next_valid: Tensor
    candidates: Tensor | None
    next_candidates: Tensor | None
    mc_return: Tensor | None
    weight: Tensor
    success: Tensor
    human: Tensor
    demonstrated: Tensor
    index: Tensor

    def to(self, device: torch.device | str) -> ChunkBatch:
        """The same batch on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device, non_blocking=True) for k, v in moved.items() if v is not None})

    def __len__(self) -> int:
        """Number of transitions, B."""
        return len(self.reward)


@dataclass(frozen=True)
class TransitionConfig:
    """How transitions are cut.

    Attributes:
        window: actions of a chunk that are executed, h.
        gamma: discount a step.
        n_step: rewards summed before bootstrapping, at least `window`; 0 takes `window`.
        ends: "exact" keeps starts whose whole chunk was executed inside the segment; "pad" also those whose segment
            ends earlier, with `valid` telling which actions were executed. Only "pad" has starts in the last h - 1
            steps before a terminal, which the steps before them bootstrap from.
        candidates: at which rows candidates must have been drawn for a start to count: "" anywhere, "here" at the
            observation, "next" at the next one (or none is needed: a terminal), "both". "some" gives those there are
            at the observation and asks for none.
    """

    window: int
    gamma: float
    n_step: int = 0
    ends: Literal["exact", "pad"] = "exact"
    candidates: Literal["", "some", "here", "next", "both"] = ""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers and words that make no sense."""
        if self.window < 1 or not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"window must be at least 1 and gamma in [0, 1]: {self}")
        if self.n_step and self.n_step < self.window:
            raise ValueError(f"n_step {self.n_step} is shorter than the window of {self.window} executed actions")
        if self.ends not in ("exact", "pad") or self.candidates not in ("", "some", "here", "next", "both"):
            raise ValueError(f"ends is exact or pad, candidates '', some, here, next or both: {self}")


class _Table:
    """Rows of several (memory-mapped) arrays as if they were one."""

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self._arrays, self._offsets = list(arrays), np.cumsum([0, *(len(each) for each in arrays)])

    def __getitem__(self, rows: Rows) -> Tensor:
        """Rows (B,), (B, ...)."""
        if len(self._arrays) == 1:
            return torch.from_numpy(np.take(self._arrays[0], rows, axis=0))
        found = np.empty((len(rows), *self._arrays[0].shape[1:]), np.float32)
        owner = np.searchsorted(self._offsets, rows, side="right") - 1
        for number in np.unique(owner):
            mine = owner == number
            found[mine] = self._arrays[number][rows[mine] - self._offsets[number]]
        return torch.from_numpy(found)


@dataclass(frozen=True, eq=False)
class _Cut:
    """Every row of all sets as the start of a transition; rows count through all sets.

    Attributes:
        steps: rewards in it, n; at least as many actions were executed.
        end: end (exclusive) of the row's segment.
        reward, discount: see `ChunkBatch`.
        following: row of the next observation.
        usable: whether it counts.
    """

    steps: Rows
    end: Rows
    reward: NDArray[np.float32]
    discount: NDArray[np.float32]
    following: Rows
    usable: NDArray[np.bool_]


class ChunkTransitions:
    """All transitions of one or several sets.

    Args:
        sets: the episodes.
        config: how transitions are cut.
        mix: share of each set in every batch (RLPD's 50/50, arXiv:2302.02948, is (1, 1)); None draws all starts alike.

    Attributes:
        starts: rows at which a transition starts, (len,), ascending, counted through all sets.

    Raises:
        ValueError: sets do not fit together, no start is left (or none but terminals, for want of features or
            candidates between them), or candidates were asked for that no set has.
    """

    def __init__(
        self, sets: Trajectories | Sequence[Trajectories], config: TransitionConfig, mix: Sequence[float] | None = None
    ) -> None:
        self.sets = [sets] if isinstance(sets, Trajectories) else list(sets)
        self.config = config
        _require_same(self.sets)
        if config.candidates and all(each.candidates is None for each in self.sets):
            raise ValueError(
                "no candidates were recorded or drawn; collect with --candidates, or let the feature store draw them"
            )
        self._offsets = np.cumsum([0, *(len(each) for each in self.sets)])
        self._load()
        self._cut = _cut(self.sets, self._slots, config)
        self._require_lasting()
        self.starts = np.flatnonzero(self._cut.usable)
        if not len(self.starts):
            raise ValueError(
                f"none of {self._offsets[-1]} rows starts a transition of {config.window} actions ({config})"
            )
        bounds = np.searchsorted(self.starts, self._offsets if mix is not None else self._offsets[[0, -1]])
        self._usable = [self.starts[a:b] for a, b in itertools.pairwise(bounds)]
        self._shares = _shares([1.0] if mix is None else mix, self._usable)

    def _require_lasting(self) -> None:
        """Raise ValueError where gaps in features or candidates leave terminals alone: nothing is bootstrapped."""
        bare, n = replace(self.config, candidates=""), self.config.n_step or self.config.window
        if _lasts(self._cut) or not _lasts(_cut(self.sets, self._slots, bare, everywhere=True), n):
            return
        if not _lasts(_cut(self.sets, self._slots, bare)):
            raise ValueError(
                f"features are known at no two observations that lie {n} steps apart, terminals at most are left: take "
                "a stride that divides the window (or n_step)"
            )
        raise ValueError(
            f"candidates were drawn at no two observations that lie {n} steps apart, terminals at most are left: "
            "take a window (or n_step) that is a multiple of the steps between two decisions of the rollouts"
        )

    def _load(self) -> None:
        """Tables over all sets: numbers in memory, features and candidates where they are."""

        def joined(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(each, name) for each in self.sets])

        self._state, self._action, self._weight = (joined(name) for name in ("state", "action", "weight"))
        self._human, self._demonstrated = joined("intervention"), joined("demonstrated")
        self._success = np.concatenate([each.success[each.episode] for each in self.sets])
        whole = all(each.mc_return is not None for each in self.sets)
        self._mc_return = joined("mc_return") if whole else None
        self._features = _Table([each.features for each in self.sets])
        self._feature_slot = _stacked([each.feature_slot for each in self.sets], [len(e.features) for e in self.sets])
        drawn = [each.candidates for each in self.sets if each.candidates is not None]
        k, h = (min((chunks.shape[axis] for chunks in drawn), default=0) for axis in (1, 2))
        if drawn and self.config.candidates and h < self.config.window:
            raise ValueError(f"candidates of {h} actions are shorter than the window, {self.config.window}")
        self._candidates = _Table([chunks[:, :k, :h] for chunks in drawn]) if drawn else None
        counts = [0 if each.candidates is None else len(each.candidates) for each in self.sets]
        self._slots = _stacked([each.slot for each in self.sets], counts)

    @classmethod
    def from_arrays(
        cls,
        *,
        window: int,
        gamma: float,
        n_step: int = 0,
        ends: Literal["exact", "pad"] = "exact",
        need: Literal["", "some", "here", "next", "both"] = "",
        **arrays: Any,
    ) -> ChunkTransitions:
        """From plain arrays of one set; `arrays` as `Trajectories.of` takes them, the rest as `TransitionConfig`."""
        return cls(Trajectories.of(**arrays), TransitionConfig(window, gamma, n_step, ends, need))

    def __len__(self) -> int:
        """Number of transitions."""
        return len(self.starts)

    def sample(self, rng: np.random.Generator, batch: int) -> ChunkBatch:
        """Draw transitions with replacement; with `mix` every batch has each set's share (rounded by chance)."""
        exact = self._shares * batch
        counts = np.floor(exact).astype(int)
        counts += rng.multinomial(batch - counts.sum(), _normal(exact - counts))
        drawn = [rows[rng.integers(len(rows), size=n)] for rows, n in zip(self._usable, counts, strict=True) if n]
        return self._gather(rng.permutation(np.concatenate(drawn)))

    def batch(self, indices: Rows) -> ChunkBatch:
        """The transitions number `indices` of 0 .. len - 1, (B,)."""
        return self._gather(self.starts[np.asarray(indices, np.int64)])

    def _gather(self, rows: Rows) -> ChunkBatch:
        """Transitions that start at these rows."""
        cut, need = self._cut, self.config.candidates
        following, ahead = cut.following[rows], np.arange(self.config.window)
        return ChunkBatch(
            features=self._features[self._feature_slot[rows]],
            state=torch.from_numpy(self._state[rows]),
            chunk=self._window(rows),
            valid=torch.from_numpy(ahead < cut.steps[rows][:, None]),
            reward=torch.from_numpy(cut.reward[rows]),
            discount=torch.from_numpy(cut.discount[rows]),
            next_features=self._features[self._feature_slot[following]],
            next_state=torch.from_numpy(self._state[following]),
            next_chunk=self._window(following),
            next_valid=torch.from_numpy(ahead < (cut.end[following] - following)[:, None]),
            candidates=self._drawn(rows) if need in ("some", "here", "both") else None,
            next_candidates=self._drawn(following) if need in ("next", "both") else None,
            mc_return=None if self._mc_return is None else torch.from_numpy(self._mc_return[rows]),
            weight=torch.from_numpy(self._weight[rows]),
            success=torch.from_numpy(self._success[rows]),
            human=torch.from_numpy(self._human[rows]),
            demonstrated=torch.from_numpy(self._demonstrated[rows] & (self._slots[rows] >= 0)),
            index=torch.from_numpy(rows),
        )

    @property
    def human(self) -> NDArray[np.bool_]:
        """Whether a human drove at the start of each transition, (len,)."""
        return np.asarray(self._human[self.starts])

    @property
    def following(self) -> Rows:
        """Row of the next observation of each transition, (len,); its own where it ends in a terminal."""
        return self._cut.following[self.starts]

    @property
    def owner(self) -> Rows:
        """Number of the set of each transition, (len,)."""
        return np.searchsorted(self._offsets, self.starts, side="right") - 1

    def _window(self, rows: Rows) -> Tensor:
        """What was executed from these rows on, (B, h, A)."""
        last = self._cut.end[rows][:, None] - 1
        return torch.from_numpy(self._action[np.minimum(rows[:, None] + np.arange(self.config.window), last)])

    def _drawn(self, rows: Rows) -> Tensor | None:
        """Candidate sets of these rows, (B, K, H, A); zeros where a terminal needs none."""
        if self._candidates is None:
            return None
        slots = self._slots[rows]
        found = self._candidates[np.maximum(slots, 0)]
        found[torch.from_numpy(slots < 0)] = 0.0
        return found


def _cut(sets: Sequence[Trajectories], slots: Rows, config: TransitionConfig, everywhere: bool = False) -> _Cut:
    """Make every row the start of a transition; `everywhere` as if the features of all of them were known."""
    ends = np.concatenate([each.segment_ends() + o for each, o in zip(sets, _offsets(sets), strict=True)])
    reward, done, kept = (np.concatenate([getattr(e, n) for e in sets]) for n in ("reward", "done", "kept"))
    known = np.concatenate([(each.feature_slot >= 0) | everywhere for each in sets])
    rows, n = np.arange(len(ends)), config.n_step or config.window
    left = ends - rows
    terminal = done[ends - 1] & (left <= n)
    steps = np.where(terminal, left, np.minimum(n, left - 1))
    total = np.zeros(len(rows))
    for i in range(n):
        total += np.where(i < steps, config.gamma**i * reward[np.minimum(rows + i, len(rows) - 1)], 0.0)
    discount = np.where(terminal, 0.0, config.gamma ** steps.astype(float))
    following = np.where(terminal, rows, rows + steps)
    usable = kept & known & known[following] & (steps >= (config.window if config.ends == "exact" else 1))
    if config.candidates in ("here", "both"):
        usable &= slots >= 0
    if config.candidates in ("next", "both"):
        usable &= terminal | (slots[following] >= 0)
    return _Cut(steps, ends, total.astype(np.float32), discount.astype(np.float32), following, usable)


def _lasts(cut: _Cut, least: int = 1) -> bool:
    """Whether any transition leads on, by so many steps at least."""
    return bool((cut.usable & (cut.discount > 0) & (cut.steps >= least)).any())


def _offsets(sets: Sequence[Trajectories]) -> list[int]:
    return [0, *itertools.accumulate(len(each) for each in sets)][:-1]


def _stacked(slots: Sequence[Rows], counts: Sequence[int]) -> Rows:
    """Places in several tables as places in their concatenation; -1 stays."""
    offsets = [0, *itertools.accumulate(counts)]
    return np.concatenate([np.where(each >= 0, each + o, -1) for each, o in zip(slots, offsets, strict=False)])


def _require_same(sets: Sequence[Trajectories]) -> None:
    if not sets:
        raise ValueError("no set of episodes was given")
    for name in ("features", "state", "action"):
        widths = [int(getattr(each, name).shape[1]) for each in sets]
        if len(set(widths)) > 1:
            raise ValueError(f"sets differ in the width of '{name}': {', '.join(map(str, widths))}")


def _shares(mix: Sequence[float], usable: Sequence[Rows]) -> NDArray[np.float64]:
    shares = np.asarray(mix, np.float64)
    if len(shares) != len(usable) or not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise ValueError(f"a mix needs one share of at least 0 for each of {len(usable)} sets, got {list(mix)}")
    empty = [i for i, rows in enumerate(usable) if not len(rows) and shares[i] > 0]
    if empty:
        raise ValueError(f"set {empty[0]} has no transition, but a share of {shares[empty[0]]:g} in the mix")
    return shares / shares.sum()


def _normal(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities in proportion to weights; all alike where they are zero."""
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(weights), 1.0 / len(weights))
