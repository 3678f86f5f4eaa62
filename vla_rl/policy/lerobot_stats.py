"""What `lerobot-train` hands a policy, turned into what ours needs: names, and statistics of relative chunks."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.policy.configuration_vla_rl import VLAConfig
from vla_rl.policy.normalize import ACTION, STATE, Stats, compute_stats
from vla_rl.robot import arm_names, arm_spec
from vla_rl.types import ActionSpec

MAX_CHUNKS = 200_000

logger = logging.getLogger(__name__)


def feature_names(features: Mapping[str, Any], key: str) -> list[str]:
    """Names of a feature's dimensions; empty where the data set gives none."""
    names = features.get(key, {}).get("names")
    if isinstance(names, Mapping):
        names = next(iter(names.values()), None)
    return [str(name) for name in names] if names else []


def adopt_metadata(config: VLAConfig, meta: Any) -> None:
    """Take names, rate and action spec over from a data set's metadata, where the config does not say them."""
    config.state_names = config.state_names or feature_names(meta.features, STATE)
    config.action_feature_names = config.action_feature_names or feature_names(meta.features, ACTION)
    config.fps = float(meta.fps)
    if config.action_spec is None:
        spec = _declared_actions(meta)
        if spec is not None and list(spec.names) == config.action_feature_names:
            config.action_spec = spec.to_dict()


def _declared_actions(meta: Any) -> ActionSpec | None:
    """What an action's numbers mean: as our own sets say of themselves, else as the arm of that name has it."""
    note = Path(meta.root) / "meta/vla_rl.json"
    if note.is_file() and (said := json.loads(note.read_text()).get("action_spec")):
        return ActionSpec.from_dict(said)
    return arm_spec(meta.robot_type).lerobot_action_spec if meta.robot_type in arm_names() else None


def window(
    values: NDArray[Any], episodes: NDArray[Any], starts: NDArray[Any], horizon: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Chunks that begin at given frames and never cross an episode's end.

    Args:
        values: (T, A), the frames of all episodes, one episode after the other.
        episodes: (T,), the episode of each frame.
        starts: (N,), frames.
        horizon: H.

    Returns:
        Chunks (N, H, A), the last action of an episode repeated, and where it is, (N, H).
    """
    last = np.searchsorted(episodes, episodes, side="right") - 1
    frames = starts[:, None] + np.arange(horizon)
    is_pad = frames > last[starts][:, None]
    return values[np.minimum(frames, last[starts][:, None])], is_pad


def dataset_statistics(config: VLAConfig, dataset_stats: Mapping[str, Any] | None, meta: Any) -> Stats:
    """Statistics for a policy from what `lerobot-train` gives.

    Relative ones are computed from the data set's own Parquet files. Where there are none to read, the config is turned
    to absolute actions, with a warning, since statistics of absolute actions do not describe relative ones.
    """
    if config.relative:
        try:
            return _from_files(Path(meta.root), config)
        except (AttributeError, OSError, KeyError) as error:
            logger.warning("action_mode falls back to absolute: no Parquet files to take statistics from (%s)", error)
            config.action_mode = "absolute"
    return {
        key: {name: np.asarray(value, dtype=np.float32) for name, value in entry.items()}
        for key, entry in (dataset_stats or {}).items()
        if key in (STATE, ACTION)
    }


def _from_files(root: Path, config: VLAConfig) -> Stats:
    """Statistics of relative chunks from `data/*/*.parquet`."""
    episodes, state, actions = _columns(root, ["episode_index", STATE, ACTION])
    order = np.argsort(episodes, kind="stable")
    episodes, state, actions = episodes[order], state[order], actions[order]
    starts = np.arange(0, len(episodes), max(1, len(episodes) // MAX_CHUNKS))
    chunks, is_pad = window(actions, episodes, starts, config.horizon)
    return compute_stats(state[starts], chunks, is_pad, config.relative_mask)


def _columns(root: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Columns of all Parquet files of a LeRobotDataset v3, in the order of their frames."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(root.glob("data/*/*.parquet"))
    if not files:
        raise FileNotFoundError(f"no data/*/*.parquet in {root}")
    table = pa.concat_tables([pq.read_table(file, columns=list(names)) for file in files])
    return [np.stack(table[name].to_numpy()) for name in names]
