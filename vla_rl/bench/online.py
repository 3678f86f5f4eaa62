"""An online session: a policy is corrected on the running graph and gets better meanwhile, all in real time.

::

    graph      plays WORK/session, episode after episode, tasks in turn, with a scripted operator
    learner    `vla-rl improve --online` beside it: WORK/learned/versions, which the graph takes over

The setup is that of `bench improve`. It is over after `episodes` of each task; what the operator drove of the first
and of the last WINDOW episodes says whether it paid. Needs two cores that have nothing else to do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl import build
from vla_rl.bench.improve import Setup

if TYPE_CHECKING:
    from vla_rl.ros.measure.corrected_session import Played

SESSION = 44_000  # first scene: apart from demonstrations' and from those that test
WINDOW = 60  # episodes of a point of the curve: ten of each task
STOP_S = 60.0


def run(quick: bool = False, setup: str = "", work: str = "") -> dict[str, Any]:
    """Play the session with the learner beside it, and sum up what was recorded.

    Args:
        quick: two episodes a task and rounds of a few steps: whether it works, not what it brings.
        setup: JSON file, see `vla_rl.bench.improve.Setup`; its `rounds` are not counted here: `every` so many episodes.
        work: folder for session and learner; a session that is there is gone on with.

    Returns:
        `metrics`: episodes, versions that were pushed, robot_minutes, human_minutes; of the first and the last window
        intervention_rate, autonomous (share done without help) and success; starved: share of the periods in which the
        arm waited for a chunk, of the episodes played now. `against`: the same window by window, by number.

    Raises:
        ValueError: no setup or work folder.
    """
    if not setup or not work:
        raise ValueError("bench online needs --setup FILE and --work DIR; docs/improving.md has a setup")
    found, place = Setup.load(Path(setup)), Path(work).resolve()
    place.mkdir(parents=True, exist_ok=True)
    count = len(build.task_names()) * (2 if quick else found.episodes)
    starved = _play(found, place, count, quick)
    points = _curve(place / "session", max(count // 6, 1) if quick else WINDOW)
    figures = metrics(points) | {"starved": starved, "versions": _versions(place)}
    return {"metrics": figures, "against": _by_number(points)}


def metrics(points: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The figures of a curve, see `vla_rl.learn.rounds.curve`."""
    said = {
        f"{name}_{when}": point[name]
        for when, point in (("first", points[0]), ("last", points[-1]))
        for name in ("intervention_rate", "autonomous", "success")
    }
    totals = {name: sum(point[name] for point in points) for name in ("episodes", "robot_minutes", "human_minutes")}
    return said | totals


def _by_number(points: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    shown = ("intervention_rate", "autonomous", "success", "human_minutes_so_far")
    return {f"window {number}": {name: point[name] for name in shown} for number, point in enumerate(points, 1)}


@contextmanager
def _learner(setup: Setup, place: Path, quick: bool) -> Iterator[Callable[[], None]]:
    """`vla-rl improve --online`, until the session is over; gives what raises RuntimeError once it has ended."""
    steps, every = (5, 4) if quick else (setup.steps, setup.every)
    training = {"method": setup.method, "every": every, "steps": steps, "batch": setup.batch, "lr": setup.lr}
    flags = [text for name, value in {**training, "pace": setup.pace}.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "vla_rl", "improve", "--online", "--session", str(place / "session")]
    command += ["--out", str(place / "learned"), "--policy", setup.policy, "--data", *setup.data]
    command += [*flags, *setup.options]
    from vla_rl.ros.leaving import follow

    end_with_us = partial(follow, os.getpid(), signal.SIGINT)
    with (place / "learner.log").open("w") as log:
        learner = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=end_with_us
        )

        def check() -> None:
            if learner.poll() is not None:
                raise RuntimeError(f"the learner ended (status {learner.returncode}): see {place / 'learner.log'}")

        try:
            yield check
        finally:
            learner.send_signal(signal.SIGINT)
            try:
                learner.wait(STOP_S)
            except subprocess.TimeoutExpired:
                learner.kill()
                learner.wait()


def _play(setup: Setup, place: Path, count: int, quick: bool) -> float:
    """So many episodes beside the learner, tasks in turn; the share of the periods in which the arm had no chunk."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    from vla_rl.hil.scripted import OperatorConfig
    from vla_rl.record.folder import SessionFolder, is_session
    from vla_rl.robot import arm_spec
    from vla_rl.ros.bringup.options import correct_graph
    from vla_rl.ros.measure.corrected_session import CorrectedSession, leader_parameters
    from vla_rl.ros.measure.stage import Stage

    policy = build.check_policy(setup.policy)
    env = build.fit_env(build.EnvConfig(), policy)
    asked = {"policy": policy, "session": str(place / "session"), "console": "false"}
    asked |= {"cameras": ",".join(env.cameras), "image_size": str(env.image_size)}
    operator, tasks = OperatorConfig.parse(setup.operator), build.task_names()
    played = len(SessionFolder(place / "session").episodes()) if is_session(place / "session") else 0
    rules = [*leader_parameters(operator), f"policy.versions={place / 'learned/versions/policy'}", *setup.graph]
    stage = Stage(correct_graph(asked, rules), arm_spec("so101"), str(place / "logs"))
    try:
        session = CorrectedSession(stage, operator)
        with _learner(setup, place, quick) as check:
            for number in range(played, count):
                check()
                task = tasks[number % len(tasks)]
                _tell(f"{number + 1}/{count} {task}", session.play(task, SESSION + number))
        return session.pace.held / max(session.pace.periods, 1)
    finally:
        stage.close()


def _tell(episode: str, played: Played) -> None:
    came_to = "success" if played.success else "failure"
    print(f"vla-rl: {episode}, version {played.version}: {came_to}, {played.takeovers} takeovers", file=sys.stderr)


def _curve(session: Path, window: int) -> list[dict[str, Any]]:
    from vla_rl.data.cache import open_numbers
    from vla_rl.data.sessions import dataset_of
    from vla_rl.learn.rounds import curve

    return curve([open_numbers(dataset_of(session))], window)


def _versions(place: Path) -> int:
    from vla_rl.learn import versions

    newest = versions.newest(place / "learned/versions/policy")
    return newest.number if newest else 0
