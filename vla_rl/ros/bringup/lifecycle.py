"""Brings lifecycle nodes up: asks each for its state, configures it, and activates it once its turn has come.

Nothing sleeps and nothing is assumed: what a node is, its own `get_state` says. A request that went to a process which
has died since is asked again; a node that refuses is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node
from rclpy.task import Future

from vla_rl.ros.bringup.graph import NodeSpec

_PATIENCE_S = 2.0  # then a question is asked again; a transition may take as long as it needs
_UNANSWERED = 3  # calls without an answer until a new client tries
_PAUSE_S = 0.1  # between questions to a node that waits for its turn
_STEPS = {State.PRIMARY_STATE_UNCONFIGURED: Transition.TRANSITION_CONFIGURE}
_STEPS[State.PRIMARY_STATE_INACTIVE] = Transition.TRANSITION_ACTIVATE
_VERBS = {Transition.TRANSITION_CONFIGURE: "configure", Transition.TRANSITION_ACTIVATE: "activate"}


class Question:
    """One service call under way at a time; `answer()` is its response, once.

    On a starved machine a server may never discover the reader of a client's answers; after a few calls without an
    answer the client is therefore made anew.
    """

    def __init__(self, node: Node, service: Any, name: str) -> None:
        self._node, self._service, self._name = node, service, name
        self._client = node.create_client(service, name)
        self._unanswered = 0
        self._future: Future | None = None
        self._asked = 0.0

    @property
    def reachable(self) -> bool:
        """Whether a server has been discovered."""
        return bool(self._client.service_is_ready())

    @property
    def open(self) -> bool:
        """Whether a call waits for its answer."""
        return self._future is not None

    @property
    def since(self) -> float:
        """Time since the last call began [s]."""
        return time.monotonic() - self._asked

    def ask(self, request: Any) -> Future:
        """Send a request; one that was still open is forgotten."""
        self._unanswered += self.open
        self.forget()
        if self._unanswered >= _UNANSWERED:
            self._node.destroy_client(self._client)
            self._client, self._unanswered = self._node.create_client(self._service, self._name), 0
        self._asked, self._future = time.monotonic(), self._client.call_async(request)
        return self._future

    def answer(self) -> Any:
        """The response if there is a new one, else None."""
        if self._future is None or not self._future.done():
            return None
        response, self._future, self._unanswered = self._future.result(), None, 0
        return response

    def close(self) -> None:
        """Ask no more."""
        self.forget()
        self._node.destroy_client(self._client)

    def forget(self) -> None:
        """No longer wait for an answer."""
        if self._future is not None:
            self._client.remove_pending_request(self._future)
            self._future = None


class Ascent:
    """One lifecycle node on its way to active.

    Args:
        node: on which its services are called.
        name: of the lifecycle node.
        watch: ask an active node now and then whether it became a new, unconfigured one; else its owner says so by
            `restart`.

    Attributes:
        active: it is there.
        state: the last state it told, by its ROS label, "" before the first.
        refused: "configure" or "activate" where the node said no.
    """

    def __init__(self, node: Node, name: str, watch: bool = False) -> None:
        self._watch = watch
        self._state = Question(node, GetState, f"{name}/get_state")
        self._change = Question(node, ChangeState, f"{name}/change_state")
        self.restart()

    def restart(self) -> None:
        """Its process is a new one: begin again."""
        self._state.forget()
        self._change.forget()
        self._asked_for = 0
        self._declined = 0
        self.active, self.state, self.refused = False, "", ""

    def tick(self, may_activate: bool) -> None:
        """Go one step further, if there is one to go."""
        if self.refused or (self.active and not self._watch):
            return
        changed = self._change.answer()
        if changed is not None:
            self._declined = 0 if changed.success else self._asked_for
            self._state.forget()
        told = self._state.answer()
        if told is not None:
            self._go_on(told.current_state, may_activate)
        elif self._may_ask():
            self._state.ask(GetState.Request())

    def _may_ask(self) -> bool:
        """Whether it is time for a question: none is open, and no transition, unless that takes suspiciously long."""
        if self._state.since < (_PATIENCE_S if self._state.open or self.active else _PAUSE_S):
            return False
        return self._state.reachable and (not self._change.open or self._change.since > _PATIENCE_S)

    def _go_on(self, state: State, may_activate: bool) -> None:
        """React to what the node says it is."""
        if self.active and state.id == State.PRIMARY_STATE_UNCONFIGURED:
            self.restart()
        if self.active:
            return
        self.state = state.label
        step = _STEPS.get(state.id)
        if state.id == State.PRIMARY_STATE_ACTIVE:
            self.active = True
            self._change.forget()
        elif state.id == State.PRIMARY_STATE_FINALIZED or (step and step == self._declined):
            self.refused = _VERBS.get(self._declined, "live")
        elif step and (may_activate or step == Transition.TRANSITION_CONFIGURE) and self._change.reachable:
            self._asked_for, self._declined = step, 0
            self._change.ask(ChangeState.Request(transition=Transition(id=step)))

    def deactivate(self) -> Future | None:
        """Ask an active node to deactivate; the future completes when it has, None where it is not active."""
        if not self.active or not self._change.reachable:
            return None
        self.active = False
        return self._change.ask(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE)))


class Ascents:
    """All lifecycle nodes of a graph; `ready` says of any node, also of one without, whether others may rely on it.

    Args:
        node: on which the services are called, in the namespace of the graph; its owner spins it.
        specs: the nodes to bring up.
        ready: whether a node without lifecycle is ready.
        watch: notice by asking that a node was started again.
    """

    def __init__(
        self, node: Node, specs: Iterable[NodeSpec], ready: Callable[[str], bool], watch: bool = False
    ) -> None:
        self._specs = tuple(specs)
        self._others_ready = ready
        self.by_name = {spec.name: Ascent(node, spec.name, watch) for spec in self._specs if spec.lifecycle}

    def ready(self, name: str) -> bool:
        """Whether a node is active, or, without lifecycle, has begun to work."""
        return self.by_name[name].active if name in self.by_name else self._others_ready(name)

    @property
    def all_ready(self) -> bool:
        """Whether every node is."""
        return all(self.ready(spec.name) for spec in self._specs)

    def tick(self) -> None:
        """One step for each node."""
        for spec in self._specs:
            if spec.name in self.by_name:
                self.by_name[spec.name].tick(all(self.ready(name) for name in spec.after))
