"""One STS3215: registers in, motion out, and what it does to protect itself.

Where the maker's manual is silent, the model decides: the goal follows the joint while the torque is off, so switching
it on never jumps; the integral term is left out; only position mode moves.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from vla_rl.hardware.twin.body import STALL_TORQUE, Drive
from vla_rl.hardware.twin.protocol import Error
from vla_rl.hardware.twin.table import BAUD_RATES, TICK, TURN, Memory

MODEL_P, MODEL_D = 16, 32  # coefficients at which the arm's model was identified: those that LeRobot writes
CENTRE_HERE = 128  # written to `Torque_Enable`: the present position becomes 2048
STALL_AMPERES, IDLE_AMPERES, OHMS = 2.7, 0.1, 0.1
AMPERE = 1 / 0.0065  # in the registers' unit
TURNS_COUNT = 0x10  # of `Phase`


@dataclass(frozen=True)
class ServoConfig:
    """How one servo differs from the ideal.

    Attributes:
        delay_s: from a goal's arrival until the motor follows it [s].
        gain_scale: multiple of the model's stiffness and damping.
        backlash_rad: play between motor and joint [rad].
        zero: what the encoder counts where the joint is at 0 [ticks].
        volts: supply [V].
        ambient, heating, cooling_s: temperature at rest, its rise at stall in the end [deg C], and how fast [s].
    """

    delay_s: float = 0.0
    gain_scale: float = 1.0
    backlash_rad: float = 0.0
    zero: int = TURN // 2
    volts: float = 7.4
    ambient: float = 28.0
    heating: float = 60.0
    cooling_s: float = 400.0


@dataclass
class Ailment:
    """What a fault script does to a servo: the readings that it feigns, and the encoder that it stops or turns."""

    temperature: float | None = None
    volts: float | None = None
    overload: bool = False
    overcurrent: bool = False
    stuck: bool = False
    turns: int = 0
    silent: bool = False


class Servo:
    """A servo on the bus, and the motor in it.

    Args:
        number: its id.
        config: how it differs from the ideal.

    Attributes:
        memory: its registers.
        ailment: what is wrong with it by script.
    """

    def __init__(self, number: int, config: ServoConfig | None = None) -> None:
        self.config, self.memory, self.ailment = config or ServoConfig(), Memory(), Ailment()
        self.memory["ID"] = number
        self.memory.save()
        self._goals: deque[tuple[float, int]] = deque()
        self._position = self._velocity = self._torque = 0.0
        self._before, self._part = 0.0, 1.0  # where the joint was a step ago, and how much of the step has passed
        self._sensed = float(self.config.zero)
        self._goal, self._shaft = 0.0, 0.0
        self._ramp = [0.0, 0.0]  # position and velocity of the motion towards the goal [ticks, ticks/s]
        self._warmth, self._strained_s, self._burnt_s = self.config.ambient, 0.0, 0.0

    @property
    def id(self) -> int:
        """Its number on the bus."""
        return self.memory["ID"]

    @property
    def baud(self) -> int:
        """At which it listens and speaks [bit/s]."""
        return BAUD_RATES[min(self.memory["Baud_Rate"], len(BAUD_RATES) - 1)]

    @property
    def torque_on(self) -> bool:
        """Whether a host has switched the torque on."""
        return bool(self.memory["Torque_Enable"])

    @property
    def error(self) -> Error:
        """What is wrong with it, as it says in every answer."""
        errors, memory, ailment = Error.NONE, self.memory, self.ailment
        if not memory["Min_Voltage_Limit"] <= 10 * self._volts <= memory["Max_Voltage_Limit"]:
            errors |= Error.VOLTAGE
        if self._degrees > memory["Max_Temperature_Limit"]:
            errors |= Error.OVERHEAT
        if ailment.overcurrent or self._burnt_s > memory["Over_Current_Protection_Time"] * 0.01:
            errors |= Error.OVERCURRENT
        if ailment.overload or self._strained_s > memory["Protection_Time"] * 0.01:
            errors |= Error.OVERLOAD
        return errors

    @property
    def present(self) -> int:
        """What `Present_Position` says [ticks]."""
        now = self._before + self._part * (self._position - self._before)
        return int(self._sensed if self.ailment.stuck else self._counted(now)) + TURN * self.ailment.turns

    def ticks(self, position: float) -> float:
        """What `Present_Position` is at a joint position [rad], before it wraps [ticks]."""
        return self.config.zero + position / TICK - self.memory["Homing_Offset"]

    def read(self, address: int, length: int) -> bytes:
        """Bytes of the table as a host reads them."""
        self._report()
        return self.memory.read(address, length)

    def write(self, address: int, data: bytes, now: float) -> dict[str, int]:
        """A host's write at a time [s]; the registers that it meant, with what they hold now."""
        was = self.torque_on
        names = self.memory.write(address, data)
        written = {name: self.memory[name] for name in names}
        if self.memory["Torque_Enable"] == CENTRE_HERE:
            self._centre(was)
        if "Torque_Enable" in written:
            self._recover()
        if self.torque_on and not was:
            self._follow_joint()
        if "Goal_Position" in written:
            self._goals.append((now + self.config.delay_s, written["Goal_Position"]))
        return written

    def restart(self) -> None:
        """Power gone and back: torque off, and only what the EEPROM kept."""
        self.memory.restart()
        self._recover()
        self._follow_joint()

    def place(self, position: float) -> None:
        """Somebody else put the joint there [rad]: the servo holds it where it is now."""
        self._position, self._velocity, self._before = position, 0.0, position
        self._read_encoder()
        self._follow_joint()

    def feel(self, position: float, velocity: float, torque: float, step_s: float) -> None:
        """What the joint did in the last step [rad, rad/s, Nm]; the protections watch."""
        self._before = self._position
        self._position, self._velocity, self._torque = position, velocity, torque
        self._read_encoder()
        load = abs(torque) / STALL_TORQUE
        warmest = self.config.ambient + self.config.heating * load**2
        self._warmth += (warmest - self._warmth) * step_s / self.config.cooling_s
        self._guard(100.0 * load, step_s)

    def look(self, part: float) -> None:
        """How much of the last step has passed, 0 to 1: the present position lies there between its start and end."""
        self._part = part

    def drive(self, now: float, step_s: float) -> Drive:
        """What the motor does in the step that starts at a time [s]; a goal counts from the moment it is due."""
        memory = self.memory
        if not self.torque_on:
            self._follow_joint()
            return Drive(self._position, torque=0.0)
        end = now + step_s
        while self._goals and self._goals[0][0] < end:
            due, goal = self._goals.popleft()
            if due > now:
                self._move_ramp(due - now)
                now = due
            self._take(goal)
        self._move_ramp(end - now)
        target = self._position + (self._ramp[0] - self._sensed) * TICK
        slack = self.config.backlash_rad / 2
        self._shaft = min(max(self._shaft, target - slack), target + slack)
        scale = self.config.gain_scale
        return Drive(
            self._shaft,
            scale * memory["P_Coefficient"] / MODEL_P,
            scale * memory["D_Coefficient"] / MODEL_D,
            self._strength(),
        )

    def _take(self, goal: int) -> None:
        """Follow a goal from now on [ticks], within the limits; both limits 0 means none."""
        low, high = self.memory["Min_Position_Limit"], self.memory["Max_Position_Limit"]
        held = float(goal if low == high == 0 else min(max(goal, low), high))
        if (held - self._sensed) * (self._goal - self._sensed) < 0:  # it no longer pushes where it was stuck
            self._recover()
        self._goal = held

    def _move_ramp(self, step_s: float) -> None:
        """Trapezoidal velocity towards the goal, as `Acceleration` and `Goal_Velocity` ask for."""
        position, velocity = self._ramp
        away = self._goal - position
        fastest = float(abs(self.memory["Goal_Velocity"]) or self.memory["Maximum_Velocity_Limit"] * 50)
        steepest = 100.0 * self.memory["Acceleration"]
        if steepest:
            wanted = math.copysign(min(fastest, math.sqrt(2 * steepest * abs(away))), away)
            velocity += min(max(wanted - velocity, -steepest * step_s), steepest * step_s)
        else:
            velocity = math.copysign(fastest, away)
        if abs(velocity) * step_s >= abs(away) and velocity * away >= 0:
            self._ramp = [self._goal, 0.0 if not steepest else away / step_s]
        else:
            self._ramp = [position + velocity * step_s, velocity]

    def _strength(self) -> float:
        """The most that the motor gives now [Nm]: a little when overloaded, nothing after what else it unloads for."""
        memory, errors = self.memory, self.error
        if memory["Operating_Mode"] != 0 or errors & memory["Unloading_Condition"] & ~Error.OVERLOAD:
            return 0.0
        share = min(memory["Torque_Limit"], memory["Max_Torque_Limit"]) / 1000
        return STALL_TORQUE * (min(share, memory["Protective_Torque"] / 100) if errors & Error.OVERLOAD else share)

    def _guard(self, percent: float, step_s: float) -> None:
        """Count for how long load and current are too high; once over the time allowed, that stays until `_recover`."""
        memory = self.memory
        if self._strained_s <= memory["Protection_Time"] * 0.01:
            self._strained_s = self._strained_s + step_s if percent > memory["Overload_Torque"] else 0.0
        if self._burnt_s <= memory["Over_Current_Protection_Time"] * 0.01:
            too_much = self._amperes * AMPERE > memory["Protection_Current"]
            self._burnt_s = self._burnt_s + step_s if too_much else 0.0

    def _recover(self) -> None:
        """Forget overload and overcurrent."""
        self._strained_s = self._burnt_s = 0.0

    def _read_encoder(self) -> None:
        """What the encoder counts at the end of a step [ticks]; a stuck one counts no further."""
        if not self.ailment.stuck:
            self._sensed = self._counted(self._position)

    def _counted(self, position: float) -> float:
        """What an encoder counts at a position [rad]: 12 bits that wrap, or turns where `Phase` says so [ticks]."""
        ticks = self.ticks(position)
        return ticks if self.memory["Phase"] & TURNS_COUNT else ticks % TURN

    def _follow_joint(self) -> None:
        """No goal but where the joint is."""
        self._goals.clear()
        self._goal, self._shaft, self._ramp = self._sensed, self._position, [self._sensed, 0.0]
        self.memory["Goal_Position"] = round(self._sensed)

    def _centre(self, was: bool) -> None:
        """Make the present position 2048, as `Torque_Enable` = 128 asks for; the torque stays as it was."""
        self.memory["Torque_Enable"] = int(was)
        offset = round(self.ticks(self._position)) + self.memory["Homing_Offset"] - TURN // 2
        self.memory["Homing_Offset"] = (offset + TURN // 2) % TURN - TURN // 2
        self.memory.save()

    @property
    def _amperes(self) -> float:
        return IDLE_AMPERES + STALL_AMPERES * abs(self._torque) / STALL_TORQUE

    @property
    def _volts(self) -> float:
        return self.config.volts - OHMS * self._amperes if self.ailment.volts is None else self.ailment.volts

    @property
    def _degrees(self) -> float:
        return self._warmth if self.ailment.temperature is None else self.ailment.temperature

    def _report(self) -> None:
        """Write what is measured into the registers."""
        memory, load = self.memory, self._torque / STALL_TORQUE
        velocity = 0 if self.ailment.stuck else round(self._velocity / TICK)
        memory["Present_Position"], memory["Present_Velocity"] = self.present, velocity
        memory["Present_Load"] = round(1000 * load)
        memory["Present_Voltage"], memory["Present_Temperature"] = round(10 * self._volts), round(self._degrees)
        memory["Present_Current"] = round(math.copysign(self._amperes * AMPERE, load))
        memory["Moving"] = int(abs(velocity) > memory["Moving_Velocity_Threshold"])
        memory["Goal_Position_2"], memory["Status"] = memory["Goal_Position"], int(self.error)
