"""LeRobot's own follower and leader drivers at 30 Hz, as in teleoperation: read both arms, send the leader's pose."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl.bench.on_twin.bench_arm import SPEC, Clock, a_twin
from vla_rl.hardware.twin.process import TwinProcess

POSE_S = 0.8  # somebody carries the leader to another pose so often


def run(seconds: float, quick: bool) -> dict[str, float]:
    """Teleoperate for so long.

    Returns:
        minutes, read_write_errors, periods, periods_missed, goals_unheard: goals sent that the servos did not get.
    """
    with a_twin(task="lift") as twin:
        follower, leader = _devices(twin.port, twin.leader_port, twin.calibration)
        follower.connect(calibrate=False)
        leader.connect(calibrate=False)
        done, errors, clock = threading.Event(), 0, Clock()
        person = threading.Thread(target=_carry, args=(twin, done))
        person.start()
        gc.freeze()  # to look through all that LeRobot loads takes longer than it waits for a servo, 50 ms
        before, periods = twin.status()["follower"]["counts"]["goals"], round(seconds * SPEC.rate)
        for _ in range(periods):
            try:
                follower.get_observation()
                follower.send_action(leader.get_action())
            except (ConnectionError, RuntimeError, OSError):
                errors += 1
            clock.tick()
        done.set()
        person.join()
        heard = (twin.status()["follower"]["counts"]["goals"] - before) / len(SPEC.joints)
        follower.disconnect()
        leader.disconnect()
    return {
        "minutes": seconds / 60,
        "periods": periods,
        "read_write_errors": errors,
        "periods_missed": clock.missed,
        "goals_unheard": periods - errors - heard,
    }


def _devices(port: Path, leader_port: Path, calibration: Path) -> tuple[Any, Any]:
    from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig
    from lerobot.teleoperators.so_leader import SO101Leader, SO101LeaderConfig

    follower = SO101Follower(SO101FollowerConfig(port=str(port), id="follower", calibration_dir=calibration))
    leader = SO101Leader(SO101LeaderConfig(port=str(leader_port), id="leader", calibration_dir=calibration))
    return follower, leader


def _carry(twin: TwinProcess, done: threading.Event) -> None:
    """Carry the leader about."""
    rng = np.random.default_rng(0)
    while not done.wait(POSE_S):
        pose = rng.uniform(SPEC.low * 0.5, SPEC.high * 0.5)
        twin.ask("carry", joints=pose.tolist(), arm="leader")
