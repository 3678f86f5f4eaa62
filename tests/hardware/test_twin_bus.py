"""The twin's bus through Feetech's own packet handler, over the pseudo-terminal; what a fault script does to it."""

import termios

import pytest
import scservo_sdk as scs
import serial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vla_rl.hardware.twin.arm import ArmConfig, TwinArm
from vla_rl.hardware.twin.body import Puppet
from vla_rl.hardware.twin.faults import KINDS, Fault, read_script
from vla_rl.hardware.twin.protocol import Instruction, Packet
from vla_rl.hardware.twin.table import BAUD_RATES, MODEL, REGISTERS
from vla_rl.hardware.twin.twin import Twin, TwinConfig
from vla_rl.robot import arm_spec

PATIENCE_MS, IMPATIENCE_MS = 3000.0, 100.0  # an answer that comes is waited for, however slow the machine
GOAL, POSITION, TORQUE = (REGISTERS[n].address for n in ("Goal_Position", "Present_Position", "Torque_Enable"))
OK, SILENCE = scs.COMM_SUCCESS, scs.COMM_RX_TIMEOUT


class Host:
    """Feetech's SDK at the twin's port."""

    def __init__(self, twin):
        self.twin, self.patience = twin, PATIENCE_MS
        self.port, self.packets = scs.PortHandler(str(twin.port)), scs.PacketHandler(0)
        self.port.setPacketTimeout = lambda length: self.port.setPacketTimeoutMillis(self.patience)
        self.port.openPort()

    def ask(self, name, *args):
        """A method of the SDK's packet handler."""
        return getattr(self.packets, name)(self.port, *args)

    def faults(self, *script):
        self.twin.faults(script)
        self.patience = IMPATIENCE_MS

    def counts(self):
        return self.twin.status()["follower"]["counts"]

    def goal(self, servo):
        return self.ask("read2ByteTxRx", servo, GOAL)[0]


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    with Twin(TwinConfig(tmp_path_factory.mktemp("bus") / "port"), Puppet(arm_spec("so101"))) as twin:
        yield twin


@pytest.fixture
def host(twin):
    twin.faults([])
    host = Host(twin)
    yield host
    host.port.closePort()


def test_every_servo_answers_a_ping_with_its_model_and_nobody_else_does(host):
    assert [host.ask("ping", i) for i in range(1, 7)] == [(MODEL, OK, 0)] * 6
    host.patience = IMPATIENCE_MS
    assert host.ask("ping", 7)[1] == SILENCE


@given(servo=st.integers(1, 6), goal=st.integers(0, 4095))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(host, servo, goal):
    assert host.ask("write2ByteTxRx", servo, GOAL, goal) == (OK, 0)
    assert host.goal(servo) in (goal, host.ask("read2ByteTxRx", servo, POSITION)[0])  # it follows the limp joint


@given(goals=st.lists(st.integers(1000, 3000), min_size=6, max_size=6))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_sync_write_reaches_each_servo_with_its_own_goal_and_a_sync_read_tells(host, goals):
    for servo in range(1, 7):
        host.ask("write1ByteTxRx", servo, TORQUE, 1)
    writer = scs.GroupSyncWrite(host.port, host.packets, GOAL, 2)
    for servo, goal in enumerate(goals, 1):
        writer.addParam(servo, [goal & 0xFF, goal >> 8])
    assert writer.txPacket() == OK
    reader = scs.GroupSyncRead(host.port, host.packets, GOAL, 2)
    for servo in range(1, 7):
        reader.addParam(servo)
    assert reader.txRxPacket() == OK
    assert [reader.getData(i, GOAL, 2) for i in range(1, 7)] == goals


def test_a_registered_write_waits_for_the_action(host):
    host.ask("write1ByteTxRx", 2, TORQUE, 1)
    before = host.goal(2)
    goal = before + 40
    assert host.ask("regWriteTxRx", 2, GOAL, 2, [goal & 0xFF, goal >> 8])[0] == OK
    assert host.goal(2) == before
    host.ask("action", scs.BROADCAST_ID)
    assert host.goal(2) == goal


def test_goals_and_torque_edges_are_written_down_in_order(host):
    since = max((e.at for e in host.twin.events()), default=0.0)
    for value in (0, 1):
        host.ask("write1ByteTxRx", 3, TORQUE, value)
    host.ask("write2ByteTxRx", 3, GOAL, 2000)
    host.ask("write1ByteTxRx", 3, TORQUE, 0)
    kinds = [(e.kind, e.servo, e.value) for e in host.twin.events() if e.at > since]
    assert kinds[-3:] == [("torque", 3, 1), ("goal", 3, 2000), ("torque", 3, 0)]


def test_at_another_speed_nobody_understands(host):
    host.port.setBaudRate(115_200)
    host.patience = IMPATIENCE_MS
    assert host.ask("ping", 1)[1] == SILENCE
    host.port.setBaudRate(1_000_000)
    host.patience = PATIENCE_MS
    assert host.ask("ping", 1) == (MODEL, OK, 0)


def test_a_missing_servo_is_silent_and_the_others_are_not(host):
    host.faults(Fault("silent", servo=4))
    assert host.ask("ping", 4)[1] == SILENCE
    host.twin.faults([])
    host.patience = PATIENCE_MS
    assert host.ask("ping", 4)[1] == OK


def _soon(host):
    """A byte that comes within a moment, or nothing."""
    patience, host.timeout = host.timeout, 0.05
    byte, host.timeout = host.read(1), patience
    return byte


