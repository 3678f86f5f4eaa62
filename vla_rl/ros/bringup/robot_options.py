"""What a user may ask of a real arm's graph; what concerns policy, operator and recorder is the simulation's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from vla_rl.build_arm import ARMS, EXITS
from vla_rl.ros.arm_settings import FILES, mapping
from vla_rl.ros.bringup.graph import Graph, NodeSpec
from vla_rl.ros.bringup.options import (
    CORRECT_OPTIONS,
    OPERATOR_NODES,
    SIM_NODES,
    SIM_OPTIONS,
    Option,
    Parameters,
    flag,
    folder,
    make_graph,
    names_of,
    room_for,
    to,
    transport,
    whole,
)

LOWERING_S = 15.0  # an arm that is lowered first takes so long to leave
_OF_SIMULATION = {"task", "seed", "randomisation", "phrasings", "image_size", "time", "cameras", "compressed"}
_OF_OPERATORS = {
    "session", "record", "operator_device", "device_path", "ask_for_help", "console", "host", "port", "token",
}  # fmt: skip
_SIDES = ("width", "height")
_ARM_NODES = ("robot", "control", "steering", "policy", "hil", "recorder", "teleop")


def _text(name: str) -> Callable[[str], str]:
    """A mapping as YAML or its file, refused here already where it is none; a node gets the text."""

    def read(text: str) -> str:
        mapping(name, text)
        return folder(text) if text.endswith(FILES) else text

    return read


def _cameras(names: Iterable[str]) -> Parameters:
    return {f"{node}.cameras": list(names) for node in ("policy", "hil", "recorder")}


def _devices(text: str) -> Parameters:
    """Cameras by name: those that are opened are those that are looked at, as large as they are."""
    if not text:
        return {}
    cameras = mapping("camera_devices", text)
    if bad := [name for name, settings in cameras.items() if not isinstance(settings, dict)]:
        raise ValueError(f"camera_devices: camera {bad[0]} must be a mapping: {{type: opencv, index_or_path: 0, ...}}")
    width, height = (max((int(each.get(side) or 0) for each in cameras.values()), default=0) for side in _SIDES)
    return {"robot.camera_devices": text, **_cameras(cameras), **room_for(width, height)}


def _console_port(option: Option) -> Option:
    return replace(option, name="console_port") if option.name == "port" else option


ROBOT_OPTIONS = (
    Option("arm", "the arm's description: a name, or a .yaml file", "so101", to(*(f"{n}.arm" for n in _ARM_NODES))),
    Option("robot", "who drives the arm", "lerobot", to("robot.robot"), choices=ARMS),
    Option("port", "serial port of the arm, /dev/ttyACM0 for one", "", to("robot.port")),
    Option("id", "LeRobot's name of this very arm", "", to("robot.id")),
    Option("calibration", "folder of its calibration; else LeRobot's own", "", to("robot.calibration"), folder),
    Option("driver", "LeRobot's name of the robot; the description's where not given", "", to("robot.driver")),
    Option("settings", "further fields of LeRobot's configuration: YAML or its file", "",
           to("robot.settings"), _text("settings")),
    Option("camera_devices", "LeRobot's settings of each camera by name: YAML or its file", "",
           _devices, _text("camera_devices")),
    Option("cameras", "names with commas between, where the cameras are not ours", "",
           lambda names: _cameras(names) if names else {}, names_of),
    Option("at_exit", "what becomes of the arm at the end", "hold", to("robot.at_exit"), choices=EXITS),
    Option("rest", "where lower goes: {joint: degrees}; where the arm was found where not given", "",
           to("robot.rest"), _text("rest")),
    Option("instruction", "what the policy is to do", "", to("policy.instruction")),
    Option("seed", "of everything drawn", "0", to("policy.seed", "steering.seed"), whole),
    Option("compressed", "JPEG instead of raw pictures: true or false", "false",
           lambda on: {"robot.compressed": on, **transport("policy", "steering", "hil", "recorder")(on)}, flag),
    Option("operator", "somebody watches: console, devices and recorder: true or false", "false", kind=flag,
           nodes=tuple(OPERATOR_NODES)),
    Option("teleop", "LeRobot's name of the operator's device, so101_leader for one", "",
           lambda kind: {"teleop.driver": kind, **({"hil.device": "leader"} if kind else {})}, nodes=("teleop",)),
    Option("teleop_port", "its serial port", "", to("teleop.port")),
    Option("teleop_id", "LeRobot's name of this very device", "", to("teleop.id")),
    Option("teleop_calibration", "folder of its calibration", "", to("teleop.calibration"), folder),
    *(_console_port(o) for o in CORRECT_OPTIONS if o.name in _OF_OPERATORS),
    *(o for o in SIM_OPTIONS if o.name not in _OF_SIMULATION),
)  # fmt: skip

_NODES = {
    "robot": NodeSpec("robot", lifecycle=False, ready="joint_states"),
    **{name: SIM_NODES[name] for name in ("control", "steering", "policy")},
    **OPERATOR_NODES,
    "teleop": NodeSpec("teleop"),
}


def robot_graph(
    asked: Mapping[str, str] | None = None, parameters: Iterable[str] = (), remappings: Iterable[str] = ()
) -> Graph:
    """A real arm with its policy, steering and control, and with an operator where asked; arguments as `sim_graph`."""
    graph = make_graph(ROBOT_OPTIONS, _NODES, asked or {}, parameters, remappings)
    at_exit = next(node.parameters["at_exit"] for node in graph.nodes if node.name == "robot")
    return replace(graph, stop_s=LOWERING_S) if at_exit == "lower" else graph
