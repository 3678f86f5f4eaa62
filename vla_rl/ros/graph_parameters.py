"""Graph: the parameters of the nodes around us, asked for once and followed from then on, and what weights they run."""

from __future__ import annotations

from contextlib import suppress
from threading import Thread
from typing import Any

from rcl_interfaces.msg import ParameterEvent
from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.parameter import parameter_value_to_python

from vla_rl import build
from vla_rl.policy.fingerprint import fingerprint
from vla_rl.ros import qos

NODES = ("robot", "policy", "steering", "control", "hil")
WEIGHTS = {"policy": ("policy", "checkpoint"), "critic": ("steering", "critic"), "guide": ("policy", "critic")}
"""Node and parameter of the folder of each."""
SECRETS = frozenset(("token",))  # parameters that are never told: what is recorded is passed on
_ASK_S = 1.0


class Graph:
    """What the nodes of NODES were told, as far as they run.

    Args:
        node: who asks, in whose namespace they are.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._known: dict[str, dict[str, Any]] = {}
        self._lists = {name: node.create_client(ListParameters, f"{name}/list_parameters") for name in NODES}
        self._values = {name: node.create_client(GetParameters, f"{name}/get_parameters") for name in NODES}
        self._weights: dict[tuple[str, str], str] = {}
        self._asked: set[str] = set()
        self._events = node.create_subscription(ParameterEvent, "/parameter_events", self._changed, qos.EVERY)
        self._timer = node.create_timer(_ASK_S, self._ask)
        self._ask()

    def close(self) -> None:
        """Ask and follow no more."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._events)
        for client in (*self._lists.values(), *self._values.values()):
            self._node.destroy_client(client)

    def about(self) -> dict[str, Any]:
        """`graph`: parameters by node; `weights`: SHA-256 of each of WEIGHTS, "" where unknown."""
        weights = {part: self._weights.get(place, "") for part, place in self._places().items()}
        return {"graph": {name: dict(values) for name, values in self._known.items()}, "weights": weights}

    def _places(self) -> dict[str, tuple[str, str]]:
        """Which folders the policy and the critic were loaded from, as they were given."""
        known = ((part, node, name) for part, (node, name) in WEIGHTS.items())
        return {part: (part, str(self._known.get(node, {}).get(name, ""))) for part, node, name in known}

    def _weigh(self) -> None:
        """Know the weights' identities, which takes seconds for large ones, from a thread of its own."""
        for part, name in self._places().values():
            if name and (part, name) not in self._weights:
                self._weights[part, name] = ""
                Thread(target=self._hash, args=(part, name), daemon=True).start()

    def _hash(self, part: str, name: str) -> None:
        check, file = (
            (build.check_policy, "model.safetensors")
            if part == "policy"
            else (build.check_critic, "critic.safetensors")
        )
        with suppress(ValueError, OSError):
            self._weights[part, name] = fingerprint(check(name), file)

    def _ask(self) -> None:
        self._weigh()
        for name in NODES:
            if name not in self._asked and self._lists[name].service_is_ready():
                self._asked.add(name)
                future = self._lists[name].call_async(ListParameters.Request())
                future.add_done_callback(lambda done, name=name: self._listed(name, done.result().result.names))

    def _listed(self, name: str, names: list[str]) -> None:
        names = [each for each in names if each not in SECRETS]
        future = self._values[name].call_async(GetParameters.Request(names=names))

        def got(done: Any) -> None:
            values = [parameter_value_to_python(value) for value in done.result().values]
            self._known[name] = dict(zip(names, map(_plain, values), strict=False))

        future.add_done_callback(got)

    def _changed(self, event: ParameterEvent) -> None:
        short = {self._node.resolve_topic_name(name): name for name in NODES}.get(event.node)
        if short is not None:
            known = self._known.setdefault(short, {})
            for each in (*event.new_parameters, *event.changed_parameters):
                if each.name not in SECRETS:
                    known[each.name] = _plain(parameter_value_to_python(each.value))


def _plain(value: Any) -> Any:
    """JSON-ready."""
    return value if value is None or isinstance(value, bool | int | float | str) else list(value)
