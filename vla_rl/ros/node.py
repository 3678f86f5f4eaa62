"""What every node is made of: checked parameters, checked subscriptions, diagnostics, a clean start and end."""

from __future__ import annotations

import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode as RclpyLifecycleNode
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.node import Node as RclpyNode
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions

from vla_rl.ros import dds, messages, parameters
from vla_rl.ros.qos import EVERY

OK, WARNING, ERROR = 0, 1, 2
SMALL = 256 * 1024
_REPEAT_S, _KINDS = 10.0, 4
_NUMBERS = re.compile(r"[-+.\d]+")  # a reason with other numbers is the same reason


@dataclass(frozen=True)
class Receipt:
    """How a message came.

    Attributes:
        received_ns: monotonic time [ns].
        publisher: identity of its publisher, empty where nobody can tell.
        size: as it was sent [bytes].
    """

    received_ns: int
    publisher: bytes
    size: int


@dataclass
class Heard:
    """A subscription's messages: how many so far, and when the last one came, monotonic [ns]."""

    count: int = 0
    last_ns: int = 0
    told: int = 0
    since_ns: int = field(default_factory=time.monotonic_ns)

    def figures(self, topic: str) -> dict[str, object]:
        """Rate [Hz] since they were asked for last, and age [s]."""
        now, count = time.monotonic_ns(), self.count
        rate = (count - self.told) * 1e9 / max(now - self.since_ns, 1)
        self.told, self.since_ns = count, now
        age = {f"age/{topic}": (now - self.last_ns) * 1e-9} if self.last_ns else {}
        return {f"rate/{topic}": rate, **age}


@dataclass(frozen=True)
class NoConfig:
    """Of a node without parameters."""


@dataclass(frozen=True)
class Health:
    """What a node says of itself once a second: `level` OK, WARNING or ERROR, one line, and figures."""

    level: int
    summary: str
    values: dict[str, object]


class NodeMixin:
    """Parameters, subscriptions and diagnostics of a node; `kind` is its configuration's dataclass."""

    kind: type
    config: Any
    failure: BaseException | None = None

    def _prepare(self: Any) -> None:
        """Declare the parameters and start the diagnostics."""
        self.config = parameters.declare(self, self.kind)
        self.rejected: Counter[str] = Counter()
        self._said: dict[str, dict[str, float]] = {}
        self._heard: dict[str, Heard] = {}
        self.add_on_set_parameters_callback(parameters.on_set(lambda: self.config, self._reconfigure))
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", EVERY)
        self._diagnostics_timer = self.create_timer(1.0, self._diagnose)

    def _reconfigure(self: Any, config: Any) -> None:
        self.accept(config)
        self.config = config

    def accept(self, config: Any) -> None:
        """Take a changed configuration, or raise ValueError to refuse it."""

    def health(self) -> Health:
        """How this node is doing."""
        return Health(OK, "running", {})

    def subscribe(
        self: Any,
        kind: Any,
        topic: str,
        callback: Callable[..., None],
        qos: QoSProfile,
        max_bytes: int = SMALL,
        **options: Any,
    ) -> Any:
        """Subscribe; what is too large is dropped before it is read, what is malformed is counted and named.

        Args:
            kind: message type.
            topic: relative name.
            callback: takes the message and its Receipt; its ValueError rejects the message.
            qos: one of vla_rl.ros.qos.
            max_bytes: of the serialised message.
            options: further ones of rclpy's create_subscription.
        """
        heard = self._heard.setdefault(topic, Heard())  # `instruction` is subscribed twice

        def receive(data: bytes, info: Any) -> None:
            received_ns = time.monotonic_ns()
            receipt = Receipt(received_ns, self._sender(topic, info), len(data))
            heard.count, heard.last_ns = heard.count + 1, receipt.received_ns
            try:
                if len(data) > max_bytes:
                    raise ValueError(f"{len(data)} bytes where at most {max_bytes} are expected")
                callback(_read(data, kind), receipt)
            except ValueError as error:
                self.reject(topic, str(error))

        return self.create_subscription(kind, topic, receive, qos, raw=True, **options)

    def _sender(self: Any, topic: str, info: Any) -> bytes:
        """Identity of a message's publisher. Jazzy's rclpy does not tell it: then that of the only one there is."""
        if told := bytes((info.get("publisher_gid") or {}).get("data", b"")):
            return told
        there = self.get_publishers_info_by_topic(self.resolve_topic_name(topic))
        return bytes(there[0].endpoint_gid) if len(there) == 1 else b""

    def reject(self: Any, topic: str, reason: str) -> None:
        """Count a message that was rejected, and say so now and then."""
        self.rejected[topic] += 1
        text = f"{topic}: {reason} ({self.rejected[topic]} rejected so far)"
        self.warn(text, topic, _NUMBERS.sub("", reason))

    def warn(self: Any, text: str, key: str = "", kind: str = "") -> None:
        """Log a warning: in ten seconds no kind of a key twice, and few kinds of it."""
        key, now = key or text, time.monotonic()
        said = self._said[key] = {k: at for k, at in self._said.get(key, {}).items() if now - at < _REPEAT_S}
        if kind not in said and len(said) < _KINDS:
            said[kind] = now
            self.get_logger().warning(text)

    @property
    def heard(self: Any) -> dict[str, Heard]:
        """What came on each topic that we subscribed."""
        return dict(self._heard)

    def unheard(self: Any, *topics: str) -> list[str]:
        """Those of our subscribed topics that nobody publishes, as they are after remapping."""
        names = [self.resolve_topic_name(topic) for topic in topics]
        return [name for name in names if not self.count_publishers(name)]

    def _diagnose(self: Any) -> None:
        health = self.health()
        values = health.values | {f"rejected/{topic}": n for topic, n in self.rejected.items()}
        for topic, heard in self._heard.items():
            values |= heard.figures(topic)
        name, now = self.get_fully_qualified_name(), time.time_ns()
        self._diagnostics.publish(messages.diagnostics(name, now, health.level, health.summary, values))

    def guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        """What a thread of this node runs: whatever ends it ends the process, in one line."""

        def run() -> None:
            try:
                work()
            except Exception as error:
                self.failure = error

        return run

    def close(self) -> None:
        """Leave the world in a safe state and let go of it."""


