"""Label: a rule's rewards and their Monte-Carlo returns as sidecars of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.data.cache import FrameCache, build, open_numbers
from vla_rl.data.dataset import fingerprint_of, open_dataset
from vla_rl.data.outcomes import endings
from vla_rl.data.rollouts import RETURN, REWARD
from vla_rl.data.sidecars import write_column
from vla_rl.reward.returns import monte_carlo
from vla_rl.reward.rule import EpisodeColumns, Reward, cuts_of, make_reward

Progress = Callable[[int, int], None]


def label(
    dataset_root: str | Path,
    name: str,
    tag: str,
    gamma: float = 0.99,
    options: Mapping[str, Any] | None = None,
    cache_root: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write `meta/reward_<tag>.parquet` and `meta/return_<tag>.parquet` beside a data set, which stays as it is.

    Args:
        dataset_root: folder of a LeRobotDataset v3.
        name: of the rule.
        tag: what the files are called by.
        gamma: discount of the returns.
        options: of the rule.
        cache_root: where images are cached, for rules that look.
        progress: called with (episodes done, episodes).

    Returns:
        What was written, and about what: JSON-ready.

    Raises:
        DatasetError: the data set can not be read.
        ValueError: no such rule or option, a success is not known, or the rule lacks a column.
    """
    rule, dataset = make_reward(name, **(options or {})), open_dataset(dataset_root)
    cache = build(dataset_root, cache_root) if rule.looks else open_numbers(dataset_root)
    about: dict[str, Any] = {"reward": name, "options": dict(options or {}), "gamma": gamma, "tail": rule.tail}
    about |= {"low": rule.low, "high": rule.high, "dataset": fingerprint_of(dataset)}
    rewards, returns = [], []
    for number, episode in enumerate(episodes(cache)):
        rewards.append(rule(episode))
        returns.append(_returns(rewards[-1], gamma, episode, rule))
        if progress is not None:
            progress(number + 1, len(cache.episodes))
    reward, value = np.concatenate(rewards), np.concatenate(returns)
    paths = [
        write_column(dataset.root, column, tag, values, cache.starts, about)
        for column, values in ((REWARD, reward), (RETURN, value))
    ]
    return {**about, "files": [str(path) for path in paths], **_summary(reward, value, cache.starts)}


def episodes(cache: FrameCache) -> Iterator[EpisodeColumns]:
    """The episodes of a data set as rules see them."""
    over = endings(cache)
    longest = int(np.diff(cache.starts).max())
    for number, (start, end) in enumerate(zip(cache.starts[:-1], cache.starts[1:], strict=True)):
        columns = {name: values[start:end] for name, values in cache.columns.items()}
        images = {name: values[start:end] for name, values in cache.images.items()}
        yield EpisodeColumns(
            columns,
            images,
            outcome=over.success[number],
            terminal=bool(over.done[end - 1]),
            instruction=str(cache.episodes[number]["instruction"]),
            longest=longest,
            source=cache.source,
        )


def _returns(reward: NDArray[np.float32], gamma: float, episode: EpisodeColumns, rule: Reward) -> NDArray[np.float32]:
    """Returns of each part of an episode by itself, (T,): a part that another one follows has ended where it ends."""
    parts = np.split(reward, cuts_of(rule, episode))
    before = [monte_carlo(part, gamma, terminal=True) for part in parts[:-1]]
    return np.concatenate([*before, monte_carlo(parts[-1], gamma, terminal=episode.terminal, tail=rule.tail)])


def _summary(reward: NDArray[np.float32], value: NDArray[np.float32], starts: NDArray[np.int64]) -> dict[str, Any]:
    first = value[starts[:-1]]
    return {
        "episodes": len(first),
        "frames": len(reward),
        "reward_mean": float(reward.mean()),
        "return_of_episodes": {"mean": float(first.mean()), "low": float(first.min()), "high": float(first.max())},
        "return_low": float(value.min()),
        "return_high": float(value.max()),
    }
