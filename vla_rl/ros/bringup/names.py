"""Names and values that a user may get wrong: namespaces, remappings, parameter rules, parameter files, the domain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from vla_rl.ros.bringup.graph import Value

DOMAINS = range(233)  # the DDS standard's port numbers end at domain 232
TOPICS = (
    "joint_states", "joint_commands", "joint_targets", "robot_description", "instruction", "clock",
    "policy/candidates", "policy/context", "steering/chunk", "steering/values", "control/step", "control/mode",
    "human/command", "human/twist", "leader/joint_states", "joy", "episode/status", "episode/note",
    "recorder/status", "sim/status", "diagnostics",
)  # fmt: skip
SERVICES = (
    "control/take_over", "control/pause", "control/resume", "control/stop", "control/reset_stop", "sim/reset",
    "sim/pause", "sim/step", "robot/recover", "episode/start", "episode/success", "episode/failure", "episode/end",
    "episode/discard", "episode/rerecord",
)  # fmt: skip
_CAMERA = re.compile(r"camera/\w+/(image_raw|compressed|camera_info)")
_NAME = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*")
_LARGEST_FILE = 1_000_000  # bytes


def check_domain(text: str | None) -> int:
    """ROS_DOMAIN_ID as a number; none means 0.

    Raises:
        ValueError: not a number from 0 to 232.
    """
    if not text:
        return 0
    if not text.isdigit() or int(text) not in DOMAINS:
        raise ValueError(f"ROS_DOMAIN_ID is '{text}'; it must be a whole number from 0 to {DOMAINS[-1]}")
    return int(text)


def check_namespace(text: str) -> str:
    """A namespace without slashes around it.

    Raises:
        ValueError: not a legal ROS name.
    """
    name = text.strip("/")
    if name and not _NAME.fullmatch(name):
        raise ValueError(f"namespace '{text}' is no ROS name: letters, digits and _ only, and no digit first")
    return name


def check_remappings(rules: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(from, to) pairs from `from:=to` rules.

    Raises:
        ValueError: a rule without both sides, with an illegal name, or for a topic that the graph does not have.
    """
    return tuple(_remapping(rule) for rule in rules)


def _remapping(rule: str) -> tuple[str, str]:
    old, separator, new = (part.strip() for part in rule.partition(":="))
    if not separator or not old:
        raise ValueError(f"remapping '{rule}' must read FROM:=TO, joint_states:=arm/joint_states for one")
    if not new:
        raise ValueError(f"remapping '{rule}' remaps '{old}' to nothing; write {old}:=NEW_NAME")
    if not _NAME.fullmatch(new):
        raise ValueError(f"remapping '{rule}': '{new}' is no ROS name")
    known = (*TOPICS, *SERVICES)
    if old.lstrip("/") not in known and not _CAMERA.fullmatch(old):
        raise ValueError(
            f"remapping '{rule}': the graph has no '{old}'; there are: {', '.join(known)}, "
            "camera/NAME/image_raw, camera/NAME/compressed, camera/NAME/camera_info"
        )
    return old, new


def parse_parameters(rules: Iterable[str], nodes: Iterable[str]) -> dict[str, dict[str, Value]]:
    """Parameters by node from `node.name=value` rules; values are read as YAML: 0.5, true, [front, wrist].

    Raises:
        ValueError: malformed, or a node that the graph does not have. Whether a node has the parameter it says itself.
    """
    known, found = tuple(nodes), dict[str, dict[str, Value]]()
    for rule in rules:
        target, separator, text = rule.partition("=")
        node, dot, name = target.strip().partition(".")
        if not (separator and dot and name):
            raise ValueError(f"parameter '{rule}' must read NODE.NAME=VALUE, control.joining=blend for one")
        _choose_node(f"parameter '{rule}'", node, known)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"parameter '{rule}': '{text}' is not YAML") from error
        found.setdefault(node, {})[name] = text if value is None else value
    return found


def _choose_node(where: str, node: str, known: tuple[str, ...]) -> None:
    if node not in known:
        raise ValueError(f"{where}: no node '{node}'; there are: {', '.join(known)}")


def read_params_file(path: str, nodes: Iterable[str], namespace: str = "") -> dict[str, dict[str, Value]]:
    """Parameters by node from a ROS 2 parameter file.

    A section is a node's name, with or without its namespace, or `/**` for all; what names a node wins over `/**`.

    Raises:
        ValueError: missing, too large, not YAML, malformed, or a section for a node that the graph does not have.
    """
    known, found = tuple(nodes), dict[str, dict[str, Value]]()
    if not path:
        return found
    sections = sorted(_sections(_load(path), path), key=lambda section: section[0] != "**")
    for section, parameters in sections:
        name = section.removeprefix(f"{namespace.strip('/')}/").removeprefix("**/")
        if name != "**":
            _choose_node(f"parameter file {path}", name, known)
        for node in known if name == "**" else (name,):
            found.setdefault(node, {}).update(parameters)
    return found


def _load(path: str) -> Any:
    try:
        if Path(path).stat().st_size > _LARGEST_FILE:
            raise ValueError(f"parameter file {path} is larger than {_LARGEST_FILE} bytes")
        return yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"parameter file {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"parameter file {path} is not YAML: {error}") from error


def _sections(content: Any, path: str, prefix: str = "") -> list[tuple[str, Mapping[str, Value]]]:
    """(node with namespace, parameters) of a file's sections; a namespace may be a section of its own."""
    if not isinstance(content, dict):
        where = prefix or "the file"
        raise ValueError(f"parameter file {path}: '{where}' must hold NODE: {{ros__parameters: {{NAME: VALUE}}}}")
    found = []
    for key, value in content.items():
        section = f"{prefix}/{key}".strip("/")
        inner = value.get("ros__parameters") if isinstance(value, dict) else None
        if inner is None:
            found += _sections(value, path, section)
        elif isinstance(inner, dict):
            found.append((section, inner))
        else:
            raise ValueError(f"parameter file {path}: the parameters of '{section}' must read NAME: VALUE")
    return found
