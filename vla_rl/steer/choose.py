"""Chooser: a selector, its options and its abstention as one rule, the same in the node and in evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vla_rl.steer.abstain import AbstainConfig, abstention
from vla_rl.steer.selectors import BLIND, Choice, Chunks, SelectorOptions, make_selector, select

SAYS = {"margin": "first: margin within the ensemble's spread", "novel": "first: observation unlike the training data"}


@dataclass(frozen=True, kw_only=True)
class ChooserConfig(SelectorOptions, AbstainConfig):
    """How one of K candidates is chosen.

    Attributes:
        selector: name of the rule.
        temperature, k, tau, aggregate: see `SelectorOptions`.
        margin, novelty: see `AbstainConfig`.
    """

    selector: str = "first"

    def __post_init__(self) -> None:
        """Raise ValueError for a choice that does not exist."""
        make_selector(self.selector)
        SelectorOptions.__post_init__(self)
        AbstainConfig.__post_init__(self)


class Judges(Protocol):
    """A critic, as far as a rule asks whether it can be followed.

    Attributes:
        members: critics in the ensemble, E.
        distribution: whether they know the return's distribution, and not its mean alone.
    """

    members: int
    distribution: bool


class Chooser:
    """Chooses among candidates.

    Args:
        config: how.
        critic: who says what they are worth, None for selectors that need none.

    Attributes:
        tau: the quantile that the critic is asked for, None where it is asked for the mean.

    Raises:
        ValueError: the rule cannot be followed with this critic.
    """

    def __init__(self, config: ChooserConfig, critic: Judges | None = None) -> None:
        self.config = config
        self._rule, self._blind = make_selector(config.selector, config), config.selector in BLIND
        self.tau = config.tau if config.selector == "quantile" else None
        if critic is None and not self._blind:
            raise ValueError(f"selector '{config.selector}' needs a critic; without one there are: {', '.join(BLIND)}")
        if critic is not None and critic.members < 2 and (config.selector == "lcb" or config.margin):
            what = "selector 'lcb'" if config.selector == "lcb" else "abstention by margin"
            raise ValueError(f"{what} needs an ensemble of at least 2 critics, this one has {critic.members}")
        if critic is not None and self.tau is not None and not critic.distribution:
            raise ValueError("selector 'quantile' needs a critic that knows the return's distribution, not an mse head")

    def choose(
        self,
        chunks: Chunks,
        values: Chunks | None,
        previous: Chunks | None,
        rng: np.random.Generator,
        distance: float = float("nan"),
    ) -> Choice | None:
        """Choose one.

        Args:
            chunks: (K, H, A), any units, as many steps as will be executed; not all need to be finite.
            values: what the critic said of the first n <= K, (E, n); None where it said nothing (in time).
            previous: what is left of the chunk under way, (H', A).
            rng: for rules that draw.
            distance: of the observation, see `LoadedCritic.distance`.

        Returns:
            The choice; None where no candidate is finite.
        """
        if self._blind:  # a critic that is late, or says what is not finite, is no reason to choose otherwise
            return select(self._rule, chunks, None, previous, rng)
        if values is None:
            usable = select(make_selector("first"), chunks, None, previous, rng)
            return usable and Choice(usable.index, "first: no value")
        choice = select(self._rule, chunks, values, previous, rng)
        if choice is None:
            return None
        base = int(np.isfinite(chunks).all((1, 2)).argmax())
        judged = values if _knows(values, base) and _knows(values, choice.index) else None
        why = abstention(self.config, judged, choice.index, base, distance)
        return Choice(base, SAYS[why], why) if why else choice


def _knows(values: Chunks, index: int) -> bool:
    """Whether every critic said something finite of this candidate."""
    return index < values.shape[1] and bool(np.isfinite(values[:, index]).all())
