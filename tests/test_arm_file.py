"""Arm files: what is declared is read, in SI; what is wrong is told all at once, with file and key."""

import copy
from importlib.resources import files

import numpy as np
import pytest
import yaml

from vla_rl import arm_file
from vla_rl.arm_file import ArmFileError
from vla_rl.execute.limits import Limits
from vla_rl.execute.safety import SafetyFilter
from vla_rl.kinematics import Kinematics, chain_model
from vla_rl.robot import arm_names, arm_section, arm_spec
from vla_rl.types import RobotSpec

SO101 = yaml.safe_load((files("vla_rl") / "hardware/arms/so101.yaml").read_text())
READY = np.array([0, -np.pi / 4, 0, -3 * np.pi / 4, 0, np.pi / 2, np.pi / 4])  # Franka's own


def changed(**keys):
    """The SO-101's file with other values: `joints__2__low=1` sets joints[2].low; None takes a key away."""
    data = copy.deepcopy(SO101)
    for path, value in keys.items():
        *way, last = [int(part) if part.isdigit() else part for part in path.split("__")]
        place = data
        for part in way:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return data


WRONG = {
    "units are missing": (dict(units=None), "units is missing"),
    "unknown unit": (dict(units={"angle": "grad", "length": "m"}), "units.angle must be one of rad, deg, not 'grad'"),
    "a unit is missing": (dict(units={"angle": "rad"}), "units.length is missing"),
    "a limit is missing": (dict(joints__1__jerk=None), "joints[1] (shoulder_lift).jerk is missing"),
    "a limit is no number": (dict(joints__1__velocity="fast"), "joints[1] (shoulder_lift).velocity must be a finite"),
    "a limit is not finite": (dict(joints__1__jerk=float("inf")), "joints[1] (shoulder_lift).jerk must be a finite"),
    "a limit is negative": (dict(joints__0__acceleration=-1), "acceleration must be a finite number above 0, not -1"),
    "a range is empty": (dict(joints__3__low=2.0), "joints[3] (wrist_flex).low must be below high: 2 is not below"),
    "degrees for radians": (dict(joints__0__high=110), "if they are degrees, say units: {angle: deg"),
    "LeRobot's unit": (dict(joints__5__lerobot_unit="ticks"), "lerobot_unit must be one of degrees, percent"),
    "two joints of a name": (dict(joints__1__name="shoulder_pan"), "joints.name 'shoulder_pan' is there 2 times"),
    "order of the chain": (dict(joints__0__frame__parent="wrist"), "'wrist' is no link yet; there are: base"),
    "no rotation": (dict(joints__2__frame__quaternion=[0, 0, 0, 0]), "(elbow_flex).frame.quaternion must not"),
    "a flag is a word": (dict(joints__5__gripper="yes"), "(gripper).gripper must be true or false"),
    "the box inside out": (dict(workspace__0__2=1.0), "workspace must run from its lower corner"),
    "a camera of no size": (dict(cameras__0__width=0), "cameras[0].width must be a finite number above 0"),
    "a typing error": (dict(joints__0__accleration=60), "joints[0] (shoulder_pan).accleration is unknown; there are"),
    "no rate": (dict(rate=None), "rate is missing"),
    "tip of no link": (dict(tip__parent="claw"), "tip.parent 'claw' is no link yet"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named_with_its_key(what):
    keys, said = WRONG[what]
    with pytest.raises(ArmFileError) as caught:
        arm_file.parse(changed(**keys), "mine.yaml")
    assert str(caught.value).startswith("mine.yaml: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_told_at_once():
    keys = WRONG["units are missing"][0] | WRONG["no rate"][0] | WRONG["a typing error"][0]
    with pytest.raises(ArmFileError) as caught:
        arm_file.parse(changed(**keys), "mine.yaml")
    assert len(caught.value.errors) == 3
    assert "3 errors" in str(caught.value)


@pytest.mark.parametrize("content", ["joints: [", "- 1", "", "joints: 3", "\x00"])
def test_what_is_no_arm_file_is_one_line(content, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ArmFileError, match=r"mine\.yaml"):
        arm_spec(str(path))
    with pytest.raises(ArmFileError, match="can not be read"):
        arm_spec(str(tmp_path / "none.yaml"))


def test_degrees_and_millimetres_are_converted_once():
    data = changed(units={"angle": "deg", "length": "mm"})
    for joint in data["joints"]:
        for key in ("low", "high", "velocity", "acceleration", "jerk"):
            joint[key] = float(np.degrees(joint[key]))
        joint["frame"]["position"] = [1e3 * v for v in joint["frame"]["position"]]
    data["tip"]["position"] = [1e3 * v for v in data["tip"]["position"]]
    data["cameras"][0]["frame"]["position"] = [1e3 * v for v in data["cameras"][0]["frame"]["position"]]
    data["workspace"] = [[1e3 * v for v in corner] for corner in data["workspace"]]
    found, wanted = arm_file.parse(data, "mine.yaml"), arm_spec("so101")
    np.testing.assert_allclose(found.low, wanted.low)
    np.testing.assert_allclose(found.workspace, wanted.workspace)
    np.testing.assert_allclose([j.jerk for j in found.joints], [j.jerk for j in wanted.joints])
    np.testing.assert_allclose(found.tip.position, wanted.tip.position)


def test_a_persons_own_file_is_an_arm(tmp_path):
    path = tmp_path / "mine.yaml"
    section = {"controllers": [{"name": "/c", "kind": "forward", "joints": ["a"]}]}
    path.write_text(yaml.safe_dump({**SO101, "name": "mine", "ros2_control": section}))
    assert arm_spec(str(path)).name == "mine"
    assert arm_section(str(path), "ros2_control") == section
    assert arm_section(str(path), "lerobot") == {}


@pytest.mark.parametrize("name", arm_names())
def test_every_arm_that_comes_along_can_move_safely(name):
    spec = arm_spec(name)
    Limits.from_spec(spec)
    assert RobotSpec.from_dict(spec.to_dict()) == spec


def test_fr3_is_where_franka_says_in_its_ready_pose():
    spec = arm_spec("fr3")
    pose = Kinematics(spec, chain_model(spec)).forward(READY)
    np.testing.assert_allclose(pose.position, [0.306891, 0, 0.590282], atol=1e-6)
    np.testing.assert_allclose(pose.rotation[:, 2], [0, 0, -1], atol=1e-9)


def test_fr3_inverse_kinematics_finds_back_within_the_limits():
    spec = arm_spec("fr3")
    kinematics, rng = Kinematics(spec, chain_model(spec)), np.random.default_rng(0)
    for _ in range(20):
        goal = kinematics.forward(np.clip(READY + rng.uniform(-0.4, 0.4, 7), spec.low, spec.high))
        found = kinematics.inverse(goal, READY)
        assert ((found >= spec.low) & (found <= spec.high)).all()
        assert np.linalg.norm(kinematics.forward(found).position - goal.position) < 2e-3


def test_fr3_commands_keep_every_limit():
    spec = arm_spec("fr3")
    gate, rng, dt = SafetyFilter(Limits.from_spec(spec)), np.random.default_rng(0), 1 / spec.rate
    gate.reset(READY)
    path = np.array([READY, READY, READY, *(gate.step(READY + rng.uniform(-2, 2, 7)).command for _ in range(200))])
    assert ((path >= spec.low - 1e-9) & (path <= spec.high + 1e-9)).all()
    for order, what in enumerate(("velocity", "acceleration", "jerk"), 1):
        allowed = np.array([getattr(joint, what) for joint in spec.joints])
        assert (np.abs(np.diff(path, order, axis=0)) / dt**order <= allowed * (1 + 1e-6) + 1e-9).all(), what
