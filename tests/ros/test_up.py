"""The supervisor on a graph of small real nodes: starting, restarting, stopping, and leaving nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sensor_msgs.msg import JointState

from vla_rl.ros.bringup.claim import Claim
from vla_rl.ros.bringup.graph import Graph, NodeSpec, ProcessSpec

TOYS = Path(__file__).parent
PATIENCE_S = 120.0  # nothing is judged by it: a loaded machine is slow


class Up:
    """A toy graph under a supervisor in a process of its own."""

    def __init__(self, namespace, **ask):
        environment = {**os.environ, "PYTHONPATH": str(TOYS)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "toys.up", json.dumps({"namespace": namespace, **ask})],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self.said = []

    def until(self, text):
        """Read on until a line has this text."""
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            if text in line:
                return
        raise AssertionError(f"'{text}' was never said: {self.said}")

    def children(self):
        """Pids of its processes."""
        return [int(p) for p in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]

    def child(self, name):
        """Pid of one of them."""
        return next(
            pid for pid in self.children() if f"toys.{name}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        )

    def end(self):
        """Wait for its end; returns status and what it reports."""
        self.said += self.process.communicate(timeout=PATIENCE_S)[0].splitlines()
        return self.process.returncode, json.loads(self.said[-1]) if self.said[-1].startswith("{") else {}


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def gone(pids):
    """Whether all are gone, in time."""
    end = time.monotonic() + PATIENCE_S
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


@pytest.fixture
def up(request):
    started = []

    def start(namespace="", **ask):
        started.append(Up(namespace or f"t{abs(hash(request.node.name)) % 10**9}", **ask))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


def order(said, *texts):
    """Positions of lines in what was said."""
    places = [next(i for i, line in enumerate(said) if text in line) for text in texts]
    return places == sorted(places)


def test_nodes_are_activated_in_order_however_slow_one_is_and_the_robot_leaves_last(up, tmp_path):
    graph = up(control={"configure_s": 9.0}, once=True, logs=str(tmp_path))  # long enough for calls to go unanswered
    status, report = graph.end()
    assert (status, report["failure"]) == (0, "")
    assert report["ready_s"] > 9.0
    assert report["first_chunk_s"] is not None
    assert order(
        graph.said, "control         | activated", "steering        | activated", "policy          | activated"
    )
    assert order(graph.said, "control         | deactivated", "control         | leaves", "robot           | leaves")
    assert {p.name for p in tmp_path.iterdir()} >= {"control.log", "steering.log", "policy.log", "supervisor.log"}
    assert "activated" in (tmp_path / "control.log").read_text()
    assert "steering" not in (tmp_path / "policy.log").read_text()


def test_a_node_that_refuses_ends_it_with_the_nodes_own_reason(up):
    status, report = up(policy={"refuse": "configure"}).end()
    assert (status, report["failure"]) == (1, "policy: no configure today")


def test_what_never_worked_is_not_started_again(up):
    status, report = up(control={"no_such": 1}).end()
    assert (status, report["failure"]) == (1, "control: unknown parameter 'no_such'")
    assert set(report["restarts"].values()) == {0}


def test_what_worked_is_started_again_three_times_and_no_more(up):
    graph = up(control={"life_s": 0.5})
    status, report = graph.end()
    assert status == 1
    assert report["restarts"] == {"robot": 0, "policy_steering": 0, "control": 3}
    assert report["failure"] == "control ended with status 4, after 3 restarts: I cannot go on"
    assert sum("control         | activated" in line for line in graph.said) == 4


def test_a_start_that_takes_too_long_ends_and_says_who_is_late(up):
    status, report = up(policy={"configure_s": 1000.0}, patience_s=8.0).end()
    assert status == 1
    assert report["failure"].startswith("not ready after 8 s: ")
    assert "policy" in report["failure"]


@pytest.mark.parametrize(("number", "moment"), [(signal.SIGINT, "|"), (signal.SIGTERM, "robot is ready")])
def test_a_signal_stops_everything_also_while_it_starts(up, number, moment):
    graph = up(control={"configure_s": 2.0})
    graph.until(moment)
    children = graph.children()
    os.killpg(graph.process.pid, number)  # as a terminal does it
    os.killpg(graph.process.pid, number)  # and an impatient person
    status, report = graph.end()
    assert (status, report["failure"]) == (0, "")
    assert gone(children)


def test_a_node_that_does_not_listen_is_stopped_all_the_same(up):
    graph = up(control={"deaf": True})
    graph.until("policy_steering is ready")
    pids = graph.children()
    os.kill(graph.child("robot"), signal.SIGSTOP)
    graph.process.send_signal(signal.SIGINT)
    status, report = graph.end()
    assert status == 0
    assert (report["exits"]["control"], report["exits"]["robot"]) == (-9, -9)
    assert gone(pids)


def test_each_node_runs_once_in_a_namespace_and_another_graph_beside_it():
    here = {"namespace": "claims", "domain": 7}

    def graph(*names):
        nodes = (NodeSpec(name) for name in names)
        return Graph(tuple(ProcessSpec(node.name, node.name, (node,)) for node in nodes), here["namespace"])

    robot, recorder = Claim(graph("robot", "control"), here["domain"]), Claim(graph("recorder"), here["domain"])
    with pytest.raises(RuntimeError, match="runs already in namespace /claims of ROS domain 7, with control: stop it"):
        Claim(graph("hil", "control"), here["domain"])
    Claim(graph("hil"), here["domain"]).close()  # what was refused holds nothing
    robot.close()
    Claim(graph("control"), here["domain"]).close()
    recorder.close()


def test_two_robots_side_by_side_neither_share_a_namespace_nor_hear_each_other(up, peer):
    left, right = up("left"), up("right")
    left.until("policy_steering is ready")
    second = up("left")
    assert second.end()[0] == 1
    assert any("a graph runs already in namespace /left of ROS domain" in line for line in second.said)
    os.kill(left.child("policy_steering"), signal.SIGKILL)
    left.until("policy_steering was ended by SIGKILL; the arm holds; restart 1 of 3")
    left.until("policy_steering is ready")
    right.until("policy_steering is ready")
    heard = {side: peer.hear(JointState, f"/{side}/control/step") for side in ("left", "right")}
    peer.until(lambda: all(heard.values()))
    left.process.terminate()
    status, report = left.end()
    assert (status, report["restarts"]) == (0, {"robot": 0, "policy_steering": 1, "control": 0})
    heard["right"].clear()
    peer.until(lambda: heard["right"])
    children = right.children()
    right.process.kill()
    assert gone(children), "a supervisor that was killed leaves orphans"
    status, report = up("right", once=True).end()
    assert (status, report["failure"]) == (0, ""), "what a killed graph leaves in discovery must not stop the next one"
