"""The shape of a critic for a run and its data: sizes, and the support within which its values lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vla_rl.data.rollouts import RETURN
from vla_rl.data.sidecars import about_column
from vla_rl.data.transitions import ChunkBatch, ChunkTransitions
from vla_rl.learn.algorithms import ALGORITHMS
from vla_rl.learn.critic_config import CriticRunConfig
from vla_rl.value.config import CriticConfig
from vla_rl.value.support import Support


def critic_config(
    config: CriticRunConfig, sample: ChunkBatch, data: ChunkTransitions, relative: tuple[bool, ...]
) -> CriticConfig:
    """The shape of the critic for a run and its data."""
    support = value_support(config, data)
    window, action_dim = sample.chunk.shape[1:]
    return CriticConfig(
        feature_dim=sample.features.shape[1],
        state_dim=sample.state.shape[1],
        action_dim=action_dim,
        window=window,
        low=support.low,
        high=support.high,
        bins=config.bins,
        head=config.head,
        ensemble=config.ensemble,
        gamma=config.gamma,
        chunk_encoder=config.chunk_encoder,
        width=config.width,
        depth=config.depth,
        relative=relative,
        encoder=config.encoder,
        layer=config.layer,
    )


def _same_discount(config: CriticRunConfig) -> bool:
    """Whether the returns on record have the run's own discount; those that do not say are believed to."""
    made = [about_column(Path(root), RETURN, config.reward).get("gamma") for root in config.data if config.reward]
    return all(gamma is None or gamma == config.gamma for gamma in made)


def allowed_support(config: CriticRunConfig, data: ChunkTransitions) -> Support:
    """Where values can lie by rewards and discount alone.

    Raises:
        ValueError: they allow one return only.
    """
    rewards = np.concatenate([each.reward[~each.done] for each in data.sets])
    final = np.concatenate([each.reward[each.done] for each in data.sets] + [np.zeros(1, np.float32)])
    horizon = max(int(np.diff(each.starts).max()) for each in data.sets)
    low, high = (float(f(rewards, initial=0.0)) for f in (np.min, np.max))
    ends = (float(final.min()), float(final.max()))
    limit = None if config.gamma < 1 else horizon
    return Support.from_reward(low, high, config.gamma, limit, final=ends, bins=config.bins)


def value_support(config: CriticRunConfig, data: ChunkTransitions) -> Support:
    """Where values can lie: what rewards and discount allow, no further than returns were seen, half a range more.

    Dense rewards allow far more than any episode earns, and the bins would be wasted on it. Returns of another discount
    than the run's say nothing of its values, and ends that are both given ask nobody.
    """
    if config.low is not None and config.high is not None:
        return Support(config.low, config.high, config.bins)
    if (limits := ALGORITHMS[config.algo].limits) is not None:
        ends = (limits[0] if config.low is None else config.low, limits[1] if config.high is None else config.high)
        return Support(*ends, config.bins)
    support = allowed_support(config, data)
    low, high = support.low, support.high
    if all(each.mc_return is not None for each in data.sets) and _same_discount(config):
        returns = np.concatenate([each.mc_return for each in data.sets if each.mc_return is not None])
        spare = max(0.5 * float(np.ptp(returns)), 1e-3)
        seen = Support.around(float(returns.min()) - spare, float(returns.max()) + spare, config.bins)
        low, high = max(low, seen.low), min(high, seen.high)
    low = low if config.low is None else config.low
    high = high if config.high is None else config.high
    return Support(low, high, config.bins)
