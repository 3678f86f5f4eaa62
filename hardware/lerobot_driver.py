"""Drivers: LeRobot's robots as positions in and goals out, in LeRobot's own names and units.

`Driver` works with every LeRobot robot, plug-ins included. Where the robot is a chain of servos on a serial bus
(SO-100/101, Koch, OMX), `ServoDriver` (vla_rl.hardware.servo_driver) does the same through LeRobot's bus, and knows
about single servos besides.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import SequenceMatcher
from threading import Lock
from typing import Any

import numpy as np

from vla_rl.hardware.liveness import shut_out
from vla_rl.robot import Fault
from vla_rl.types import RobotSpec

Values = dict[str, float]
COUNTED = ("errors", "lost", "unconfirmed", "busy", "squeezes")


class MissedError(RuntimeError):
    """A question or a goal that got lost on its way to the arm; the next may not."""


class Gone(Fault):
    """The way to the arm is gone: nothing will be answered, or sent, until it is opened again."""


class Line:
    """Who may talk to the arm: one at a time, and a goal that waits comes before the next question.

    Args:
        counts: where it counts who waited in vain, as "busy".
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._counts, self._door, self._line = counts, Lock(), Lock()

    @contextmanager
    def turn(self, patience_s: float = -1.0) -> Iterator[None]:
        """One turn, after waiting for it as long as that, below 0 for ever [s].

        Raises:
            MissedError: it did not come.
        """
        if not (self._door.acquire(timeout=patience_s) and self._enter(patience_s)):
            self._counts["busy"] += 1
            raise MissedError("another question was under way for too long")
        try:
            yield
        finally:
            self._line.release()

    def _enter(self, patience_s: float) -> bool:
        try:
            return self._line.acquire(timeout=patience_s)
        finally:
            self._door.release()


class Driver:
    """One LeRobot robot.

    Args:
        robot: as LeRobot makes it, not connected, without cameras.
        kind: LeRobot's name of it.

    Attributes:
        counts: what went wrong so far, by name.
        rejoined: whether the arm, or a part of it, was found with its torque on, and was left so.
    """

    rejoined = False

    def __init__(self, robot: Any, kind: str) -> None:
        self.robot, self._kind = robot, kind
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
        self._line = Line(self.counts)
        self._written: Values | None = None

    @property
    def name(self) -> str:
        """Of the robot, for messages."""
        return str(self.robot.name)

    @property
    def calibrate_hint(self) -> str:
        """How to calibrate it with LeRobot's own command."""
        port = f" --robot.port={self.robot.config.port}" if getattr(self.robot.config, "port", "") else ""
        return f"run: lerobot-calibrate --robot.type={self._kind}{port} --robot.id={self.robot.id}"

    def open(self, spec: RobotSpec) -> RobotSpec:
        """Connect, refuse what does not fit, and return the description of this very arm.

        Raises:
            ValueError: the robot is not the arm that `spec` describes, is not calibrated, or does not answer.
        """
        self.check_names(spec)
        try:
            self.robot.connect(calibrate=False)
        except Exception as error:
            raise ValueError(f"{self.name} does not connect: {one_line(error)}") from error
        if not self.robot.is_calibrated:
            raise ValueError(f"{self.name} is not calibrated: {self.calibrate_hint}")
        self.check_pose(spec)
        return spec

    def check_pose(self, spec: RobotSpec) -> None:
        """Raise ValueError where the limits exclude where the arm is."""
        values = self.read()
        outside = shut_out(spec, spec.from_lerobot(np.array([values[joint.lerobot_name] for joint in spec.joints])))
        if outside:
            raise ValueError(f"{outside}; with its torque off, move it inside by hand")

    def check_names(self, spec: RobotSpec) -> None:
        """Raise ValueError where the robot's joints are not those of the arm; their order does not matter."""
        wanted = {joint.lerobot_name for joint in spec.joints}
        there = {name for name, kind in self.robot.action_features.items() if kind is float}
        if wanted != there:
            missing, extra = ", ".join(sorted(wanted - there)), ", ".join(sorted(there - wanted))
            raise ValueError(
                f"{self.name} is not the arm '{spec.name}': its description has {missing or 'nothing'} besides, "
                f"the robot has {extra or 'nothing'} besides"
            )

    def read(self) -> Values:
        """Where every joint is.

        Raises:
            MissedError: no answer; ask again.
            Fault: a part of the arm reports a fault.
            Gone: there will be no answer.
        """
        observation = self._one_at_a_time(self.robot.get_observation)
        return {name: float(value) for name, value in observation.items() if name in self.robot.action_features}

    def goals(self) -> Values | None:
        """What every joint was told last, perhaps by whoever drove the arm before; None where nobody knows.

        Raises:
            MissedError: no answer; ask again.
            Gone: there will be no answer.
        """
        return self._written

    def write(self, goals: Values, patience_s: float) -> Values:
        """Send goals; returns what LeRobot says it has sent.

        Args:
            goals: for every joint.
            patience_s: the longest to wait for a question that is under way [s].

        Raises:
            MissedError: they were not sent.
            Gone: nothing can be sent any more.
        """
        sent = self._one_at_a_time(lambda: self.robot.send_action(goals), patience_s)
        self._written = {name: float(value) for name, value in sent.items()}
        return self._written

    def _one_at_a_time[T](self, act: Callable[[], T], patience_s: float = -1.0) -> T:
        with self._line.turn(patience_s):
            try:
                return act()
            except Exception as error:
                self.counts["errors"] += 1
                raise MissedError(one_line(error)) from error

    def examine(self) -> str:
        """Look at a part of the arm, another with each call; what is wrong with it, "" where nothing is."""
        return ""

    def confirm(self) -> Values | None:
        """The goals that the arm really has, None where it did not say; those that never arrived are counted."""
        return self._written

    def figures(self) -> dict[str, float]:
        """Counters and measures by name."""
        return {name: float(count) for name, count in self.counts.items()}

    def release(self) -> None:
        """Cut the torque.

        Raises:
            Fault: it is not cut, or not everywhere, or nobody knows; it says which.
        """
        raise Fault(f"{self.name} offers no way to cut its torque: it goes on holding")

    def withdraw(self) -> None:
        """Let go of a robot that is refused after all, with its torque as it was found, as far as that can be told."""
        self.close()

    def reopen(self, spec: RobotSpec) -> None:
        """Connect again after a fault, and check again.

        Raises:
            ValueError: it cannot be.
        """
        self.close()
        self.open(spec)

    def close(self) -> None:
        """Let go of the robot; its torque stays as it is, as far as LeRobot lets us say so."""
        if self.robot.is_connected:
            self.robot.disconnect()


