"""policy/context: what candidates were drawn from, as a stamped named vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState

from vla_rl.ros import messages
from vla_rl.types import Array, Candidates, Observation

AGE, FEATURE, STATE, PAST = "age/", "feature/", "state/", "past/"


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


def context(candidates: Candidates, history: Sequence[Observation] = ()) -> JointState:
    """What candidates were drawn from: frame_id is the instruction.

    Ages of the streams before the stamp [s] (`age/<stream>`), `seed`, `state/<joint>` [rad] and `feature/<i>`; of a
    policy that looks at several observations `past/<i>/<stream>`: the same of the one that was i before the newest.

    Args:
        candidates: what was drawn.
        history: the observations, oldest first; of each, stamp and ages are told.
    """
    values = {f"{AGE}{name}": age for seen in history[-1:] for name, age in seen.ages.items()}
    for before, seen in enumerate(reversed(history[:-1]), 1):
        passed = (candidates.stamp_ns - seen.stamp_ns) * 1e-9
        values |= {f"{PAST}{before}/{name}": passed + age for name, age in seen.ages.items()}
    values["seed"] = float(candidates.seed)
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
