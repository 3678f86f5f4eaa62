"""Critic report: does a critic know, on episodes it was not trained on, what comes of actions? Read before it steers.

Returns are those of the policy that recorded the episodes; a critic of a better policy (iql, qc ...) values the same
states higher. Rank correlation does not mind, calibration does: `bias` says by how much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.data.dataset import fingerprint_of, open_dataset
from vla_rl.data.sidecars import read_candidates
from vla_rl.data.transitions import ChunkBatch, ChunkTransitions
from vla_rl.learn.critic_config import CriticRunConfig
from vla_rl.learn.value import held_out, load_source
from vla_rl.reward.returns import monte_carlo
from vla_rl.rollout.statistics import auc, spearman
from vla_rl.steer.critic import LoadedCritic
from vla_rl.value.checkpoint import ENCODER, read_card, write_report

Array = NDArray[np.float64]
BINS, RESAMPLES, SLICE = 10, 300, 1024


@dataclass(frozen=True)
class Gate:
    """What a critic must reach before it may steer.

    Attributes:
        rank_correlation: with Monte-Carlo returns on held-out decisions.
        calibration_error: mean distance of value and return over bins of equal size, as a share of the returns' range.
        beats_random, beats_shuffled: share of decisions in which the data's own chunk is valued above a random one, and
            above another decision's; 0.5 is a coin. Neither is what a policy proposes: the bar is low.
        advantage_auc: see `figures`; 0.5 is a coin. Not asked where no candidates were recorded.
    """

    rank_correlation: float = 0.3
    calibration_error: float = 0.2
    beats_random: float = 0.55
    beats_shuffled: float = 0.55
    advantage_auc: float = 0.5

    def failures(self, report: Mapping[str, Any]) -> list[str]:
        """What is missed, one phrase each."""
        found = {
            "rank correlation": (report["rank_correlation"], self.rank_correlation, 1),
            "calibration error": (report["calibration_error"], self.calibration_error, -1),
            "data over random actions": (report["actions"]["random"]["wins"], self.beats_random, 1),
            "data over shuffled actions": (report["actions"]["shuffled"]["wins"], self.beats_shuffled, 1),
        }
        if report.get("advantage_auc") is not None:
            found["actions of successes over those of failures"] = (report["advantage_auc"], self.advantage_auc, 1)
        low = {name: side for name, side in found.items() if side[2] * (side[0] - side[1]) < 0}
        return [
            f"{name} {value:.2f}, wanted {'at least' if sign > 0 else 'at most'} {limit:g}"
            for name, (value, limit, sign) in low.items()
        ]


@dataclass(frozen=True, eq=False)
class Held:
    """Decisions that a critic is judged on.

    Attributes:
        batch: observations and executed chunks, (B, ...).
        returns: Monte-Carlo, (B,).
        episode: number of each one's episode, (B,).
        policy: chunks that the policy drew there, (B, K, h, A); None where no set has any.
    """

    batch: ChunkBatch
    returns: Array
    episode: NDArray[np.int64]
    policy: NDArray[np.float32] | None


def critic_report(
    folder: str | Path, data: Sequence[str] = (), rows: int = 4096, seed: int = 0, gate: Gate | None = None
) -> dict[str, Any]:
    """Judge a critic folder and write the verdict into it.

    Args:
        folder: of the critic.
        data: data sets that it was not trained on; none takes the episodes that its training held out.
        rows: decisions looked at, at most.
        seed: of the choice among them, and of random actions.
        gate: what it must reach.

    Returns:
        JSON-ready: see `figures`; `verdict` ("pass" or "fail") and `reason`.

    Raises:
        ValueError: the data is not there, was trained on, or nothing was held out.
    """
    critic, rng = LoadedCritic.load(folder, trusted=True), np.random.default_rng(seed)
    unseen, seen = held_decisions(folder, data, rows, rng)
    report = figures(critic, unseen, rng)
    if seen is not None:
        report["rank_correlation_seen"] = spearman(values_of(critic, seen.batch), seen.returns)
    return conclude(folder, report, gate or Gate())


def conclude(folder: str | Path, report: Mapping[str, Any], gate: Gate, more: Sequence[str] = ()) -> dict[str, Any]:
    """The report with its verdict, written into the critic's record.

    Args:
        folder: of the critic.
        report: its figures.
        gate: what it must reach.
        more: reasons to fail that are not in the figures.
    """
    missed = [*gate.failures(report), *more]
    verdict = {"verdict": "fail" if missed else "pass", "reason": "; ".join(missed) or "all gates reached"}
    full = {**report, **verdict}
    write_report(folder, full)
    return full


def held_decisions(
    folder: str | Path, data: Sequence[str], rows: int, rng: np.random.Generator
) -> tuple[Held, Held | None]:
    """Decisions that the critic never saw, and as many that it was trained on (None with other `data`)."""
    card = read_card(folder)
    trained: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in card["training"].items()
    }
    config = _with_encoder(CriticRunConfig(**trained), Path(folder), card)
    known = [root for root in data if fingerprint_of(open_dataset(root)) in card["data"]]
    if known:
        raise ValueError(f"the critic was trained on {known[0]}; leave out --data to use the episodes it held out")
    missing = [root for root in data or config.data if not Path(root).is_dir()]
    if missing:
        raise ValueError(f"no data set at {missing[0]}, which the critic was trained on; give others with --data")
    config = replace(config, data=tuple(data) or config.data)
    transitions = load_source(config).transitions
    held = np.ones(len(transitions), bool) if data else held_out(transitions, config.holdout, config.seed)
    if not held.any():
        raise ValueError("no episode was held out of this critic's training (--holdout 0); give data sets with --data")
    unseen = _decisions(transitions, np.flatnonzero(held), config, rows, rng)
    return unseen, None if data else _decisions(transitions, np.flatnonzero(~held), config, rows, rng)


def figures(critic: LoadedCritic, held: Held, rng: np.random.Generator) -> dict[str, Any]:
    """All that is said of a critic on held-out decisions.

    Returns:
        JSON-ready: counts; `rank_correlation` of value and return with its interval; `calibration_error` (share of the
        returns' range), its `calibration` bins and `bias`; `success_auc`: chance that a decision of a success is valued
        above one of a failure; `actions`: the data's chunk against `random`, `shuffled` and `policy` ones: `wins` and
        `gap` (in standard deviations of the value over decisions); `advantage_auc`: the same chance for the data's
        chunk's value minus the mean of the policy's: whether it knows good from bad ACTIONS, not only states.
    """
    values, success = values_of(critic, held.batch), held.batch.success.numpy()
    spread = max(float(values.std()), 1e-9)
    others = {"random": random_chunks(held.batch, rng), "shuffled": shuffled_chunks(critic, held.batch, rng)}
    said = {name: score(critic, held.batch, chunks[:, None])[:, 0] for name, chunks in others.items()}
    report: dict[str, Any] = {
        "episodes": len(np.unique(held.episode)),
        "decisions": len(values),
        "rank_correlation": spearman(values, held.returns),
        "rank_correlation_ci95": _correlation_interval(values, held.returns, held.episode, rng),
        "success_auc": auc(values, success),
        **calibration(values, held.returns),
        "actions": {name: _against(values, other, spread) for name, other in said.items()},
    }
    if held.policy is not None:
        drawn = np.isfinite(held.policy).all((1, 2, 3))
        sampled = score(critic, held.batch, np.nan_to_num(held.policy))[drawn]  # (B', K)
        report["actions"]["policy"] = _against(values[drawn], sampled.mean(1), spread)
        report["advantage_auc"] = auc(values[drawn] - sampled.mean(1), success[drawn])
        report["candidate_spread"] = float(sampled.std(1).mean() / spread)
    return report


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
    return score(critic, batch, batch.chunk.numpy()[:, None])[:, 0]


def score(critic: LoadedCritic, batch: ChunkBatch, chunks: NDArray[np.float32]) -> Array:
    """The ensemble's mean values of chunks (B, K, h, A), (B, K)."""
    state = batch.state if batch.state.shape[1] else None
    parts = []
    for start in range(0, len(chunks), SLICE):
        some = slice(start, start + SLICE)
        parts.append(critic.score(batch.features[some], None if state is None else state[some], chunks[some]).mean(0))
    return np.concatenate(parts)


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


def _correlation_interval(
    values: Array, returns: Array, episode: NDArray[np.int64], rng: np.random.Generator
) -> list[float]:
    """95% bootstrap interval of the rank correlation, resampling episodes."""
    order = np.argsort(episode, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(episode[order])) + 1)
    drawn = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
        drawn.append(spearman(values[rows], returns[rows]))
    return [float(end) for end in np.quantile(drawn, [0.025, 0.975])]


