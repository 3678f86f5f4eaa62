import numpy as np
import pytest

from vla_rl.robot import Sensed, arm_spec
from vla_rl.ros.guard import Guard

SPEC = arm_spec("so101")
PERIOD = round(1e9 / SPEC.rate)
TIMEOUT = 2 / SPEC.rate
HOME = np.array([0.0, -0.6, 0.5, 1.2, 1.57, 0.45])
ME, OTHER = b"me", b"other"
EPOCH = 1_700_000_000 * 10**9


class Arm:
    """A guarded arm that follows its commands exactly."""

    def __init__(self):
        self.guard, self.now, self.joints, self.sent = Guard(SPEC, TIMEOUT), 10**12, HOME.copy(), []
        self.sense()

    def sense(self):
        self.guard.sense(Sensed(self.joints, np.zeros(6), self.now + EPOCH), self.now)

    def command(self, targets, publisher=ME):
        self.go(self.take(targets, publisher))

    def take(self, targets, publisher=ME, age=0):
        """A command that was sent `age` ns ago; the robot's clock began elsewhere than ours."""
        return self.guard.take(targets, publisher, self.now + EPOCH - age, self.now)

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
    arm.take(HOME)
    assert arm.guard.due_in(arm.now + PERIOD // 2) == pytest.approx(TIMEOUT - PERIOD / 2e9)
    assert arm.guard.hold(arm.now + round(TIMEOUT * 1e9) - 1) is None
    assert arm.guard.hold(arm.now + round(TIMEOUT * 1e9)) is not None


def test_a_second_publisher_is_not_mixed_in_and_may_follow_once_the_first_is_gone():
    arm = Arm()
    swing(arm, 10)
    with pytest.raises(ValueError, match="second publisher"):
        arm.take(HOME + 1.0, OTHER)
    swing(arm, 3)
    assert arm.guard.strangers == 1
    arm.silence(100)
    with pytest.raises(ValueError, match="second publisher"):
        arm.take(HOME, OTHER)
    arm.guard.release()
    arm.command(arm.joints, OTHER)
    assert not arm.guard.holding
    with pytest.raises(ValueError, match="second publisher"):
        arm.take(HOME)


def test_where_nobody_can_tell_who_commands_nobody_is_followed_and_the_arm_is_held():
    arm = Arm()
    swing(arm, 10)
    for _ in range(3):
        with pytest.raises(ValueError, match="several publishers of commands"):
            arm.take(HOME + 1.0, b"")
        arm.silence(1)
    assert arm.guard.holding
    assert arm.guard.strangers == 3
    arm.guard.release()
    with pytest.raises(ValueError, match="several publishers of commands"):
        arm.take(HOME, b"")


@pytest.mark.parametrize("bad", [np.full(6, np.nan), np.zeros(5), np.full(6, np.inf)])
def test_a_command_that_is_none_is_refused_and_does_not_end_the_silence(bad):
    arm = Arm()
    swing(arm, 5)
    now = arm.now + round(TIMEOUT * 1e9)
    with pytest.raises(ValueError, match="finite"):
        arm.take(bad)
    assert arm.guard.hold(now) is not None


def test_an_arm_that_nobody_ever_commanded_is_left_alone():
    arm = Arm()
    arm.silence(100)
    assert not arm.sent


def test_a_command_before_the_robot_was_sensed_or_meant_for_the_scene_before_a_reset_is_refused():
    guard = Guard(SPEC, TIMEOUT)
    with pytest.raises(ValueError, match="sensed"):
        guard.take(HOME, ME, EPOCH, 10**12)
    arm = Arm()
    swing(arm, 20)
    arm.guard.reset(arm.now)
    arm.joints = HOME
    arm.sense()
    with pytest.raises(ValueError, match="reset"):
        arm.guard.take(HOME + 1, ME, arm.now + EPOCH + PERIOD, arm.now + PERIOD)
    arm.now += round(TIMEOUT * 1e9)
    arm.sense()
    arm.command(HOME)
    assert np.array_equal(arm.sent[-1], HOME)


@pytest.mark.parametrize(("age_s", "right"), [(0, True), (0.9 * TIMEOUT, True), (1.1 * TIMEOUT, False), (9, False)])
def test_a_command_older_than_the_silence_that_is_allowed_never_moves_the_arm_nor_ends_a_hold(age_s, right):
    arm = Arm()
    swing(arm, 10)
    arm.silence(40)
    rest, age = arm.joints, round(age_s * 1e9)
    if right:
        arm.go(arm.take(rest + 0.01, age=age))
        assert not arm.guard.holding
    else:
        with pytest.raises(ValueError, match="a command stamped"):
            arm.take(rest + 0.01, age=age)
        assert arm.guard.holding
        assert np.array_equal(arm.guard.hold(arm.now), rest)
    assert arm.guard.outdated == (not right)


@pytest.mark.parametrize("age_s", [-3600, -0.1, 1e9])
def test_a_stamp_from_the_future_and_none_at_all_are_refused(age_s):
    arm = Arm()
    with pytest.raises(ValueError, match="a command stamped"):
        arm.take(HOME, age=round(age_s * 1e9))


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_step_of_the_robots_clock_outdates_no_command_that_follows_it(hours):
    arm = Arm()
    swing(arm, 5)
    step = hours * 3600 * 10**9
    arm.guard.sense(Sensed(arm.joints, np.zeros(6), arm.now + EPOCH + step), arm.now)
    with pytest.raises(ValueError, match="a command stamped"):
        arm.take(HOME)
    arm.guard.take(HOME, ME, arm.now + EPOCH + step, arm.now)


def test_where_time_is_faster_a_command_is_as_old_as_the_periods_since_it_was_asked_for():
    guard, speed = Guard(SPEC, TIMEOUT / 4, speed=4.0), 4
    for i in range(20):
        guard.sense(Sensed(HOME, np.zeros(6), EPOCH + i * PERIOD), 10**12 + i * PERIOD // speed)
    now = 10**12 + 20 * PERIOD // speed
    guard.take(HOME, ME, EPOCH + 18 * PERIOD, now)
    with pytest.raises(ValueError, match="a command stamped"):
        guard.take(HOME, ME, EPOCH + 16 * PERIOD, now)


def test_where_time_waits_for_commands_the_answer_to_the_newest_joints_is_taken_however_late():
    guard = Guard(SPEC, float("inf"), speed=0.0)
    guard.sense(Sensed(HOME, np.zeros(6), 10**9), 10**12)
    guard.take(HOME, ME, 10**9, 10**12 + 3600 * 10**9)
