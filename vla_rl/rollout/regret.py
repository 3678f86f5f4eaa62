"""Regret: what an audit's endings say of the ways to choose among candidates, and of the critic's ranking.

All figures are of single decisions, after which the policy goes on alone: u_k is the share of continuations in which
candidate k ended in success. Intervals resample episodes, whose decisions are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.rollout.statistics import cluster_interval, spearman

Record = Mapping[str, Any]
Note = Mapping[str, Any]
Array = NDArray[np.float64]


def worths(note: Note) -> Array:
    """u: success of every candidate, (K,)."""
    return np.asarray(note["success"], dtype=np.float64).mean(1)


def chosen(note: Note) -> float:
    """What was executed: a candidate, or a blend of some that is none of them."""
    blend = note.get("blend")
    return float(worths(note)[note["chosen"]] if blend is None else np.mean(blend))


def oracle(note: Note) -> float:
    """The best candidate in hindsight."""
    return float(worths(note).max())


def crossed(note: Note) -> float:
    """The best by one continuation, counted by the others (R >= 2), ties averaged: hindsight without its luck."""
    success = np.asarray(note["success"], dtype=np.float64)  # (K, R)
    counted = []
    for r in range(success.shape[1]):
        best = success[:, r] == success[:, r].max()
        counted.append(np.delete(success, r, axis=1)[best].mean())
    return float(np.mean(counted))


def said(note: Note) -> Array:
    """What the critic says of every candidate (mean of the ensemble), (K,); one without a value comes last."""
    values = np.asarray(note["values"], dtype=np.float64).mean(0)
    return np.where(np.isfinite(values), values, -np.inf)


def ranked(note: Note) -> float:
    """What the critic ranks first, ties averaged: a constant critic is `random`."""
    values = said(note)
    return float(worths(note)[values == values.max()].mean())


CHOICES: dict[str, Callable[[Note], float]] = {
    "first": lambda note: float(worths(note)[0]),
    "random": lambda note: float(worths(note).mean()),
    "medoid": lambda note: float(worths(note)[note["medoid"]]),
    "chosen": chosen,
    "oracle": oracle,
}


def audit(records: Sequence[Record]) -> dict[str, Any] | None:
    """The audit of some episodes.

    Args:
        records: of `vla-rl eval`, with an audit's `notes`.

    Returns:
        JSON-ready: `decisions` looked at and their `coverage` of all that were made; `contested`: the share in which
        candidates ended differently; `success` by way of choosing [share]; `oracle_gain_points` (best minus first),
        `regret_points` (best minus chosen) and, with a critic, `ranking_regret_points` (best minus what it ranks
        first), `ranking_gain_points` (that minus random), `concordance` and `rank_correlation` with the endings of
        contested decisions; differences with `..._ci95`. None where nothing was looked at.
    """
    episodes = [record["notes"] for record in records if record.get("notes")]
    notes = [note for some in episodes for note in some]
    if not notes:
        return None
    made = sum(record["choices"]["made"] for record in records if record.get("notes"))
    choices = dict(CHOICES)
    if all(note["values"] is not None for note in notes):
        choices["ranked"] = ranked
    if min(len(note["success"][0]) for note in notes) > 1:
        choices["crossed"] = crossed
    shares = {name: [[choose(note) for note in some] for some in episodes] for name, choose in choices.items()}
    contested = [note for note in notes if np.ptp(worths(note)) > 0]
    return {
        "episodes": len(episodes),
        "decisions": len(notes),
        "coverage": len(notes) / max(made, 1),
        "candidates": max(len(note["success"]) for note in notes),
        "continuations": max(len(note["success"][0]) for note in notes),
        "contested": len(contested) / len(notes),
        "success": {name: float(np.concatenate(values).mean()) for name, values in shares.items()},
        **_gains(shares),
        **(_ranking(contested) if "ranked" in shares else {}),
    }


def _gains(shares: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Differences between ways of choosing [points], with intervals."""
    wanted = {"oracle_gain_points": ("oracle", "first"), "regret_points": ("oracle", "chosen")}
    wanted |= {"chosen_gain_points": ("chosen", "first"), "medoid_gain_points": ("medoid", "first")}
    if "ranked" in shares:
        wanted |= {"ranking_regret_points": ("oracle", "ranked"), "ranking_gain_points": ("ranked", "random")}
    if "crossed" in shares:
        wanted |= {"crossed_gain_points": ("crossed", "first")}
    gains: dict[str, Any] = {}
    for name, (better, worse) in wanted.items():
        pairs = zip(shares[better], shares[worse], strict=True)
        groups = [100.0 * (np.asarray(a) - np.asarray(b)) for a, b in pairs]
        gains[name] = float(np.concatenate(groups).mean())
        gains[f"{name}_ci95"] = list(cluster_interval(groups))
    return gains


def _ranking(contested: Sequence[Note]) -> dict[str, Any]:
    """How the critic's order agrees with the endings, where these differ; None where they nowhere do."""
    if not contested:
        return {"rank_correlation": None, "concordance": None}
    means = [said(note) for note in contested]
    found = [spearman(values, merit(note)) for values, note in zip(means, contested, strict=True)]
    agreed = [concordance(values, worths(note)) for values, note in zip(means, contested, strict=True)]
    return {"rank_correlation": float(np.mean(found)), "concordance": float(np.mean(agreed))}


def merit(note: Note) -> Array:
    """Endings in order of worth, (K,): success first, sooner success before later, all failures alike."""
    success, steps = (np.asarray(note[key], dtype=np.float64) for key in ("success", "steps"))
    return np.asarray((success * (1.0 + 1.0 / (1.0 + steps))).mean(1))


def concordance(values: Array, worth: Array) -> float:
    """Of pairs of candidates that ended differently, the share that the values order rightly; ties count half."""
    ahead = worth[:, None] > worth[None]
    right, tied = values[:, None] > values[None], values[:, None] == values[None]
    return float((right + 0.5 * tied)[ahead].mean())
