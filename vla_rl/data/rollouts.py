"""Rollouts: a LeRobotDataset with features, rewards and candidates, as the trajectories that transitions come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.data.cache import FrameCache
from vla_rl.data.chunks import Keep
from vla_rl.data.dataset import DatasetError
from vla_rl.data.decode import Progress
from vla_rl.data.features import FeatureStore, FeatureTable
from vla_rl.data.outcomes import endings, left_alone
from vla_rl.data.sidecars import CandidateTable, read_column
from vla_rl.data.trajectories import Trajectories

REWARD, RETURN = "reward", "return"  # columns of sidecars


@dataclass(frozen=True)
class RolloutConfig:
    """What is read of a data set.

    Attributes:
        layer: features of the encoder.
        stride: features of every `stride`-th frame of an episode; 1 takes all.
        reward: tag of the sidecars `reward_<tag>` and `return_<tag>`; "" takes the column `next.reward`, no returns.
        candidates: chunks a decision, K: those recorded, else drawn at every `stride`-th frame; 0 for none.
        draw: draw them although there are recorded ones (another policy's, for one).
        drawn_by: folder of the policy that draws them; "" for the one whose backbone encodes.
        seed: of their noise.
        proposed: take the actions that the policy proposed, wherever it drove, instead of what limits made of them:
            the limits are then part of the world, as they are for the candidates that a critic compares.
    """

    layer: str = "pooled"
    stride: int = 1
    reward: str = ""
    candidates: int = 0
    draw: bool = False
    drawn_by: str = ""
    seed: int = 0
    proposed: bool = False


def load_trajectories(
    dataset_root: str | Path,
    encoder: str | Path,
    config: RolloutConfig,
    *,
    keep: Keep | None = None,
    cache_root: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Trajectories:
    """Everything about a data set that transitions need, computed where it was not yet.

    Args:
        dataset_root: folder of a LeRobotDataset v3.
        encoder: folder of the policy whose backbone encodes.
        config: what to read.
        keep: predicate on an episode's meta; transitions start in the others alone.
        cache_root, device: see `FeatureStore.open`.
        progress: called with (done, all) of whatever is under way.

    Raises:
        DatasetError: the data set, or the reward of that tag, can not be read.
        ValueError: the encoder is no policy of ours, or fewer candidates were recorded than asked for.
    """
    store = FeatureStore.open(dataset_root, encoder, config.layer, cache_root, device, progress)
    drawn = None
    if config.candidates:
        stride = config.stride if config.stride > 1 else 0
        other = config.drawn_by
        drawer = FeatureStore.open(dataset_root, other, "pooled", cache_root, device, progress) if other else store
        drawn = drawer.candidates(config.candidates, stride, config.seed, progress, draw=config.draw)
    features = store.features(config.stride, progress)
    return trajectories(store.cache, features, config.reward, drawn, keep, proposed=config.proposed)


def trajectories(
    cache: FrameCache,
    features: FeatureTable,
    reward: str = "",
    candidates: CandidateTable | None = None,
    keep: Keep | None = None,
    *,
    proposed: bool = False,
) -> Trajectories:
    """The trajectories of a data set whose features are known; arguments as in `load_trajectories`."""
    over, numbers = endings(cache), _rewards(cache, reward)
    human = np.asarray(cache.columns.get("intervention", np.zeros(len(cache), bool))).reshape(len(cache)).astype(bool)
    return Trajectories.of(
        features=features.values,
        feature_rows=features.rows,
        state=cache.columns.get("observation.state"),
        action=_proposed(cache, human) if proposed else cache.columns["action"],
        done=over.done,
        truncated=over.truncated | (left_alone(cache) & ~over.done),
        intervention=human,
        starts=cache.starts,
        success=[each is True for each in over.success],
        candidates=None if candidates is None else candidates.chunks,
        candidate_rows=None if candidates is None else candidates.rows,
        kept=_kept(cache, keep),
        demonstrated=human | _undecided(cache),
        **numbers,
    )


def _undecided(cache: FrameCache) -> NDArray[np.bool_]:
    """Whether no chunk of a policy was under way, (N,): an expert acted."""
    chunk = cache.columns.get("chunk.index", np.full(len(cache), -1))
    return np.asarray(chunk).reshape(len(cache)) < 0


def _proposed(cache: FrameCache, human: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What the policy proposed where it drove, and what was executed elsewhere, (N, A)."""
    missing = [name for name in ("policy_action", "policy_action_valid") if name not in cache.columns]
    if missing:
        raise DatasetError(f"{cache.source} has no column '{missing[0]}': only executed actions can be taken")
    mine = np.asarray(cache.columns["policy_action_valid"]).reshape(len(cache)) & ~human
    return np.where(mine[:, None], cache.columns["policy_action"], cache.columns["action"])


def _rewards(cache: FrameCache, tag: str) -> Mapping[str, NDArray[np.float32]]:
    if not tag:
        column = cache.columns.get("next.reward", np.zeros(len(cache), np.float32))
        return {"reward": np.asarray(column, np.float32).reshape(len(cache))}
    root = Path(cache.source)
    return {
        "reward": read_column(root, REWARD, tag, len(cache))[0],
        "mc_return": read_column(root, RETURN, tag, len(cache))[0],
    }


def _kept(cache: FrameCache, keep: Keep | None) -> NDArray[np.bool_] | None:
    if keep is None:
        return None
    wanted: list[Any] = [bool(keep(episode)) for episode in cache.episodes]
    return np.repeat(wanted, np.diff(cache.starts))
