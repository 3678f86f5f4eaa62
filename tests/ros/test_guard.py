import numpy as np
import pytest

from vla_rl.robot import Sensed, arm_spec
from vla_rl.ros.guard import Guard

SPEC = arm_spec("so101")
PERIOD = round(1e9 / SPEC.rate)
TIMEOUT = 2 / SPEC.rate
HOME = np.array([0.0, -0.6, 0.5, 1.2, 1.57, 0.45])
ME, OTHER = b"me", b"other"


class Arm:
    """A guarded arm that follows its commands exactly."""

    def __init__(self):
        self.guard, self.now, self.joints, self.sent = Guard(SPEC, TIMEOUT), 10**12, HOME.copy(), []
        self.sense()

    def sense(self):
        self.guard.sense(Sensed(self.joints, np.zeros(6), self.now), self.now)

    def command(self, targets, publisher=ME):
        self.go(self.guard.take(targets, publisher, self.now))

    def go(self, command):
        self.joints = command
        self.sent.append(command)
        self.now += PERIOD
        self.sense()

    def silence(self, periods):
        for _ in range(periods):
            command = self.guard.hold(self.now)
            if command is None:
                self.now += PERIOD
                self.sense()
            else:
                self.go(command)


SWING = np.array([0.4, 0.1, -0.1, 0.2, 0.4, 0.3])


def swing(arm, periods):
    for i in range(periods):
        arm.command(HOME + SWING * (1 - np.cos(i / 15)))


def test_commands_within_the_limits_pass_bit_for_bit():
    arm = Arm()
    swing(arm, 60)
    assert np.array_equal(arm.sent, [HOME + SWING * (1 - np.cos(i / 15)) for i in range(60)])
    assert not arm.guard.clamps


def test_a_wild_command_is_limited():
    arm = Arm()
    for _ in range(60):
        arm.command(SPEC.high + 5)
    speeds = np.abs(np.diff([HOME, *arm.sent], axis=0)) * SPEC.rate
    assert (speeds <= [j.velocity * (1 + 1e-6) for j in SPEC.joints]).all()
    assert (np.array(arm.sent) <= SPEC.high).all()
    assert arm.guard.clamps


@pytest.mark.parametrize("after", [5, 20, 33, 47])
def test_silence_brakes_within_the_limits_and_holds_with_the_gripper_at_its_last_command(after):
    arm = Arm()
    swing(arm, after)
    arm.silence(1)
    assert not arm.guard.holding
    arm.silence(60)
    assert arm.guard.holding
    assert arm.guard.holds == 1
    path = np.array([HOME, *arm.sent])
    speeds = np.diff(path, axis=0) * SPEC.rate
    accelerations = np.diff(speeds, axis=0) * SPEC.rate
    assert (np.abs(accelerations) <= [j.acceleration * (1 + 1e-6) for j in SPEC.joints]).all()
    assert np.array_equal(arm.sent[-1], arm.sent[-20])


def test_the_deadline_is_exact_so_that_a_watchdog_can_sleep_until_it():
    arm = Arm()
    assert arm.guard.hold(arm.now) is None
    assert arm.guard.due_in(arm.now) == pytest.approx(TIMEOUT)
    arm.guard.take(HOME, ME, arm.now)
    assert arm.guard.due_in(arm.now + PERIOD // 2) == pytest.approx(TIMEOUT - PERIOD / 2e9)
    assert arm.guard.hold(arm.now + round(TIMEOUT * 1e9) - 1) is None
    assert arm.guard.hold(arm.now + round(TIMEOUT * 1e9)) is not None


def test_a_second_publisher_is_not_mixed_in_and_may_follow_once_the_first_is_gone():
    arm = Arm()
    swing(arm, 10)
    with pytest.raises(ValueError, match="second publisher"):
        arm.guard.take(HOME + 1.0, OTHER, arm.now)
    swing(arm, 3)
    assert arm.guard.strangers == 1
    arm.silence(100)
    with pytest.raises(ValueError, match="second publisher"):
        arm.guard.take(HOME, OTHER, arm.now)
    arm.guard.release()
    arm.command(arm.joints, OTHER)
    assert not arm.guard.holding
    with pytest.raises(ValueError, match="second publisher"):
        arm.guard.take(HOME, ME, arm.now)


@pytest.mark.parametrize("bad", [np.full(6, np.nan), np.zeros(5), np.full(6, np.inf)])
def test_a_command_that_is_none_is_refused_and_does_not_end_the_silence(bad):
    arm = Arm()
    swing(arm, 5)
    now = arm.now + round(TIMEOUT * 1e9)
    with pytest.raises(ValueError, match="finite"):
        arm.guard.take(bad, ME, arm.now)
    assert arm.guard.hold(now) is not None


def test_an_arm_that_nobody_ever_commanded_is_left_alone():
    arm = Arm()
    arm.silence(100)
    assert not arm.sent


def test_a_command_before_the_robot_was_sensed_or_meant_for_the_scene_before_a_reset_is_refused():
    guard = Guard(SPEC, TIMEOUT)
    with pytest.raises(ValueError, match="sensed"):
        guard.take(HOME, ME, 10**12)
    arm = Arm()
    swing(arm, 20)
    arm.guard.reset(arm.now)
    arm.joints = HOME
    arm.sense()
    with pytest.raises(ValueError, match="reset"):
        arm.guard.take(HOME + 1, ME, arm.now + PERIOD)
    arm.now += round(TIMEOUT * 1e9)
    arm.command(HOME)
    assert np.array_equal(arm.sent[-1], HOME)
