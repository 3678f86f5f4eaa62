"""Whether a policy fits a robot: joints, units, cameras and rate, compared before it may move anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vla_rl.policy.configuration_vla_rl import ACTION, IMAGE, IMAGES, STATE
from vla_rl.policy.features import FeatureMismatchError, check_features
from vla_rl.policy.folder import OWN_TYPE
from vla_rl.types import ActionKind, RobotSpec


def cameras_of(config: Any) -> list[str]:
    """Names of the cameras that a policy looks through."""
    keys = [key for key in config.input_features if key.startswith(IMAGE)]
    return [key.removeprefix(IMAGES).removeprefix("observation.") for key in keys]


def check_fit(config: Any, spec: RobotSpec, cameras: Sequence[str]) -> list[str]:
    """Compare a policy's config with a robot.

    Args:
        config: LeRobot's PreTrainedConfig, ours or another.
        spec: of the robot.
        cameras: names of the cameras there are.

    Returns:
        What the checkpoint does not say and is therefore assumed, for the log.

    Raises:
        FeatureMismatchError: in one line, everything that differs, both sides.
    """
    where = f"robot '{spec.name}'"
    if config.type == OWN_TYPE:
        names = spec.lerobot_action_spec.names
        check_features(
            config, cameras=cameras, state_dim=len(names), action_dim=len(names), state_names=names,
            action_names=names, fps=spec.rate, where=where,
        )  # fmt: skip
        _check_units(config, spec, where)
        return []
    _check_shapes(config, spec, cameras, where)
    return [
        f"the checkpoint names neither joints nor rate: LeRobot's units of '{spec.name}' at {spec.rate:g} Hz assumed"
    ]


def _check_units(config: Any, spec: RobotSpec, where: str) -> None:
    """Our checkpoints declare their units: nothing is guessed."""
    ours = config.spec
    theirs = spec.lerobot_action_spec
    if ours is None:
        raise FeatureMismatchError(f"the policy declares no units of its actions; {where} takes {_units(theirs)}")
    if ours.kind is not ActionKind.JOINT_ABSOLUTE or ours.units != theirs.units:
        raise FeatureMismatchError(f"the policy does not fit {where}: it gives {_units(ours)}, not {_units(theirs)}")


def _check_shapes(config: Any, spec: RobotSpec, cameras: Sequence[str], where: str) -> None:
    """Other checkpoints declare sizes and cameras only."""
    count, differences = len(spec.joints), []
    known = {STATE, *(key for key in config.input_features if key.startswith(IMAGE))}
    if unknown := sorted(set(config.input_features) - known):
        differences.append(f"inputs {', '.join(unknown)} in the policy, which no robot gives")
    if missing := set(cameras_of(config)) - set(cameras):
        have = ", ".join(sorted(cameras)) or "none"
        differences.append(f"cameras {', '.join(sorted(missing))} in the policy, {have} in {where}")
    sizes = {"state": config.input_features.get(STATE), "action": config.output_features.get(ACTION)}
    for name, feature in sizes.items():
        if feature is not None and tuple(feature.shape) != (count,):
            differences.append(f"{name} size {feature.shape[0]} in the policy, {count} joints in {where}")
    if differences:
        raise FeatureMismatchError(f"the policy does not fit {where}: {'; '.join(differences)}")


def _units(spec: Any) -> str:
    return f"{spec.kind} in {'/'.join(dict.fromkeys(spec.units))}"
