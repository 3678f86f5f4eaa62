"""The recipe of `vla-rl bench uplift --full`: all that it needs, from nothing, by the commands that a user has.

::

    WORK/demonstrations/TASK   scripted experts
    WORK/cloned                behaviour cloning on them; an early checkpoint, often wrong, is the policy under test
    WORK/rollouts/TASK         what that one does, all candidates kept
    WORK/critic                learned from both, offline, on the last checkpoint's features, which go along: it steers
                               any policy; beside demonstrations it ranks the chunks of the policy under test
    WORK/filtered              the same cloning on demonstrations and successful rollouts: what the data alone is worth
    WORK/distilled             the policy under test, taught by the critic
    WORK/third_party           LeRobot's DiffusionPolicy on the demonstrations, trained by LeRobot
    WORK/setup.json            all of it, with the rules that did best on validation scenes

Each step goes on where it was interrupted; one that is done is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vla_rl import build, cli
from vla_rl.commands.third_party import ThirdParty, train_third_party
from vla_rl.record.durable import whole_file
from vla_rl.rollout.uplift import Setup

Rule = dict[str, Any]
RULES: tuple[Rule, ...] = (
    {"selector": "argmax"},
    {"selector": "argmax", "margin": 0.5},
    {"selector": "lcb", "k": 0.5},
    {"selector": "lcb", "k": 1.0},
    {"selector": "softmax", "temperature": 0.02},
    {"selector": "weighted", "temperature": 0.05},
    {"selector": "weighted_mean", "temperature": 0.03},
)

CRITIC: Mapping[str, Any] = {"algo": "iql", "rank": 1, "layer": "tokens", "steps": 3000}


@dataclass(frozen=True)
class Recipe:
    """How much of everything.

    Attributes:
        demonstrations: episodes a task.
        cloning_steps: of behaviour cloning in all; its learning rate falls over them.
        weak_step: after how many of them the policy under test is taken. Early in a long schedule a policy fails more
            evenly over the tasks than at the end of a short one.
        cloning: further flags of `vla-rl train bc`.
        rollouts: episodes a task that the critic learns from.
        reward: what they are labelled with.
        gamma: discount of labels and critic.
        critic: further flags of `vla-rl train value`.
        distilled: further flags of `vla-rl train best_of_n`.
        third_party: how LeRobot's policy is trained.
        rules: among which the selector is chosen.
        validation: scenes a task for that, from seed `validation_base` on.
    """

    demonstrations: int = 100
    cloning_steps: int = 1957
    weak_step: int = 600
    cloning: Mapping[str, Any] = field(default_factory=lambda: {"lr": 1e-3, "action": "policy_action"})
    rollouts: int = 200
    reward: str = "dense"
    gamma: float = 0.99
    critic: Mapping[str, Any] = field(default_factory=lambda: CRITIC)
    distilled: Mapping[str, Any] = field(default_factory=lambda: {"steps": 2000})
    third_party: ThirdParty = field(default_factory=ThirdParty)
    rules: tuple[Rule, ...] = RULES
    validation: int = 20
    validation_base: int = 2_000_000

    @classmethod
    def quick(cls) -> Recipe:
        """Every step, far too little of each: what is learned is worth nothing."""
        return cls(
            demonstrations=4,
            cloning_steps=20,
            weak_step=10,
            rollouts=4,
            critic={"algo": "iql", "rank": 1, "steps": 20, "batch": 32},
            distilled={"steps": 5, "threshold": 0.0},
            third_party=ThirdParty(steps=2, batch=4, channels=(16, 32, 64)),
            rules=RULES[::3],
            validation=2,
        )


def train(work: Path, recipe: Recipe | None = None) -> Path:
    """Do all that is not done yet; returns the setup's file.

    Raises:
        ValueError: no folder was given, or it was begun by another recipe.
        RuntimeError: a step failed; it has said why.
    """
    if work == Path():
        raise ValueError("--full needs --work DIR for everything that it makes")
    recipe, tasks = recipe or Recipe(), build.task_names()
    _claim(work, recipe)
    shown, seen = ([work / kind / task for task in tasks] for kind in ("demonstrations", "rollouts"))
    for folder in shown:
        _collect(folder, recipe.demonstrations, 10_000, [])
    weak, encoder = _clone("bc", work / "cloned", ["--data", *map(str, shown)], recipe)
    for folder in seen:
        _collect(folder, recipe.rollouts, 20_000, ["--policy", weak, "--candidates", "8", "--selector", "random"])
    for folder in (*shown, *seen):
        _label(folder, recipe)
    data = ["--data", *map(str, (*shown, *seen))]
    critic = _critic(work / "critic", weak, encoder, data, recipe)
    filtered, _ = _clone("awr", work / "filtered", ["--rule", "filtered", *data], recipe)
    taught = ["--init", weak, "--critic", critic, *_flags(recipe.distilled)]
    _train("best_of_n", work / "distilled", [*data, *taught])
    other = train_third_party(
        work / "third_party", [build.dataset_root(folder) for folder in shown], recipe.third_party
    )
    setup = Setup(weak, critic, {}, filtered_bc=filtered, distilled=str(work / "distilled"))
    setup = replace(setup, third_party=str(other), third_party_critic=critic)
    return _freeze(work, setup, recipe)


def _claim(work: Path, recipe: Recipe) -> None:
    """One folder, one recipe."""
    path, wanted = work / "recipe.json", json.loads(json.dumps(asdict(recipe)))
    work.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        with whole_file(path) as file:
            file.write(json.dumps(wanted, indent=1).encode())
    before = json.loads(path.read_text())
    if different := [key for key in wanted if before.get(key) != wanted[key]]:
        raise ValueError(f"--work {work} was begun by another recipe ({', '.join(different)}); choose another folder")


def _clone(algorithm: str, out: Path, arguments: Sequence[str], recipe: Recipe) -> tuple[str, str]:
    """Behaviour cloning; its early and its last checkpoint."""
    steps = ["--steps", str(recipe.cloning_steps), "--checkpoint-interval", str(recipe.weak_step), "--keep", "100"]
    _train(algorithm, out, [*arguments, *steps, *_flags(recipe.cloning)])
    early, last = (out / "checkpoints" / f"step-{step:06d}" for step in (recipe.weak_step, recipe.cloning_steps))
    return str(early), str(last)


def _critic(out: Path, weak: str, encoder: str, data: Sequence[str], recipe: Recipe) -> str:
    """The critic, with its report."""
    eyes = ["--policy", encoder, "--encoder", "own", "--drawn-by", weak]
    how = ["--reward", recipe.reward, "--gamma", str(recipe.gamma), *_flags(recipe.critic)]
    _train("value", out, [*data, *eyes, *how])
    _run("eval", "--critic-report", "--critic", str(out), "--policy", weak)
    return str(out)


def _freeze(work: Path, setup: Setup, recipe: Recipe) -> Path:
    """Choose both rules on validation scenes, and write the setup."""
    path = work / "setup.json"
    if path.is_file():
        return path
    executed = {"steps_per_chunk": recipe.third_party.executed}
    rule, tried = _best(work, "steered", setup, recipe, {})
    third, tried_third = _best(work, "third_party_steered", setup, recipe, executed)
    about = {"validation": tried, "validation_third_party": tried_third}
    frozen = {**vars(setup), "rule": rule, "third_party_rule": {**executed, **third}, "about": about}
    with whole_file(path) as file:
        file.write(json.dumps(frozen, indent=1).encode())
    return path


def _best(work: Path, arm: str, setup: Setup, recipe: Recipe, options: Rule) -> tuple[Rule, list[dict[str, Any]]]:
    """The rule with which an arm did best, and how all did."""
    from vla_rl.bench.uplift import play

    tried = []
    for number, rule in enumerate(recipe.rules):
        asked, out = replace(setup.arms()[arm], options={**options, **rule}), work / "validation" / f"{arm}-{number}"
        result = play(asked, recipe.validation, out, 2, recipe.validation_base)
        tried.append({"rule": rule, "success": result["mean_task_success_rate"]})
    return max(tried, key=lambda each: each["success"])["rule"], tried


def _collect(out: Path, episodes: int, seed: int, more: Sequence[str]) -> None:
    """Episodes of the task that the folder is called by."""
    _run("collect", "--task", out.name, "--episodes", str(episodes), "--seed", str(seed), "--out", str(out), *more)


def _train(algorithm: str, out: Path, arguments: Sequence[str]) -> None:
    """Train, or go on; a finished training returns at once."""
    _run("train", algorithm, *arguments, "--out", str(out), *(["--resume"] if out.is_dir() else []))


def _label(root: Path, recipe: Recipe) -> None:
    if not (build.dataset_root(root) / "meta" / f"reward_{recipe.reward}.parquet").is_file():
        labels = ["--reward", recipe.reward, "--tag", recipe.reward, "--gamma", str(recipe.gamma)]
        _run("dataset", "reward", str(root), *labels)


def _flags(options: Mapping[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def _run(*arguments: str) -> None:
    if cli.main(arguments):
        raise RuntimeError(f"vla-rl {' '.join(arguments)} failed")
