"""policy/context: what candidates were drawn from, as a stamped named vector."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState

from vla_rl.ros import messages
from vla_rl.types import Candidates

FEATURE = "feature/"


def context(candidates: Candidates, ages: Mapping[str, float]) -> JointState:
    """Ages of the streams before the stamp [s] (`age/<stream>`), the generator's `seed`, and `feature/<i>`."""
    values = {f"age/{name}": age for name, age in ages.items()} | {"seed": float(candidates.seed)}
    if candidates.context is not None:
        values |= {f"{FEATURE}{i}": value for i, value in enumerate(candidates.context.tolist())}
    return messages.vector(values, candidates.stamp_ns)


def features_of(message: JointState) -> tuple[int, NDArray[np.float32] | None]:
    """The observation's stamp [ns] and the features (D,) of a context, None where the policy gives none.

    Raises:
        ValueError: no stamped named vector, or a feature is not finite.
    """
    values = messages.vector_of(message)
    features = np.array([v for name, v in values.items() if name.startswith(FEATURE)], dtype=np.float32)
    if not np.isfinite(features).all():
        raise ValueError("a feature is not finite")
    return messages.stamp_ns(message.header.stamp), features if len(features) else None
