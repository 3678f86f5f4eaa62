"""Packets and registers of the twin: LeRobot's own tables and encodings are the oracle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lerobot.motors.encoding_utils import decode_sign_magnitude, encode_sign_magnitude
from lerobot.motors.feetech.tables import STS_SMS_SERIES_CONTROL_TABLE, STS_SMS_SERIES_ENCODINGS_TABLE

from vla_rl.hardware.twin.protocol import Decoder, Packet
from vla_rl.hardware.twin.table import REGISTERS, Memory

PACKETS = st.builds(
    Packet, id=st.integers(0, 254), code=st.integers(0, 255), parameters=st.binary(max_size=40)
)  # fmt: skip


@given(st.lists(PACKETS, max_size=5), st.data())
def test_a_stream_gives_its_packets_back_however_it_is_cut(packets, data):
    wire = b"".join(p.encode() for p in packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    decoder = Decoder()
    found = [p for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True) for p in decoder.feed(wire[a:b])]
    assert found == packets
    assert (decoder.junk, decoder.checksum_errors, decoder.pending) == (0, 0, False)


@given(PACKETS, st.data())
def test_a_packet_with_one_byte_changed_is_not_taken(packet, data):
    wire = bytearray(packet.encode())
    at = data.draw(st.integers(2, len(wire) - 1).filter(lambda i: i != 3))  # the length decides where it ends
    wire[at] ^= data.draw(st.integers(1, 255))
    assert packet not in Decoder().feed(bytes(wire))


@given(st.binary(max_size=200), PACKETS)
def test_after_any_noise_and_a_silence_packets_are_heard_again(noise, packet):
    decoder = Decoder()
    decoder.feed(noise)
    decoder.expire()
    assert decoder.feed(packet.encode()) == [packet]


@given(st.sampled_from(sorted(n for n, r in REGISTERS.items() if r.sign)), st.integers(-40_000, 40_000))
def test_signed_registers_count_as_lerobot_counts(name, value):
    register = REGISTERS[name]
    most = (1 << register.sign) - 1
    kept = max(-most, min(most, value))
    assert int.from_bytes(register.encode(value), "little") == encode_sign_magnitude(kept, register.sign)
    assert register.decode(register.encode(value)) == decode_sign_magnitude(
        int.from_bytes(register.encode(value), "little"), register.sign
    )


@pytest.mark.parametrize("name", sorted(set(REGISTERS) & set(STS_SMS_SERIES_CONTROL_TABLE)))
def test_registers_are_where_lerobot_looks_for_them(name):
    register = REGISTERS[name]
    assert (register.address, register.size) == STS_SMS_SERIES_CONTROL_TABLE[name]
    assert name not in STS_SMS_SERIES_ENCODINGS_TABLE or register.sign == STS_SMS_SERIES_ENCODINGS_TABLE[name]


@given(st.integers(0, 95), st.binary(min_size=1, max_size=12))
def test_what_is_only_to_be_read_stays_whatever_is_written(address, data):
    memory = Memory()
    before = {n: memory[n] for n, r in REGISTERS.items() if r.read_only}
    memory.write(address, data)
    assert {n: memory[n] for n in before} == before


def test_the_eeprom_keeps_what_was_written_while_its_lock_was_open_and_nothing_else():
    memory = Memory()
    goal, offset = REGISTERS["Goal_Position"], REGISTERS["Homing_Offset"]
    memory.write(REGISTERS["Lock"].address, b"\0")
    memory.write(offset.address, offset.encode(-77))
    memory.write(REGISTERS["Lock"].address, b"\1")
    memory.write(offset.address, offset.encode(500))
    memory.write(goal.address, goal.encode(1234))
    assert (memory["Homing_Offset"], memory["Goal_Position"]) == (500, 1234)
    memory.restart()
    assert (memory["Homing_Offset"], memory["Goal_Position"], memory["Torque_Enable"]) == (-77, 0, 0)
