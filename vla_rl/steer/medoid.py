"""Medoids: the most central of K chunks, by number (KeyStone) or by what a critic says of each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Chunks = NDArray[np.floating[Any]]

ONE_MODE = 0.3  # KeyStone's bound on |mean - medoid| / median pairwise distance
KMEANS_STEPS = 20
APART = 2.0


def pairwise(chunks: Chunks) -> Chunks:
    """Euclidean distances between flattened chunks (K, H, A): (K, K)."""
    flat = np.asarray(chunks, dtype=np.float64).reshape(len(chunks), -1)
    return np.asarray(np.linalg.norm(flat[:, None] - flat[None], axis=-1))


def keystone(chunks: Chunks) -> tuple[int, int]:
    """The most central sample of the largest mode (KeyStone, arXiv:2605.08638), and the size of that mode.

    Where mean and medoid lie close together (less than 0.3 of the median pairwise distance) there is one mode, and its
    medoid is taken; else the samples are split into two clusters by k-means, and the medoid of the larger one is
    taken. Ties go to what lies more centrally among all samples.
    """
    flat, distances = np.asarray(chunks, dtype=np.float64).reshape(len(chunks), -1), pairwise(chunks)
    total = distances.sum(1)
    centre = int(total.argmin())
    apart = distances[np.triu_indices(len(flat), 1)]
    typical = float(np.median(apart)) if len(apart) else 0.0
    if typical == 0.0 or np.linalg.norm(flat.mean(0) - flat[centre]) < ONE_MODE * typical:
        return centre, len(flat)
    members = np.flatnonzero(_larger_cluster(flat, distances, centre))
    inner = distances[np.ix_(members, members)].sum(1)
    best = np.lexsort((total[members], inner))[0]
    return int(members[best]), len(members)


def modes(chunks: Chunks) -> list[NDArray[np.int64]]:
    """The samples of the one mode that there is, or of two, the larger one first.

    Two clusters are modes where their centres lie farther apart than `APART` times the distance of their members from
    them. (KeyStone's bound splits any eight samples of a Gaussian: good for a medoid, wasteful for a mean.)
    """
    flat, distances = np.asarray(chunks, dtype=np.float64).reshape(len(chunks), -1), pairwise(chunks)
    if not distances.any():
        return [np.arange(len(flat))]
    larger = _larger_cluster(flat, distances, int(distances.sum(1).argmin()))
    parts = [np.flatnonzero(larger), np.flatnonzero(~larger)]
    centres = [flat[part].mean(0) for part in parts]
    within = np.concatenate([flat[part] - centre for part, centre in zip(parts, centres, strict=True)])
    spread = float(np.sqrt(np.square(within).sum(1).mean()))
    return parts if np.linalg.norm(centres[0] - centres[1]) > APART * spread else [np.arange(len(flat))]


def weighted_medoid(chunks: Chunks, weights: Chunks) -> int:
    """The sample with the least weighted sum of distances to all others; weights are (K,)."""
    return int((pairwise(chunks) @ weights).argmin())


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
