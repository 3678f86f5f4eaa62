"""`vla-rl up sim`: wrong input in one line, and the real nodes from start to Ctrl-C."""

import json
import os
import signal
import subprocess
import sys

import pytest

from vla_rl.cli import main

REFUSED = {
    "domain": (("--task", "lift"), {"ROS_DOMAIN_ID": "4711"}, "ROS_DOMAIN_ID is '4711'; it must be a whole number"),
    "selector": (("--selector", "best"), {}, "unknown selector 'best'; there are: first"),
    "remapping": (("--remap", "joint_states:="), {}, "remaps 'joint_states' to nothing"),
    "node": (("--param", "cntrol.joining=blend"), {}, "no node 'cntrol'; there are: robot, control, steering, policy"),
    "file": (("--params-file", "/no/such.yaml"), {}, "parameter file /no/such.yaml cannot be read"),
}


def command(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "vla_rl", "up", "sim", *arguments], env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_one_line_before_anything_starts(name, monkeypatch, capsys):
    arguments, environment, said = REFUSED[name]
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    assert main(["up", "sim", *arguments]) == 1
    for number, handler in before.items():
        signal.signal(number, handler)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert said in line


def test_two_rclpys_are_refused_and_named(tmp_path):
    (tmp_path / "rclpy").mkdir()
    (tmp_path / "rclpy" / "__init__.py").touch()
    process = command(PYTHONPATH=str(tmp_path))
    error = process.communicate()[1]
    assert process.returncode == 1
    assert error.count("\n") == 1
    assert f"2 rclpys: {tmp_path}" in error or f"and {tmp_path}" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--task", "lft"), "robot: unknown task 'lft'; there are: lift, place"),
        (("--param", "control.jonas=1"), "control: unknown parameter 'jonas' of control; there are: arm, "),
    ],
)
def test_what_only_a_node_knows_ends_the_graph_with_the_nodes_own_line(arguments, said):
    process = command("--namespace", "refused", *arguments)
    error = process.communicate()[1]
    assert process.returncode == 1
    assert error.strip().splitlines()[-1].startswith(f"vla-rl: {said}"), error


def test_the_real_graph_moves_the_arm_and_leaves_when_it_is_told_to(tmp_path):
    file = tmp_path / "up.json"
    process = command("--namespace", "up", "--json", str(file), "--start-timeout", "500", "--logs", str(tmp_path))
    said = []
    for line in process.stdout:
        said.append(line)
        if "first chunk" in line:
            process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode == 0, f"{''.join(said)}{error}"
    assert error.strip() == "vla-rl: stopped; the arm is held"
    result = json.loads(file.read_text())
    assert result["failure"] == ""
    assert result["first_chunk_s"] > 0
    assert set(result["restarts"].values()) == {0}
    assert set(result["exits"]) == {"robot", "policy_steering", "control"}
    assert set(result["exits"].values()) == {0}
