"""teleop_node: LeRobot's own leader arm on the twin, on our topics."""

import json

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState

from vla_rl.build_arm import make_twin
from vla_rl.hardware.twin.faults import Fault
from vla_rl.hardware.twin.twin import TwinConfig
from vla_rl.robot import arm_spec
from vla_rl.ros import messages, qos

SPEC = arm_spec("so101")


@pytest.fixture
def twin(tmp_path):
    with make_twin(TwinConfig(tmp_path / "follower", leader=tmp_path / "leader")) as made:
        (tmp_path / "hand.json").write_text(json.dumps(made.calibration("leader")))
        yield made


def test_a_leader_arm_says_its_joints_in_our_units(start, twin, tmp_path, peer):
    pose = np.array([0.3, -0.4, 0.5, -0.2, 0.6, 0.8])
    twin.carry(pose, arm="leader", wait=True)
    process = start("teleop_node", port=twin.leader_port, id="hand", calibration=tmp_path)
    said = peer.hear(JointState, "leader/joint_states")
    assert peer.change("teleop", "configure"), process.log
    assert peer.change("teleop", "activate"), process.log
    peer.until(lambda: said)
    assert messages.joints_of(said[-1], SPEC.names) == pytest.approx(pose, abs=0.01)
    assert peer.change("teleop", "deactivate")
    process.stop()


def test_a_leader_that_is_unplugged_is_told_as_long_as_it_is(start, twin, tmp_path, peer):
    process = start("teleop_node", port=twin.leader_port, id="hand", calibration=tmp_path)
    told = peer.hear(DiagnosticArray, "/diagnostics", qos.EVERY)
    assert peer.change("teleop", "configure"), process.log
    assert peer.change("teleop", "activate"), process.log

    def summary():
        return next((s.message for m in reversed(told) for s in m.status if s.name == "/teleop"), "")

    peer.until(lambda: summary() == "running")
    twin.faults([Fault("gone")], arm="leader")
    peer.until(lambda: "so101_leader has said nothing for" in summary())
    count = len(told)
    peer.until(lambda: len(told) > count + 2)
    assert "so101_leader has said nothing for" in summary()
    process.stop()


def test_one_that_is_not_there_refuses_in_one_line(start, tmp_path, peer):
    process = start("teleop_node", port="/dev/nowhere", calibration=tmp_path)
    assert not peer.change("teleop", "configure")
    assert "teleoperator so101_leader: port /dev/nowhere does not exist" in process.errors[0]
