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
from vla_rl.data.sidecars import CandidateTable, read_candidates
from vla_rl.data.transitions import ChunkTransitions
from vla_rl.learn.algorithms import ALGORITHMS
from vla_rl.learn.critic_config import CriticRunConfig
from vla_rl.learn.shares import held_out
from vla_rl.learn.value import load_source
from vla_rl.policy.folder import choose_device
from vla_rl.reward.returns import monte_carlo
from vla_rl.rollout.critic_figures import Held, figures, values_of
from vla_rl.rollout.statistics import spearman
from vla_rl.steer.critic import LoadedCritic
from vla_rl.value.checkpoint import ENCODER, read_card, write_report


@dataclass(frozen=True)
class Gate:
    """What a critic must reach before it may steer.

    Attributes:
        rank_correlation: with Monte-Carlo returns on held-out decisions.
        calibration_error: mean distance of value and return over bins of equal size, as a share of the returns' range.
        beats_random, beats_shuffled: share of decisions in which the data's own chunk is valued above a random one, and
            above another decision's; 0.5 is a coin. Neither is what a policy proposes: the bar is low.
        actions: least `advantage_rank` or `candidate_rank` (see `critic_figures`), whichever is known and higher: 0 for
            a critic that knows states alone. Provisional, as the others are: set after few critics were seen.
    """

    rank_correlation: float = 0.3
    calibration_error: float = 0.2
    beats_random: float = 0.55
    beats_shuffled: float = 0.55
    actions: float = 0.1

    def failures(self, report: Mapping[str, Any]) -> list[str]:
        """What is missed, one phrase each."""
        found = {
            "rank correlation": (report["rank_correlation"], self.rank_correlation, 1),
            "calibration error": (report["calibration_error"], self.calibration_error, -1),
            "data over random actions": (report["actions"]["random"]["wins"], self.beats_random, 1),
            "data over shuffled actions": (report["actions"]["shuffled"]["wins"], self.beats_shuffled, 1),
        }
        ranks = [report[name] for name in ("advantage_rank", "candidate_rank") if name in report]
        if ranks:
            found["rank correlation of actions"] = (max(ranks), self.actions, 1)
        low = {name: side for name, side in found.items() if not side[2] * (side[0] - side[1]) >= 0}  # nan is missed
        return [
            f"{name} {value:.2f}, wanted {'at least' if sign > 0 else 'at most'} {limit:g}"
            for name, (value, limit, sign) in low.items()
        ]


