"""Client: a node of one's own beside the graph, spun in a thread, to call its services and listen to its topics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import rclpy
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.client import Client as RosClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from std_srvs.srv import Trigger

Message = Any
Heard = Callable[[Message, int, int], None]  # a message, when it was received and when sent, system clock [ns]


class Client:
    """A node that is no part of the graph. `failure` is what ended its thread, if anything did.

    Args:
        name: of the node.
        namespace: the graph's, "" or "left".
        domain: ROS domain; None takes ROS_DOMAIN_ID.
    """

    def __init__(self, name: str, namespace: str = "", domain: int | None = None) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node(name, namespace=namespace, context=self._context, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._clients: dict[tuple[type, str], Any] = {}
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return
        except Exception as error:  # nothing more is heard from here on: `destroy` and `call` say why
            self.failure = error

    def listen(self, kind: type, topic: str, heard: Heard, qos: QoSProfile) -> Any:
        """Call `heard` for every message, in the client's thread."""

        def receive(message: Message, info: Mapping[str, Any]) -> None:
            heard(message, int(info["received_timestamp"]), int(info["source_timestamp"]))

        subscription = self.node.create_subscription(kind, topic, receive, qos)
        self._executor.wake()
        return subscription

    def destroy(self, *entities: Any) -> None:
        """Give up publishers, subscriptions or clients of `node`.

        In the client's own thread: rclpy's executor ends with an InvalidHandle where another thread destroys what it
        is about to wait for.

        Raises:
            RuntimeError: the client's thread has ended.
        """
        done = threading.Event()
        self._executor.create_task(self._destroy, entities).add_done_callback(lambda _: done.set())
        while not done.wait(0.5):
            self._check()
            if not self._thread.is_alive():
                raise RuntimeError(f"'{self.node.get_name()}' no longer spins: it was closed")

    def _check(self) -> None:
        if self.failure is not None:
            raise RuntimeError(f"'{self.node.get_name()}' no longer spins: {self.failure!r}")

    def _destroy(self, entities: Iterable[Any]) -> None:
        ends = {
            Publisher: self.node.destroy_publisher,
            Subscription: self.node.destroy_subscription,
            RosClient: self.node.destroy_client,
        }
        for entity in entities:
            ends[type(entity)](entity)

    def call(self, kind: type, name: str, request: Any, timeout_s: float = 10.0) -> Any:
        """The answer of a service.

        Raises:
            RuntimeError: the client's thread has ended.
            TimeoutError: the service is not there, or does not answer in time.
        """
        self._check()
        client = self._clients.get((kind, name)) or self.node.create_client(kind, name)
        self._clients[kind, name] = client
        end = time.monotonic() + timeout_s
        if not client.wait_for_service(timeout_sec=timeout_s):
            raise TimeoutError(
                f"no service '{name}' within {timeout_s:g} s: is the graph up, in this domain and namespace?"
            )
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(max(end - time.monotonic(), 0.0)):
            raise TimeoutError(f"service '{name}' did not answer within {timeout_s:g} s")
        return future.result()

    def trigger(self, name: str, timeout_s: float = 10.0) -> str:
        """Call a Trigger service; returns its message.

        Raises:
            TimeoutError: no answer.
            RuntimeError: it refused; the message says why.
        """
        answer = self.call(Trigger, name, Trigger.Request(), timeout_s)
        if not answer.success:
            raise RuntimeError(f"{name} refused: {answer.message}")
        return str(answer.message)

    def set_parameters(self, node: str, values: Mapping[str, Any]) -> None:
        """Set parameters of a node, one by one.

        Raises:
            TimeoutError: no answer.
            RuntimeError: one was refused; the message says why.
        """
        request = SetParameters.Request(
            parameters=[
                Parameter(k, value=list(v) if isinstance(v, tuple) else v).to_parameter_msg() for k, v in values.items()
            ]
        )
        answer = self.call(SetParameters, f"{node}/set_parameters", request)
        for key, result in zip(values, answer.results, strict=True):
            if not result.successful:
                raise RuntimeError(f"{node} refused {key}={values[key]!r}: {result.reason}")

    def parameter(self, node: str, name: str) -> Any:
        """A parameter's value, None where it is not set."""
        answer = self.call(GetParameters, f"{node}/get_parameters", GetParameters.Request(names=[name]))
        return rclpy.parameter.parameter_value_to_python(answer.values[0])

    def close(self) -> None:
        """Leave the domain."""
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(timeout=2.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for a condition that another thread brings about.

    Raises:
        TimeoutError: it did not come; the message names `what`.
    """
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(0.002)
