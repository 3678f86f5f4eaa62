"""What is said of a critic on decisions that it was not trained on: does it rank states, and does it rank actions?

The advantage of what was done over what the policy does there is known twice, without any noise in common:

::

    critic     Q(s, a_data) - mean over half of the policy's other chunks a_k of Q(s, a_k)
    outcome    r + gamma^n mean_k Q(s', a'_k) - mean over the other half of Q(s, a_k)

A critic that knows states alone has nothing in the first; one whose order of actions is what came of them has both
alike. r and s' are what really happened. Beside a demonstration the policy's chunks are compared with what was shown:
`candidate_rank` asks whether those that come nearer to it are valued higher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vla_rl.data.transitions import ChunkBatch
from vla_rl.learn.ranking import chunk_errors
from vla_rl.rollout.statistics import auc, spearman
from vla_rl.steer.critic import LoadedCritic

Array = NDArray[np.float64]
BINS, RESAMPLES, SLICE = 10, 300, 1024


@dataclass(frozen=True, eq=False)
class Held:
    """Decisions that a critic is judged on.

    Attributes:
        batch: observations and executed chunks, (B, ...).
        returns: Monte-Carlo, (B,).
        episode: number of each one's episode, (B,).
        policy: chunks that the policy drew there and did not execute, (B, K, h, A), nan where it drew none; None where
            no set has any.
        next_policy: the same at the next observations.
    """

    batch: ChunkBatch
    returns: Array
    episode: NDArray[np.int64]
    policy: NDArray[np.float32] | None
    next_policy: NDArray[np.float32] | None = None


def figures(critic: LoadedCritic, held: Held, rng: np.random.Generator) -> dict[str, Any]:
    """All that is said of a critic on held-out decisions.

    Returns:
        JSON-ready: counts; `rank_correlation` of value and return with its interval; `calibration_error` (share of the
        returns' range), its `calibration` bins and `bias`; `success_auc`: chance that a decision of a success is valued
        above one of a failure; `actions`: the data's chunk against `random`, `shuffled` and `policy` ones: `wins` and
        `gap` (in standard deviations of the value over decisions); `advantage_rank`: rank correlation of the critic's
        and the outcome's advantage (see the module) with its interval: whether it knows good from bad ACTIONS;
        `candidate_rank`: mean rank correlation of the policy's chunks' values with their nearness to demonstrations.
    """
    values, success = values_of(critic, held.batch), held.batch.success.numpy()
    spread = max(float(values.std()), 1e-9)
    others = {"random": random_chunks(held.batch, rng), "shuffled": shuffled_chunks(critic, held.batch, rng)}
    said = {name: _values(critic, held.batch, chunks) for name, chunks in others.items()}
    report: dict[str, Any] = {
        "episodes": len(np.unique(held.episode)),
        "decisions": len(values),
        "rank_correlation": spearman(values, held.returns),
        "rank_correlation_ci95": _interval(values, held.returns, held.episode, rng),
        "success_auc": auc(values, success),
        **calibration(values, held.returns),
        "actions": {name: _against(values, other, spread) for name, other in said.items()},
    }
    if held.policy is not None:
        sampled = _score_drawn(critic, held.batch.features, held.batch.state, held.policy)
        drawn = np.isfinite(sampled).all(1)
        if drawn.any():
            report["actions"]["policy"] = _against(values[drawn], sampled[drawn].mean(1), spread)
            report["candidate_spread"] = float(sampled[drawn].std(1).mean() / spread)
        report |= _advantage_rank(critic, held, values, sampled, rng)
    return report | _candidate_rank(critic, held, rng)


def calibration(values: Array, returns: Array) -> dict[str, Any]:
    """Expected calibration error over bins of equal size, as a share of the returns' range, and the bins."""
    bins = [some for some in np.array_split(np.argsort(values, kind="stable"), BINS) if len(some)]
    rows = [(float(values[b].mean()), float(returns[b].mean()), len(b)) for b in bins]
    error = sum(count * abs(value - found) for value, found, count in rows) / len(values)
    return {
        "calibration_error": error / (float(np.ptp(returns)) or 1.0),
        "bias": float((values - returns).mean()),
        "calibration": [{"value": value, "return": found, "decisions": count} for value, found, count in rows],
    }


def values_of(critic: LoadedCritic, batch: ChunkBatch) -> Array:
    """The ensemble's mean value of the data's own chunks, (B,)."""
    return _values(critic, batch, batch.chunk.numpy())


def _values(critic: LoadedCritic, batch: ChunkBatch, chunks: NDArray[np.float32]) -> Array:
    """One chunk a decision, (B, h, A), to (B,)."""
    return score(critic, batch.features, batch.state, chunks[:, None])[:, 0]


def score(critic: LoadedCritic, features: Tensor, state: Tensor, chunks: NDArray[np.float32]) -> Array:
    """The ensemble's mean values of chunks (B, K, h, A), (B, K)."""
    known = state if state.shape[1] else None
    parts = []
    for start in range(0, len(chunks), SLICE):
        some = slice(start, start + SLICE)
        parts.append(critic.score(features[some], None if known is None else known[some], chunks[some]).mean(0))
    return np.concatenate(parts)


def _score_drawn(critic: LoadedCritic, features: Tensor, state: Tensor, chunks: NDArray[np.float32]) -> Array:
    """As `score`; nan where nothing was drawn."""
    said = score(critic, features, state, np.nan_to_num(chunks))
    said[~np.isfinite(chunks).all((2, 3))] = np.nan
    return said


def advantages(
    reward: Array, discount: Array, value: Array, sampled: Array, next_sampled: Array
) -> tuple[Array, Array]:
    """The critic's and the outcome's advantage of what was done, (B,) each; see the module.

    Args:
        reward, discount: of the transition, (B,); the discount is 0 at a terminal.
        value: of what was done, (B,).
        sampled, next_sampled: of the policy's chunks at the observation and the next one, (B, K), K of at least 2.
    """
    following = np.where(discount > 0, next_sampled.mean(1), 0.0)
    return value - sampled[:, ::2].mean(1), reward + discount * following - sampled[:, 1::2].mean(1)


def _advantage_rank(
    critic: LoadedCritic, held: Held, values: Array, sampled: Array, rng: np.random.Generator
) -> dict[str, Any]:
    """Rank correlation of both advantages, where the policy's chunks are known on both sides of a transition."""
    if held.next_policy is None or sampled.shape[1] < 2:
        return {}
    batch = held.batch
    next_sampled = _score_drawn(critic, batch.next_features, batch.next_state, held.next_policy)
    reward, discount = batch.reward.double().numpy(), batch.discount.double().numpy()
    said, found = advantages(reward, discount, values, sampled, next_sampled)
    known = np.isfinite(said) & np.isfinite(found)
    if not known.any():
        return {}
    said, found, episode = said[known], found[known], held.episode[known]
    interval = _interval(said, found, episode, rng)
    return {"advantage_rank": spearman(said, found), "advantage_rank_ci95": interval, "advantages": int(known.sum())}


def _candidate_rank(critic: LoadedCritic, held: Held, rng: np.random.Generator) -> dict[str, Any]:
    """Over demonstrated observations: rank correlation of candidates' values with less distance to what was shown."""
    batch = held.batch
    if batch.candidates is None or not batch.demonstrated.any():
        return {}
    rows = batch.demonstrated
    errors = chunk_errors(batch.candidates[rows], batch.chunk[rows], batch.valid[rows], critic.spread).double().numpy()
    said = score(critic, batch.features[rows], batch.state[rows], batch.candidates[rows].numpy())
    each = np.array([spearman(value, -error) for value, error in zip(said, errors, strict=True)])
    episode = held.episode[rows.numpy()]
    means = np.array([each[episode == number].mean() for number in np.unique(episode)])
    drawn = means[rng.integers(len(means), size=(RESAMPLES, len(means)))].mean(1)
    interval = [float(end) for end in np.quantile(drawn, [0.025, 0.975])]
    return {"candidate_rank": float(each.mean()), "candidate_rank_ci95": interval, "demonstrated": len(each)}


def random_chunks(batch: ChunkBatch, rng: np.random.Generator) -> NDArray[np.float32]:
    """One chunk a decision, every action uniform within what the data's actions span (1% to 99%), (B, h, A)."""
    chunks = batch.chunk.numpy()
    low, high = np.quantile(chunks, [0.01, 0.99], axis=(0, 1))
    return rng.uniform(low, high, chunks.shape).astype(np.float32)


def shuffled_chunks(critic: LoadedCritic, batch: ChunkBatch, rng: np.random.Generator) -> NDArray[np.float32]:
    """Another decision's chunk for each, moved to where its own begins: the same motion in the wrong place, (B, h, A).

    Without the move a critic would only have to see that a chunk begins elsewhere than the arm is.
    """
    chunks = batch.chunk.numpy()
    other = chunks[rng.permutation(len(chunks))]
    relative = critic.card["config"]["relative"]
    shift = chunks[:, :1] - other[:, :1]
    return (other + shift * (np.asarray(relative, np.float32) if relative else 1.0)).astype(np.float32)


def _against(values: Array, other: Array, spread: float) -> dict[str, float]:
    """How often, and by how much, the data's own chunks are valued above others; ties count half."""
    wins = (values > other).mean() + 0.5 * (values == other).mean()
    return {"wins": float(wins), "gap": float((values - other).mean() / spread)}


def _interval(values: Array, returns: Array, episode: NDArray[np.int64], rng: np.random.Generator) -> list[float]:
    """95% bootstrap interval of the rank correlation, resampling episodes."""
    order = np.argsort(episode, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(episode[order])) + 1)
    drawn = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
        drawn.append(spearman(values[rows], returns[rows]))
    return [float(end) for end in np.quantile(drawn, [0.025, 0.975])]
