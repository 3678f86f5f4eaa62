"""LeRobot's own SO-101 drivers and cameras on the twin, unchanged."""

import builtins
import os
import sys
import threading
import time

import numpy as np
import pytest
from lerobot.cameras.zmq import ZMQCamera, ZMQCameraConfig
from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig
from lerobot.teleoperators.so_leader import SO101Leader, SO101LeaderConfig

from vla_rl.hardware.twin.process import TwinProcess
from vla_rl.hardware.twin.table import TICK
from vla_rl.robot import arm_spec
from vla_rl.sim.env import TabletopEnv

SPEC = arm_spec("so101")
KEYS = [j.lerobot_name for j in SPEC.joints]


def pose(values):
    return SPEC.from_lerobot(np.array([values[k] for k in KEYS]))


def action(joints):
    return dict(zip(KEYS, SPEC.to_lerobot(np.asarray(joints)).tolist(), strict=True))


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    with TwinProcess(tmp_path_factory.mktemp("t"), task="lift", cameras=0, seed=11) as twin:
        yield twin


def connect(device):
    """LeRobot's handshake asks each servo once, for 50 ms; a machine that stands still for longer costs one try."""
    for last in (False, False, True):
        try:
            device.connect(calibrate=False)
            return
        except RuntimeError:
            if last:
                raise
            device.bus.disconnect(disable_torque=False)


@pytest.fixture
def follower(twin):
    robot = SO101Follower(SO101FollowerConfig(port=str(twin.port), id="follower", calibration_dir=twin.calibration))
    connect(robot)
    yield robot
    robot.disconnect()


@pytest.fixture
def leader(twin):
    device = SO101Leader(SO101LeaderConfig(port=str(twin.leader_port), id="leader", calibration_dir=twin.calibration))
    connect(device)
    yield device
    device.disconnect()


def joints_of(twin, arm="follower"):
    return np.array([s["joint"] for s in twin.status()[arm]["servos"].values()])


def test_the_follower_is_calibrated_and_sees_where_the_arm_is(twin, follower):
    assert follower.is_calibrated
    assert pose(follower.get_observation()) == pytest.approx(joints_of(twin), abs=0.02)


def test_the_follower_reads_and_writes_at_its_rate_and_the_arm_goes_where_it_is_told(twin, follower):
    before, start = twin.status()["follower"]["counts"], pose(follower.get_observation())
    goal = start + np.array([0.4, 0.2, -0.2, -0.3, 0.3, 0.5])
    for i in range(60):
        seen = follower.get_observation()
        follower.send_action(action(start + (goal - start) * min(1, i / 45)))
        time.sleep(1 / 60)
    after = twin.status()["follower"]["counts"]
    assert pose(seen) == pytest.approx(goal, abs=0.03)
    assert after["goals"] - before["goals"] == 60 * 6
    for clean in ("checksum_errors", "junk", "wrong_id_writes", "altered_writes", "bytes_unread"):
        assert after.get(clean, 0) == before.get(clean, 0)


def test_a_follower_that_disconnects_leaves_the_torque_as_its_configuration_says(twin):
    for kept in (True, False):
        config = SO101FollowerConfig(
            port=str(twin.port), id="follower", calibration_dir=twin.calibration, disable_torque_on_disconnect=not kept
        )
        robot = SO101Follower(config)
        robot.connect(calibrate=False)
        robot.disconnect()
        assert {s["torque"] for s in twin.status()["follower"]["servos"].values()} == {kept}
    torques = twin.ask("events", kind="torque")["events"][-6:]
    assert [(e["servo"], e["value"]) for e in torques] == [(i, 0) for i in range(1, 7)]


def test_the_leader_tells_where_somebody_carries_it_and_follows_when_it_is_told_to(twin, leader):
    carried = [0.4, -0.6, 0.5, 0.7, -0.3, 1.0]
    twin.ask("carry", joints=carried, arm="leader", wait=True)
    assert pose(leader.get_action()) == pytest.approx(carried, abs=0.03)
    twin.ask("carry", joints=None, arm="leader")
    leader.enable_torque()
    leader.send_feedback(action(np.zeros(6)))
    for _ in range(100):
        time.sleep(0.02)
        if np.abs(pose(leader.get_action())).max() < 0.03:
            break
    assert pose(leader.get_action()) == pytest.approx(np.zeros(6), abs=0.03)