@pytest.mark.parametrize("baud", [1_000_000, 115_200, 19_200])
@pytest.mark.parametrize("servos", [1, 6])
def test_answers_take_the_time_that_the_speed_gives_them(tmp_path, baud, servos):
    arm = TwinArm(Puppet(arm_spec("so101")), tmp_path / "port", ArmConfig(), now=0.0)
    for servo in arm.servos:
        servo.memory["Baud_Rate"], servo.memory["Return_Delay_Time"] = BAUD_RATES.index(baud), 100
    question = Packet(0xFE, Instruction.SYNC_READ, bytes([POSITION, 2, *range(1, servos + 1)])).encode()
    with serial.Serial(str(tmp_path / "port"), baud, timeout=PATIENCE_MS / 1000) as host:
        host.write(question)
        arm.line.listen(5.0)
        done = 5.0 + 10 / baud * (len(question) + 8 * servos) + servos * 200e-6
        arm.line.speak(done - 1e-6)
        assert len(host.read(8 * (servos - 1))) == 8 * (servos - 1)
        assert not _soon(host)
        arm.line.speak(done + 1e-6)
        assert len(host.read(8)) == 8
    arm.line.hang_up()


def test_two_servos_of_one_id_talk_at_once(host):
    host.twin.carry([0.5, -0.5, 0.3, 0.2, 0.1, 1.0], wait=True)
    host.faults(Fault("duplicate_id", servo=5, value=2))
    assert host.ask("ping", 5)[1] == SILENCE
    assert host.ask("read2ByteTxRx", 2, POSITION)[1] != OK
    host.twin.carry(None)


@pytest.mark.parametrize(
    ("kind", "error"), [("overheated", 4), ("undervoltage", 1), ("overloaded", 32), ("overcurrent", 8)]
)
def test_a_servo_in_trouble_says_so_in_every_answer(host, kind, error):
    host.twin.faults([Fault(kind, servo=1)])
    assert host.ask("read2ByteTxRx", 1, POSITION)[1:] == (OK, error)
    assert host.ask("read2ByteTxRx", 2, POSITION)[1:] == (OK, 0)


def test_a_turn_too_many_is_told_and_not_made(host):
    before, joints = host.ask("read2ByteTxRx", 1, POSITION)[0], host.twin.joints()
    host.twin.faults([Fault("turn", servo=1)])
    assert host.ask("read2ByteTxRx", 1, POSITION)[0] == pytest.approx(before + 4096, abs=2)
    assert host.twin.joints() == pytest.approx(joints, abs=0.01)


def test_what_damage_makes_of_a_write_is_either_nothing_or_counted(host):
    before, since = host.counts(), max((e.at for e in host.twin.events()), default=0.0)
    host.faults(Fault("damage", rate=0.03))
    sent = [(1 + i % 6, 2000 + i) for i in range(100)]
    confirmed = [host.ask("write2ByteTxRx", servo, GOAL, goal)[0] == OK for servo, goal in sent]
    host.twin.faults([])
    after = host.counts()
    carried_out = [(e.servo, e.value) for e in host.twin.events("goal") if e.at > since]
    never_sent = [write for write in carried_out if write not in sent]
    counted = sum(after.get(k, 0) - before.get(k, 0) for k in ("wrong_id_writes", "altered_writes"))
    assert after["damaged"] > before["damaged"]
    assert 0 < sum(confirmed) < 100
    assert len(never_sent) <= counted
    assert set(carried_out) >= {write for write, heard in zip(sent, confirmed, strict=True) if heard}


def test_a_pulled_port_is_an_error_at_once_and_can_be_opened_again_when_it_is_back(host):
    host.twin.faults([Fault("gone", for_s=0.3)])
    with pytest.raises((serial.SerialException, OSError, termios.error)):
        [host.ask("ping", 1) for _ in range(1000)]
    while not host.twin.status()["follower"]["plugged_in"]:
        pass
    again = Host(host.twin)
    assert again.ask("ping", 1) == (MODEL, OK, 0)
    again.port.closePort()


def test_a_late_answer_arrives_after_the_host_has_given_up(host):
    host.faults(Fault("late", value=400))
    assert host.ask("ping", 1)[1] == SILENCE
    host.twin.faults([])
    host.patience = PATIENCE_MS
    assert host.ask("ping", 2) == (MODEL, OK, 0)  # the late one has another id: the SDK passes it over


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ('[{"kind": "smoke"}]', "unknown fault 'smoke'; there are: drop"),
        ('[{"kind": "drop", "ratio": 1}]', "unknown key 'ratio' of a fault"),
        ('[{"rate": 1}]', "a fault without 'kind'"),
        ('[{"kind": "drop", "rate": 3}]', "no share between 0 and 1"),
        ("{", "Expecting"),
    ],
)
def test_a_script_that_can_not_be_played_is_refused_by_name(tmp_path, script, says):
    path = tmp_path / "faults.json"
    path.write_text(script)
    with pytest.raises(ValueError, match=f"{path.name}.*{says}"):
        read_script(path)


def test_a_fault_of_a_servo_that_is_not_there_is_refused(twin):
    with pytest.raises(ValueError, match="no servo 9"):
        twin.faults([Fault("stuck", servo=9)])


def test_every_fault_begins_and_ends_by_itself(host):
    host.twin.faults([Fault(kind, for_s=0.05, servo=2, rate=0.5) for kind in KINDS if kind != "duplicate_id"])
    assert host.twin.status()["follower"]["faults"]
    while host.twin.status()["follower"]["faults"] or not host.twin.status()["follower"]["plugged_in"]:
        pass
    again = Host(host.twin)
    assert [again.ask("ping", i)[1] for i in range(1, 7)] == [OK] * 6
    again.port.closePort()
