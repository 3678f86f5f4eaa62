"""How the process of a node begins and ends: quietly, however early it is interrupted, and with its launch."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vla_rl.ros import start as starting

PROGRAM = [sys.executable, "-m", "vla_rl.ros.start"]
PATIENCE_S = 60.0  # nothing is judged by it: a loaded machine is slow


def begun(name):
    """A node's process that has just got hold of its signals: Python itself never catches SIGTERM."""
    process = subprocess.Popen([*PROGRAM, name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until(lambda: process.poll() is not None or caught(process.pid, signal.SIGTERM))
    return process


def caught(pid, number):
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", starting.NODES)
def test_a_signal_at_any_moment_of_the_start_ends_a_node_quietly(name, number):
    for longest_s in (0.05, 2.0):
        process = begun(name)
        time.sleep(random.uniform(0, longest_s))
        process.send_signal(number)
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
        assert "Traceback" not in said


def test_a_node_that_there_is_not_is_named_with_the_others():
    ended = subprocess.run([*PROGRAM, "robto_node"], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr == f"start: which node? There are: {', '.join(starting.NODES)}\n"


def test_nodes_do_not_outlive_a_launch_that_dies_without_stopping_them():
    launch = f"""
import os, subprocess, time
node = subprocess.Popen({[*PROGRAM, "control_node"]!r}, env={{**os.environ, {starting.LAUNCHER!r}: str(os.getpid())}})
print(node.pid, flush=True)
time.sleep(1000)
"""
    process = subprocess.Popen([sys.executable, "-c", launch], stdout=subprocess.PIPE, text=True, env={**os.environ})
    node = Path(f"/proc/{int(process.stdout.readline())}")
    until(lambda: caught(int(node.name), signal.SIGTERM))
    assert node.exists()
    process.kill()
    process.communicate()
    until(lambda: not node.exists() or "\nState:\tZ" in (node / "status").read_text())


def test_every_executable_stands_in_the_docs():
    page = (Path(__file__).parents[2] / "docs/launch.md").read_text()
    assert [name for name in starting.NODES if f"`{name}`" not in page] == []