def test_lerobots_camera_sees_what_the_simulation_shows(twin, follower):
    twin.ask("reset", seed=3)
    env = TabletopEnv("lift")
    env.reset(seed=3)
    env.world.place_arm(joints_of(twin))
    env.world.settle()
    for name, port in twin.camera_ports.items():
        camera = ZMQCamera(ZMQCameraConfig(server_address="127.0.0.1", port=port, camera_name=name, fps=30))
        camera.connect()
        seen = camera.read()
        camera.disconnect()
        assert seen.shape == (96, 96, 3)
        assert np.abs(seen.astype(int) - env.picture(name)).mean() < 4  # JPEG, and an arm that sags
    env.close()


def test_a_camera_that_stops_is_silent_and_the_other_goes_on(twin):
    cameras = {}
    for name, port in twin.camera_ports.items():
        cameras[name] = ZMQCamera(ZMQCameraConfig(server_address="127.0.0.1", port=port, camera_name=name, fps=30))
        cameras[name].connect()
    twin.ask("faults", faults=[{"kind": "camera", "camera": "front"}])
    time.sleep(0.3)
    cameras["front"].new_frame_event.clear()
    with pytest.raises(TimeoutError):
        cameras["front"].async_read(timeout_ms=300)
    assert cameras["wrist"].async_read(timeout_ms=5000).shape == (96, 96, 3)
    twin.ask("faults", faults=[])
    assert cameras["front"].async_read(timeout_ms=5000).shape == (96, 96, 3)
    for camera in cameras.values():
        camera.disconnect()


def test_a_new_scene_and_home_put_the_arm_where_episodes_start(twin, follower):
    follower.send_action(action([0.5, 0, 0, 0.5, 0, 0.5]))
    twin.ask("home")
    home = joints_of(twin)
    twin.ask("reset", seed=5)
    assert joints_of(twin) == pytest.approx(home, abs=0.1)
    assert twin.status()["task"]["success"] == 0
    twin.ask("home")
    left = joints_of(twin)
    twin.ask("reset", seed=6, place_arm=False)
    assert joints_of(twin) == pytest.approx(left, abs=0.03)


def test_somebody_with_the_leader_does_the_task_on_the_follower(twin, follower, leader):
    twin.ask("reset", seed=12)
    twin.ask("carry", joints=joints_of(twin).tolist(), arm="leader", wait=True)
    twin.ask("operate", on=True)
    for _ in range(600):
        follower.send_action(leader.get_action())
        if twin.status()["task"]["success"]:
            break
        time.sleep(1 / 60)
    twin.ask("operate", on=False)
    assert twin.status()["task"]["success"]


class Person:
    """Somebody at the keyboard and at the arm, who does what LeRobot's calibration asks for."""

    def __init__(self, twin, arm, monkeypatch):
        self.twin, self.arm = twin, arm
        self.keyboard, self.hand = os.pipe()
        monkeypatch.setattr(builtins, "input", self.answer)
        monkeypatch.setattr(sys, "stdin", os.fdopen(self.keyboard))

    def answer(self, question):
        if "middle" in question:
            self.carry((SPEC.low + SPEC.high) / 2)
            threading.Thread(target=self.sweep).start()
        return ""

    def carry(self, joints):
        self.twin.ask("carry", joints=np.asarray(joints).tolist(), arm=self.arm, wait=True)

    def sweep(self):
        """Once every servo is homed, move all joints through their ranges, then press Enter."""
        while any(abs(s["present"] - 2047) > 1 for s in self.twin.status()[self.arm]["servos"].values()):
            time.sleep(0.02)
        for joints in (SPEC.low, SPEC.high):
            self.carry(joints)
            time.sleep(0.2)
        os.write(self.hand, b"\n")


@pytest.mark.parametrize(
    ("arm", "device", "config"),
    [("follower", SO101Follower, SO101FollowerConfig), ("leader", SO101Leader, SO101LeaderConfig)],
)
def test_new_servos_are_calibrated_by_lerobots_own_procedure(tmp_path, monkeypatch, arm, device, config):
    with TwinProcess(tmp_path, new=True) as twin:
        Person(twin, arm, monkeypatch)
        port = {"follower": twin.port, "leader": twin.leader_port}[arm]
        calibrated = device(config(port=str(port), id="by_hand", calibration_dir=tmp_path / "by_hand"))
        calibrated.connect()
        twin.ask("carry", joints=[0.2, 0.3, -0.4, 0.5, 0.6, 0.7], arm=arm, wait=True)
        seen = calibrated.get_observation() if arm == "follower" else calibrated.get_action()
        own = twin.ask("calibration", arm=arm)["calibration"]
        calibrated.disconnect()
    assert pose(seen) == pytest.approx([0.2, 0.3, -0.4, 0.5, 0.6, 0.7], abs=0.04)
    for name, found in calibrated.calibration.items():
        for key in ("id", "homing_offset", "range_min", "range_max"):
            assert getattr(found, key) == pytest.approx(own[name][key], abs=0.06 / TICK)
