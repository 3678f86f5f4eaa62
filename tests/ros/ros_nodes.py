"""Nodes under test as processes, and a peer that talks to them."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import ClassVar

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.qos import QoSProfile, ReliabilityPolicy

from vla_rl.ros.measure.client import Client, wait_until

PATIENCE_S = 60.0  # nothing is judged by it: a loaded machine is slow
STEPS = {
    "configure": (Transition.TRANSITION_CONFIGURE, "inactive"),
    "activate": (Transition.TRANSITION_ACTIVATE, "active"),
    "deactivate": (Transition.TRANSITION_DEACTIVATE, "inactive"),
    "cleanup": (Transition.TRANSITION_CLEANUP, "unconfigured"),
}
EVERYTHING = QoSProfile(depth=1000, reliability=ReliabilityPolicy.BEST_EFFORT)


class Process:
    """A node's executable with parameters."""

    started: ClassVar = []

    def __init__(self, module, env=None, prefix=(), **parameters):
        rules = [("-r" if name.startswith("__") else "-p", f"{name}:={_yaml(v)}") for name, v in parameters.items()]
        arguments = ["--ros-args", *(part for rule in rules for part in rule)]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "vla_rl.ros.start", module, *arguments],
            stderr=self._log, stdout=self._log, env={**os.environ, **(env or {})},
        )  # fmt: skip
        self.pid = self._process.pid
        Process.started.append(self)

    @property
    def log(self):
        """Everything it has said so far."""
        self._log.seek(0)
        return self._log.read()

    @property
    def errors(self):
        """Its ERROR lines."""
        return [line for line in self.log.splitlines() if "[ERROR]" in line]

    @property
    def alive(self):
        return self._process.poll() is None

    def memory_mb(self):
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * 4096 / 1e6

    def send(self, number):
        self._process.send_signal(number)

    def end(self):
        """Wait for it to end by itself; returns its status."""
        return self._process.wait(PATIENCE_S)

    def kill(self):
        self._process.kill()
        self._process.wait()

    def stop(self):
        """SIGINT; it must go, with status 0."""
        if self.alive:
            self.send(signal.SIGINT)
            assert self.end() == 0, self.log


class Peer(Client):
    """A client that remembers what it heard."""

    made: ClassVar = []

    def __init__(self, name):
        super().__init__(name)
        Peer.made.append(self)

    def close(self):
        Peer.made.remove(self)
        super().close()

    def hear(self, kind, topic, qos=EVERYTHING):
        """A list that fills with the messages of a topic."""
        heard = []
        self.listen(kind, topic, lambda message, *_: heard.append(message), qos)
        return heard

    def change(self, node, step):
        """Ask a lifecycle node for a transition; returns whether it was done.

        A loaded machine may lose an answer, where DDS had not yet discovered the asker in full: then its state tells.
        """
        transition, goal = STEPS[step]
        request = ChangeState.Request(transition=Transition(id=transition))
        for _ in range(8):
            with suppress(TimeoutError):
                done = self.call(ChangeState, f"{node}/change_state", request, PATIENCE_S / 4).success
                return done or self._state(node) == goal  # done already, by a request whose answer was lost
            with suppress(TimeoutError):
                if self._state(node) == goal:
                    return True
            stale = [k for k in self._clients if k[1].startswith(f"{node}/")]
            self.destroy(*map(self._clients.pop, stale))  # new ones are discovered anew
        raise AssertionError(f"{node} answers no call to {step}; {said_so_far()}")

    def _state(self, node):
        return self.call(GetState, f"{node}/get_state", GetState.Request(), PATIENCE_S / 4).current_state.label

    def until(self, condition, what="it happens"):
        try:
            wait_until(condition, PATIENCE_S, what)
        except TimeoutError as error:
            raise AssertionError(f"{error}; {self._plight()}{said_so_far()}") from None

    def _plight(self):
        return f"the peer itself hears nothing more: {self.failure!r}; " if self.failure else ""

    def publisher(self, kind, topic, qos):
        """A publisher that somebody hears already."""
        publisher = self.node.create_publisher(kind, topic, qos)
        self.until(lambda: publisher.get_subscription_count() > 0, f"somebody hears {topic}")
        return publisher

    def every(self, period_s, act, until):
        """Do something periodically until a condition holds."""
        end = time.monotonic() + PATIENCE_S
        while not until():
            assert time.monotonic() < end, "it never happened"
            act()
            time.sleep(period_s)


def said_so_far():
    """What every process said, and which still live."""
    return "\n".join(f"{p.pid} {'lives' if p.alive else 'has ended'}: {p.log}" for p in Process.started)


def _yaml(value):
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(f"'{v}'" for v in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
