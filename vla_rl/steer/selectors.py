"""Selectors: which of K candidate chunks is executed. One function each, chosen by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vla_rl.steer.medoid import keystone, modes, weighted_medoid
from vla_rl.value.aggregate import make_aggregate

Chunks = NDArray[np.floating[Any]]
AGGREGATES = ("mean", "min")


@dataclass(frozen=True)
class Choice:
    """The index of a candidate, and why it was taken.

    Attributes:
        index: which of the K.
        reason: the rule, or why it could not be followed.
        abstained: "" where the rule was followed; "margin" or "novel" where the critic was not trusted.
        shares: what of each candidate goes into the chunk to execute, K numbers that add up to 1; empty takes the one
            at `index` as it is. With shares, `index` is the candidate nearest to their mean.
    """

    index: int
    reason: str
    abstained: str = ""
    shares: tuple[float, ...] = ()

    def of(self, chunks: Chunks) -> Chunks:
        """The chunk to execute, (H, A), of the candidates (K, H, A)."""
        if not self.shares:
            return chunks[self.index]
        used = np.flatnonzero(self.shares)  # others need not be finite
        shares = np.asarray(self.shares, np.float64)[used]
        return np.tensordot(shares, chunks[used], 1).astype(chunks.dtype)

    def among(self, places: NDArray[np.intp], count: int) -> Choice:
        """The same choice, made among the candidates at `places` of `count`."""
        shares = np.zeros(count)
        if self.shares:
            shares[places] = self.shares
        return Choice(int(places[self.index]), self.reason, self.abstained, tuple(shares) if self.shares else ())


class Selector(Protocol):
    """A rule of choice."""

    def __call__(
        self, chunks: Chunks, values: Chunks | None, previous: Chunks | None, rng: np.random.Generator
    ) -> Choice:
        """Choose one of K candidates.

        Args:
            chunks: (K, H, A), finite.
            values: what an ensemble of E critics says of each, (E, K), finite; None where there is no critic.
            previous: what is left of the chunk under way, (H', A), its first action at the time of the candidates'.
            rng: for rules that draw.
        """


@dataclass(frozen=True, kw_only=True)
class SelectorOptions:
    """What the rules leave open; each reads what concerns it.

    Attributes:
        temperature: of `softmax`, `weighted` and `weighted_mean`, in units of the value.
        k: how many standard deviations of the ensemble `lcb` subtracts.
        tau: which lower quantile of the return's distribution `quantile` compares.
        aggregate: how all rules but `lcb` join the ensemble: mean, or min (TD3).
    """

    temperature: float = 0.1
    k: float = 1.0
    tau: float = 0.1
    aggregate: str = "mean"

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no sense."""
        if not (self.temperature > 0 and self.k >= 0 and 0 < self.tau < 1):
            raise ValueError(f"temperature must be positive, k not negative, tau between 0 and 1: {self}")
        if self.aggregate not in AGGREGATES:
            raise ValueError(f"unknown aggregate '{self.aggregate}'; there are: {', '.join(AGGREGATES)}")


def first(chunks: Chunks, values: Chunks | None, previous: Chunks | None, rng: np.random.Generator) -> Choice:
    """The policy's first sample: no steering, the control arm of every comparison."""
    return Choice(0, "first")


def random(chunks: Chunks, values: Chunks | None, previous: Chunks | None, rng: np.random.Generator) -> Choice:
    """Any sample with equal chance: the control arm of selectors that claim to know better."""
    return Choice(int(rng.integers(len(chunks))), "random")


def medoid(chunks: Chunks, values: Chunks | None, previous: Chunks | None, rng: np.random.Generator) -> Choice:
    """The most central sample of the largest mode (KeyStone, arXiv:2605.08638); needs no critic."""
    index, members = keystone(chunks)
    return Choice(index, "medoid" if members == len(chunks) else f"medoid of {members}/{len(chunks)}")


def argmax(
    chunks: Chunks,
    values: Chunks | None,
    previous: Chunks | None,
    rng: np.random.Generator,
    *,
    aggregate: str = "mean",
) -> Choice:
    """The sample that the critic values most (V-GPS at temperature 0, arXiv:2410.13816)."""
    return Choice(int(worth(values, aggregate).argmax()), "argmax")


def softmax(
    chunks: Chunks,
    values: Chunks | None,
    previous: Chunks | None,
    rng: np.random.Generator,
    *,
    temperature: float = 0.1,
    aggregate: str = "mean",
) -> Choice:
    """A draw in proportion to exp(value / temperature) (V-GPS, arXiv:2410.13816)."""
    weights = softmax_weights(worth(values, aggregate), temperature)
    return Choice(int(rng.choice(len(weights), p=weights)), "softmax")


def lcb(
    chunks: Chunks, values: Chunks | None, previous: Chunks | None, rng: np.random.Generator, *, k: float = 1.0
) -> Choice:
    """The best lower confidence bound: mean minus k standard deviations of the ensemble (arXiv:2310.16029).

    Raises:
        ValueError: an ensemble of one has no spread.
    """
    return Choice(int(worth(values, "lcb", k).argmax()), "lcb")


def quantile(
    chunks: Chunks,
    values: Chunks | None,
    previous: Chunks | None,
    rng: np.random.Generator,
    *,
    aggregate: str = "mean",
) -> Choice:
    """The best lower quantile of the return: here `values` are quantiles, which the critic is asked for."""
    return Choice(int(worth(values, aggregate).argmax()), "quantile")


def weighted(
    chunks: Chunks,
    values: Chunks | None,
    previous: Chunks | None,
    rng: np.random.Generator,
    *,
    temperature: float = 0.1,
    aggregate: str = "mean",
) -> Choice:
    """The medoid under the weights exp(value / temperature): a sample, never a mean that lies between two modes.

    At temperature 0 it is `argmax`, at a high one the medoid of all.
    """
    weights = softmax_weights(worth(values, aggregate), temperature)
    return Choice(weighted_medoid(chunks, weights), "weighted")


def mean(chunks: Chunks, values: Chunks | None, previous: Chunks | None, rng: np.random.Generator) -> Choice:
    """The mean of the largest mode (see `medoid.modes`); needs no critic: the control arm of `weighted_mean`."""
    return blend(chunks, np.full(len(chunks), 1.0 / len(chunks)), "mean")


def weighted_mean(
    chunks: Chunks,
    values: Chunks | None,
    previous: Chunks | None,
    rng: np.random.Generator,
    *,
    temperature: float = 0.1,
    aggregate: str = "mean",
) -> Choice:
    """The mean under the weights exp(value / temperature), within the mode that weighs most.

    Sampling noise averages out, and the value decides what is left. At temperature 0 it is `argmax`.
    """
    return blend(chunks, softmax_weights(worth(values, aggregate), temperature), "weighted mean")


def blend(chunks: Chunks, weights: Chunks, reason: str) -> Choice:
    """The weighted mean of the candidates of one mode, that with most weight: no mean lies between two modes."""
    members = max(modes(chunks), key=lambda mode: float(weights[mode].sum()))
    shares = np.zeros(len(chunks))
    shares[members] = weights[members] / weights[members].sum()
    apart = np.square(chunks[members] - np.tensordot(shares, chunks, 1)).sum((1, 2))
    return Choice(int(members[apart.argmin()]), reason, shares=tuple(shares))


SELECTORS: dict[str, Selector] = {
    "first": first,
    "random": random,
    "medoid": medoid,
    "argmax": argmax,
    "softmax": softmax,
    "lcb": lcb,
    "quantile": quantile,
    "weighted": weighted,
    "mean": mean,
    "weighted_mean": weighted_mean,
}
BLIND = ("first", "random", "medoid", "mean")  # rules that read no values
_OPTIONS: dict[str, tuple[str, ...]] = {
    "argmax": ("aggregate",),
    "softmax": ("temperature", "aggregate"),
    "lcb": ("k",),
    "quantile": ("aggregate",),
    "weighted": ("temperature", "aggregate"),
    "weighted_mean": ("temperature", "aggregate"),
}


def options_of(name: str) -> tuple[str, ...]:
    """Which of the options of a `ChooserConfig` mean something to a selector."""
    asked = ("tau",) if name == "quantile" else ()  # of the critic
    return (*_OPTIONS.get(name, ()), *asked, *(() if name in BLIND else ("margin", "novelty")))


def make_selector(name: str, options: SelectorOptions | None = None) -> Selector:
    """A selector by name.

    Raises:
        ValueError: there is none of that name; the message lists those there are.
    """
    if name not in SELECTORS:
        raise ValueError(f"unknown selector '{name}'; there are: {', '.join(SELECTORS)}")
    chosen = options or SelectorOptions()
    return partial(SELECTORS[name], **{field: getattr(chosen, field) for field in _OPTIONS.get(name, ())})


def worth(values: Chunks | None, aggregate: str, k: float = 1.0) -> Chunks:
    """One number a candidate, (K,), from an ensemble's (E, K), by the rule that TD targets use too.

    Raises:
        ValueError: there are no values.
    """
    if values is None:
        raise ValueError("this selector needs a critic's values; without a critic there are: " + ", ".join(BLIND))
    return np.asarray(make_aggregate(aggregate, len(values), k=k)(values))


def softmax_weights(worths: Chunks, temperature: float) -> Chunks:
    """exp(worth / temperature), adding up to 1, (K,)."""
    weights = np.exp((worths - worths.max()) / temperature)
    return np.asarray(weights / weights.sum())


def select(
    rule: Selector, chunks: Chunks, values: Chunks | None, previous: Chunks | None, rng: np.random.Generator
) -> Choice | None:
    """Apply a rule to the candidates that can be used at all.

    A candidate that is not finite is excluded, and so is one whose value is not; where no value is finite the first
    usable candidate is taken, and where fewer candidates were scored than drawn, the scored ones stand for all.

    Args:
        rule: the selector.
        chunks: (K, H, A).
        values: (E, n) of the first n <= K candidates, or None.
        previous: see `Selector`.
        rng: see `Selector`.

    Returns:
        The choice, its index one of the K; None where no candidate is finite.
    """
    usable = np.flatnonzero(np.isfinite(chunks).all((1, 2)))
    if not len(usable):
        return None
    if values is None:
        choice = rule(chunks[usable], None, previous, rng)
        return choice.among(usable, len(chunks))
    scored = usable[usable < values.shape[1]]
    scored = scored[np.isfinite(values[:, scored]).all(0)]
    if not len(scored):
        return Choice(int(usable[0]), "first: no finite value")
    choice = rule(chunks[scored], values[:, scored], previous, rng)
    return choice.among(scored, len(chunks))
