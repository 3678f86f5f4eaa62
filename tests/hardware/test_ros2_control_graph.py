"""robot_node drives an arm under ros2_control, in a namespace of its own, with an arm's file of a person's own."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from rclpy.qos import QoSProfile
from ros2_control_toy import Toy
from sensor_msgs.msg import JointState

from vla_rl.robot import arm_spec
from vla_rl.ros import messages, qos
from vla_rl.ros.measure.client import Client, wait_until

SPEC = arm_spec("so101")
ARM, GRIPPER = SPEC.names[:5], SPEC.names[5:]
REST = np.array([0.1, -0.2, 0.3, 0.4, -0.5, 0.6])
PERIOD_S, PATIENCE_S = 1 / SPEC.rate, 60.0


def own_file(folder):
    data = {**SPEC.to_dict(), "name": "mine", "units": {"angle": "rad", "length": "m"}, "cameras": []}
    controllers = [
        {"name": "/arm_controller", "kind": "trajectory", "joints": list(ARM)},
        {"name": "/gripper_controller", "kind": "forward", "joints": list(GRIPPER)},
    ]
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**plain(data), "ros2_control": {"controllers": controllers}}))
    return path


def plain(value):
    """Without tuples and missing frames, as a person would write it."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if each is not None}
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value


class Driver:
    """Control's part: commands once a period, stamped, from a thread that must not stop."""

    def __init__(self, client):
        self.client, self.seen = client, []
        client.listen(JointState, "joint_states", lambda m, *_: self.seen.append(m), QoSProfile(depth=10))
        self._publisher = client.node.create_publisher(JointState, "joint_commands", qos.OFFER)

    def drive(self, start, to, periods):
        for step in range(1, periods + 1):
            goal = start + (to - start) * step / periods
            self._publisher.publish(messages.joint_state(SPEC.names, goal, time.time_ns()))
            time.sleep(PERIOD_S)


@pytest.fixture
def toy():
    made = Toy(dict(zip(SPEC.names, REST, strict=True)), {"arm_controller": ARM}, {"gripper_controller": GRIPPER})
    yield made
    made.close()


def start_node(arm, namespace="/vla"):
    parameters = {"robot": "ros2_control", "arm": str(arm), "realtime_priority": "false"}
    rules = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    return subprocess.Popen(
        [sys.executable, "-m", "vla_rl.ros.start", "robot_node", "--ros-args", "-r", f"__ns:={namespace}", *rules],
        stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip


def test_it_drives_names_a_fault_and_goes_on_only_when_asked(toy, tmp_path):
    process, client = start_node(own_file(tmp_path)), Client("control", "vla")
    try:
        driver = Driver(client)
        wait_until(lambda: bool(driver.seen), PATIENCE_S, "the arm's joints on /vla/joint_states")
        np.testing.assert_allclose(messages.joints_of(driver.seen[-1], SPEC.names), REST, atol=1e-3)
        target = REST + 0.2
        driver.drive(REST, target, 60)
        assert np.abs(toy.plant.position - target).max() < 0.05
        toy.controllers["arm_controller"].active = False
        driver.drive(target, REST, 60)
        toy.controllers["arm_controller"].active = True
        held = toy.plant.position.copy()
        driver.drive(held, held - 0.2, 30)
        np.testing.assert_allclose(toy.plant.position[:5], held[:5], atol=0.02)
        client.trigger("robot/recover")
        driver.drive(toy.plant.position.copy(), held - 0.2, 60)
        assert np.abs(toy.plant.position - held + 0.2)[:5].max() < 0.05
    finally:
        client.close()
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE_S)
    assert "its controller is inactive, has aborted, or something is in the way" in log
    assert process.returncode == 0, log


def test_without_a_namespace_of_its_own_it_says_so_and_ends(toy, tmp_path):
    process = start_node(own_file(tmp_path), "/")
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "give the graph a namespace of its own" in log
