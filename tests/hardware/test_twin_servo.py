"""One servo of the twin on a joint without weight: what the registers promise is what the joint does."""

import math
from collections import namedtuple
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.hardware.twin.body import STALL_TORQUE
from vla_rl.hardware.twin.protocol import Error
from vla_rl.hardware.twin.servo import Ailment, Servo, ServoConfig
from vla_rl.hardware.twin.table import REGISTERS, TICK, TURN

STEP = 1 / 240
Jointed = namedtuple("Jointed", "write run read servo state")


def jointed(position=0.0, torque=0.0, **config):
    """A servo, and a joint that is at once where its motor pulls it, with a constant load on it."""
    servo = Servo(1, ServoConfig(**config))
    servo.place(position)
    state = {"now": 0.0, "position": position, "moved": [], "drive": None}

    def write(**values):
        for name, value in values.items():
            servo.write(REGISTERS[name].address, REGISTERS[name].encode(value), state["now"])

    def run(seconds):
        state["moved"] = []
        for _ in range(round(seconds / STEP)):
            state["drive"] = drive = servo.drive(state["now"], STEP)
            before = state["position"]
            state["position"] = drive.target if drive.torque else before
            servo.feel(state["position"], (state["position"] - before) / STEP, min(torque, drive.torque), STEP)
            state["now"] += STEP
            state["moved"].append(state["position"])
        return state["position"]

    def read(name):
        register = REGISTERS[name]
        return register.decode(servo.read(register.address, register.size))

    return Jointed(write, run, read, servo, state)


@given(st.integers(100, TURN - 100), st.integers(300, TURN - 300))
@settings(max_examples=25, deadline=None)
def test_the_joint_ends_where_the_goal_says_however_the_horn_sits(goal, zero):
    joint = jointed(zero=zero)
    joint.write(Torque_Enable=1, Goal_Position=goal)
    assert joint.run(2.0) == pytest.approx((goal - zero) * TICK, abs=TICK)
    assert abs(joint.read("Present_Position") - goal) <= 1


def test_without_torque_it_goes_nowhere_and_with_it_it_stays_where_it_was_left():
    joint = jointed(0.3)
    joint.write(Goal_Position=100)
    assert joint.run(0.5) == 0.3
    joint.write(Torque_Enable=1)
    assert joint.run(0.5) == pytest.approx(0.3, abs=TICK)


@given(st.integers(0, TURN - 1), st.integers(0, TURN - 1), st.integers(0, TURN - 1))
@settings(max_examples=40, deadline=None)
def test_a_goal_beyond_the_limits_stops_at_them(a, b, goal):
    low, high = min(a, b), max(a, b) + 1
    joint = jointed()
    joint.write(Min_Position_Limit=low, Max_Position_Limit=high, Torque_Enable=1, Goal_Position=goal)
    joint.run(2.0)
    assert low - 1 <= joint.read("Present_Position") <= high + 1


