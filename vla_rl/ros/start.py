"""How the process of a node begins: `python -m vla_rl.ros.start control_node --ros-args ...`, or `control_node` itself.

Importing takes seconds (torch, MuJoCo), and Ctrl-C reaches every process of a launch: it must end one that still
imports as quietly as one that runs.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from importlib import import_module
from typing import NoReturn

from vla_rl.ros.leaving import abortable, follow, leave

NODES = (
    "robot_node",
    "policy_node",
    "steering_node",
    "policy_steering",
    "control_node",
    "recorder_node",
    "hil_node",
    "teleop_node",
    "lifecycle_manager",
)
LAUNCHER = "VLA_RL_LAUNCHER"  # process id of a launch that dies, where it is told to, without stopping its nodes


def start(name: str) -> NoReturn:
    """Run a node's module; the node's own handlers of signals take the place of ours without a gap."""
    with abortable():
        if LAUNCHER in os.environ:
            follow(int(os.environ[LAUNCHER]), signal.SIGTERM)  # which holds the arm
        leave(import_module(f"vla_rl.ros.{name}").main())


(
    robot_node,
    policy_node,
    steering_node,
    policy_steering,
    control_node,
    recorder_node,
    hil_node,
    teleop_node,
    lifecycle_manager,
) = (partial(start, name) for name in NODES)


def main() -> NoReturn:
    """`python -m vla_rl.ros.start NODE ...`."""
    if not {*sys.argv[1:2]}.intersection(NODES):
        sys.exit(f"start: which node? There are: {', '.join(NODES)}")
    del sys.argv[0]
    start(sys.argv[0])


if __name__ == "__main__":
    main()
