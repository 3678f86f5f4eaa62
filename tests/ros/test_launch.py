"""The launch files, run by ROS's own launch: it comes with ROS 2 and not from PyPI, so this is skipped without it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip(
    "launch_ros", reason="launch_ros comes with ROS 2, not from PyPI: the launch files are not run here"
)

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch_ros.actions import Node

from vla_rl.ros.bringup import ros_launch
from vla_rl.ros.bringup.graph import Graph
from vla_rl.ros.bringup.options import SIM_OPTIONS, sim_graph

ROOT = Path(__file__).parents[2]
SIM = ROOT / "launch" / "sim.launch.py"
RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [a.split(":=") for a in sys.argv[2:]]
include = IncludeLaunchDescription(PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments)
service = LaunchService()
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""


def expand(**arguments):
    """The node actions of sim.launch.py for these arguments."""
    context = LaunchContext()
    description = get_launch_description_from_python_launch_file(str(SIM))
    context.launch_configurations.update(arguments)
    nodes = []
    for entity in description.entities:
        for action in entity.visit(context) or []:
            nodes += [action] if isinstance(action, Node) else []
    return nodes


def test_every_option_is_a_launch_argument_that_explains_itself():
    entities = get_launch_description_from_python_launch_file(str(SIM)).entities
    declared = {e.name: e.description for e in entities if isinstance(e, DeclareLaunchArgument)}
    assert declared.keys() == {o.name for o in SIM_OPTIONS} | {"parameters", "remappings"}
    assert all(option.help in declared[option.name] for option in SIM_OPTIONS)


def test_the_launch_file_starts_the_processes_of_the_graph_and_a_lifecycle_manager():
    names = [n.process_description.name[0].text for n in expand()]
    assert names == [*(p.name for p in sim_graph().processes), "lifecycle_manager"]
    apart = [n.process_description.name[0].text for n in expand(apart="true")]
    assert "steering" in apart


def test_nodes_are_activated_after_those_they_need():
    assert [n.name for n in ros_launch.activation_order(sim_graph())] == ["control", "steering", "policy"]
    assert ros_launch.ready(sim_graph()) == "joint_states"


def test_wrong_arguments_are_refused_as_the_command_refuses_them():
    with pytest.raises(ValueError, match="unknown selector 'best'; there are: first"):
        expand(selector="best")
    with pytest.raises(ValueError, match="no node 'cntrol'"):
        expand(parameters="cntrol.joining=blend")


def test_a_pushed_namespace_goes_before_the_own(monkeypatch):
    seen = []
    monkeypatch.setattr(ros_launch, "start", lambda graph: seen.append(graph) or [])
    expand(ros_namespace="/cell", namespace="left")
    assert isinstance(seen[0], Graph)
    assert seen[0].namespace == "cell/left"


def test_the_graph_comes_up_under_launch_and_ctrl_c_ends_it():
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OVERRIDE_LAUNCH_PROCESS_OUTPUT_FORMAT": "{line}"}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(SIM), "namespace:=launched"],
        env=environment, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    said = []
    for line in process.stdout:
        said.append(line)
        if "every node is active" in line:
            process.send_signal(signal.SIGINT)
    assert any("every node is active" in line for line in said), "".join(said)
    assert process.wait(60) == 0, "".join(said)
    left = subprocess.run(["pgrep", "-f", "__ns:=/launched"], capture_output=True, text=True).stdout
    assert not re.findall(r"\d+", left)
