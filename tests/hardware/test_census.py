"""Who is on a servo bus, and why one is not: each cause by its own name."""

import itertools

import numpy as np
import pytest

from vla_rl.hardware import census
from vla_rl.hardware.lerobot_driver import make_driver
from vla_rl.hardware.twin.protocol import Instruction, Packet
from vla_rl.hardware.twin.table import BAUD_RATES


def refusal(desk):
    """What the census says of the arm."""
    driver = make_driver("so101_follower", desk.settings())
    driver.open_port()
    try:
        with pytest.raises(ValueError, match="servo") as error:
            driver.count()
    finally:
        driver.close()
    return str(error.value)


def slow_down(desk, *servos):
    with desk.twin.lock:
        for servo in servos:
            desk.twin._follower.servos[servo - 1].memory["Baud_Rate"] = BAUD_RATES.index(115_200)


def test_two_servos_of_one_id_are_named_though_they_answer_a_ping_alike(desk):
    desk.twin.carry(np.array([0.3, -0.4, 0.5, -0.2, 0.6, 0.8]), wait=True)
    desk.fault("duplicate_id", servo=5, value=4)
    said = refusal(desk)
    assert "several servos on" in said
    assert "have the id 4 (wrist_flex), and none 5 (wrist_roll): give each its own" in said
    desk.twin.carry(None)


def test_one_that_does_not_answer_at_all_is_a_matter_of_cables(desk):
    desk.fault("silent", servo=4)
    assert "no answer from servo 4 (wrist_flex)" in (said := refusal(desk))
    assert "check its cable" in said


@pytest.mark.parametrize("servos", [(4,), (1, 2, 3, 4, 5, 6)], ids=["one", "all"])
def test_those_that_speak_at_another_speed_are_named_with_it(desk, servos):
    slow_down(desk, *servos)
    said = refusal(desk)
    assert "4 (wrist_flex)" in said
    assert "speaks 115200 baud, not 1000000: run lerobot-setup-motors" in said


def test_an_answer_that_came_while_this_process_had_to_wait_is_heard(monkeypatch):
    hours, packet = itertools.count(0.0, 3600.0), Packet(3, Instruction.PING).encode()

    class Serial:
        in_waiting, answer = 0, b""

        def write(self, data):
            self.answer = Packet(3, 0).encode()

        def read(self, count):
            answer, self.answer = self.answer, b""
            return answer

    monkeypatch.setattr(census.time, "monotonic", lambda: next(hours))
    assert census._ask(Serial(), packet) == Packet(3, 0).encode()
