"""What is no SO-101: any robot and any teleoperator that registers with LeRobot, through LeRobot's interface alone."""

import sys
from dataclasses import dataclass, replace
from threading import Event
from types import ModuleType

import numpy as np
import pytest
from lerobot.robots import Robot, RobotConfig
from lerobot.teleoperators import Teleoperator, TeleoperatorConfig

from vla_rl.hardware.lerobot_arm import LeRobotArm, LeRobotConfig
from vla_rl.hardware.lerobot_teleop import LeRobotTeleop
from vla_rl.robot import Fault, arm_spec

SPEC = arm_spec("so101")
NAMES = [joint.lerobot_name for joint in SPEC.joints]


@RobotConfig.register_subclass("cardboard_arm")
@dataclass(kw_only=True)
class CardboardArmConfig(RobotConfig):
    calibrated: bool = True
    broken_after: int = 10**9
    breaks: str = "wet"


class CardboardArm(Robot):
    """Goes where it is told, at once; its joints are told backwards."""

    config_class, name = CardboardArmConfig, "cardboard_arm"
    is_connected = False

    def __init__(self, config):
        super().__init__(config)
        self.config, self.asked, self.waited = config, 0, Event()
        self.values = dict(zip(NAMES, SPEC.to_lerobot(np.zeros(6)).tolist(), strict=True))

    @property
    def action_features(self):
        return dict.fromkeys(reversed(NAMES), float)

    observation_features = action_features

    @property
    def is_calibrated(self):
        return self.config.calibrated

    def connect(self, calibrate=True):
        assert not calibrate
        self.is_connected = True

    def calibrate(self):
        raise AssertionError("nobody asked for it")

    def configure(self):
        pass

    def get_observation(self):
        self.asked += 1
        if self.asked > self.config.broken_after:
            return self.broken()
        return dict(reversed(self.values.items()))

    def broken(self):
        if self.config.breaks == "torn":
            return {name: value for name, value in self.values.items() if name != "elbow_flex.pos"}
        if self.config.breaks == "stuck":
            self.waited.wait(30)
        raise ConnectionError("the cardboard\nis wet")

    def send_action(self, action):
        self.values = {name: round(value) for name, value in action.items()}  # what it can, it says what it did
        return self.values

    def disconnect(self):
        self.is_connected = False
        self.waited.set()


@TeleoperatorConfig.register_subclass("puppet_strings")
@dataclass
class PuppetStringsConfig(TeleoperatorConfig):
    kind: str = "joints"


class PuppetStrings(Teleoperator):
    config_class, name = PuppetStringsConfig, "puppet_strings"
    is_connected, is_calibrated, feedback_features = False, True, None

    def __init__(self, config):
        super().__init__(config)
        self.config = config

    @property
    def action_features(self):
        array = {"dtype": "float32", "shape": (3,), "names": {"delta_x": 0, "delta_y": 1, "delta_z": 2}}
        return {"joints": dict.fromkeys(NAMES, float), "deltas": array, "words": {"word": str}}[self.config.kind]

    def connect(self):
        self.is_connected = True

    def calibrate(self):
        pass

    def configure(self):
        pass

    def get_action(self):
        if self.config.kind == "deltas":
            return {"delta_x": 1.0, "delta_y": 0.0, "delta_z": -0.5}
        return dict(zip(NAMES, SPEC.to_lerobot(np.full(6, 0.3)).tolist(), strict=True))

    def send_feedback(self, feedback):
        pass

    def disconnect(self):
        self.is_connected = False


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """Where LeRobot looks for a plug-in's class: beside its configuration's module."""
    module = ModuleType("lerobot_robot_cardboard")
    module.CardboardArm, module.PuppetStrings = CardboardArm, PuppetStrings
    monkeypatch.setitem(sys.modules, "lerobot_robot_cardboard", module)
    for config in (CardboardArmConfig, PuppetStringsConfig):
        monkeypatch.setattr(config, "__module__", "lerobot_robot_cardboard")


