"""How old the observation behind a command is when the command is sent, and where the time goes, on the real graph."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SECONDS = 60.0


@dataclass
class Trace:
    """When each part published its answer to an observation, by the observation's stamp; all [ns], system clock."""

    candidates: dict[int, int] = field(default_factory=dict)
    chunks: dict[int, int] = field(default_factory=dict)
    commands: dict[int, int] = field(default_factory=dict)
    transport: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Percentiles of every hop [ms], over observations that came to a command."""
        whole = [t for t in self.commands if t in self.chunks and t in self.candidates]
        hops = {
            "obs_to_command": [self.commands[t] - t for t in whole],
            "obs_to_candidates": [self.candidates[t] - t for t in whole],
            "candidates_to_chunk": [self.chunks[t] - self.candidates[t] for t in whole],
            "chunk_to_command": [self.commands[t] - self.chunks[t] for t in whole],
            "joints_on_the_wire": self.transport,
        }
        found = {"observations": float(len(whole))}
        for name, values in hops.items():
            for share in (50, 99):
                found[f"{name}_p{share}_ms"] = (
                    float(np.percentile(np.array(values, float) / 1e6, share)) if values else float("nan")
                )
        return found


def run(quick: bool = False) -> dict[str, Any]:
    """Follow observations through robot, policy, steering and control, each in its usual process.

    Returns:
        `metrics`: p50 and p99 [ms] from capture to the first command that answers the observation, and of its hops: to
        the candidates (rendering, transport, waiting for the policy, inference), to the chunk (steering), to the
        command (the wait for control's next period included); and of joint_states on the wire.
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    from vla_rl.robot import arm_spec
    from vla_rl.ros.bringup.options import sim_graph
    from vla_rl.ros.measure.stage import Stage

    stage = Stage(sim_graph(), arm_spec("so101"))
    try:
        trace = _listen(stage)
        stage.new_episode("lift", 4_100_000)
        stage.wait(10.0 if quick else SECONDS)
        return {"metrics": trace.figures()}
    finally:
        stage.close()


def _listen(stage: Any) -> Trace:
    """A trace that fills while the graph runs."""
    from vla_rl.ros.measure import trace as wires

    trace = Trace()
    wires.follow(stage.watch, trace.candidates, trace.chunks, trace.commands, trace.transport)
    return trace
