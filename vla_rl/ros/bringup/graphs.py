"""Every graph by name: what makes it, its options, and what it is."""

from __future__ import annotations

from vla_rl.ros.bringup.options import (
    CORRECT_OPTIONS,
    RECORD_OPTIONS,
    SIM_OPTIONS,
    correct_graph,
    record_graph,
    sim_graph,
)
from vla_rl.ros.bringup.robot_options import ROBOT_OPTIONS, robot_graph

GRAPHS = {
    "sim": (sim_graph, SIM_OPTIONS, "the tabletop in MuJoCo"),
    "correct": (correct_graph, CORRECT_OPTIONS, "the same with an operator: console, devices and recorder"),
    "robot": (robot_graph, ROBOT_OPTIONS, "a real arm, with an operator where asked"),
    "record": (record_graph, RECORD_OPTIONS, "a recorder beside a graph that runs already"),
}
