"""ServoDriver: a LeRobot robot whose joints are servos on one serial bus, through LeRobot's own bus.

What it does besides: it takes the line for itself; asks on a clean line, so that a late answer is never taken for the
next; repeats what got lost, for a bounded time, to those servos whose answers did (vla_rl.hardware.persistence); reads
goals back, since what is written to all servos at once is not acknowledged; looks at every servo's own fault register
once a period; and never lets go of a torque that it found on.
"""

from __future__ import annotations

import termios
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import cycle
from typing import Any

from vla_rl.hardware import calibration, census
from vla_rl.hardware.census import discard
from vla_rl.hardware.lerobot_driver import Driver, Gone, MissedError, Values, one_line
from vla_rl.hardware.persistence import Persistence
from vla_rl.hardware.ports import check_port, tune
from vla_rl.robot import Fault
from vla_rl.types import RobotSpec

RETRIES = 2
GOAL_TOLERANCE = 0.3  # a goal read back, in degrees or percent: three ticks of the encoder
UNITS = {"degrees": "degrees", "range_0_100": "percent", "range_m100_100": "-100..100"}
STATUS = ("Status", "Hardware_Error_Status")  # Feetech's name, Dynamixel's
MEASURES = (("Present_Temperature", "temperature", 1.0), ("Present_Voltage", "voltage", 0.1))
_GONE = (OSError, termios.error, TypeError)  # pyserial raises the last where the port was closed under it


