"""The recipe of `vla-rl bench uplift --full`: all that it needs, from nothing, by the commands that a user has.

::

    WORK/demonstrations/TASK   scripted experts
    WORK/weak                  the policy under test: a short training on them
    WORK/rollouts/TASK         what it does, all candidates kept
    WORK/critic                learned from both, offline
    WORK/filtered              the same training on demonstrations and successful rollouts: what the data alone is worth
    WORK/distilled             the weak policy, taught by the critic
    WORK/setup.json            all of it, with the rule that did best on validation scenes

Each step goes on where it was interrupted; one that is done is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vla_rl import build, cli
from vla_rl.record.durable import whole_file

RULES: tuple[dict[str, Any], ...] = (
    {"selector": "argmax"},
    {"selector": "argmax", "margin": 0.5},
    {"selector": "lcb", "k": 0.5},
    {"selector": "lcb", "k": 1.0},
    {"selector": "softmax", "temperature": 0.02},
    {"selector": "weighted", "temperature": 0.05},
)


@dataclass(frozen=True)
class Recipe:
    """How much of everything.

    Attributes:
        demonstrations: episodes a task.
        weak_steps: of behaviour cloning, few enough for a policy that fails often.
        rollouts: episodes a task that the critic learns from.
        reward: what they are labelled with.
        algo, critic_steps, gamma: of the critic.
        distilled_steps: of best-of-N distillation.
        validation: scenes a task for the choice of the rule, from seed `validation_base` on.
    """

    demonstrations: int = 100
    weak_steps: int = 700
    rollouts: int = 200
    reward: str = "dense"
    algo: str = "iql"
    critic_steps: int = 20_000
    gamma: float = 0.99
    distilled_steps: int = 2_000
    validation: int = 20
    validation_base: int = 2_000_000


def train(work: Path, recipe: Recipe | None = None) -> Path:
    """Do all that is not done yet; returns the setup's file.

    Raises:
        ValueError: no folder was given.
        RuntimeError: a step failed; it has said why.
    """
    if work == Path():
        raise ValueError("--full needs --work DIR for everything that it makes")
    recipe, tasks = recipe or Recipe(), build.task_names()
    for task in tasks:
        _collect(work / "demonstrations" / task, task, recipe.demonstrations, 10_000, [])
    shown, seen = ([str(work / kind / task) for task in tasks] for kind in ("demonstrations", "rollouts"))
    weak, critic = work / "weak", work / "critic"
    cloning = ["--steps", str(recipe.weak_steps), "--lr", "1e-3", "--action", "policy_action"]
    _train("bc", weak, ["--data", *shown, *cloning])
    chosen = ["--policy", str(weak), "--candidates", "8", "--selector", "random"]
    for task in tasks:
        _collect(work / "rollouts" / task, task, recipe.rollouts, 20_000, chosen)
    for root in (*shown, *seen):
        _label(Path(root), recipe)
    learned = ["--data", *shown, *seen, "--policy", str(weak)]
    labels = ["--reward", recipe.reward, "--gamma", str(recipe.gamma), "--steps", str(recipe.critic_steps)]
    _train("value", critic, [*learned, *labels, "--algo", recipe.algo])
    _run("eval", "--critic-report", "--critic", str(critic), "--policy", str(weak))
    _train("awr", work / "filtered", ["--rule", "filtered", "--data", *shown, *seen, *cloning])
    taught = ["--init", str(weak), "--critic", str(critic), "--steps", str(recipe.distilled_steps)]
    _train("best_of_n", work / "distilled", ["--data", *shown, *seen, *taught])
    return _freeze(work, recipe)


def _freeze(work: Path, recipe: Recipe) -> Path:
    """Choose the rule on validation scenes, and write the setup."""
    from vla_rl.bench.uplift import play
    from vla_rl.rollout.uplift import Setup

    path = work / "setup.json"
    if path.is_file():
        return path
    setup = Setup(str(work / "weak"), str(work / "critic"), {"selector": "argmax"}, filtered_bc=str(work / "filtered"))
    setup = replace(setup, distilled=str(work / "distilled"))
    tried = []
    for number, rule in enumerate(RULES):
        arm = replace(setup.arms()["steered"], options=rule)
        out = work / "validation" / f"rule-{number}"
        result = play(arm, recipe.validation, out, 2, recipe.validation_base)
        tried.append({"rule": rule, "success": result["mean_task_success_rate"]})
    best = max(tried, key=lambda each: each["success"])
    frozen = {**vars(setup), "rule": best["rule"], "about": {"validation": tried, "recipe": vars(recipe)}}
    with whole_file(path) as file:
        file.write(json.dumps(frozen, indent=1).encode())
    return path


def _collect(out: Path, task: str, episodes: int, seed: int, more: Sequence[str]) -> None:
    _run("collect", "--task", task, "--episodes", str(episodes), "--seed", str(seed), "--out", str(out), *more)


def _train(algorithm: str, out: Path, arguments: Sequence[str]) -> None:
    """Train, or go on; a finished training returns at once."""
    _run("train", algorithm, *arguments, "--out", str(out), *(["--resume"] if out.is_dir() else []))


def _label(root: Path, recipe: Recipe) -> None:
    if not (build.dataset_root(root) / "meta" / f"reward_{recipe.reward}.parquet").is_file():
        labels = ["--reward", recipe.reward, "--tag", recipe.reward, "--gamma", str(recipe.gamma)]
        _run("dataset", "reward", str(root), *labels)


def _run(*arguments: str) -> None:
    if cli.main(arguments):
        raise RuntimeError(f"vla-rl {' '.join(arguments)} failed")