class Node(NodeMixin, RclpyNode):
    """A node without a lifecycle.

    Args:
        name: of the node.
        options: of rclpy's Node.

    Raises:
        ValueError: a wrong parameter.
    """

    def __init__(self, name: str, **options: Any) -> None:
        RclpyNode.__init__(self, name, **options)
        self._prepare()


class LifecycleNode(NodeMixin, RclpyLifecycleNode):
    """A node with a lifecycle: override `configure`, `activate`, `deactivate` and `cleanup`.

    What they raise refuses the transition, in one line.

    Args:
        name: of the node.
        options: of rclpy's Node.

    Raises:
        ValueError: a wrong parameter.
    """

    def __init__(self, name: str, **options: Any) -> None:
        RclpyLifecycleNode.__init__(self, name, **options)
        self.active = False
        self._prepare()

    def configure(self) -> None:
        """Load and check; nothing moves."""

    def activate(self) -> None:
        """Subscribe, and begin."""

    def deactivate(self) -> None:
        """Hold, and listen no more."""

    def cleanup(self) -> None:
        """Forget what was configured."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """ROS asks to configure."""
        return self._transit("configure", self.configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """ROS asks to activate; what a failed attempt left behind is undone."""
        done = self._transit("activate", self.activate)
        self.active = done == TransitionCallbackReturn.SUCCESS
        if not self.active:
            self._transit("deactivate", self.deactivate)
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """ROS asks to deactivate."""
        self.active = False
        self._heard.clear()
        return self._transit("deactivate", self.deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """ROS asks to clean up."""
        return self._transit("clean up", self.cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """ROS asks to shut down."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def _transit(self, verb: str, change: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            change()
        except Exception as error:
            _explain(error)
            self.get_logger().error(f"cannot {verb}: {_line(error)}")
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Hold and forget, from whatever state."""
        if self.active:
            self.active = False
            self._transit("deactivate", self.deactivate)


def main(*makers: Callable[[], Any], argv: list[str] | None = None) -> int:
    """Run nodes in this process until SIGINT or SIGTERM.

    Args:
        makers: what makes each node, first to last.
        argv: command line, with ROS arguments.

    Returns:
        The process's status: 0 after a signal, 1 after an error, which is one line on stderr.
    """
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _: stopping.append(n))
    nodes: list[Any] = []
    try:
        dds.use_profile()
        rclpy.init(args=sys.argv if argv is None else argv, signal_handler_options=SignalHandlerOptions.NO)
        executor = SingleThreadedExecutor()
        for make in makers:
            nodes.append(make())
            executor.add_node(nodes[-1])
        while not stopping:
            executor.spin_once(timeout_sec=0.1)
            for node in nodes:
                if node.failure is not None:
                    raise node.failure
        status = 0
    except ExternalShutdownException:
        status = 0
    except Exception as error:
        name = next((n.get_name() for n in nodes if n.failure is error), nodes[-1].get_name() if nodes else "vla_rl")
        _explain(error)
        rclpy.logging.get_logger(name).error(_line(error))
        status = 1
    finally:
        for node in reversed(nodes):
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()
        for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not end the end
            signal.signal(number, signal.SIG_IGN)
    return status


def _read(data: bytes, kind: Any) -> Any:
    """A serialised message.

    Raises:
        ValueError: the bytes are none.
    """
    try:
        return deserialize_message(data, kind)
    except Exception as error:  # the middleware has a type of its own for each fault
        raise ValueError(f"{len(data)} bytes that are no {kind.__name__}") from error


def _explain(error: BaseException) -> None:
    """Where an error comes from, unless it is of a kind whose one line says it all."""
    if not isinstance(error, (ValueError, OSError, RuntimeError)):
        traceback.print_exception(error)


def _line(error: BaseException) -> str:
    """An error in one line."""
    return (str(error) or type(error).__name__).replace("\n", " ")
