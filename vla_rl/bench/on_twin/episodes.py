"""The shipped policy through the whole hardware path on the twin, and through the same graph in simulation.

Between two episodes on the twin somebody does what a person at a real arm does: takes over, drives the arm to where the
episode starts, pauses, lays the things out anew, says what to do, and resumes.
"""

from __future__ import annotations

import json
import os
import time
from functools import partial
from typing import Any

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool

from vla_rl import build
from vla_rl.bench.on_twin.bench_arm import SPEC, Clock, a_twin
from vla_rl.hardware.twin.process import TwinProcess
from vla_rl.rollout.play import Job
from vla_rl.rollout.world import World
from vla_rl.ros import messages, qos
from vla_rl.ros.bringup.robot_options import robot_graph
from vla_rl.ros.evaluate import make_player
from vla_rl.ros.measure.pace import Pace
from vla_rl.ros.measure.stage import FRESH, RESET_S, Stage
from vla_rl.types import Array

POLICY, TASKS = "tabletop", ("lift", "push", "button")
EPISODES, QUICK_EPISODES = 50, 3
FIRST_SEED = 1_000_000
ARRIVED_RAD, DRIVE_S = 0.04, 15.0
LONGEST_S = 60.0  # of an episode, beyond every task's own limit


def run(seconds: float, quick: bool) -> dict[str, float]:
    """The same scenes on the twin and in simulation, both through the graph and in real time.

    Returns:
        episodes; success_twin, success_sim, and the same `_<task>`; success_gap_points, the largest of a task;
        starved_twin, starved_sim: share of the periods in which the arm waited for a chunk, of the worst task: beyond a
        few percent the figures say more of the machine than of the path.
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    episodes = QUICK_EPISODES if quick else EPISODES
    policy = build.check_policy(POLICY)
    env = build.fit_env(build.EnvConfig(), policy)
    seeds = range(FIRST_SEED, FIRST_SEED + episodes)
    figures: dict[str, float] = {"episodes": float(episodes * len(TASKS))}
    for where, play in (("twin", _on_twin), ("sim", _in_simulation)):
        played = {task: play(task, env, policy, seeds) for task in TASKS}
        figures |= {f"success_{where}_{task}": float(np.mean(successes)) for task, (successes, _) in played.items()}
        figures[f"success_{where}"] = float(np.mean([successes for successes, _ in played.values()]))
        figures[f"starved_{where}"] = max(pace.held / max(pace.periods, 1) for _, pace in played.values())
    gaps = [abs(figures[f"success_twin_{task}"] - figures[f"success_sim_{task}"]) for task in TASKS]
    return figures | {"success_gap_points": 100 * max(gaps)}


def _in_simulation(task: str, env: build.EnvConfig, policy: str, seeds: range) -> tuple[list[bool], Pace]:
    player = make_player(env, policy)
    try:
        for i, seed in enumerate(seeds):
            player.add(Job(i, task, seed))
        return [player.tick()[0].meta["outcome"] == "success" for _ in seeds], player.pace
    finally:
        player.close()


def _on_twin(task: str, env: build.EnvConfig, policy: str, seeds: range) -> tuple[list[bool], Pace]:
    scout = build.make_world(build.EnvConfig(cameras=()), task)
    with a_twin(task=task, cameras=0, image_size=env.image_size) as twin:
        desk = Desk(twin, policy)
        try:
            return [desk.play(scout, seed) for seed in seeds], desk.pace
        finally:
            desk.close()
            scout.close()


class Desk:
    """A graph on a twin, and the person at it.

    Args:
        twin: with cameras.
        policy: folder of the checkpoint that drives.
        asked: further options of the robot's graph.

    Attributes:
        pace: whether machine and policy kept up with real time.
    """

    def __init__(self, twin: TwinProcess, policy: str, **asked: str) -> None:
        self._twin = twin
        self._stage = Stage(robot_graph(_options(twin, policy) | asked), SPEC)
        self._watch, self.pace = self._stage.watch, Pace(SPEC.rate)
        node = self._watch.node
        self._human = node.create_publisher(JointState, "human/command", qos.OFFER)
        self._instruction = node.create_publisher(String, "instruction", qos.LATCHED)

    def play(self, scout: World, seed: int) -> bool:
        """One episode from its preparation to its end; whether it succeeded."""
        begun_ns = self.prepare(scout, seed)
        self._watch.trigger("control/resume")
        success = self.wait_for_end()
        self.pace.add(self._watch.heard, begun_ns, time.time_ns())
        return success

    def prepare(self, scout: World, seed: int) -> int:
        """A scene and an arm ready to begin, paused, and a policy that has seen them; since when it has [ns]."""
        variant = scout.variant(seed, 0)
        start = scout.reset(seed).columns["observation.state"]
        self._drive_to(SPEC.from_lerobot(np.asarray(start, dtype=np.float64)))
        self._watch.trigger("control/pause")
        begun = self._twin.ask("reset", seed=seed, variant=variant, place_arm=False)
        self._instruction.publish(String(data=begun["instruction"]))
        self._watch.clear()
        fresh_ns = time.time_ns() + round(FRESH * 1e9 / SPEC.rate)
        self._stage.until(lambda: max(self._watch.heard.spans_ns, default=0) > fresh_ns, RESET_S, "a fresh chunk")
        return fresh_ns

    def wait_for_end(self, longest_s: float = LONGEST_S) -> bool:
        """Wait until the episode ends, or for so long; whether it succeeded."""
        end = time.monotonic() + longest_s
        while time.monotonic() < end:
            self._stage.wait(0.1)
            task = self._twin.status()["task"]
            if task["success"] or task["terminated"] or task["truncated"]:
                return bool(task["success"])
        return False

    def take_over(self) -> None:
        """A human has the arm."""
        self._watch.call(SetBool, "control/take_over", SetBool.Request(data=True))

    def _drive_to(self, joints: Array) -> None:
        """Take over and drive the arm there.

        Raises:
            TimeoutError: it does not get there.
        """
        self.take_over()
        clock, end = Clock(), time.monotonic() + DRIVE_S
        while np.abs(self.joints() - joints).max() > ARRIVED_RAD:
            self._steer(joints)
            clock.tick()
            self._stage.poll()
            if time.monotonic() > end:
                raise TimeoutError(f"the arm does not reach {joints.round(2)}: it is at {self.joints().round(2)}")

    def _steer(self, joints: Array) -> None:
        """Say where the arm should go (J,) [rad], once a period."""
        self._human.publish(messages.joint_state(SPEC.names, joints, time.time_ns()))

    def joints(self) -> Array:
        """Where the arm is, (J,) [rad]."""
        return np.array([servo["joint"] for servo in self._twin.status()["follower"]["servos"].values()])

    def close(self) -> None:
        """Stop the graph with the arm held."""
        self._stage.close()


def _options(twin: TwinProcess, policy: str) -> dict[str, str]:
    """What is asked of the robot graph for this twin."""
    camera: Any = partial(dict, type="zmq", server_address="127.0.0.1", fps=30)
    size = twin.image_size
    cameras = {n: camera(port=p, camera_name=n, width=size, height=size) for n, p in twin.camera_ports.items()}
    return {
        "policy": policy,
        "port": str(twin.port),
        "id": "follower",
        "calibration": str(twin.calibration),
        "camera_devices": json.dumps(cameras),
        "instruction": twin.status()["instruction"],
    }