class ServoDriver(Driver):
    """See the module; arguments and errors as `Driver`."""

    def __init__(self, robot: Any, kind: str) -> None:
        super().__init__(robot, kind)
        self._bus = robot.bus
        self._ahead = cycle(self._bus.motors)
        self._looks = cycle((self._look_at_status, self._look_at_torque))
        self._grippers: set[str] = set()
        self._limp: list[str] = []  # motors that were found without torque
        self._measures: dict[str, float] = {}
        self._told = True
        self._persistence: Persistence | None = None

    @property
    def name(self) -> str:
        """The robot and its port."""
        return f"{self.robot.name} on {self._bus.port}"

    def open(self, spec: RobotSpec) -> RobotSpec:
        """Open the port, count the servos, check calibration and units, and configure them without a jump."""
        self.check_names(spec)
        self.check_units(spec)
        self._limp = []
        self._grippers = {calibration.motor_of(joint) for joint in spec.joints if joint.gripper}
        self.open_port()
        try:
            self.count()
            found = self.check_calibration(spec)
            self.check_pose(found)
            self._limp = [motor for motor, on in self._each("Torque_Enable").items() if not on]
            self.rejoined = len(self._limp) < len(self._bus.motors)
            self._take_hold()
        except Exception as error:
            self.withdraw()
            if isinstance(error, ValueError):
                raise
            raise ValueError(f"{self.name}: {one_line(error)}") from error
        return found

    def open_port(self) -> None:
        """Take the port for this program alone; no servo is asked anything."""
        check_port(self._bus.port)
        try:
            self._bus.connect(handshake=False)
            self._bus.port_handler.ser.exclusive = True
            if census.feetech(self._bus):
                self._persistence = Persistence(self._bus, lambda lost: self.counts.update(errors=lost))
            else:
                tune(self._bus.port_handler)
        except Exception as error:
            reason = "another program has it" if "lock" in str(error) else one_line(error)
            raise ValueError(f"port {self._bus.port} does not open: {reason}") from error

    def check_units(self, spec: RobotSpec) -> None:
        """Raise ValueError where LeRobot's unit of a joint is not the arm's file's."""
        for joint in spec.joints:
            unit = UNITS[self._bus.motors[calibration.motor_of(joint)].norm_mode.value]
            if unit != joint.lerobot_unit:
                raise ValueError(f"{joint.name} is in {unit} on {self.name}, the arm's file says {joint.lerobot_unit}")

    def check_calibration(self, spec: RobotSpec) -> RobotSpec:
        """The description of this very arm; ValueError where its calibration is missing, another's or no model's."""
        robot, ticks = self.robot, {m: self._bus.model_resolution_table[k.model] for m, k in self._bus.motors.items()}
        where = robot.calibration_fpath
        if not robot.calibration:
            raise ValueError(f"no calibration for '{robot.id}' in {where.parent}; {self.calibrate_hint}")
        filed = calibration.sweeps(robot.calibration, ticks)
        wrong = [
            f"{name} has id {filed[name].id} in the file, {motor.id} on the bus"
            for name, motor in self._bus.motors.items()
            if name in filed and filed[name].id != motor.id
        ]
        wrong = wrong or calibration.problems(spec, filed)
        if wrong:
            raise ValueError(f"calibration {where} does not fit '{spec.name}': {'; '.join(wrong)}; "
                             f"{self.calibrate_hint}")  # fmt: skip
        foreign = calibration.differences(filed, calibration.sweeps(self._asked(self._bus.read_calibration), ticks))
        if foreign:
            raise ValueError(f"calibration {where} is another arm's: {'; '.join(foreign[:3])}; {self.calibrate_hint}")
        return calibration.calibrated(spec, filed)

    def _take_hold(self) -> None:
        """Torque for the limp, goals first: it must find each servo where it is. Those that hold are not touched.

        LeRobot configures all servos at once, without torque: where some hold, the others keep the settings in their
        own memory.
        """
        if not self._limp:
            return
        here = self._asked(lambda: self._bus.sync_read("Present_Position", self._limp, normalize=False))
        for motor, position in here.items():
            self._asked(partial(self._bus.write, "Goal_Position", motor, position, normalize=False))
        self._asked(partial(self._bus.enable_torque, self._limp) if self.rejoined else self.robot.configure)

    def read(self) -> Values:
        """Every joint's position; servo by servo where asking all at once got no good answer, and is not persistent."""
        try:
            found = self._asked(lambda: self._bus.sync_read("Present_Position"), 0)
        except MissedError as missed:
            if self._persistence:
                raise MissedError(f"{self._named(self._persistence.silent)}: {missed}") from missed
            found = self._each("Present_Position", 1)
        return {f"{motor}.pos": float(value) for motor, value in found.items()}

    def goals(self) -> Values | None:
        """The goal in each servo's own register."""
        return {f"{motor}.pos": float(goal) for motor, goal in self._each("Goal_Position").items()}

    def write(self, goals: Values, patience_s: float) -> Values:
        """All goals in one packet, which servos do not acknowledge: see `confirm`."""

        def send() -> Values:
            self._written = {name: float(value) for name, value in self.robot.send_action(goals).items()}
            self.counts["unconfirmed"] += not self._told  # the last ones: nobody had time to read them back
            self._told = False
            return self._written

        return self._asked(send, 0, patience_s=patience_s)

    def confirm(self) -> Values | None:
        """Read the last goals back: a servo that has another did not hear. What cannot be read back counts apart."""

        def there() -> Values:
            heard = {f"{motor}.pos": float(goal) for motor, goal in self._bus.sync_read("Goal_Position").items()}
            written, told, self._told = self._written or {}, self._told, True
            self.counts["lost"] += not told and any(
                abs(heard[n] - goal) > GOAL_TOLERANCE for n, goal in written.items()
            )
            return heard

        try:
            return self._asked(there, 0) if self._written else None
        except MissedError:
            self.counts["unconfirmed"] += not self._told
            self._told = True
            return None

    def count(self) -> int:
        """The number of servos, all of them there, well and of the right model; else ValueError."""
        census.check(self._bus, self._grippers)
        return len(self._bus.motors)

    def vitals(self) -> dict[str, dict[str, float]]:
        """What every servo measures of itself: temperature [deg C] and voltage [V] by motor."""
        for motor in self._bus.motors:
            self._measure(motor)
        keys = [(name, motor, f"{name}/{motor}") for _, name, _ in MEASURES for motor in self._bus.motors]
        found: dict[str, dict[str, float]] = {}
        for name, motor, key in keys:
            if key in self._measures:
                found.setdefault(name, {})[motor] = self._measures[key]
        return found

    def examine(self) -> str:
        """In turns every servo's fault register and torque; and with each call the voltage and heat of another one."""
        self._measure(next(self._ahead))
        look = next(self._looks)
        try:
            return look() and look()  # a damaged answer may fit its checksum: what is wrong is asked for twice
        except MissedError:
            return ""

    def _look_at_status(self) -> str:
        status = self._asked(lambda: self._bus.sync_read(self._status), 0)
        self.counts["squeezes"] += any(status[gripper] for gripper in self._grippers)
        motors = self._bus.motors
        said = [census.wrong(motors[m].id, m, int(bits), m in self._grippers) for m, bits in status.items()]
        return "; ".join(filter(None, said))

    def _look_at_torque(self) -> str:
        found = self._asked(lambda: self._bus.sync_read("Torque_Enable"), 0)
        off = [f"servo {self._bus.motors[motor].id} ({motor})" for motor, on in found.items() if not on]
        return f"{', '.join(off)} has lost its torque: its power, or its own protection" if off else ""

    @property
    def _status(self) -> str:
        return next(name for name in STATUS if self._has(name))

    def _has(self, register: str) -> bool:
        return all(register in self._bus.model_ctrl_table[motor.model] for motor in self._bus.motors.values())

    def _measure(self, motor: str) -> None:
        for register, name, scale in MEASURES:
            if self._has(register):
                try:
                    found = self._asked(partial(self._bus.sync_read, register, [motor]), 0)
                except MissedError:
                    continue
                self._measures[f"{name}/{motor}"] = round(found[motor] * scale, 1)

    def figures(self) -> dict[str, float]:
        """Counters; each servo's temperature [deg C] and voltage [V]."""
        return {**super().figures(), **self._measures}

    def torque(self) -> dict[str, bool]:
        """Whether each servo's torque is on."""
        return {motor: bool(on) for motor, on in self._each("Torque_Enable").items()}

    def release(self) -> None:
        """Cut the torque of every servo, and make sure that it is."""
        left = self._cut(self._bus.motors)
        if left:
            raise Fault(f"{self.name}: {'; '.join(left)}; every other torque is cut")

    def withdraw(self) -> None:
        """Cut the torque of those that were found limp, and close the port."""
        if self._bus.is_connected:
            self._cut(self._limp)
        self._limp = []
        self.close()

    def _cut(self, motors: Iterable[str]) -> list[str]:
        """Cut the torque servo by servo; what is known of those where it may still be on, a line each."""
        left = []
        for motor in motors:
            with suppress(Fault, MissedError):  # one that squeezes obeys, and answers with its fault all the same
                self._asked(partial(self._bus.disable_torque, motor))
            try:
                found = self._asked(partial(self._bus.sync_read, "Torque_Enable", [motor]))[motor]
            except (Fault, MissedError):
                left.append(f"servo {self._bus.motors[motor].id} ({motor}) does not say whether it still holds")
            else:
                left += [f"servo {self._bus.motors[motor].id} ({motor}) still holds"] * bool(found)
        return left

    def close(self) -> None:
        """Close the port; no servo is told anything."""
        if self._bus.is_connected:
            self._bus.port_handler.closePort()

    def _each(self, register: str, retries: int = RETRIES) -> Mapping[str, Any]:
        """A register of every servo, one after the other."""
        found = {}
        for motor in self._bus.motors:
            try:
                found[motor] = self._asked(partial(self._bus.sync_read, register, [motor]), retries)[motor]
            except MissedError as missed:
                raise MissedError(f"{self._named([self._bus.motors[motor].id])}: {missed}") from missed
        return found

    def _named(self, numbers: Iterable[int]) -> str:
        names = {motor.id: name for name, motor in self._bus.motors.items()}
        return ", ".join(f"servo {number} ({names[number]})" for number in numbers)

    def _asked[T](self, question: Callable[[], T], retries: int = RETRIES, patience_s: float = -1.0) -> T:
        """The answer to a question, asked on a clean line and again if it gets lost.

        Raises:
            MissedError: lost every time.
            Fault: a servo answers with a fault.
            Gone: the port is.
        """
        said = ""
        for _ in range(1 + retries):
            try:
                return self._transaction(question, patience_s)
            except ConnectionError as error:
                said = one_line(error)
                self.counts["errors"] += 1
        raise MissedError(said.rpartition("] ")[2])

    def _transaction[T](self, question: Callable[[], T], patience_s: float) -> T:
        """Ask once, while nobody else does; ConnectionError where the answer got lost."""
        with self._line.turn(patience_s):
            try:
                self._bus.port_handler.is_using = False
                discard(self._bus.port_handler.ser)
                return question()
            except ConnectionError:
                raise
            except IndexError as error:  # the SDK does not look how long an answer is
                raise ConnectionError("an answer of the wrong size") from error
            except RuntimeError as error:
                raise Fault(one_line(error)) from error
            except _GONE as error:
                raise Gone(f"port {self._bus.port} is gone: {one_line(error)}") from error
