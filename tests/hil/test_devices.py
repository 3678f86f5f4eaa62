"""What a person can hold: what is pressed is what is said, what is lost is told, what is taped is said again."""

import json
import os
import pty
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.hil.device import BUTTONS, Command
from vla_rl.hil.devices.fed import Fed
from vla_rl.hil.devices.gamepad import Gamepad, GamepadConfig
from vla_rl.hil.devices.keyboard import Keyboard
from vla_rl.hil.devices.spacemouse import SpaceMouse
from vla_rl.hil.devices.tape import Tape, Taped
from vla_rl.hil.driving import Driving
from vla_rl.hil.mapping import Mapping, MappingConfig
from vla_rl.kinematics import Kinematics, Pose, chain_model
from vla_rl.robot import arm_spec

SPEC = arm_spec("so101")
HOME = np.array([0.0, -0.6, 0.5, 1.2, 1.57, 0.45])
SECOND = 10**9


@pytest.fixture
def terminal():
    """The keyboard's side of a terminal, and the path of ours."""
    keys, screen = pty.openpty()
    yield keys, os.ttyname(screen)
    os.close(screen)
    os.close(keys)


def test_a_terminals_keys_drive_while_they_repeat_and_press_buttons(terminal):
    keys, path = terminal
    keyboard = Keyboard(Driving(), path)
    assert not keyboard.read(SECOND).twist.any()
    os.write(keys, b"w \x1b[5~")
    said = keyboard.read(SECOND)
    assert said.twist[0] > 0
    assert said.twist[2] > 0
    assert said.buttons == ("toggle",)
    assert keyboard.read(SECOND + SECOND // 20).twist.any()
    assert not keyboard.read(2 * SECOND).twist.any()
    os.write(keys, b"W")
    assert 0 < keyboard.read(3 * SECOND).twist[0] < said.twist[0]
    keyboard.close()


ARROWS = {"\x1b[A": 0, "\x1b[B": 0, "\x1b[C": 1, "\x1b[D": 1, "\x1b[5~": 2, "\x1b[6~": 2}  # and along which axis


@pytest.mark.parametrize("plain", ARROWS)
def test_with_shift_an_arrow_drives_the_same_way_and_slowly(terminal, plain):
    keys, path = terminal
    keyboard = Keyboard(Driving(), path)
    os.write(keys, plain.encode())
    fast = keyboard.read(SECOND)
    os.write(keys, (plain[:-1] + ("1;2" if plain[-1] != "~" else ";2") + plain[-1]).encode())
    slow = keyboard.read(2 * SECOND)
    keyboard.close()
    assert fast.twist[ARROWS[plain]]
    assert not fast.buttons + slow.buttons
    np.testing.assert_allclose(slow.twist, fast.twist * Driving().config.slow)


# F1 in three terminals, F5, control and Up, shift and Del
@pytest.mark.parametrize("key", ["\x1bOP", "\x1b[11~", "\x1b[[A", "\x1b[15~", "\x1b[1;5A", "\x1b[3;2~"])
def test_a_key_that_means_nothing_neither_stops_nor_drives(terminal, key):
    keys, path = terminal
    keyboard = Keyboard(Driving(), path)
    os.write(keys, key.encode())
    said = keyboard.read(SECOND)
    keyboard.close()
    assert not said.buttons
    assert not said.twist.any()


def test_a_key_of_one_escape_stops_and_the_terminal_is_given_back(terminal):
    import termios

    keys, path = terminal
    before = termios.tcgetattr(keys)
    keyboard = Keyboard(Driving(), path)
    for said in (b"\x1b", b"\x1b\x1b", b"\x1b[1;2\x1b", b"\x1bO\x1b"):  # also after half a sequence
        os.write(keys, said)
        assert "stop" in keyboard.read(SECOND).buttons
    assert termios.tcgetattr(keys) != before
    keyboard.close()
    assert termios.tcgetattr(keys) == before


def test_a_gamepads_button_counts_when_it_goes_down_and_sticks_drive():
    pad = Gamepad(Driving())
    assert pad.read(SECOND) is None
    for down in (1, 1, 0, 1):  # pressed twice
        pad.heard([0.0, 1.0], [down, 0, 0, 0, 0, 1], SECOND)
    said = pad.read(SECOND)
    assert said.twist[0] > 0
    assert said.gripper == 1.0
    assert said.buttons == ("toggle", "toggle")
    assert not pad.read(SECOND).buttons
    assert pad.read(SECOND + round(GamepadConfig().timeout_s * 1e9) + 1) is None


def test_every_button_of_a_gamepad_exists():
    assert {name for _, name in GamepadConfig().buttons} <= set(BUTTONS)


def report(kind, *values):
    return struct.pack(f"<B{len(values)}h", kind, *values)


def test_a_spacemouse_drives_until_its_cap_is_let_go_and_is_lost_with_its_cable(tmp_path):
    path = str(tmp_path / "hidraw")
    os.mkfifo(path)
    cable = os.open(path, os.O_RDWR)
    mouse = SpaceMouse(Driving(), path)
    os.write(cable, report(1, 0, -350, 0))
    assert mouse.read(SECOND).twist[0] > 0
    assert mouse.read(9 * SECOND).twist[0] > 0  # it tells of changes only
    os.write(cable, report(1, 0, 0, 0))
    assert not mouse.read(10 * SECOND).twist.any()
    for pressed, said in ((b"\x03\x01\x00", -1.0), (b"\x03\x02\x00", 1.0), (b"\x03\x00\x00", 0.0)):
        os.write(cable, pressed)
        assert mouse.read(11 * SECOND).gripper == said
    os.write(cable, b"\x03\x03\x00")
    assert mouse.read(11 * SECOND).buttons == ("toggle",)
    os.close(cable)
    assert mouse.read(12 * SECOND) is None
    again = os.open(path, os.O_RDWR)
    assert mouse.read(14 * SECOND) is not None
    mouse.close()
    os.close(again)


def test_both_buttons_of_a_spacemouse_count_however_soon_they_are_let_go(tmp_path, monkeypatch):
    path = str(tmp_path / "hidraw")
    os.mkfifo(path)
    cable = os.open(path, os.O_RDWR)
    mouse = SpaceMouse(Driving(), path)
    said = [bytes([3, buttons, 0]) for buttons in (1, 3, 2, 0)]
    monkeypatch.setattr(mouse._file, "read", lambda now: said)  # a hidraw hands out reports one by one, a pipe does not
    assert mouse.read(SECOND).buttons == ("toggle",)
    said.clear()
    assert not mouse.read(SECOND).buttons
    mouse.close()
    os.close(cable)


@given(st.binary(max_size=64))
@settings(max_examples=200, deadline=None)
def test_whatever_a_spacemouse_sends_is_finite_and_bounded(said):
    mouse = SpaceMouse.__new__(SpaceMouse)
    mouse._cap, mouse._buttons = np.zeros(6), 0
    if said:
        mouse._take(said)
    assert np.abs(mouse._cap).max() <= 1.0


def test_a_device_that_is_not_there_says_so():
    with pytest.raises(OSError, match="hidraw99"):
        SpaceMouse(Driving(), "/dev/hidraw99")


def test_a_fed_device_keeps_buttons_until_they_are_read_and_motion_for_a_moment():
    device = Fed("page", 0.5, 0.25)
    device.put(Command(twist=np.ones(6), buttons=("start",)), SECOND)
    device.put(Command(twist=np.ones(6)), SECOND)
    assert device.read(SECOND).buttons == ("start",)
    assert device.read(SECOND).twist is not None
    device.beat(SECOND + round(0.3e9))
    assert device.read(SECOND + round(0.3e9)).twist is None
    device.put(Command(buttons=("stop",)), round(1.9 * SECOND))
    device.put(Command(buttons=("start", "stop")), round(1.9 * SECOND))
    assert device.read(2 * SECOND).buttons == ("stop", "start", "stop")


def test_what_was_pressed_before_a_device_was_lost_is_not_meant_when_it_comes_back():
    device = Fed("gamepad")
    device.put(Command(buttons=("toggle",)), SECOND)
    assert device.read(2 * SECOND) is None
    device.beat(2 * SECOND)
    assert not device.read(2 * SECOND).buttons


def test_a_terminals_button_that_is_held_down_is_no_row_of_presses(terminal):
    keys, path = terminal
    keyboard, pressed = Keyboard(Driving(), path), []
    for frame in range(60):  # a second of a terminal's repeating
        os.write(keys, b"b")
        pressed += keyboard.read(SECOND + frame * SECOND // 60).buttons
    os.write(keys, b"b")
    assert pressed == ["rerecord"]
    assert keyboard.read(3 * SECOND).buttons == ("rerecord",)
    keyboard.close()


def commands():
    numbers = st.lists(st.floats(-3, 3), min_size=6, max_size=6).map(np.array)
    kinds = st.sampled_from(["targets", "velocities", "twist"])
    pressed = st.lists(st.sampled_from(BUTTONS), max_size=2).map(tuple)
    built = st.builds(
        lambda k, v, g, b: Command(**{k: v}, gripper=g, buttons=b), kinds, numbers, st.floats(-1, 1), pressed
    )
    return st.one_of(st.none(), built)


def plain(command):
    if command is None:
        return None
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(command).items()}


@given(st.lists(commands(), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_what_was_taped_is_said_again(tmp_path_factory, said):
    path = str(tmp_path_factory.mktemp("tape") / "tape.jsonl")
    script = [(0.0, said[0])] + [(0.1 * i, command) for i, command in enumerate(said[1:], 1)]
    times = [SECOND + round(1e8 * i) for i in range(len(said))]
    taped = Taped(Tape(script), path)
    first = [plain(taped.read(now)) for now in times]
    taped.close()
    again = Tape.load(path)
    assert [plain(again.read(now)) for now in times] == first


def test_a_tape_that_has_run_out_is_a_device_that_is_lost_and_drives_no_further(tmp_path):
    path, held = str(tmp_path / "tape.jsonl"), Fed("page", 0.5, 0.5)
    held.put(Command(twist=np.ones(6)), SECOND)
    taped = Taped(held, path)
    for tenths in range(4):  # nothing changes meanwhile: one line
        taped.read(SECOND + tenths * SECOND // 10)
    taped.close()
    again = Tape.load(path)
    assert again.read(SECOND).twist is not None
    assert again.read(SECOND + SECOND // 4).twist is not None
    assert again.read(SECOND + SECOND // 2) is None


@pytest.mark.parametrize("line", ["{", "[]", '{"s": 0, "says": {"targets": "far"}}', '{"s": "x", "says": null}', "7"])
def test_a_tape_that_is_none_is_refused_with_its_line(tmp_path, line):
    path = tmp_path / "tape.jsonl"
    path.write_text(json.dumps({"s": 0.0, "says": None}) + "\n" + line)
    with pytest.raises(ValueError, match="line 2"):
        Tape.load(str(path))


def test_a_command_of_two_motions_or_an_unknown_button_is_refused():
    with pytest.raises(ValueError, match="one of them"):
        Command(targets=HOME, twist=np.zeros(6))
    with pytest.raises(ValueError, match="unknown button 'self_destruct'; there are: take_over"):
        Command(buttons=("self_destruct",))


@pytest.mark.parametrize("axis", range(6))
def test_a_twist_that_no_hand_means_moves_no_joint_farther_than_the_lead(axis):
    mapping = Mapping(SPEC, Kinematics(SPEC, chain_model(SPEC)))
    targets = mapping.targets(Command(twist=1e300 * np.eye(6)[axis]), HOME, 1 / 60)
    assert np.abs(targets - HOME).max() <= MappingConfig.lead + 1e-9


@given(st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=3), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_a_twist_moves_the_gripper_where_it_points_or_stops_at_a_limit(speed, seed):
    kinematics = Kinematics(SPEC, chain_model(SPEC))
    mapping, rng = Mapping(SPEC, kinematics), np.random.default_rng(seed)
    here = np.clip(HOME + rng.normal(0, 0.15, 6), SPEC.low, SPEC.high)
    before, twist = kinematics.forward(here).position, np.array([*speed, 0.0, 0.0, 0.0])
    found = mapping.targets(Command(twist=twist), here, 1 / 60)
    assert ((found >= SPEC.low) & (found <= SPEC.high)).all()
    inside = ((found > SPEC.low + 1e-3) & (found < SPEC.high - 1e-3)).all()
    if inside:
        np.testing.assert_allclose(kinematics.forward(found).position, before + twist[:3] / 60, atol=3e-4)


def test_the_chain_alone_knows_where_the_gripper_is_as_the_simulation_does():
    from vla_rl.execute.chain import Chain

    kinematics, chain, rng = Kinematics(SPEC, chain_model(SPEC)), Chain(SPEC), np.random.default_rng(0)
    for joints in rng.uniform(SPEC.low, SPEC.high, (20, 6)):
        pose = kinematics.forward(joints)
        assert isinstance(pose, Pose)
        np.testing.assert_allclose(pose.position, chain.tip(joints), atol=1e-9)