def critic_report(
    folder: str | Path,
    data: Sequence[str] = (),
    policy: str = "",
    rows: int = 4096,
    seed: int = 0,
    gate: Gate | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Judge a critic folder and write the verdict into it.

    Args:
        folder: of the critic.
        data: data sets that it was not trained on; none takes the episodes that its training held out.
        policy: folder of the policy that it is to steer, one of ours, whose chunks are drawn beside demonstrations; ""
            takes the one it was trained with.
        rows: decisions looked at, at most.
        seed: of the choice among them, and of random actions.
        gate: what it must reach.
        device: where critic and encoder run, wherever they were trained.

    Returns:
        JSON-ready: see `figures`; `verdict` ("pass" or "fail") and `reason`.

    Raises:
        ValueError: the data is not there, was trained on or has changed since, or nothing was held out.
    """
    critic, rng = LoadedCritic.load(folder, choose_device(device), trusted=True), np.random.default_rng(seed)
    unseen, seen = held_decisions(folder, data, policy, rows, rng, device)
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
    folder: str | Path, data: Sequence[str], policy: str, rows: int, rng: np.random.Generator, device: str = "auto"
) -> tuple[Held, Held | None]:
    """Decisions that the critic never saw, and as many that it was trained on (None with other `data`)."""
    card = read_card(folder)
    if "training" not in card:
        raise ValueError(
            f"{folder} does not say how it was trained: only critics of `vla-rl train value` can be judged"
        )
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
    changed = [] if data else _changed(config.data, card["data"])
    if changed:
        raise ValueError(
            f"{changed[0]} has changed since the critic was trained on it: nobody knows which of its episodes were "
            "held out; give others with --data"
        )
    config = _with_candidates(replace(config, data=tuple(data) or config.data, device=device), policy)
    transitions = load_source(config).transitions
    held = np.ones(len(transitions), bool) if data else held_out(transitions, config.holdout, config.seed)
    if not held.any():
        raise ValueError("no episode was held out of this critic's training (--holdout 0); give data sets with --data")
    unseen = _decisions(transitions, np.flatnonzero(held), config, rows, rng)
    return unseen, None if data else _decisions(transitions, np.flatnonzero(~held), config, rows, rng)


def _changed(roots: Sequence[str], fingerprints: Sequence[str]) -> list[str]:
    """Data sets that are no longer what their fingerprints say."""
    pairs = zip(roots, fingerprints, strict=True)
    return [root for root, known in pairs if fingerprint_of(open_dataset(root)) != known]


def _with_encoder(config: CriticRunConfig, folder: Path, card: Mapping[str, Any]) -> CriticRunConfig:
    """The training's config with an encoder that is there: the critic's own copy, where it has one."""
    if card["config"]["encoder"] == "own":
        return replace(config, policy=str(folder / ENCODER))
    return config


def _with_candidates(config: CriticRunConfig, policy: str) -> CriticRunConfig:
    """With the chunks of the policy to be steered, where that does not change which episodes were held out.

    Where fewer chunks a decision were recorded than a training would ask for, it is judged by those there are.
    """
    if ALGORITHMS[config.algo].needs_candidates:
        return config
    recorded = [table.chunks.shape[1] for table in _recorded(config) if table is not None]
    count = min([config.candidates, *recorded])
    if count < 2:
        return config
    return replace(config, rank=1.0, candidates=count, drawn_by=policy or config.drawn_by)


def _recorded(config: CriticRunConfig) -> list[CandidateTable | None]:
    """The candidates on record of every data set, None where there are none or others are to be drawn."""
    return [None if config.draw else read_candidates(Path(root)) for root in config.data]


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
    here, there = _policy_chunks(config, data, starts), _policy_chunks(config, data, data.following[some])
    return Held(batch, returns, episode, here, there)


def _returns(each: Any, gamma: float) -> NDArray[np.floating[Any]]:
    """Monte-Carlo returns of a set, (N,): those on record, else from its rewards."""
    if each.mc_return is not None:
        return np.asarray(each.mc_return)
    spans = zip(each.starts[:-1], each.starts[1:], strict=True)
    return np.concatenate([monte_carlo(each.reward[a:b], gamma, terminal=bool(each.done[b - 1])) for a, b in spans])


def _policy_chunks(
    config: CriticRunConfig, data: ChunkTransitions, rows: NDArray[np.int64]
) -> NDArray[np.float32] | None:
    """What was drawn and not executed at these rows, (B, K - 1, h, A), nan where nothing was; None without any."""
    tables = _recorded(config)
    drawn = [table.chunks for table in tables if table is not None]
    k = min((chunks.shape[1] for chunks in drawn), default=0)
    if k < 2:
        return None
    found = np.full((len(rows), k - 1, data.config.window, drawn[0].shape[-1]), np.nan, np.float32)
    first = 0
    for table, each in zip(tables, data.sets, strict=True):
        if table is not None:
            place = np.searchsorted(table.rows, rows - first).clip(max=len(table.rows) - 1)
            known = table.rows[place] == rows - first
            found[known] = _rejected(table, k)[place[known], :, : data.config.window]
        first += len(each)
    return found


def _rejected(table: CandidateTable, k: int) -> NDArray[np.float32]:
    """All but the chunk that was taken among the first k, or all but the last of them, (M, k - 1, H, A)."""
    order = np.argsort(np.arange(k) == table.selected[:, None], axis=1, kind="stable")[:, : k - 1]
    return np.take_along_axis(table.chunks, order[:, :, None, None], axis=1)
