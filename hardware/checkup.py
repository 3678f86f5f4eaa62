"""Checkup: everything about an arm that can be known without moving it, a note a part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vla_rl.hardware.cameras import open_cameras
from vla_rl.hardware.lerobot_arm import LeRobotConfig
from vla_rl.hardware.lerobot_driver import Driver, MissedError, make_driver
from vla_rl.hardware.ports import check_port, lacks_port, ports
from vla_rl.hardware.servo_driver import ServoDriver
from vla_rl.robot import Fault, Robot
from vla_rl.types import RobotSpec

WATCHED_S = 2.0  # cameras
SLOW = 0.9  # of the rate that a camera promises
HOT_C = 55.0
STEP, SPEED, REACHED = np.radians(5.0), 0.2, np.radians(2.0)  # of the self-test: [rad], [rad/s], [rad]


@dataclass(frozen=True)
class Note:
    """What was found of one part: well or not, or well but worth a look."""

    part: str
    well: bool
    found: str
    look: bool = False


def checkup(spec: RobotSpec, config: LeRobotConfig) -> Iterator[Note]:
    """Port, servos, calibration, pose and cameras of an arm; it ends where the next cannot be asked."""
    try:
        driver = make_driver(config.driver, with_port(spec, config).settings)
    except ValueError as error:
        yield Note("port", False, str(error))
    else:
        yield from _of_servos(driver, spec) if isinstance(driver, ServoDriver) else _of_any(driver, spec)
    yield from _of_cameras(config.cameras)


def with_port(spec: RobotSpec, config: LeRobotConfig) -> LeRobotConfig:
    """The same with the port on which the arm is, where it needs one and none is given.

    Raises:
        ValueError: as `find_port`.
    """
    if not lacks_port("robot", config.driver, config.settings):
        return config
    return replace(config, settings={**config.settings, "port": find_port(spec, config)})


def find_port(spec: RobotSpec, config: LeRobotConfig) -> str:
    """The one port on which the arm's servos answer.

    Raises:
        ValueError: none does, or several do.
    """
    told, found = [], []
    for port in ports():
        driver = make_driver(config.driver, {**config.settings, "port": port})
        try:
            driver.check_names(spec)
            if isinstance(driver, ServoDriver):
                driver.open_port()
                driver.count()
                found.append(port)
        except ValueError as error:
            told.append(str(error))
        finally:
            driver.close()
    if len(found) != 1:
        raise ValueError(f"arms on several ports: {', '.join(found)}; choose one with --port" if found else
                         "; ".join(told) or check_port(""))  # fmt: skip
    return found[0]


def _of_any(driver: Driver, spec: RobotSpec) -> Iterator[Note]:
    try:
        driver.open(spec)
        yield Note("arm", True, f"{driver.name} connects, is calibrated, and rests within its limits")
    except ValueError as error:
        yield Note("arm", False, str(error))
    finally:
        driver.close()


def _of_servos(driver: ServoDriver, spec: RobotSpec) -> Iterator[Note]:
    """Each part in the order in which the next depends on it; nothing is written to any servo."""
    part, fitted = "port", spec
    try:
        driver.open_port()
        yield Note(part, True, f"{driver.name} opens")
        part = "servos"
        driver.check_names(spec)
        driver.check_units(spec)
        yield Note(part, True, f"all {driver.count()} answer")
        yield from _vitals(driver)
        part = "calibration"
        fitted = driver.check_calibration(spec)
        yield Note(part, True, _offsets(fitted))
        part = "pose"
        driver.check_pose(fitted)
        held = [motor for motor, on in driver.torque().items() if on]
        yield Note(
            part, True, "within the limits; " + (f"torque is on: {', '.join(held)}" if held else "torque is off")
        )
    except (ValueError, MissedError) as error:
        yield Note(part, False, str(error))
    finally:
        driver.close()


def _vitals(driver: ServoDriver) -> Iterator[Note]:
    found = driver.vitals()
    temperatures, volts = found.get("temperature", {}), found.get("voltage", {})
    if volts:
        yield Note("voltage", True, ", ".join(f"{motor} {value:.1f} V" for motor, value in volts.items()))
    if temperatures:
        hot = max(temperatures.values()) > HOT_C
        listed = ", ".join(f"{motor} {value:.0f}" for motor, value in temperatures.items())
        yield Note("heat", True, f"{listed} deg C" + (": let it cool down" if hot else ""), look=hot)


def _offsets(spec: RobotSpec) -> str:
    moved = [f"{j.name} {np.degrees(j.offset):.1f} deg" for j in spec.joints if j.offset]
    return "is this arm's, and each range is the model's within 5 deg" + (f"; zeros: {', '.join(moved)}" * bool(moved))


def _of_cameras(configs: Mapping[str, Mapping[str, Any]]) -> Iterator[Note]:
    """Each camera's real rate."""
    for name, settings in configs.items():
        try:
            stream = open_cameras({name: settings})[name]
        except ValueError as error:
            yield Note("camera", False, str(error))
            continue
        time.sleep(WATCHED_S)
        wanted, size = float(settings.get("fps") or 0.0), "x".join(map(str, stream.size))
        slow = stream.rate < SLOW * wanted
        rate = f"{stream.rate:.1f} pictures a second" + (f" of {wanted:g}" if slow else "")
        said = stream.complaint or f"{name} {size}, {rate}"
        yield Note("camera", not stream.complaint, said, look=slow)
        stream.close()


def self_test(arm: Robot, say: Callable[[str], None]) -> Iterator[Note]:
    """Move each joint by 5 degrees towards the middle of its range and back, slowly; a note a joint."""
    start = np.clip(arm.sense().joints, arm.spec.low, arm.spec.high)
    middle = (arm.spec.low + arm.spec.high) / 2
    for index, joint in enumerate(arm.spec.joints):
        say(f"{joint.name} moves by 5 degrees")
        away = start.copy()
        away[index] += np.copysign(STEP, middle[index] - start[index])
        try:
            moved = abs(_go(arm, start, away)[index] - start[index])
            _go(arm, away, start)
        except Fault as fault:
            yield Note(joint.name, False, str(fault))
            return
        yield Note(joint.name, abs(moved - STEP) < REACHED, f"moved by {np.degrees(moved):.1f} of 5 deg, and back")


def _go(arm: Robot, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Go from joints to joints (J,) [rad] at a small speed; returns where the arm came to, (J,) [rad]."""
    steps = int(np.ceil(np.abs(there - here).max() / SPEED * arm.spec.rate)) or 1
    for share in np.linspace(0, 1, steps + 1)[1:]:
        arm.command(here + share * (there - here))
        time.sleep(1 / arm.spec.rate)
    time.sleep(0.5)
    return arm.sense().joints
