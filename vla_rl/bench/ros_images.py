"""Whether pictures arrive, how old, and at what cost: 3 cameras of 640x480 at 30 Hz from one process to another."""

from __future__ import annotations

import os
from typing import Any

SECONDS = 60.0


def run(quick: bool = False) -> dict[str, Any]:
    """Raw and compressed pictures on an otherwise idle machine, then raw ones while the whole graph runs beside them.

    Returns:
        `metrics`: sent, lost, age_p50_ms, age_p99_ms (from before encoding to after decoding) and cpu_cores of both
        sides; the same as `compressed_...` and `beside_policy_...`.
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    from vla_rl.ros.measure.image_load import Load, measure

    seconds = 5.0 if quick else SECONDS
    metrics = measure(Load(seconds=seconds))
    metrics |= {f"compressed_{key}": value for key, value in measure(Load(compressed=True, seconds=seconds)).items()}
    metrics |= {f"beside_policy_{key}": value for key, value in _beside_policy(seconds).items()}
    return {"metrics": metrics}


def _beside_policy(seconds: float) -> dict[str, float]:
    """Raw pictures while a graph with its policy runs in a namespace of its own."""
    from vla_rl.robot import arm_spec
    from vla_rl.ros.bringup.options import sim_graph
    from vla_rl.ros.measure.image_load import Load, measure
    from vla_rl.ros.measure.stage import Stage

    stage = Stage(sim_graph({"namespace": "beside"}), arm_spec("so101"))
    try:
        stage.new_episode("lift", 4_000_000)
        return measure(Load(seconds=seconds))
    finally:
        stage.close()
