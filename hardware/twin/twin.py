"""Twin: an arm that is not there, for drivers that do not know; with a leader, cameras and somebody to talk to."""

from __future__ import annotations

import gc
import json
import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl.hardware.twin.arm import ArmConfig, Calibration, TwinArm
from vla_rl.hardware.twin.body import Body, Stage
from vla_rl.hardware.twin.faults import Fault
from vla_rl.hardware.twin.journal import Event
from vla_rl.hardware.twin.priority import ahead, answer_at_once
from vla_rl.hardware.twin.servo import ServoConfig
from vla_rl.types import Array

TICK_S = 1 / 240  # the world moves at least so often
MOVE_S = 1 / 30  # from one move of the expert to the next
PATIENCE_S = 10.0


@dataclass(frozen=True)
class TwinConfig:
    """What stands on the table.

    Attributes:
        port: where a driver finds the follower's bus: a link that the twin makes.
        leader: the same for a leader arm; None for none.
        task: what the scene is about; "" for an arm without physics, scene and cameras.
        seed: of the scene, of how the servos are mounted, and of what faults draw.
        calibrated: the servos keep a calibration, `Twin.calibration`; else they are as new.
        delay_ms: from a goal's arrival until the motor follows it.
        gain_scale: multiple of the model's stiffness and damping.
        backlash_rad: play between motor and joint [rad].
        camera_offsets: camera to how far it is off: x, y, z [m] and turns about its own x, y, z [rad].
        image_size: of the cameras, height and width [pixels].
        randomisation, phrasings: of the scene and its instruction, as in simulation.
        faults: a script that begins with the twin.
        control: where others talk to it, a Unix socket; None for nowhere.
        cameras: first of the ports at which LeRobot's `ZMQCamera` finds its pictures, 0 for any, None for no pictures.
        fps: pictures a second.
        own_process: nothing else lives in this process: the thread that starts the twin goes before others meanwhile.
    """

    port: Path
    leader: Path | None = None
    task: str = ""
    seed: int = 0
    calibrated: bool = True
    delay_ms: float = 0.0
    gain_scale: float = 1.0
    backlash_rad: float = 0.0
    camera_offsets: Mapping[str, Sequence[float]] = field(default_factory=dict)
    image_size: tuple[int, int] = (96, 96)
    randomisation: str = "train"
    phrasings: str = "train"
    faults: tuple[Fault, ...] = ()
    control: Path | None = None
    cameras: int | None = None
    fps: float = 30.0
    own_process: bool = False

    @property
    def arm(self) -> ArmConfig:
        """How the follower is built."""
        servo = ServoConfig(self.delay_ms / 1000, self.gain_scale, self.backlash_rad)
        return ArmConfig(servo, self.calibrated, self.seed)


