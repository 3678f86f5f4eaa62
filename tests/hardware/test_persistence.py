"""Persistence on a damaged line: what got lost is asked for again, of those alone whose answers did not come."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import scservo_sdk as scs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twin_desk import SPEC, until

from vla_rl.hardware.lerobot_driver import MissedError, make_driver
from vla_rl.hardware.persistence import Persistence, answers
from vla_rl.hardware.twin.protocol import Packet
from vla_rl.robot import Fault

IDS = [1, 2, 3, 4, 5, 6]
LINE = 0.01  # of all bytes


class Bus:
    """A bus on which in each round some servos answer, in some order; it remembers who was asked."""

    def __init__(self, rounds):
        self.asked, self.told, self.rounds, self.lost, self.waiting = [], [], iter(rounds), Counter(), b""
        self.sync_reader = scs.GroupSyncRead(SimpleNamespace(ser=self, is_using=False), self, 56, 2)
        self.packet_handler = scs.PacketHandler(0)
        for number in IDS:
            self.sync_reader.addParam(number)
        self.sync_writer = scs.GroupSyncWrite(self.sync_reader.port, self, 42, 2)
        self.port_handler = SimpleNamespace(ser=self)
        self.persistence = Persistence(self, lambda lost: self.lost.update(lost=lost))

    def syncReadTx(self, port, address, length, ids, count):  # noqa: N802 (the SDK's name)
        self.asked.append(list(ids))
        self.waiting += b"".join(Packet(i, 0, bytes((i, 7))).encode() for i in next(self.rounds, ()) if i in ids)
        return scs.COMM_SUCCESS

    def syncWriteTxOnly(self, port, address, length, values, count):  # noqa: N802
        self.told.append(("all", values))
        return scs.COMM_SUCCESS

    def writeTxRx(self, port, number, address, length, data):  # noqa: N802
        self.told.append((number, data))

    in_waiting = property(lambda self: len(self.waiting))

    def read(self, count):
        data, self.waiting = self.waiting[:count], self.waiting[count:]
        return data


@given(rounds=st.lists(st.permutations(IDS).flatmap(lambda ids: st.integers(0, 6).map(lambda n: ids[:n])), max_size=3))
@settings(deadline=None, max_examples=20)
def test_each_round_asks_those_who_have_not_answered_yet_until_all_have(rounds):
    bus = Bus([*rounds, IDS])
    missing, expected = set(IDS), []
    for several in [*rounds, IDS]:
        if not missing:
            break
        expected.append(sorted(missing))
        missing -= set(several)
    result = bus.sync_reader.txRxPacket()
    assert [sorted(ids) for ids in bus.asked] == expected[: len(bus.asked)]
    assert (result == scs.COMM_SUCCESS) == (not bus.persistence.silent)
    if result == scs.COMM_SUCCESS:  # else the patience was over: two rounds without any answer take all of it
        assert [bus.sync_reader.data_dict[i] for i in IDS] == [[i, 7] for i in IDS]
        assert bus.lost["lost"] == sum(len(ids) for ids in bus.asked[1:])


def test_who_never_answers_is_known_and_the_others_are_asked_once():
    bus = Bus([[1, 2, 3, 5, 6]])
    assert bus.sync_reader.txRxPacket() == scs.COMM_RX_TIMEOUT
    assert bus.persistence.silent == [4]
    assert bus.asked[0] == IDS
    assert {tuple(ids) for ids in bus.asked[1:]} == {(4,)}


@given(values=st.lists(st.integers(0, 0xFFFF), min_size=2, max_size=6), lost=st.integers(0, 1000))
@example(values=[0x07FF, 0], lost=5)
def test_a_byte_that_gets_lost_never_makes_one_answer_out_of_two(values, lost):
    sent = [Packet(i, 0, value.to_bytes(2, "little")) for i, value in enumerate(values, 1)]
    data = b"".join(packet.encode() for packet in sent)
    assert answers(data) == sent
    lost %= len(data) - 8  # not of the last: what comes behind it nobody knows
    assert all(answer in sent for answer in answers(data[:lost] + data[lost + 1 :]))


@pytest.mark.parametrize("damage", [b"", b"\xff\xff", b"\xff\xff\x01\x04\x00\x00"], ids=["nothing", "header", "half"])
def test_what_belongs_to_no_answer_spoils_none(damage):
    bus = Bus([IDS])
    bus.waiting = damage
    assert bus.sync_reader.txRxPacket() == scs.COMM_SUCCESS


@pytest.mark.parametrize("lossy", [False, True])
def test_all_are_told_in_one_packet_and_on_a_lossy_line_one_by_one(lossy):
    bus = Bus([IDS[:3]] * 200 if lossy else [IDS] * 20)
    while bus.persistence.lossy != lossy or len(bus.asked) < 10:
        bus.sync_reader.txRxPacket()
    for number in IDS:
        bus.sync_writer.addParam(number, [number, 7])
    assert bus.sync_writer.txPacket() == scs.COMM_SUCCESS
    alone = [(number, [number, 7]) for number in IDS]
    assert bus.told == (alone if lossy else [("all", [byte for i in IDS for byte in (i, i, 7)])])


def test_on_a_line_that_damages_one_byte_in_a_hundred_hardly_a_reading_is_missed(desk):
    driver = make_driver("so101_follower", desk.settings())
    driver.open(SPEC)
    still, readings = np.array(list(driver.read().values())), []
    desk.fault("damage", rate=LINE)
    for _ in range(100):
        try:
            readings.append(list(driver.read().values()))
        except MissedError:
            continue
    assert driver.counts["errors"] > 20
    assert len(readings) > 80
    right = np.isclose(readings, still, atol=1.0).all(axis=1)  # a checksum of 8 bits lets some pass
    assert right.mean() > 0.95
    driver.close()


def test_on_a_lossy_line_goals_are_acknowledged_and_none_is_lost(desk):
    arm = desk.arm()
    desk.fault("damage", rate=LINE)
    for _ in range(40):
        arm.sense()
    before, here = arm.figures(), arm.sense().joints
    for step in range(60):
        arm.command(here + 0.1 * np.sin(step / 10))
        arm.sense()
    until(lambda: arm.figures()["errors"] > before["errors"])
    assert arm.figures()["lost"] - before["lost"] <= 3  # of 60, of which 14 would not have arrived all at once


def test_an_arm_is_recovered_on_a_line_that_damages_one_byte_in_a_hundred(desk):
    arm = desk.arm()
    desk.fault("power", servo=5)
    until(lambda: arm.fault, "the fault is named")
    desk.fault("damage", rate=LINE)

    def recovered():
        try:
            arm.recover()
        except Fault:
            return False
        return True

    assert any(recovered() for _ in range(5))