@pytest.fixture
def open_arm():
    arms = []

    def opened(spec=SPEC, **settings):
        arms.append(LeRobotArm(spec, LeRobotConfig("cardboard_arm", {"id": "one", **settings}), lambda line: None))
        return arms[-1]

    yield opened
    for arm in arms:
        arm.close()


def test_any_registered_robot_is_an_arm_by_its_joints_names_whatever_their_order(open_arm):
    arm = open_arm()
    targets = np.array([0.1, -0.2, 0.3, 0.4, -0.5, 0.6])
    sent = arm.command(targets)
    assert sent == pytest.approx(targets, abs=0.02)
    assert SPEC.to_lerobot(sent) == pytest.approx(np.round(SPEC.to_lerobot(sent)))  # what was sent, not what was asked
    assert arm.sense().joints == pytest.approx(sent)


def test_offsets_of_the_arms_file_stand_between_its_zero_and_ours(open_arm):
    shifted = replace(SPEC, joints=(replace(SPEC.joints[0], offset=0.5), *SPEC.joints[1:]))
    assert open_arm(shifted).sense().joints[0] == pytest.approx(0.5)


def test_one_that_is_not_calibrated_is_refused_with_the_command_that_does_it(open_arm):
    with pytest.raises(ValueError, match=r"is not calibrated: run: lerobot-calibrate --robot.type=cardboard_arm"):
        open_arm(calibrated=False)


def test_one_that_stops_answering_is_held_with_its_own_reason_in_one_line(open_arm):
    arm = open_arm(broken_after=20)
    while not arm.fault:
        arm.sense()
    assert "no good answer for" in arm.fault
    assert "the cardboard is wet" in arm.fault


def test_one_that_leaves_a_joint_out_of_its_answers_is_held_and_the_joint_is_named(open_arm):
    arm = open_arm(broken_after=20, breaks="torn")
    while not arm.fault:
        arm.sense()
    assert "no good answer for" in arm.fault
    assert "an answer without elbow_flex.pos" in arm.fault
    with pytest.raises(Fault, match="is held"):
        arm.command(np.zeros(6))


def test_one_that_never_comes_back_with_an_answer_is_held_and_named(open_arm):
    arm = open_arm(broken_after=20, breaks="stuck")
    for _ in range(100):
        arm.sense()
    assert "its driver hangs" in arm.fault
    with pytest.raises(Fault, match="is held"):
        arm.command(np.zeros(6))
    with pytest.raises(Fault, match="still held: the driver of cardboard_arm hangs"):
        arm.recover()


def test_whatever_goes_wrong_in_a_driver_is_a_fault_with_a_name(open_arm, monkeypatch):
    arm = open_arm()
    monkeypatch.setattr(arm._driver, "examine", lambda: {}["battery"])
    while not arm.fault:
        arm.sense()
    assert "cardboard_arm cannot be measured: KeyError: 'battery'" in arm.fault


def test_a_teleoperator_that_says_joints_leads_and_one_that_says_deltas_steers():
    leader = LeRobotTeleop(SPEC, "puppet_strings", {})
    assert leader.leads
    assert leader.read().joints == pytest.approx(np.full(6, 0.3))
    stick = LeRobotTeleop(SPEC, "puppet_strings", {"kind": "deltas"})
    assert not stick.leads
    assert np.sign(stick.read().twist).tolist() == [1, 0, -1, 0, 0, 0]


def test_a_teleoperator_that_says_something_else_is_refused_with_what_it_says():
    with pytest.raises(ValueError, match=r"says word; the arm 'so101' needs shoulder_pan.pos"):
        LeRobotTeleop(SPEC, "puppet_strings", {"kind": "words"})
    with pytest.raises(ValueError, match=r"LeRobot has no teleoperator 'wand'; there are: .*so101_leader"):
        LeRobotTeleop(SPEC, "wand", {})