class Twin:
    """A follower, and perhaps a leader, on ports of their own, in real time; its methods are for any thread.

    Args:
        config: what stands on the table.
        body: what the follower's servos move.
        leader: what the leader's servos move; wanted where `config.leader` names a port.

    Attributes:
        camera_ports: camera to port, once it has started.
    """

    def __init__(self, config: TwinConfig, body: Body, leader: Body | None = None) -> None:
        self.config, self._body = config, body
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._follower = TwinArm(body, config.port, config.arm, time.monotonic())
        self._leader: TwinArm | None = None
        if config.leader is not None and leader is not None:
            self._leader = self._make_leader(config.leader, leader)
        self._arms = [arm for arm in (self._follower, self._leader) if arm is not None]
        self._wake = os.pipe()
        self._thread = threading.Thread(target=self._run, name="twin", daemon=True)
        self._servers = ExitStack()
        self._expert: Callable[[], Array] | None = None
        self._next_move = 0.0
        self.camera_ports: Mapping[str, int] = {}

    def _make_leader(self, link: Path, body: Body) -> TwinArm:
        of_leader = ArmConfig(calibrated=self.config.calibrated, seed=self.config.seed + 1)
        try:
            return TwinArm(body, link, of_leader, time.monotonic())
        except OSError:
            self._follower.line.hang_up()
            raise

    @property
    def port(self) -> Path:
        """Where a driver finds the follower."""
        return self._follower.line.port.link

    @property
    def leader_port(self) -> Path:
        """Where a driver finds the leader.

        Raises:
            ValueError: there is none.
        """
        return self._arm("leader").line.port.link

    @property
    def lock(self) -> threading.RLock:
        """Held while anything of the twin changes."""
        return self._lock

    @property
    def body(self) -> Body:
        """What the follower's servos move."""
        return self._body

    @property
    def stopped_cameras(self) -> frozenset[str]:
        """Cameras that stand still by script; "" for all."""
        return self._follower.faults.stopped

    def start(self) -> Twin:
        """Let time run."""
        from vla_rl.hardware.twin.cameras import CameraServer
        from vla_rl.hardware.twin.control import ControlServer

        self.faults(self.config.faults)
        if self.config.own_process:
            self._servers.enter_context(ahead())
        self._thread.start()
        try:
            if self.config.control is not None:
                self._servers.callback(ControlServer(self, self.config.control).close)
            if self.config.cameras is not None:
                cameras = CameraServer(self, self.config.cameras, self.config.fps)
                self._servers.callback(cameras.close)
                self.camera_ports = cameras.ports
        except BaseException:
            self.close()
            raise
        if self.config.own_process:
            gc.freeze()  # to look through all that was loaded takes longer than a driver waits for a servo
        return self

    def close(self) -> None:
        """Stop; the ports are gone."""
        self._servers.close()
        self._stop.set()
        os.write(self._wake[1], b"x")
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            for arm in self._arms:
                arm.line.hang_up()
                arm.body.close()
        for end in self._wake:
            os.close(end)

    def save_calibration(self, folder: Path) -> None:
        """Write each arm's calibration as LeRobot keeps it: FOLDER/follower.json and FOLDER/leader.json."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, arm in (("follower", self._follower), ("leader", self._leader)):
            if arm is not None:
                (folder / f"{name}.json").write_text(json.dumps(arm.calibration, indent=4))

    def __enter__(self) -> Twin:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        answer_at_once()
        while not self._stop.is_set():
            lines = [arm.line for arm in self._arms]
            ends = [line.port.fileno() for line in lines if line.port.plugged_in]
            due = min(line.due for line in lines) - time.monotonic()
            select.select([*ends, self._wake[0]], [], [], min(max(due, 0.0), TICK_S))
            with self._lock:
                for arm in self._arms:
                    arm.work(time.monotonic())
                self._guide(time.monotonic())

    def _arm(self, name: str) -> TwinArm:
        arms = {"follower": self._follower, "leader": self._leader}
        arm = arms.get(name)
        if arm is None:
            raise ValueError(f"the twin has no arm '{name}'; there are: {', '.join(n for n, a in arms.items() if a)}")
        return arm

    def calibration(self, arm: str = "follower") -> Calibration:
        """A careful calibration of an arm, as LeRobot's file has it."""
        return self._arm(arm).calibration

    def joints(self, arm: str = "follower") -> Array:
        """Where an arm really is, (J,) [rad]."""
        with self._lock:
            return self._arm(arm).body.joints

    def faults(self, script: Iterable[Fault], arm: str = "follower") -> None:
        """Begin a script; an empty one mends everything."""
        with self._lock:
            self._arm(arm).begin(script, time.monotonic())

    def carry(self, joints: Sequence[float] | Array | None, arm: str = "follower", wait: bool = False) -> None:
        """A hand moves an arm to joints (J,) [rad] and holds it; None lets go.

        Args:
            joints: where to.
            arm: which one.
            wait: return when it is there.

        Raises:
            TimeoutError: it does not get there.
        """
        world = self._arm(arm).world
        with self._lock:
            world.carry(None if joints is None else np.asarray(joints, dtype=np.float64))
        patience = time.monotonic() + PATIENCE_S
        while wait and not self._carried(arm):
            if time.monotonic() > patience:
                raise TimeoutError(f"the {arm} can not be carried to {joints}: something is in its way")
            time.sleep(TICK_S)

    def _carried(self, arm: str) -> bool:
        with self._lock:
            return self._arm(arm).world.carried

    def home(self) -> None:
        """Somebody carries the follower to where episodes start, and lets go of it there."""
        self.carry(self.stage.start, wait=True)
        self.carry(None)

    @property
    def stage(self) -> Stage:
        """The scene.

        Raises:
            ValueError: there is none.
        """
        if not isinstance(self._body, Stage):
            raise ValueError("the twin has no scene; start it with a task")
        return self._body

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None, place_arm: bool = True) -> None:
        """A new scene. The servos hold the arm where it is then: at the start, or with `place_arm` off where it was."""
        with self._lock:
            self.stage.reset(seed, options, place_arm)
            self._follower.world.replace()
            if self._expert is not None:
                self.operate(True)

    def operate(self, on: bool) -> None:
        """Somebody who knows the task carries the leader as the follower should move, or stops.

        Raises:
            ValueError: there is no leader, or no scene.
        """
        with self._lock:
            self._arm("leader")
            self._expert = self.stage.expert() if on else None

    def _guide(self, now: float) -> None:
        """The expert's next move, 30 times a second."""
        if self._expert is not None and now >= self._next_move:
            self._next_move = now + MOVE_S
            self._arm("leader").world.carry(self._expert())

    def status(self) -> dict[str, Any]:
        """What a driver has done to the twin, and what the task says of it; JSON-ready."""
        with self._lock:
            arms = {"follower": self._follower.status()}
            if self._leader is not None:
                arms["leader"] = self._leader.status()
            if not isinstance(self._body, Stage):
                return arms
            return arms | {"task": dict(self._body.status()), "instruction": self._body.instruction}

    def events(self, kind: str = "", since: float = 0.0, arm: str = "follower") -> list[Event]:
        """Goals, torque edges and faults of an arm, in order, from a time on (monotonic clock) [s]."""
        return self._arm(arm).journal.events(kind, since)
