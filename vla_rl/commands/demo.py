"""See everything once: the shipped policy through the ROS 2 graph, then a correction session and what it bought.

  vla-rl demo --out outputs/demo

First the shipped policy plays all six tasks in real time. Then an early policy (`weak`) opens drawers, a scripted
operator takes over where it stalls, corrects it and drives on; of that session and some demonstrations of the expert's
`vla-rl improve` makes a better policy; both play the same scenes. OUT/report.html has all of it, OUT/corrections what
was made on the way. The same command goes on where an interrupted one stopped.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vla_rl import cli
from vla_rl.commands import Result

SESSION, DEMONSTRATIONS, BETTER, BEFORE, AFTER = "session", "demonstrations", "better", "before", "after"
_FIRST = {SESSION: "40000", DEMONSTRATIONS: "60000"}  # scenes: apart from each other's, and from those that test


@dataclass(frozen=True)
class Lesson:
    """A correction session and what is made of it, short enough to watch.

    Attributes:
        policy: who is corrected.
        task: at what.
        operator: of `vla-rl collect --operator`: soon there, and drives to the end.
        episodes: of the session, and as many demonstrations.
        steps, batch, lr: of the improvement.
        scenes: on which the policy plays before and after.
    """

    policy: str = "weak"
    task: str = "drawer"
    operator: tuple[str, ...] = ("patience=0.6", "regain=2")
    episodes: int = 32
    steps: int = 160
    batch: int = 32
    lr: float = 5e-4
    scenes: int = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `vla-rl demo`."""
    parser.add_argument("--out", default="outputs/demo", metavar="DIR", help="folder of the report (outputs/demo)")
    parser.add_argument("--policy", default="tabletop", help="who plays the six tasks (default tabletop)")
    parser.add_argument("--episodes", type=int, default=4, help="scenes a task (default 4)")


def run(args: argparse.Namespace) -> Result:
    """Play, teach, and write the report."""
    from vla_rl.rollout import report
    from vla_rl.rollout.evaluate import REPORT, RESULT

    out = Path(args.out)
    played = ("--policy", args.policy, "--task", "all", "--episodes", str(args.episodes))
    _run("eval", "--graph", *played, "--out", str(out))
    result = json.loads((out / RESULT).read_text())
    print("a correction session:", flush=True)
    result["corrections"] = taught = teach(Lesson(), out / "corrections")
    report.write(out / REPORT, result, shlex.join(["vla-rl", *sys.argv[1:]]))
    print(f"{line(taught)}\nreport: {out / REPORT}")
    return Result({"command": "demo", **result})


def teach(lesson: Lesson, place: Path) -> dict[str, Any]:
    """Correct a policy, make a better one of that, and let both play the same scenes.

    Args:
        lesson: how.
        place: folder for everything that is made; what is there already is not made again.

    Returns:
        JSON-ready: `lesson`, `session` (see `learn.rounds.Round`), `before` and `after` (`success_rate`, `ci95`,
        `cycle_time_s`), and `compare` (`rollout.evaluate.compare`, after minus before).
    """
    _collect(lesson, place / SESSION, "--policy", lesson.policy, "--operator", *lesson.operator)
    _collect(lesson, place / DEMONSTRATIONS, "--policy", "expert")
    improved = _improve(lesson, place)
    before = _evaluate(lesson, lesson.policy, place / BEFORE)
    against = ("--compare", str(place / BEFORE / "eval.json"))
    after = _evaluate(lesson, str(place / BETTER / "policy"), place / AFTER, *against)
    kept = ("success_rate", "ci95", "cycle_time_s")
    return {
        "lesson": asdict(lesson),
        "session": improved["session"],
        "before": {key: before[key] for key in kept},
        "after": {key: after[key] for key in kept},
        "compare": after["compare"],
    }


def line(taught: dict[str, Any]) -> str:
    """What a lesson bought, in a line."""
    compared, seconds = taught["compare"], 60 * taught["session"]["human_minutes"]
    before, after = (taught[when]["success_rate"] for when in ("before", "after"))
    low, high = (100 * end for end in compared["ci95"])
    return (
        f"{seconds:.0f} s of corrections and {taught['lesson']['episodes']} demonstrations: {taught['lesson']['task']} "
        f"{before:.0%} -> {after:.0%}, {100 * compared['difference']:+.0f} points ({low:+.0f} to {high:+.0f}) on the "
        f"same {compared['pairs']} scenes"
    )


def _collect(lesson: Lesson, out: Path, *who: str) -> None:
    scenes = ("--variants-per-scene", "1", "--seed", _FIRST[out.name])
    _run("collect", "--task", lesson.task, "--episodes", str(lesson.episodes), *scenes, *who, *_HERE, "--out", str(out))


def _improve(lesson: Lesson, place: Path) -> dict[str, Any]:
    out = place / BETTER
    if not (out / "improve.json").is_file():
        learned = ("--session", str(place / SESSION), "--data", str(place / DEMONSTRATIONS), "--policy", lesson.policy)
        steps = ("--steps", str(lesson.steps), "--batch", str(lesson.batch), "--lr", str(lesson.lr), "--threads", "2")
        more = ("--set", "own=0.5", "action=policy_action", *(["--resume"] if out.is_dir() else []))
        _run("improve", *learned, *steps, "--out", str(out), *more)
    return dict(json.loads((out / "improve.json").read_text()))


def _evaluate(lesson: Lesson, policy: str, out: Path, *more: str) -> dict[str, Any]:
    played = ("--policy", policy, "--task", lesson.task, "--episodes", str(lesson.scenes), "--films", "2", *_HERE)
    _run("eval", *played, "--out", str(out), *more)
    return dict(json.loads((out / "eval.json").read_text()))


_HERE = ("--workers", "0")  # starting processes would take longer than what they save


def _run(*arguments: str) -> None:
    if status := cli.main(arguments):
        raise RuntimeError(f"vla-rl {arguments[0]} ended with status {status}")
