"""What a user may ask of a graph: one table, from which `vla-rl up` makes flags and a launch file makes arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vla_rl import build
from vla_rl.execute.player import JOINING
from vla_rl.hil.devices import DEVICES
from vla_rl.ros.bringup import names
from vla_rl.ros.bringup.graph import Graph, NodeSpec, ProcessSpec, Value
from vla_rl.steer.selectors import SELECTORS

Parameters = dict[str, Value]  # by "node.parameter"
TIMES = ("real", "faster", "lockstep")
RATE, REPLAN = 30.0, 8  # the arm's control rate [Hz]; in lock-step, periods from one chunk to the next


@dataclass(frozen=True)
class Option:
    """One thing that can be asked for.

    Attributes:
        name: flag `--image-size` and launch argument `image_size`.
        help: what it means, with its unit.
        default: taken where it is not given; a parameter file comes between the two.
        parameters: the value as parameters of nodes; none for what the graph itself needs.
        kind: of the value.
        choices: the only legal values, () where there are too many to list.
        nodes: nodes that there are only where the value is not false and not empty.
    """

    name: str
    help: str
    default: str = ""
    parameters: Callable[[Any], Parameters] = lambda value: {}
    kind: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    def read(self, text: str) -> Any:
        """The value in a text.

        Raises:
            ValueError: it is none; the message names the option and the alternatives.
        """
        if self.choices and text not in self.choices:
            raise ValueError(f"unknown {self.name} '{text}'; there are: {', '.join(self.choices)}")
        try:
            return self.kind(text)
        except ValueError as error:
            raise ValueError(f"{self.name} '{text}': {error}") from error


def whole(text: str) -> int:
    """A whole number."""
    if not text.lstrip("-").isdigit():
        raise ValueError("it must be a whole number")
    return int(text)


def flag(text: str) -> bool:
    """True or false, in the usual words."""
    values = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
    if text.lower() not in values:
        raise ValueError("it must be true or false")
    return values[text.lower()]


def names_of(text: str) -> list[str]:
    """Names with commas between."""
    return [part.strip() for part in text.split(",") if part.strip()]


def checkpoint(text: str) -> str:
    """A folder becomes absolute, since a node may live in another folder; anything else is a shipped policy's name."""
    return str(Path(text).resolve()) if Path(text).is_dir() else text


def folder(text: str) -> str:
    """A folder's absolute path: a node may live in another folder."""
    return str(Path(text).resolve())


def existing_file(text: str) -> str:
    """The absolute path of a file that there is."""
    if not Path(text).is_file():
        raise ValueError("there is no such file")
    return str(Path(text).resolve())


def critic_parameters(name: str) -> Parameters:
    """The critic, and the policy's features that it reads."""
    if not name:
        return {"steering.critic": "", "policy.critic": ""}
    config = json.loads((Path(build.check_critic(name)) / "critic.json").read_text()).get("config", {})
    layer: Parameters = {"policy.layer": str(config["layer"])} if config.get("encoder") == "policy" else {}
    return {"steering.critic": name, "policy.critic": name, **layer}


def to(*targets: str) -> Callable[[Any], Parameters]:
    """The value as it is, for each of these parameters."""
    return lambda value: dict.fromkeys(targets, value)


def _pace(time: str) -> Parameters:
    """In simulated time control ticks with the robot; in lock-step it waits for a chunk every REPLAN periods."""
    simulated, lockstep = time != "real", time == "lockstep"
    return {
        "robot.time": time,
        "control.lockstep": simulated,
        "control.lockstep_replan": REPLAN if lockstep else 0,
        "policy.simulated_time": simulated,
        "steering.simulated_time": simulated,
        **({"policy.rate": RATE / REPLAN} if lockstep else {}),
    }


def room_for(width: int, height: int) -> Parameters:
    """The largest picture that those who look will take: so large, and 640x480 at least."""
    sides = {"width": max(width, 640), "height": max(height, 480)}
    return {f"{node}.image_{side}": most for node in ("policy", "steering") for side, most in sides.items()}


def transport(*nodes: str) -> Callable[[Any], Parameters]:
    """Which pictures these nodes read."""
    return lambda on: dict.fromkeys([f"{node}.image_transport" for node in nodes], "compressed" if on else "raw")


