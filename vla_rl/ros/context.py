"""policy/context: what candidates were drawn from, as a stamped named vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState

from vla_rl.ros import messages
from vla_rl.types import Array, Candidates

AGE, FEATURE, STATE = "age/", "feature/", "state/"


@dataclass(frozen=True, eq=False)
class Heard:
    """What a context says.

    Attributes:
        stamp_ns: of the observation [ns].
        features: (D,), None where the policy gives none.
        joints: the observation's, (J,) [rad], None where they are not said.
        ages: stream name to the age of its sample at the stamp [s].
        instruction: what was to be done.
    """

    stamp_ns: int = 0
    features: NDArray[np.float32] | None = None
    joints: Array | None = None
    ages: Mapping[str, float] = field(default_factory=dict)
    instruction: str = ""


def context(candidates: Candidates, ages: Mapping[str, float]) -> JointState:
    """What candidates were drawn from: frame_id is the instruction.

    Ages of the streams before the stamp [s] (`age/<stream>`), `seed`, `state/<joint>` [rad] and `feature/<i>`.
    """
    values = {f"{AGE}{name}": age for name, age in ages.items()} | {"seed": float(candidates.seed)}
    if candidates.observation is not None:
        names, joints = candidates.spec.names, candidates.observation.joints.tolist()
        values |= {f"{STATE}{name}": value for name, value in zip(names, joints, strict=True)}
    if candidates.context is not None:
        values |= {f"{FEATURE}{i}": value for i, value in enumerate(candidates.context.tolist())}
    instruction = "" if candidates.observation is None else candidates.observation.instruction
    return messages.vector(values, candidates.stamp_ns, instruction)


def context_of(message: JointState, names: Sequence[str]) -> Heard:
    """What a context says of the observation.

    Args:
        message: of `context`.
        names: the robot's joints.

    Raises:
        ValueError: no stamped named vector, or a number is not finite.
    """
    values = messages.vector_of(message)
    features = np.array([v for name, v in values.items() if name.startswith(FEATURE)], dtype=np.float32)
    joints = np.array([values[f"{STATE}{name}"] for name in names if f"{STATE}{name}" in values])
    if not (np.isfinite(features).all() and np.isfinite(joints).all()):
        raise ValueError("a feature or a joint is not finite")
    known = joints if len(joints) == len(names) else None
    ages = {name.removeprefix(AGE): age for name, age in values.items() if name.startswith(AGE)}
    stamp_ns, task = messages.stamp_ns(message.header.stamp), message.header.frame_id
    return Heard(stamp_ns, features if len(features) else None, known, ages, task)