def make_driver(kind: str, settings: Mapping[str, Any]) -> Driver:
    """The driver of a LeRobot robot.

    Args:
        kind: LeRobot's name of the robot, so101_follower for one.
        settings: fields of its configuration class: port, id, calibration_dir, ....

    Raises:
        ValueError: no such robot, or settings that it does not know.
    """
    from lerobot.motors.motors_bus import SerialMotorsBus
    from lerobot.robots import make_robot_from_config

    from vla_rl.hardware.servo_driver import ServoDriver

    config = robot_config(kind, settings)
    _keep_torque(config)
    try:
        robot = make_robot_from_config(config)
    except ImportError as error:
        raise ValueError(f"{kind}: {one_line(error)}") from error
    except Exception as error:  # all that LeRobot reads by then is its calibration
        raise ValueError(
            f"{kind}: {one_line(error)}; is its calibration, {config.id}.json, damaged? "
            "Then remove it, and run lerobot-calibrate"
        ) from error
    driver = ServoDriver if isinstance(getattr(robot, "bus", None), SerialMotorsBus) else Driver
    return driver(robot, kind)


def robot_config(kind: str, settings: Mapping[str, Any]) -> Any:
    """LeRobot's configuration of a robot, with degrees where it asks for a unit.

    Raises:
        ValueError: no such robot, or settings that it does not know.
    """
    from lerobot import robots

    return _config(robots, robots.RobotConfig, "robot", kind, settings)


def teleoperator_config(kind: str, settings: Mapping[str, Any]) -> Any:
    """LeRobot's configuration of a teleoperator; as `robot_config`."""
    from lerobot import teleoperators

    return _config(teleoperators, teleoperators.TeleoperatorConfig, "teleoperator", kind, settings)


def _config(package: Any, registry: Any, what: str, kind: str, settings: Mapping[str, Any]) -> Any:
    import draccus

    known = _registered(package, registry, kind)
    if kind not in known:
        raise ValueError(f"LeRobot has no {what} '{kind}'; there are: {', '.join(sorted(known))}")
    fields = {field.name for field in dataclasses.fields(known[kind])}
    degrees = {"use_degrees": True} if "use_degrees" in fields else {}
    given = {name: value for name, value in settings.items() if value not in ("", None)}
    try:
        return draccus.decode(registry, {"type": kind, **degrees, **given})
    except Exception as error:
        raise ValueError(f"{what} {kind}: {one_line(error)}; it takes: {', '.join(sorted(fields))}") from error


def _registered(package: Any, registry: Any, kind: str) -> Mapping[str, Any]:
    """Configuration classes by name, `kind`'s among them if there is one.

    A class is known once its module was imported, which takes long: the likely ones come first, plug-ins last.
    """
    from lerobot.utils.import_utils import register_third_party_plugins

    names = [module.name for module in pkgutil.iter_modules(package.__path__) if module.ispkg]
    for name in sorted(names, key=lambda name: SequenceMatcher(None, name, kind).ratio(), reverse=True):
        if kind in registry.get_known_choices():
            break
        with suppress(Exception):  # a robot whose own libraries are not installed is not there
            importlib.import_module(f"{package.__name__}.{name}")
    if kind not in registry.get_known_choices():
        register_third_party_plugins()
    return dict(registry.get_known_choices())


def _keep_torque(config: Any) -> None:
    """LeRobot cuts the torque when it lets go of a robot, unless told otherwise, also for the arms of a pair."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "disable_torque_on_disconnect":
            setattr(config, field.name, False)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            _keep_torque(value)


def one_line(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
