"""What is asked of a real arm: taken, or refused before anything is opened; never left out without a word."""

from math import inf, nan, radians

import pytest

from vla_rl import build_arm
from vla_rl.build_arm import ArmConfig, lerobot_config, make_arm
from vla_rl.hardware.cameras import camera_config
from vla_rl.hardware.checkup import checkup, with_port
from vla_rl.hardware.lerobot_arm import LeRobotConfig
from vla_rl.robot import arm_section, arm_spec
from vla_rl.ros.arm_parameters import ArmParameters

SPEC = arm_spec("so101")


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"at_exit": "lower"}, "at_exit"),
        ({"at_exit": "release"}, "at_exit"),
        ({"rest": {"shoulder_lift": -1.0}}, "rest"),
        ({"cameras": {"front": {"type": "opencv"}}}, "camera_devices"),
        ({"port": "/dev/ttyACM0", "id": "one"}, "port, id"),
    ],
)
def test_ros2_control_refuses_what_it_would_not_do(asked, name):
    with pytest.raises(ValueError, match=f"ros2_control does nothing with {name}, leave it out"):
        make_arm(ArmConfig("ros2_control", "fr3", **asked))


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ({"shoulder_lfit": -1.0}, "has no joint 'shoulder_lfit'; there are: shoulder_pan, shoulder_lift"),
        ({"shoulder_lift": radians(-130)}, "shoulder_lift at -130.0 degrees is outside its limits, -100.0 to 100.0"),
        ({"shoulder_lift": nan}, "shoulder_lift at nan degrees"),
        ({"shoulder_lift": inf}, "shoulder_lift at inf degrees"),
    ],
)
def test_a_resting_pose_that_would_not_be_gone_to_is_refused(rest, said):
    with pytest.raises(ValueError, match=said):
        make_arm(ArmConfig(port="/dev/nowhere", at_exit="lower", rest=rest))


@pytest.mark.parametrize("angle", ["abc", "", "[1]"])
def test_a_resting_pose_without_angles_says_which_joint_and_how_it_is_written(angle):
    with pytest.raises(ValueError, match=r"rest: shoulder_lift is .*, not degrees; {shoulder_lift: -100} for one"):
        ArmParameters(rest=f"{{shoulder_lift: {angle}}}").arm_config()


def test_a_resting_pose_in_degrees_is_one_in_radians():
    config = ArmParameters(robot="lerobot", rest="{shoulder_lift: -100}").arm_config()
    assert lerobot_config(config).rest == {"shoulder_lift": pytest.approx(radians(-100))}


def test_an_arm_without_a_port_says_which_there_are(monkeypatch):
    monkeypatch.setattr("vla_rl.hardware.ports.ports", lambda: ["/dev/ttyACM7"])
    with pytest.raises(ValueError, match="no port is given; there are: /dev/ttyACM7"):
        make_arm(ArmConfig())


def test_what_the_arms_file_says_counts_where_nothing_else_is_given(monkeypatch):
    section = {"settings": {"port": "/dev/arm", "id": "left", "calibration_dir": "/calibrations"}}
    monkeypatch.setattr("vla_rl.robot.arm_section", lambda name, driver: section)
    assert lerobot_config(ArmConfig()).settings == section["settings"]
    given = ArmConfig(port="/dev/other", id="right", calibration="/mine")
    assert lerobot_config(given).settings == {"port": "/dev/other", "id": "right", "calibration_dir": "/mine"}


def test_an_arm_that_says_nothing_of_an_id_has_its_descriptions_name():
    assert "id" not in arm_section("so101", "lerobot").get("settings", {})
    assert lerobot_config(ArmConfig()).settings["id"] == "so101"


def test_a_port_is_looked_for_only_where_the_robot_has_one(monkeypatch):
    monkeypatch.setattr("vla_rl.hardware.checkup.find_port", lambda spec, config: "/dev/found")
    assert with_port(SPEC, LeRobotConfig("so101_follower", {"id": "one"})).settings["port"] == "/dev/found"
    assert with_port(SPEC, LeRobotConfig("so101_follower", {"port": "/dev/mine"})).settings["port"] == "/dev/mine"
    remote = LeRobotConfig("lekiwi_client", {"remote_ip": "127.0.0.1", "id": "one"})
    assert with_port(SPEC, remote) is remote
    monkeypatch.undo()
    assert "port" not in next(iter(checkup(SPEC, LeRobotConfig("lekiwi_client", {"id": "one"})))).found.split(";")[0]


@pytest.mark.parametrize("settings", [0, "opencv", None, [1]])
def test_a_camera_without_settings_says_what_they_look_like(settings):
    with pytest.raises(ValueError, match=r"camera front is .*: {front: {type: opencv, index_or_path: 0, .*}} for one"):
        camera_config("front", settings)


def test_the_doctor_says_it_too():
    config = ArmConfig(port="/dev/nowhere", cameras={"front": 0})
    *_, note = build_arm.checkup(config)
    assert not note.well
    assert "camera front is 0, where its settings are expected" in note.found
