"""`vla-rl twin` and the socket at which others talk to it."""

import json
import socket
import subprocess
import sys
import time

import pytest

from vla_rl.cli import main
from vla_rl.hardware.twin.body import Puppet
from vla_rl.hardware.twin.control import COMMANDS, TwinControl
from vla_rl.hardware.twin.process import TwinProcess
from vla_rl.hardware.twin.twin import Twin, TwinConfig
from vla_rl.robot import arm_spec


@pytest.fixture
def control(tmp_path):
    config = TwinConfig(tmp_path / "port", leader=tmp_path / "leader", control=tmp_path / "control")
    with Twin(config, Puppet(arm_spec("so101")), Puppet(arm_spec("so101"))):
        control = TwinControl(tmp_path / "control")
        yield control
        control.close()


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        ("dance", {}, "unknown command 'dance'; there are: " + ", ".join(COMMANDS)),
        ("reset", {}, "no scene; start it with a task"),
        ("home", {}, "no scene; start it with a task"),
        ("operate", {"on": True}, "no scene; start it with a task"),
        ("carry", {"joints": None, "arm": "third"}, "no arm 'third'; there are: follower, leader"),
        ("carry", {}, "joints"),
        ("faults", {"faults": [{"kind": "rust"}]}, "unknown fault 'rust'"),
        ("status", {"really": True}, "really"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line_and_the_talk_goes_on(control, command, arguments, says):
    with pytest.raises(ValueError, match=says) as refused:
        control.ask(command, **arguments)
    assert "\n" not in str(refused.value)
    assert control.ask("status")["follower"]["plugged_in"]


def test_a_line_that_is_no_json_is_answered_too(control, tmp_path):
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(tmp_path / "control"))
        stranger.sendall(b"[1\n")
        assert json.loads(stranger.makefile().readline())["ok"] is False


def test_an_arm_that_somebody_carries_is_where_it_is_carried_to(control):
    there = [0.1, -0.2, 0.3, -0.4, 0.5, 0.6]
    assert control.ask("carry", joints=there, arm="leader", wait=True)["joints"] == pytest.approx(there, abs=0.03)


def test_two_arms_are_calibrated_each_in_its_own_way(control):
    follower, leader = (control.ask("calibration", arm=arm)["calibration"] for arm in ("follower", "leader"))
    assert follower.keys() == leader.keys() == set(arm_spec("so101").names)
    assert follower != leader


def test_the_twin_goes_with_its_parent_and_takes_its_port_along(tmp_path):
    twin = TwinProcess(tmp_path)
    assert twin.port.is_symlink()
    twin._process.stdin.close()  # as the system does when the parent dies
    assert twin._process.wait(20) == 0
    assert not twin.port.is_symlink()
    twin._process.stdout.close()


def test_nobody_listens_where_there_is_no_twin(tmp_path):
    with pytest.raises(ConnectionError, match=r"no twin listens at .*start it with --control"):
        TwinControl(tmp_path / "control")


def test_a_twin_says_where_it_is_and_in_the_end_what_was_done_to_it(tmp_path, capsys):
    assert main(["twin", "--port", str(tmp_path / "port"), "--duration", "0.3", "--json", str(tmp_path / "end")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0].removeprefix("twin:")) == {"port": str(tmp_path / "port")}
    assert json.loads((tmp_path / "end").read_text())["follower"]["counts"]["goals"] == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--task", "juggle"], "unknown task 'juggle'; there are: lift"),
        (["--cameras", "0"], "no scene; start it with a task"),
        (["--task", "lift", "--camera-offset", "front=1"], "must read NAME=X,Y,Z"),
        (["--task", "lift", "--camera-offset", "side=0,0,0"], "no camera 'side' to be off; there are: front, wrist"),
        (["--faults", "nowhere.json"], "nowhere.json"),
        (["--port", "{file}"], "is a file; the twin's port must be a link"),
        (["--leader", "{file}"], "is a file; the twin's port must be a link"),
        (["--control", "{file}"], "is no socket; choose another place for --control"),
    ],
)
def test_bad_input_is_one_line_that_says_what_there_is(tmp_path, capsys, flags, says):
    (tmp_path / "a_file").write_text("precious")
    given = [f.format(file=tmp_path / "a_file") for f in flags]
    port = [] if "--port" in flags else ["--port", str(tmp_path / "port")]
    assert main(["twin", *port, *given, "--duration", "0.1"]) == 1
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert (tmp_path / "a_file").read_text() == "precious"
    assert not (tmp_path / "port").is_symlink()


def test_a_camera_port_that_is_taken_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        command = ["twin", "--task", "lift", "--port", str(tmp_path / "port"), "--cameras", number, "--duration", "1"]
        done = subprocess.run([sys.executable, "-m", "vla_rl", *command], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"no camera port {number}" in done.stderr


def test_a_script_begins_with_the_twin(tmp_path):
    script = tmp_path / "faults.json"
    script.write_text(json.dumps([{"kind": "overheated", "servo": 3}]))
    with TwinProcess(tmp_path / "t", faults=script) as twin:
        time.sleep(0.1)
        assert [s["error"] for s in twin.status()["follower"]["servos"].values()] == [0, 0, 4, 0, 0, 0]
