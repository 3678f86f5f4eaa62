"""Whether a policy fits data or an environment: cameras, sizes, names and rate, compared before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from vla_rl.policy.configuration_vla_rl import VLAConfig


class FeatureMismatchError(ValueError):
    """A policy does not fit the data or the environment; the message lists both sides."""


def check_features(
    config: VLAConfig,
    *,
    cameras: Sequence[str],
    state_dim: int,
    action_dim: int,
    state_names: Sequence[str] = (),
    action_names: Sequence[str] = (),
    fps: float | None = None,
    where: str = "the environment",
) -> None:
    """Compare a policy's config with what it is to work on.

    Spare cameras are fine; names unknown on a side are not compared.

    Args:
        config: of the policy.
        cameras: camera names of the other side.
        state_dim: size of `observation.state`, 0 where there is none.
        action_dim: size of an action.
        state_names, action_names: one name a dimension, in order, empty where unknown.
        fps: control rate [Hz], None where unknown.
        where: what the other side is called in the message.

    Raises:
        FeatureMismatchError: in one line, everything that differs.
    """
    pairs = [
        ("state size", config.state_dim, state_dim, bool(config.state_dim)),
        ("action size", config.action_dim, action_dim, True),
        ("fps", config.fps, fps, fps is not None),
        ("state names", config.state_names, list(state_names), bool(config.state_names and state_names)),
        ("action names", config.action_names, list(action_names), bool(config.action_names and action_names)),
    ]
    differences = [
        f"{name} {ours} in the policy, {theirs} in {where}"
        for name, ours, theirs, known in pairs
        if known and ours != theirs
    ]
    if not set(config.cameras) <= set(cameras):
        differences.insert(0, f"cameras {_names(config.cameras)} in the policy, {_names(cameras)} in {where}")
    if differences:
        raise FeatureMismatchError(f"the policy does not fit {where}: {'; '.join(differences)}")


def _names(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)) or "none"
