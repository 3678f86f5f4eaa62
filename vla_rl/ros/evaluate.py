"""Evaluation through the graph: the episodes of `vla-rl eval`, played by real nodes in real time.

::

    control/pause -> robot: task, seed, variant -> sim/reset -> control/resume -> ... success or time limit

A `GraphPlayer` takes the place of a `rollout.play.Player`, so that log, films, report and result are those of eval, and
episodes pair with those played in one process. A pause flushes every chunk, and a resume takes only chunks that answer
a newer observation: nothing planned in one episode moves the arm in the next.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from vla_rl import build
from vla_rl.robot import arm_spec
from vla_rl.rollout.play import Job, Rollout
from vla_rl.rollout.world import World
from vla_rl.ros import messages, qos
from vla_rl.ros.bringup.options import SIM_OPTIONS, sim_graph
from vla_rl.ros.measure.pace import Pace
from vla_rl.ros.measure.stage import Stage
from vla_rl.ros.measure.watch import Status
from vla_rl.types import Outcome, Source, Termination


def make_player(
    env: build.EnvConfig, policy: str, asked: Mapping[str, str] | None = None, logs: str = ""
) -> GraphPlayer:
    """A player on a graph that it starts, and stops when it is closed.

    Args:
        env: the tasks, as `build.fit_env` fits them to the policy.
        policy: a checkpoint folder.
        asked: further options of `sim_graph`: candidates, selector, joining, ....
        logs: folder for the nodes' logs; "" keeps none.

    Raises:
        ValueError: an environment or a policy that the graph cannot run.
    """
    if env.env or policy in build.SCRIPTED:
        raise ValueError(f"--graph runs our own tasks with a checkpoint, not {env.env or policy}; leave out --graph")
    options = {"policy": policy, "cameras": ",".join(env.cameras), "image_size": str(env.image_size)}
    options |= {"randomisation": env.randomisation, "phrasings": env.phrasings, **(asked or {})}
    return GraphPlayer(Stage(sim_graph(options), arm_spec("so101"), logs), env)


def joining(asked: str = "") -> str:
    """How a graph that was asked for this joins chunks."""
    return asked or next(option.default for option in SIM_OPTIONS if option.name == "joining")


class GraphPlayer:
    """Plays jobs one after the other on a graph.

    Args:
        stage: a graph in simulation, in real time; stopped by `close`.
        env: the tasks as the graph's robot has them.

    Attributes:
        actor: what a caller of `Player` asks for.
        pace: whether machine and policy kept up with real time.
    """

    def __init__(self, stage: Stage, env: build.EnvConfig) -> None:
        self._stage, self._watch, self._env = stage, stage.watch, env
        self._spec = stage.watch.spec
        self.actor = SimpleNamespace(slots=1, period=1)
        self.pace = Pace(self._spec.rate)
        self._waiting: deque[Job] = deque()
        self._scouts: dict[str, World] = {}
        self._film: list[NDArray[np.uint8]] = []
        self._filming = False
        if env.cameras:
            self._watch.listen(Image, f"camera/{env.cameras[0]}/image_raw", self._shoot, qos.LATEST)

    @property
    def busy(self) -> bool:
        """Whether a tick would do anything."""
        return bool(self._waiting)

    def add(self, job: Job) -> None:
        """Queue a job."""
        self._waiting.append(job)

    def tick(self) -> list[Rollout]:
        """Play the next episode from reset to end.

        Raises:
            RuntimeError: the graph failed; the message names the node.
            TimeoutError: it went silent.
        """
        job = self._waiting.popleft()
        variant = self._scout(job.task).variant(job.seed, job.choice)
        self._film.clear()
        begun = self._stage.new_episode(job.task, job.seed, -1 if variant is None else variant)
        self._filming = job.film
        *_, last = self._stage.rest_of(begun)
        self._filming = False
        self.pace.add(self._watch.heard, begun.stamp_ns, last.received_ns)
        return [self._finish(job, begun, last)]

    def close(self) -> None:
        """Stop the graph with the arm held."""
        for scout in self._scouts.values():
            scout.close()
        self._stage.close()

    def _finish(self, job: Job, begun: Status, last: Status) -> Rollout:
        heard, success = self._watch.heard, bool(last.values["success"])
        ticks = [t for t in heard.ticks if t.received_ns <= last.received_ns]
        acted = next((t.received_ns for t in ticks if t.source is Source.POLICY), last.received_ns)
        statuses = [s for s in heard.statuses if begun.received_ns <= s.received_ns <= last.received_ns]
        executed = np.array([t.executed for t in ticks], dtype=np.float32)
        meta = {
            "task": job.task,
            "seed": job.seed,
            "choice": job.choice,
            "variant": self._scout(job.task).variant(job.seed, job.choice),
            "instruction": begun.instruction,
            "target": last.target,
            "touched": last.touched,
            "outcome": str(Outcome.SUCCESS if success else Outcome.FAILURE),
            "termination": str(Termination.SUCCESS if success else Termination.TIME_LIMIT),
            "steps": len(statuses),
            "return": sum(s.values["reward"] for s in statuses),
            "cycle_time_s": sum(s.received_ns > acted for s in statuses) / self._spec.rate if success else None,
            "invalid": "",
            "actions": hashlib.sha256(executed.tobytes()).hexdigest()[:16],
            "fps": self._spec.rate,
        }
        return Rollout(job, meta, {}, np.stack(self._film) if self._film else None)

    def _scout(self, task: str) -> World:
        """The task without cameras: it knows how many things of a scene can be named."""
        if task not in self._scouts:
            self._scouts[task] = build.make_world(replace(self._env, cameras=()), task)
        return self._scouts[task]

    def _shoot(self, message: Any, received_ns: int, sent_ns: int) -> None:
        if self._filming:
            self._film.append(messages.image_of(message).copy())