SIM_OPTIONS = (
    Option("task", "the scene: lift, place, push, stack, button or drawer", "lift", to("robot.task")),
    Option(
        "seed", "of the first scene and of everything drawn", "0",
        to("robot.seed", "policy.seed", "steering.seed"), whole,
    ),
    Option(
        "policy", "a shipped policy or a checkpoint folder", "tabletop",
        to("policy.checkpoint", "steering.policy"), checkpoint,
    ),
    Option("device", "where the policy computes: auto, cpu or cuda", "auto", to("policy.device")),
    Option("candidates", "chunks drawn for each observation", "1", to("policy.candidates"), whole),
    Option("selector", "which candidate is executed", "first", to("steering.selector"), choices=tuple(SELECTORS)),
    Option("critic", "a shipped critic or a folder, which the selector follows", "", critic_parameters, checkpoint),
    Option(
        "trust_critic", "follow it even though its report failed", "false",
        to("steering.trust_critic", "policy.trust_critic"), flag,
    ),
    Option("guide", "the critic acts while chunks are drawn: fk or gradient", "", to("policy.guide")),
    Option(
        "joining", "how chunks follow one another", "temporal", to("control.joining", "steering.joining"),
        choices=tuple(JOINING),
    ),
    Option("foresee", "value what control will execute: true or false", "false", to("steering.foresee"), flag),
    Option("randomisation", "of scenes: none, train, positions or looks", "train", to("robot.randomisation")),
    Option("phrasings", "words of the instruction: train or unseen", "train", to("robot.phrasings")),
    Option("cameras", "names with commas between", "front,wrist", to("robot.cameras", "policy.cameras"), names_of),
    Option(
        "image_size", "height and width of the pictures [pixels]", "96",
        lambda size: {"robot.image_width": size, "robot.image_height": size, **room_for(size, size)}, whole,
    ),
    Option(
        "compressed", "JPEG instead of raw pictures: true or false", "false",
        lambda on: {"robot.compressed": on, **transport("policy", "steering")(on)}, flag,
    ),
    Option("time", "the simulation's pace", "real", _pace, choices=TIMES),
    Option("apart", "policy and steering in a process each: true or false", "false", kind=flag),
    Option("namespace", "prefix of every node and topic, so that several robots can live side by side"),
    Option("params_file", "ROS 2 parameter file; what is asked for by name wins over it"),
    Option("dds_profile", "Fast DDS profile: on (ours, large enough for camera pictures), off, or an XML file", "on"),
)  # fmt: skip


def sim_graph(
    asked: Mapping[str, str] | None = None, parameters: Iterable[str] = (), remappings: Iterable[str] = ()
) -> Graph:
    """The simulated robot with its policy, steering and control.

    Args:
        asked: texts by option name; "" counts as not asked for.
        parameters: further `node.name=value` rules; they win over everything.
        remappings: `from:=to` rules.

    Raises:
        ValueError: an option, rule or file that does not fit; one line that says what would.
    """
    return make_graph(SIM_OPTIONS, SIM_NODES, asked or {}, parameters, remappings)


SIM_NODES = {
    "robot": NodeSpec("robot", {"robot": "mujoco"}, lifecycle=False, ready="joint_states"),
    "control": NodeSpec("control", after=("robot",)),
    "steering": NodeSpec("steering", after=("control",)),
    "policy": NodeSpec("policy", after=("steering",)),
}
OPERATOR_NODES = {
    "recorder": NodeSpec("recorder", after=("control",)),
    "hil": NodeSpec("hil", after=("control",)),
}


def also(given: Option, parameters: Callable[[Any], Parameters]) -> Option:
    """An option that sets further parameters."""
    return replace(given, parameters=lambda value: {**given.parameters(value), **parameters(value)})


FOR_OPERATORS: dict[str, Callable[[Any], Parameters]] = {
    "cameras": to("hil.cameras", "recorder.cameras"),
    "compressed": transport("hil", "recorder"),
}
CORRECT_OPTIONS = (
    Option("session", "its folder, made where it does not exist", "session", to("recorder.session"), folder),
    Option("record", "record it: true or false", "true", kind=flag, nodes=("recorder",)),
    Option("operator_device", "what the operator drives with", "page", to("hil.device"), choices=DEVICES),
    Option("device_path", "the device's file, where it has one", "", to("hil.device_path")),
    Option(
        "ask_for_help", "file of `vla-rl calibrate`: when to call the operator", "", to("hil.ask_for_help"),
        existing_file,
    ),
    Option("console", "serve the operator's page: true or false", "true", to("hil.console"), flag),
    Option("host", "address of the page; any but loopback needs a token", "127.0.0.1", to("hil.host")),
    Option("port", "port of the page, 0: any that is free", "8080", to("hil.port"), whole),
    Option("token", "what a browser must know where the address is not loopback", "", to("hil.token")),
    *(also(o, FOR_OPERATORS[o.name]) if o.name in FOR_OPERATORS else o for o in SIM_OPTIONS),
)  # fmt: skip


