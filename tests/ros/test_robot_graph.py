"""The graph of a real arm, as plain data."""

from dataclasses import fields
from importlib import resources

import pytest

from vla_rl.ros.bringup.options import record_graph
from vla_rl.ros.bringup.robot_options import robot_graph
from vla_rl.ros.parameters import _from_ros

CAMERAS = "{top: {type: opencv, index_or_path: 0, width: 640, height: 480, fps: 30}}"


def parameters(graph, node):
    return next(n.parameters for n in graph.nodes if n.name == node)


def test_it_is_the_arm_with_policy_steering_and_control_and_nothing_else():
    graph = robot_graph({"port": "/dev/ttyACM0", "id": "left"})
    assert {n.name for n in graph.nodes} == {"robot", "control", "steering", "policy"}
    assert parameters(graph, "robot")["robot"] == "lerobot"
    assert parameters(graph, "robot")["port"] == "/dev/ttyACM0"
    assert parameters(graph, "robot")["id"] == "left"
    assert [parameters(robot_graph({"seed": "7"}), node)["seed"] for node in ("policy", "steering")] == [7, 7]


def test_every_node_knows_the_same_arm_and_the_same_cameras():
    graph = robot_graph({"arm": "fr3", "operator": "true", "camera_devices": CAMERAS})
    assert {n.parameters["arm"] for n in graph.nodes} == {"fr3"}
    assert [parameters(graph, n)["cameras"] for n in ("policy", "hil", "recorder")] == [["top"]] * 3
    assert parameters(graph, "robot")["camera_devices"] == CAMERAS
    large = robot_graph({"camera_devices": CAMERAS.replace("640", "1280").replace("480", "720")})
    assert parameters(large, "policy")["image_width"] == parameters(large, "steering")["image_width"] == 1280


def test_an_operator_brings_console_and_recorder_and_a_teleoperator_is_the_leader():
    graph = robot_graph({"operator": "true", "teleop": "so101_leader", "teleop_port": "/dev/ttyACM1"})
    assert {n.name for n in graph.nodes} == {"robot", "control", "steering", "policy", "hil", "recorder", "teleop"}
    assert parameters(graph, "hil")["device"] == "leader"
    assert parameters(graph, "hil")["port"] == 8080
    assert parameters(graph, "teleop") == {
        "arm": "so101", "driver": "so101_leader", "port": "/dev/ttyACM1", "id": "", "calibration": "",
    }  # fmt: skip
    assert "recorder" not in {n.name for n in robot_graph({"operator": "true", "record": "false"}).nodes}


def test_an_arm_that_is_lowered_has_the_time_to():
    assert robot_graph().stop_s < 5 < robot_graph({"at_exit": "lower"}).stop_s


def kinds():
    """The dataclass of every node's parameters."""
    from vla_rl.ros.control_node import ControlNode
    from vla_rl.ros.hil_node import HilNode
    from vla_rl.ros.policy_node import PolicyNode
    from vla_rl.ros.recorder_node import RecorderNode
    from vla_rl.ros.robot_node import RobotNode
    from vla_rl.ros.steering_node import SteeringNode
    from vla_rl.ros.teleop_node import TeleopNode

    nodes = {
        "robot": RobotNode, "control": ControlNode, "steering": SteeringNode, "policy": PolicyNode, "hil": HilNode,
        "recorder": RecorderNode, "teleop": TeleopNode,
    }  # fmt: skip
    return {name: node.kind for name, node in nodes.items()}


def test_every_parameter_that_an_option_sets_is_declared_by_its_node():
    asked = {"operator": "true", "teleop": "gamepad", "camera_devices": CAMERAS, "compressed": "true", "rest": "{}"}
    for node in robot_graph(asked).nodes:
        assert node.parameters.keys() <= {f.name for f in fields(kinds()[node.name])}, node.name


def test_an_arm_described_by_a_file_of_ones_own_is_taken_by_every_node(tmp_path):
    file = tmp_path / "my_arm.yaml"
    file.write_text((resources.files("vla_rl") / "hardware/arms/fr3.yaml").read_text())
    alone = record_graph({"arm": str(file)})
    for node in (*robot_graph({"arm": str(file), "operator": "true", "teleop": "gamepad"}).nodes, *alone.nodes):
        declared = {f.name: f for f in fields(kinds()[node.name])}
        given = {name: _from_ros(value, declared[name]) for name, value in node.parameters.items()}
        assert kinds()[node.name](**given).arm == str(file)


def test_a_recorder_alone_listens_to_the_cameras_of_its_arm_unless_it_is_told_others():
    for asked in ({}, {"arm": "fr3"}):
        assert "cameras" not in parameters(record_graph(asked), "recorder"), "its node takes those of the description"
    assert parameters(record_graph({"cameras": "front,side"}), "recorder")["cameras"] == ["front", "side"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"robot": "mujoco"}, "there are: lerobot, ros2_control"),
        ({"at_exit": "drop"}, "there are: hold, lower, release"),
        ({"camera_devices": "front"}, "must be a mapping"),
        ({"camera_devices": "{front: 0}"}, "camera front must be a mapping"),
        ({"settings": "nowhere.yaml"}, "there is no file nowhere.yaml"),
        ({"task": "lift"}, "unknown option 'task'; there are: arm"),
        ({"seed": "seven"}, "seed 'seven': it must be a whole number"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(asked, said):
    with pytest.raises(ValueError, match=said):
        robot_graph(asked)