def _with_encoder(config: CriticRunConfig, folder: Path, card: Mapping[str, Any]) -> CriticRunConfig:
    """The training's config with an encoder that is there: the critic's own copy, where it has one."""
    if card["config"]["encoder"] == "own":
        return replace(config, policy=str(folder / ENCODER))
    return config


def _decisions(
    data: ChunkTransitions, indices: NDArray[np.int64], config: CriticRunConfig, rows: int, rng: np.random.Generator
) -> Held:
    """Some of these transitions, with returns and the policy's chunks."""
    some = np.sort(rng.permutation(indices)[:rows])
    batch, starts = data.batch(some), data.starts[some]
    offsets = np.cumsum([0, *(len(each) for each in data.sets)])
    owner = np.searchsorted(offsets, starts, side="right") - 1
    returns, episode = np.empty(len(some)), np.empty(len(some), np.int64)
    first = 0
    for number, each in enumerate(data.sets):
        mine, local = owner == number, starts[owner == number] - offsets[number]
        returns[mine], episode[mine] = _returns(each, config.gamma)[local], each.episode[local] + first
        first += len(each.starts) - 1
    return Held(batch, returns, episode, _policy_chunks(config, owner, starts - offsets[owner], batch.chunk.shape[1]))


def _returns(each: Any, gamma: float) -> NDArray[np.floating[Any]]:
    """Monte-Carlo returns of a set, (N,): those on record, else from its rewards."""
    if each.mc_return is not None:
        return np.asarray(each.mc_return)
    spans = zip(each.starts[:-1], each.starts[1:], strict=True)
    return np.concatenate([monte_carlo(each.reward[a:b], gamma, terminal=bool(each.done[b - 1])) for a, b in spans])


def _policy_chunks(
    config: CriticRunConfig, owner: NDArray[np.int64], local: NDArray[np.int64], window: int
) -> NDArray[np.float32] | None:
    """Recorded candidates of these rows, (B, K, h, A), NaN where there are none; None where no set has any."""
    tables = [None if config.draw else read_candidates(Path(root)) for root in config.data]
    k = min((table.chunks.shape[1] for table in tables if table is not None), default=0)
    if not k:
        return None
    width = next(table.chunks.shape[-1] for table in tables if table is not None)
    chunks = np.full((len(local), k, window, width), np.nan, np.float32)
    for number, table in enumerate(tables):
        if table is not None:
            place = {int(row): i for i, row in enumerate(table.rows)}
            for b in np.flatnonzero(owner == number):
                if (i := place.get(int(local[b]))) is not None:
                    chunks[b] = table.chunks[i, :k, :window]
    return chunks