def correct_graph(
    asked: Mapping[str, str] | None = None, parameters: Iterable[str] = (), remappings: Iterable[str] = ()
) -> Graph:
    """The simulated robot with an operator: devices, console and recorder besides; arguments as `sim_graph`."""
    return make_graph(CORRECT_OPTIONS, {**SIM_NODES, **OPERATOR_NODES}, asked or {}, parameters, remappings)


RECORD_OPTIONS = (
    Option("session", "its folder, made where it does not exist", "session", to("recorder.session"), folder),
    Option("arm", "the arm's description: a name, or a .yaml file", "so101", to("recorder.arm")),
    Option(
        "cameras",
        "names with commas between; those of the arm's description where not given",
        "",
        lambda names: {"recorder.cameras": names} if names else {},
        names_of,
    ),
    Option("compressed", "cameras send JPEG: true or false", "false", FOR_OPERATORS["compressed"], flag),
    Option("always", "one episode from start to end, without an operator", "false", to("recorder.always"), flag),
    *(o for o in SIM_OPTIONS if o.name in ("namespace", "params_file", "dds_profile")),
)


def record_graph(
    asked: Mapping[str, str] | None = None, parameters: Iterable[str] = (), remappings: Iterable[str] = ()
) -> Graph:
    """A recorder alone, beside a graph that runs already; arguments as `sim_graph`."""
    return make_graph(RECORD_OPTIONS, {"recorder": NodeSpec("recorder")}, asked or {}, parameters, remappings)


def make_graph(
    options: tuple[Option, ...],
    nodes: Mapping[str, NodeSpec],
    asked: Mapping[str, str],
    parameters: Iterable[str],
    remappings: Iterable[str],
) -> Graph:
    """A graph of these nodes, as far as what is asked for wants them; other arguments as `sim_graph`."""
    known = {option.name: option for option in options}
    if unknown := sorted(asked.keys() - known.keys()):
        raise ValueError(f"unknown option '{unknown[0]}'; there are: {', '.join(known)}")
    given = {name: known[name].read(text) for name, text in asked.items() if text != ""}
    defaults = {name: o.read(o.default) if o.default else "" for name, o in known.items()}
    values = {**defaults, **given}
    unwanted = {node for name, option in known.items() if not values[name] for node in option.nodes}
    nodes = {name: spec for name, spec in nodes.items() if name not in unwanted}
    rules = names.parse_parameters(parameters, nodes)
    layers = [_by_node(known, defaults), names.read_params_file(values["params_file"], nodes, values["namespace"])]
    layers += [_by_node(known, given), rules]
    filled = {n: _with_parameters(spec, [layer.get(n, {}) for layer in layers]) for n, spec in nodes.items()}
    return Graph(
        _processes(filled, values.get("apart", False)),
        names.check_namespace(values["namespace"]),
        names.check_remappings(remappings),
        _environment(values["dds_profile"]),
    )


def _by_node(known: Mapping[str, Option], values: Mapping[str, Any]) -> dict[str, Parameters]:
    """Option values as parameters of each node."""
    found: dict[str, Parameters] = {}
    for name, value in values.items():
        for target, parameter in known[name].parameters(value).items():
            node, _, parameter_name = target.partition(".")
            found.setdefault(node, {})[parameter_name] = parameter
    return found


def _with_parameters(spec: NodeSpec, layers: Iterable[Mapping[str, Value]]) -> NodeSpec:
    merged = dict(spec.parameters)
    for layer in layers:
        merged.update(layer)
    return NodeSpec(spec.name, merged, spec.lifecycle, spec.after, spec.ready)


def _processes(nodes: Mapping[str, NodeSpec], apart: bool) -> tuple[ProcessSpec, ...]:
    """Each node alone, but policy and steering together, so that features need not travel, unless `apart`."""
    thinking = (
        [("policy", "policy_node", ["policy"]), ("steering", "steering_node", ["steering"])]
        if apart
        else [("policy_steering", "policy_steering", ["policy", "steering"])]
    )
    alone = [(name, f"{name}_node", [name]) for name in ("robot", "teleop", "hil", "recorder", "control")]
    rows = [alone[0], *thinking, *alone[1:]]
    return tuple(
        ProcessSpec(name, run, tuple(nodes[n] for n in inside)) for name, run, inside in rows if inside[0] in nodes
    )


def _environment(profile: str) -> dict[str, str]:
    """What the processes' environment says about the DDS profile.

    Raises:
        ValueError: neither on, off nor a file.
    """
    if profile == "on":
        return {}
    if profile == "off":
        return {"VLA_RL_DDS_PROFILE": "off"}
    if not os.path.isfile(profile):
        raise ValueError(f"dds_profile '{profile}' is neither on, off nor a file")
    return {"FASTRTPS_DEFAULT_PROFILES_FILE": os.path.abspath(profile)}