@given(st.floats(-6.0, 6.0), st.integers(-2000, 2000))
def test_the_present_position_wraps_after_twelve_bits_less_the_homing_offset(position, offset):
    joint = jointed()
    joint.write(Homing_Offset=offset)
    joint.servo.place(position)
    assert joint.read("Present_Position") == math.floor((TURN // 2 + position / TICK - offset) % TURN)


def test_a_goal_counts_from_its_delay_on():
    joint = jointed(delay_s=0.1)
    joint.write(Torque_Enable=1, Goal_Position=TURN // 2 + 400)
    assert joint.run(0.095) == pytest.approx(0.0, abs=TICK)
    assert joint.run(0.05) > 10 * TICK


@given(st.floats(0.0, 1.0), st.floats(-0.02, 0.02))
def test_an_encoder_goes_on_between_two_steps(part, moved):
    joint = jointed(0.2)
    joint.servo.feel(0.2 + moved, moved / STEP, 0.0, STEP)
    joint.servo.look(part)
    assert abs(joint.read("Present_Position") - joint.servo.ticks(0.2 + part * moved)) <= 1


@given(st.floats(0.001, 0.999))
def test_a_goal_that_comes_due_within_a_step_moves_the_motor_for_the_rest_of_it(part):
    joint = jointed(delay_s=part * STEP)
    joint.write(Torque_Enable=1, Acceleration=0, Goal_Velocity=1000, Goal_Position=TURN // 2 + 500)
    joint.run(STEP)
    assert joint.state["position"] == pytest.approx((1 - part) * STEP * 1000 * TICK, rel=1e-6)


@given(st.integers(1, 254), st.integers(200, 3000))
@settings(max_examples=25, deadline=None)
def test_its_motion_keeps_to_the_velocity_and_acceleration_that_were_written(acceleration, velocity):
    joint = jointed()
    joint.write(Torque_Enable=1, Acceleration=acceleration, Goal_Velocity=velocity, Goal_Position=TURN // 2 + 900)
    joint.run(3.0)
    moved = [0.0, *joint.state["moved"]]
    speeds = [(b - a) / STEP / TICK for a, b in pairwise(moved)]
    assert max(speeds) <= velocity * 1.001
    assert max(b - a for a, b in pairwise([0.0, *speeds])) <= 100 * acceleration * STEP * 1.001


def test_play_between_motor_and_joint_is_lost_at_every_turning():
    joint = jointed(backlash_rad=0.02)
    joint.write(Torque_Enable=1, Goal_Position=TURN // 2 + 300)
    up = joint.run(1.0)
    joint.write(Goal_Position=TURN // 2 - 300)
    down = joint.run(1.0)
    assert up == pytest.approx(300 * TICK - 0.01, abs=2 * TICK)
    assert down == pytest.approx(-300 * TICK + 0.01, abs=2 * TICK)


def test_an_overload_leaves_little_torque_until_the_joint_may_turn_back():
    joint = jointed(torque=0.9 * STALL_TORQUE)
    joint.write(Torque_Enable=1, Acceleration=254, Goal_Position=TURN // 2 + 300)
    joint.run(1.9)
    assert joint.servo.error == Error.NONE
    joint.run(0.2)
    assert joint.servo.error == Error.OVERLOAD
    joint.run(STEP)
    assert joint.state["drive"].torque == pytest.approx(0.2 * STALL_TORQUE)
    joint.write(Torque_Enable=1)
    assert joint.servo.error == Error.NONE


@pytest.mark.parametrize(
    ("ailment", "error", "strength"),
    [
        (Ailment(temperature=90.0), Error.OVERHEAT, 0.0),
        (Ailment(overcurrent=True), Error.OVERCURRENT, 0.0),
        (Ailment(overload=True), Error.OVERLOAD, 0.2),
        (Ailment(volts=3.5), Error.VOLTAGE, 1.0),
    ],
)
def test_it_says_what_is_wrong_and_protects_itself_as_its_unloading_condition_says(ailment, error, strength):
    joint = jointed()
    joint.write(Torque_Enable=1)
    joint.servo.ailment = ailment
    joint.run(STEP)
    assert joint.servo.error == error == joint.read("Status")
    assert joint.state["drive"].torque == pytest.approx(strength * STALL_TORQUE)
    joint.servo.ailment = Ailment()
    assert joint.servo.error == Error.NONE


def test_a_stuck_encoder_tells_the_same_position_while_the_joint_runs_away():
    joint = jointed()
    joint.write(Torque_Enable=1, Goal_Position=TURN // 2 + 500)
    joint.run(0.02)
    joint.servo.ailment = Ailment(stuck=True)
    told, was = joint.read("Present_Position"), joint.state["position"]
    joint.run(1.0)
    assert joint.read("Present_Position") == told
    assert joint.state["position"] > was + 500 * TICK


@given(st.floats(-3.0, 3.0), st.integers(0, TURN - 1))
def test_128_to_the_torque_switch_makes_the_present_position_the_middle(position, zero):
    joint = jointed(position, zero=zero)
    joint.write(Torque_Enable=128)
    joint.run(STEP)
    assert joint.read("Present_Position") == pytest.approx(TURN // 2, abs=2)  # a homing offset of -2048 has no bits
    assert not joint.servo.torque_on


def test_power_lost_is_torque_lost():
    joint = jointed(0.2)
    joint.write(Torque_Enable=1, P_Coefficient=16)
    joint.servo.restart()
    assert not joint.servo.torque_on
    assert joint.read("P_Coefficient") == 32
    assert joint.read("Goal_Position") == joint.read("Present_Position")


def test_the_coefficients_and_the_scale_of_its_gains_are_the_motors():
    joint = jointed(gain_scale=0.8)
    joint.write(Torque_Enable=1, P_Coefficient=16, D_Coefficient=32)
    joint.run(STEP)
    assert (joint.state["drive"].stiffness, joint.state["drive"].damping) == (0.8, 0.8)
