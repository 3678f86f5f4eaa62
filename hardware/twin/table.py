"""Control table of the Feetech STS3215: where each register is, how it counts, and what it holds when new."""

from __future__ import annotations

import math
from dataclasses import dataclass

TURN = 4096
TICK = 2 * math.pi / TURN  # [rad]
SIZE = 96
EEPROM_END = 40
MODEL = 777

BAUD_RATES = (1_000_000, 500_000, 250_000, 128_000, 115_200, 57_600, 38_400, 19_200)  # by the value of `Baud_Rate`


@dataclass(frozen=True)
class Register:
    """One entry of the table; little endian.

    Attributes:
        address: of its first byte; below EEPROM_END it survives a loss of power, if `Lock` was open when written.
        size: 1 or 2 bytes.
        initial: factory value.
        sign: bit that makes the rest negative (sign and magnitude), None where it counts from 0.
        read_only: a write to it changes nothing.
    """

    address: int
    size: int
    initial: int = 0
    sign: int | None = None
    read_only: bool = False

    def encode(self, value: int) -> bytes:
        """A value as bytes; beyond its range it stops at the end."""
        if self.sign is None:
            return min(max(value, 0), (1 << 8 * self.size) - 1).to_bytes(self.size, "little")
        magnitude = min(abs(value), (1 << self.sign) - 1)
        return (magnitude | (value < 0) << self.sign).to_bytes(self.size, "little")

    def decode(self, data: bytes) -> int:
        """Inverse of `encode`."""
        raw = int.from_bytes(data, "little")
        if self.sign is None:
            return raw
        magnitude = raw & ((1 << self.sign) - 1)
        return -magnitude if raw >> self.sign & 1 else magnitude


def _measured(address: int, size: int, sign: int | None = None, initial: int = 0) -> Register:
    return Register(address, size, initial, sign, read_only=True)


REGISTERS: dict[str, Register] = {
    "Firmware_Major_Version": _measured(0, 1, initial=3),
    "Firmware_Minor_Version": _measured(1, 1, initial=10),
    "Model_Number": _measured(3, 2, initial=MODEL),
    "ID": Register(5, 1, 1),
    "Baud_Rate": Register(6, 1, 0),
    "Return_Delay_Time": Register(7, 1, 250),  # 2 us
    "Response_Status_Level": Register(8, 1, 1),  # 0: answer reads and pings only
    "Min_Position_Limit": Register(9, 2, 0),
    "Max_Position_Limit": Register(11, 2, TURN - 1),
    "Max_Temperature_Limit": Register(13, 1, 70),  # deg C
    "Max_Voltage_Limit": Register(14, 1, 80),  # 0.1 V
    "Min_Voltage_Limit": Register(15, 1, 40),
    "Max_Torque_Limit": Register(16, 2, 1000),  # 0.1 %; `Torque_Limit` starts with it
    "Phase": Register(18, 1, 12),  # bit 4: count turns instead of wrapping
    "Unloading_Condition": Register(19, 1, 44),  # which errors take the torque away
    "LED_Alarm_Condition": Register(20, 1, 47),
    "P_Coefficient": Register(21, 1, 32),
    "D_Coefficient": Register(22, 1, 32),
    "I_Coefficient": Register(23, 1, 0),
    "Minimum_Startup_Force": Register(24, 2, 16),
    "CW_Dead_Zone": Register(26, 1, 1),
    "CCW_Dead_Zone": Register(27, 1, 1),
    "Protection_Current": Register(28, 2, 500),  # 6.5 mA
    "Angular_Resolution": Register(30, 1, 1),
    "Homing_Offset": Register(31, 2, 0, sign=11),
    "Operating_Mode": Register(33, 1, 0),
    "Protective_Torque": Register(34, 1, 20),  # %, once overloaded
    "Protection_Time": Register(35, 1, 200),  # 10 ms
    "Overload_Torque": Register(36, 1, 80),  # %
    "Velocity_closed_loop_P": Register(37, 1, 10),
    "Over_Current_Protection_Time": Register(38, 1, 200),  # 10 ms
    "Velocity_closed_loop_I": Register(39, 1, 10),
    "Torque_Enable": Register(40, 1),
    "Acceleration": Register(41, 1),  # 100 steps/s^2; 0: no ramp
    "Goal_Position": Register(42, 2, sign=15),
    "Goal_Time": Register(44, 2),
    "Goal_Velocity": Register(46, 2, sign=15),  # steps/s; 0: as fast as it can
    "Torque_Limit": Register(48, 2, 1000),
    "Lock": Register(55, 1, 1),
    "Present_Position": _measured(56, 2, sign=15),
    "Present_Velocity": _measured(58, 2, sign=15),
    "Present_Load": _measured(60, 2, sign=10),  # 0.1 %
    "Present_Voltage": _measured(62, 1),  # 0.1 V
    "Present_Temperature": _measured(63, 1),
    "Status": _measured(65, 1),
    "Moving": _measured(66, 1),
    "Present_Current": _measured(69, 2, sign=15),  # 6.5 mA
    "Goal_Position_2": _measured(71, 2, sign=15),
    "Moving_Velocity_Threshold": Register(80, 1, 20),
    "Maximum_Velocity_Limit": Register(84, 1, 65),  # 50 steps/s
    "Maximum_Acceleration": Register(85, 1, 254),  # 100 steps/s^2
}

_READ_ONLY = frozenset(a for r in REGISTERS.values() if r.read_only for a in range(r.address, r.address + r.size))


def _factory() -> bytearray:
    live = bytearray(SIZE)
    for register in REGISTERS.values():
        live[register.address : register.address + register.size] = register.encode(register.initial)
    return live


class Memory:
    """A servo's registers: what is in force, and what a loss of power leaves."""

    def __init__(self) -> None:
        self._live = _factory()
        self.save()

    def __getitem__(self, name: str) -> int:
        """A register's value."""
        register = REGISTERS[name]
        return register.decode(bytes(self._live[register.address : register.address + register.size]))

    def __setitem__(self, name: str, value: int) -> None:
        """Set a register from inside, whether or not a host may."""
        register = REGISTERS[name]
        self._live[register.address : register.address + register.size] = register.encode(value)

    def read(self, address: int, length: int) -> bytes:
        """Bytes as a host reads them; beyond the table there are zeros."""
        return bytes(self._live[address : address + length]).ljust(length, b"\0")

    def write(self, address: int, data: bytes) -> list[str]:
        """Write as a host does: what is only to be read stays. Returns the names of the registers that were meant."""
        end = min(address + len(data), SIZE)
        for a in range(address, end):
            if a not in _READ_ONLY:
                self._live[a] = data[a - address]
        if not self["Lock"]:
            self.save()
        return [n for n, r in REGISTERS.items() if address <= r.address < end and not r.read_only]

    def save(self) -> None:
        """Keep the EEPROM as it is now over a loss of power."""
        self._saved = bytes(self._live[:EEPROM_END])

    def restart(self) -> None:
        """What a loss of power leaves: the EEPROM as it was saved, everything else as new."""
        self._live = _factory()
        self._live[:EEPROM_END] = self._saved
        self["Torque_Limit"] = self["Max_Torque_Limit"]
