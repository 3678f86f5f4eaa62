"""Selectors: which of K candidate chunks is executed. One function each, chosen by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Chunks = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Choice:
    """The index of a candidate, and why it was taken."""

    index: int
    reason: str


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


def first(chunks: Chunks, values: Chunks | None, previous: Chunks | None, rng: np.random.Generator) -> Choice:
    """The policy's first sample: no steering, the control arm of every comparison."""
    return Choice(0, "first")


def random(chunks: Chunks, values: Chunks | None, previous: Chunks | None, rng: np.random.Generator) -> Choice:
    """Any sample with equal chance: the control arm of selectors that claim to know better."""
    return Choice(int(rng.integers(len(chunks))), "random")


def medoid(chunks: Chunks, values: Chunks | None, previous: Chunks | None, rng: np.random.Generator) -> Choice:
    """The most central sample of the largest mode (KeyStone, arXiv:2605.08638); needs no critic.

    Distances are Euclidean between flattened chunks. Where mean and medoid lie close together (less than 0.3 of the
    median pairwise distance) there is one mode, and its medoid is taken; else the samples are split into two clusters
    by k-means, and the medoid of the larger one is taken. Ties go to what lies more centrally among all samples.
    """
    flat = np.asarray(chunks, dtype=np.float64).reshape(len(chunks), -1)
    distances = np.linalg.norm(flat[:, None] - flat[None], axis=-1)  # (K, K)
    total = distances.sum(1)
    centre = int(total.argmin())
    pairwise = distances[np.triu_indices(len(flat), 1)]
    typical = float(np.median(pairwise)) if len(pairwise) else 0.0
    if typical == 0.0 or np.linalg.norm(flat.mean(0) - flat[centre]) < ONE_MODE * typical:
        return Choice(centre, "medoid")
    members = np.flatnonzero(_larger_cluster(flat, distances, centre))
    inner = distances[np.ix_(members, members)].sum(1)
    best = np.lexsort((total[members], inner))[0]
    return Choice(int(members[best]), f"medoid of {len(members)}/{len(flat)}")


ONE_MODE = 0.3  # KeyStone's bound on |mean - medoid| / median pairwise distance
KMEANS_STEPS = 20

SELECTORS: dict[str, Selector] = {"first": first, "random": random, "medoid": medoid}


def make_selector(name: str) -> Selector:
    """A selector by name.

    Raises:
        ValueError: there is none of that name; the message lists those there are.
    """
    if name not in SELECTORS:
        raise ValueError(f"unknown selector '{name}'; there are: {', '.join(SELECTORS)}")
    return SELECTORS[name]


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
        return Choice(int(usable[choice.index]), choice.reason)
    scored = usable[usable < values.shape[1]]
    scored = scored[np.isfinite(values[:, scored]).all(0)]
    if not len(scored):
        return Choice(int(usable[0]), "first: no finite value")
    choice = rule(chunks[scored], values[:, scored], previous, rng)
    return Choice(int(scored[choice.index]), choice.reason)


def _larger_cluster(flat: Chunks, distances: Chunks, centre: int) -> NDArray[np.bool_]:
    """Members of the larger of two k-means clusters, (K,), of equal ones that of sample `centre`.

    The farthest pair are the first centres.
    """
    ends = np.unravel_index(int(distances.argmax()), distances.shape)
    centres, nearer = flat[list(ends)], np.zeros(len(flat), dtype=bool)
    for _ in range(KMEANS_STEPS):
        gaps = np.linalg.norm(flat[:, None] - centres[None], axis=-1)  # (K, 2)
        nearer = gaps[:, 0] <= gaps[:, 1]
        moved = np.stack([flat[nearer].mean(0), flat[~nearer].mean(0)]) if 0 < nearer.sum() < len(flat) else centres
        if np.array_equal(moved, centres):
            break
        centres = moved
    surplus = 2 * int(nearer.sum()) - len(flat)
    return nearer if surplus > 0 or (surplus == 0 and nearer[centre]) else ~nearer
