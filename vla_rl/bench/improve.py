"""What corrections buy: a weak policy, an operator with fixed parameters, some rounds, against plain demonstrations.

::

    WORK/round-1/session     collected with the weak policy and the operator
    WORK/round-1/out         improved with it
    WORK/round-2/session     collected with that policy ...
    WORK/demonstrations      as many robot minutes of the expert alone
    WORK/plain               the weak policy, trained on them with as many steps
    WORK/arms-SEED/          episodes of every arm on the same test scenes

Each step goes on where it was interrupted; one that is done is passed over.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl import build, cli
from vla_rl.bench.uplift import play
from vla_rl.rollout.setup import read_setup
from vla_rl.rollout.uplift import Arm, differences, gain, rates

ARMS = ("base", "improved", "plain", "base_steered", "improved_steered")
SESSIONS, EXPERTS = 40_000, 60_000  # first scenes: apart from demonstrations' and from those that test

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Setup:
    """What is compared, frozen before any test episode is played.

    Attributes:
        policy: the weak policy.
        data: its demonstrations.
        method: of `vla-rl improve`.
        operator: `--operator` of `vla-rl collect`.
        episodes: a task, over all rounds.
        rounds: how often the policy is improved.
        steps: optimiser steps of a round.
        batch, lr, pace: of every round's training, and of the control arm's.
        options: further arguments of `vla-rl improve`.
        every, graph: of `bench online`: episodes between two rounds; parameters of the graph, as `vla-rl up --param`.
        onward: a round goes on from the policy of the one before; else each begins with the weak one.
        candidates, critic, rule: of the steered arms; no critic, no such arms.
    """

    policy: str
    data: Sequence[str]
    method: str = "hg_dagger"
    operator: Sequence[str] = ()
    episodes: int = 60
    rounds: int = 3
    steps: int = 1000
    batch: int = 64
    lr: float = 5e-4
    pace: float = 1.0
    options: Sequence[str] = ()
    every: int = 30
    graph: Sequence[str] = ()
    onward: bool = True
    candidates: int = 8
    critic: str = ""
    rule: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Setup:
        """Read a setup from JSON.

        Raises:
            ValueError: it is no such file; names what is missing or unknown.
        """
        return read_setup(cls, path, "an improvement")


def run(
    quick: bool = False,
    setup: str = "",
    work: str = "",
    episodes: int = 200,
    only: str = "",
    workers: int = 2,
    seed_base: int = 1_000_000,
) -> dict[str, Any]:
    """Collect corrections, improve, do the same with plain demonstrations, and play all arms on the same scenes.

    Args:
        quick: a handful of scenes to test on; sessions and training stay as the setup says.
        setup: JSON file, see `Setup`.
        work: folder for everything that is made.
        episodes: test scenes a task.
        only: arms, with commas between them; "" plays all that the setup has.
        workers: processes.
        seed_base: first test scene.

    Returns:
        `metrics` (see `metrics`) and `against`: success of every arm, task by task [%].

    Raises:
        ValueError: no setup or work folder, or an arm that does not exist.
    """
    if not setup or not work:
        raise ValueError("bench improve needs --setup FILE and --work DIR; docs/improving.md has a setup")
    found, place = Setup.load(Path(setup)), Path(work)
    arms = [name.strip() for name in only.split(",") if name.strip()] or list(ARMS)
    if unknown := [name for name in arms if name not in ARMS]:
        raise ValueError(f"no arm '{unknown[0]}'; there are: {', '.join(ARMS)}")
    rounds = [_round(found, place, number, workers) for number in range(1, found.rounds + 1)]
    policies = {"base": found.policy, "improved": str(place / f"round-{found.rounds}/out/policy")}
    if "plain" in arms:
        policies["plain"] = _plain(found, place, sum(each["session"]["robot_minutes"] for each in rounds), workers)
    results = {}
    for name in arms:
        base = name.removesuffix("_steered")
        if name != base and not found.critic:
            continue
        steering = (found.candidates, found.critic, found.rule) if name != base else ()
        scenes = 4 if quick else episodes
        results[name] = play(
            Arm(policies[base], *steering), scenes, place / f"arms-{seed_base}" / name, workers, seed_base
        )
        print(f"vla-rl: {name}: {100 * results[name]['mean_task_success_rate']:.1f}%", file=sys.stderr)
    return {"metrics": metrics(results, rounds), "against": rates(results)}


def metrics(results: Mapping[str, Result], rounds: Sequence[Result]) -> dict[str, Any]:
    """The benchmark's figures.

    Args:
        results: of the arms that were played.
        rounds: `improve`'s result of each round, whose `session` is that round's alone.

    Returns:
        `base_success`, `success` [%], `gain_points` and `vs_plain_demos_points` with `_lo` and `_hi`, `cycle_ratio`
        (mean cycle time over the weak policy's, where both succeed), `human_minutes`, `robot_minutes`,
        `intervention_rate_first` and `_last` (of the first and of the last round), and the same for steered arms.
    """
    said: dict[str, Any] = {
        "human_minutes": sum(each["session"]["human_minutes"] for each in rounds),
        "robot_minutes": sum(each["session"]["robot_minutes"] for each in rounds),
        "intervention_rate_first": rounds[0]["session"]["intervention_rate"],
        "intervention_rate_last": rounds[-1]["session"]["intervention_rate"],
    }
    names = {"base": "base_success", "improved": "success", "plain": "plain_success"}
    names |= {"base_steered": "base_steered_success", "improved_steered": "steered_success"}
    said |= {names[arm]: 100.0 * result["mean_task_success_rate"] for arm, result in results.items()}
    pairs = {"gain": ("improved", "base"), "vs_plain_demos": ("improved", "plain")}
    pairs |= {
        "steered_gain": ("improved_steered", "base_steered"),
        "steered_vs_first": ("improved_steered", "improved"),
    }
    for name, (one, two) in pairs.items():
        if one in results and two in results:
            found = gain(results[one], results[two])
            said |= {
                f"{name}_points": found["points"],
                f"{name}_points_lo": found["lo"],
                f"{name}_points_hi": found["hi"],
            }
    if "improved" in results and "base" in results:
        said["cycle_ratio"] = cycle_ratio(results["improved"], results["base"])
    return said


def cycle_ratio(first: Result, second: Result) -> float:
    """Mean cycle time of the first over that of the second, on the episodes in which both succeed; nan without any."""
    differences(first, second)  # raises where they share no episode
    times = [{(r["task"], r["seed"], r["choice"]): r["cycle_time_s"] for r in each["per_episode"] if r["success"]}
             for each in (first, second)]  # fmt: skip
    both = sorted(set(times[0]) & set(times[1]))
    if not both:
        return math.nan
    return float(np.mean([times[0][one] for one in both]) / np.mean([times[1][one] for one in both]))


def _round(setup: Setup, work: Path, number: int, workers: int) -> dict[str, Any]:
    """One session and one improvement; the result's `session` is of this round's episodes."""
    place, before = work / f"round-{number}", work / f"round-{number - 1}/out/policy"
    policy = str(before) if number > 1 else setup.policy
    tasks = build.task_names()
    count = len(tasks) * _share(setup.episodes, setup.rounds, number)
    asked = ["--policy", policy, "--operator", *setup.operator, "--workers", str(workers), "--episodes", str(count)]
    scenes = ["--task", "all", "--seed", str(SESSIONS + 2_000 * number), "--out", str(place / "session")]
    _run("collect", *asked, *scenes)
    out, sessions = place / "out", [str(work / f"round-{n}/session") for n in range(1, number + 1)]
    if not (out / "improve.json").is_file():
        start = policy if setup.onward else setup.policy
        _run("improve", "--session", *sessions, "--policy", start, "--data", *setup.data, "--method", setup.method,
             *_training(setup, setup.steps), *setup.options, "--out", str(out), *_resume(out))  # fmt: skip
    from vla_rl.data.cache import open_numbers
    from vla_rl.learn.rounds import summary

    result: dict[str, Any] = json.loads((out / "improve.json").read_text())
    return {**result, "session": summary([open_numbers(build.dataset_root(sessions[-1]))]).to_dict()}


def _plain(setup: Setup, work: Path, minutes: float, workers: int) -> str:
    """The weak policy, cloned on as many more robot minutes of the expert, with as many steps."""
    root, tasks, count = work / "demonstrations", len(build.task_names()), 0
    frames = 0
    while frames < minutes * 60 * 30:
        missing = minutes * 60 * 30 - frames
        count += max(tasks, tasks * math.ceil(missing / (frames / count if count else 100) / tasks))
        _run("collect", "--task", "all", "--policy", "expert", "--episodes", str(count), "--seed", str(EXPERTS),
             "--workers", str(workers), "--out", str(root))  # fmt: skip
        frames = int(json.loads((root / "dataset/meta/info.json").read_text())["total_frames"])
    out = work / "plain"
    if not (out / "result.json").is_file():
        learned = ["--data", *(str(build.dataset_root(each)) for each in setup.data), str(root)]
        steps = setup.steps * (setup.rounds if setup.onward else 1)
        common = ["--rule", "filtered", "--init", setup.policy, "--ema", "0.99", "--action", "policy_action"]
        how = [*common, *_training(setup, steps), *_resume(out)]
        _run("train", "awr", *learned, *how, "--out", str(out))
    return str(out)


def _training(setup: Setup, steps: int) -> list[str]:
    """How both arms train, for so many steps."""
    given = {"steps": steps, "batch": setup.batch, "lr": setup.lr, "pace": setup.pace}
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]


def _share(total: int, parts: int, number: int) -> int:
    """How many of `total` the part `number` (from 1) has."""
    return total * number // parts - total * (number - 1) // parts


def _resume(out: Path) -> list[str]:
    return ["--resume"] if out.is_dir() else []


def _run(*arguments: str) -> None:
    if cli.main(arguments):
        raise RuntimeError(f"vla-rl {' '.join(arguments)} failed")
