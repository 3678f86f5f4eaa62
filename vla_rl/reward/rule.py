"""Rule: what a reward is, and the rules there are, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

GROUP = "vla_rl.rewards"  # entry points of other packages: name = module:factory
Tail = Literal["zero", "repeat"]


@dataclass(frozen=True, eq=False)
class EpisodeColumns:
    """One episode as a rule sees it, T steps.

    Attributes:
        columns: numeric columns, (T, ...).
        images: camera column to (T, H, W, 3) uint8; empty for rules that do not look.
        outcome: whether it came to success, None where the data set does not say.
        terminal: whether it ended in a terminal; else it was cut.
        instruction: what was to be done.
        longest: steps of the longest episode of the data set.
        source: where it is from, for messages.
    """

    columns: Mapping[str, NDArray[Any]]
    images: Mapping[str, NDArray[np.uint8]]
    outcome: bool | None
    terminal: bool
    instruction: str
    longest: int
    source: str

    def __len__(self) -> int:
        """Number of steps, T."""
        return len(next(iter(self.columns.values())))

    @property
    def success(self) -> bool:
        """Whether it came to success.

        Raises:
            ValueError: the data set does not say.
        """
        if self.outcome is None:
            raise ValueError(
                f"{self.source} does not say which episodes succeeded: it has neither next.success nor an outcome, or "
                "one that was never marked; the reward 'classifier' can tell from images"
            )
        return self.outcome

    @property
    def success_row(self) -> int:
        """The step whose action led to success, -1 where none did."""
        if not self.success:
            return -1
        flags = np.asarray(self.columns.get("next.success", [])).reshape(-1)
        return int(np.argmax(flags)) if flags.any() else len(self) - 1


class Reward(Protocol):
    """A rule: an episode to one reward a step."""

    @property
    def low(self) -> float:
        """The least reward of a step: a critic's support is made from it."""

    @property
    def high(self) -> float:
        """The greatest reward of a step."""

    @property
    def tail(self) -> Tail:
        """What a Monte-Carlo return assumes behind a cut.

        Nothing more ("zero"), or the last reward for ever ("repeat": the cut hides steps that cost as much).
        """

    @property
    def looks(self) -> bool:
        """Whether it needs images."""

    def __call__(self, episode: EpisodeColumns) -> NDArray[np.float32]:
        """The reward of every step, (T,).

        Raises:
            ValueError: the episode lacks what the rule needs.
        """


def cuts_of(rule: Reward, episode: EpisodeColumns) -> tuple[int, ...]:
    """Rows (above 0, ascending) that no return reaches across: those of the rule's own `cuts`; most rules have none."""
    split: Callable[[EpisodeColumns], tuple[int, ...]] | None = getattr(rule, "cuts", None)
    return () if split is None else split(episode)


def reward_names() -> list[str]:
    """Every rule that can be named: ours, and those of installed packages."""
    return list(dict.fromkeys([*_own(), *(point.name for point in entry_points(group=GROUP))]))


def make_reward(name: str, **options: Any) -> Reward:
    """A rule by name.

    Raises:
        ValueError: no rule of that name, or an option that it does not have; the message lists those there are.
    """
    factory = _own().get(name) or _installed(name)
    if factory is None:
        raise ValueError(f"unknown reward '{name}'; there are: {', '.join(reward_names())}")
    try:
        return factory(**options)
    except TypeError:
        accepted = ", ".join(inspect.signature(factory).parameters) or "none"
        raise ValueError(f"reward '{name}' does not take {options}; its options: {accepted}") from None


def _own() -> dict[str, Callable[..., Reward]]:
    from vla_rl.reward.classifier import ClassifierReward
    from vla_rl.reward.dense import Dense
    from vla_rl.reward.recap import Recap
    from vla_rl.reward.sparse import Sparse
    from vla_rl.reward.step_penalty import StepPenalty
    from vla_rl.reward.time_to_success import TimeToSuccess

    return {
        "sparse": Sparse,
        "step-penalty": StepPenalty,
        "dense": Dense,
        "classifier": ClassifierReward,
        "time-to-success": TimeToSuccess,
        "recap": Recap,
    }


def _installed(name: str) -> Callable[..., Reward] | None:
    """A plug-in's factory, imported now; None where no package has one of that name."""
    found: list[Callable[..., Reward]] = [p.load() for p in entry_points(group=GROUP) if p.name == name]
    return found[0] if found else None
