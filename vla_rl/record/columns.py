"""Steps to columns: one episode in the schema that demonstrations, rollouts and corrections share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.record.episode_file import Columns
from vla_rl.types import ActionSpec, Array, Episode, Outcome, RobotSpec, Source, Step


def columns(
    episode: Episode, spec: RobotSpec | None = None, action_spec: ActionSpec | None = None
) -> tuple[Columns, dict[str, Any]]:
    """The stored form of an episode: what was executed AND what was proposed, at every step.

    ==========================  ===========================================================================
    observation.state           (T, J) float32
    observation.images.<cam>    (T, H, W, 3) uint8
    action                      (T, A) float32, executed, after limits
    policy_action               (T, A) float32, proposed; the executed one where nothing was proposed
    policy_action_valid         (T,) bool, whether something was
    intervention                (T,) bool, a human drove
    next.reward, .done          (T,) float32, bool; done is a terminal, never a time limit
    next.truncated, .success    (T,) bool; success on the last frame only
    chunk.index, .value,        (T,) int64, float32, int64; -1, 0 and -1 where there is no chunk, critic
    .selected                   or choice
    stamp_ns                    (T,) int64, capture time
    labels.*                    (T, D) float32, privileged training targets, flattened
    ==========================  ===========================================================================

    Args:
        episode: at least one step; the same cameras and labels in all of them.
        spec: the robot, whose joints and joint actions [rad] become LeRobot's units (degrees, gripper 0..100); None
            keeps state and actions as they are.
        action_spec: what an action means where `spec` is None.

    Returns:
        Columns, and meta for `EpisodeStore.append`.

    Raises:
        ValueError: the episode has no steps.
    """
    if not episode.steps:
        raise ValueError("an episode without steps can not be stored")
    steps = episode.steps
    convert = spec.to_lerobot if spec is not None else np.asarray
    out: Columns = {"observation.state": _floats(convert(np.stack([s.observation.joints for s in steps])))}
    for camera in steps[0].observation.images:
        out[f"observation.images.{camera}"] = np.stack([s.observation.images[camera] for s in steps])
    proposed = [s.executed if s.proposed is None else s.proposed for s in steps]
    out["action"] = _floats(convert(np.stack([s.executed for s in steps])))
    out["policy_action"] = _floats(convert(np.stack(proposed)))
    out |= _flags(steps, episode.outcome)
    for label in steps[0].labels:
        out[label] = np.stack([_floats(s.labels[label]).reshape(-1) for s in steps])
    return out, _meta(episode, spec, action_spec)


def _flags(steps: Any, outcome: Outcome) -> Columns:
    last = np.arange(len(steps)) == len(steps) - 1
    return {
        "policy_action_valid": np.array([s.proposed is not None for s in steps]),
        "intervention": np.array([s.source is Source.HUMAN for s in steps]),
        "next.reward": _floats([s.reward for s in steps]),
        "next.done": np.array([s.terminated for s in steps]),
        "next.truncated": np.array([s.truncated for s in steps]),
        "next.success": last & (outcome is Outcome.SUCCESS),
        "chunk.index": np.array([s.chunk_index for s in steps], np.int64),
        "chunk.value": _floats([_value(s) for s in steps]),
        "chunk.selected": np.array([s.candidate for s in steps], np.int64),
        "stamp_ns": np.array([s.observation.stamp_ns for s in steps], np.int64),
    }


def _value(step: Step) -> float:
    """What the critic said of the chosen candidate."""
    return float(step.values[step.candidate]) if 0 <= step.candidate < len(step.values) else 0.0


def _meta(episode: Episode, spec: RobotSpec | None, action_spec: ActionSpec | None) -> dict[str, Any]:
    meta: dict[str, Any] = {
        **episode.info,
        "instruction": episode.instruction,
        "outcome": str(episode.outcome),
        "termination": str(episode.termination),
        "fps": episode.fps,
    }
    action = spec.lerobot_action_spec if spec is not None else action_spec
    if spec is not None:
        meta["robot_type"] = spec.name
    if action is not None:
        both = ("action", "policy_action") if spec is None else ("observation.state", "action", "policy_action")
        meta["names"] = {column: list(action.names) for column in both}
        meta["units"] = {column: list(action.units) for column in both}
        meta["action_spec"] = action.to_dict()
    return meta


def _floats(values: Array | list[float] | NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)
