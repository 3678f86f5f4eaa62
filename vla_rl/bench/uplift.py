"""What value-guided steering gains over the policy alone, against control arms, on paired test scenes of six tasks."""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from vla_rl import build
from vla_rl.record.durable import whole_file
from vla_rl.rollout.audit import AuditConfig
from vla_rl.rollout.evaluate import EvalConfig, evaluate
from vla_rl.rollout.uplift import Arm, Setup, metrics, rates, table

SHIPPED = Path(__file__).with_suffix(".json")
QUICK = 4  # scenes a task


def run(
    quick: bool = False,
    episodes: int = 200,
    setup: str = "",
    work: str = "",
    only: str = "",
    workers: int = 2,
    seed_base: int = 1_000_000,
    full: bool = False,
) -> dict[str, Any]:
    """Play every arm on the same scenes.

    Args:
        quick: a handful of scenes.
        episodes: scenes a task; audits, curve and unseen levels take a share of them.
        setup: JSON file of policies, critics and the rule; "" takes what is shipped.
        work: folder that keeps logs: the same command goes on from there; "" keeps nothing.
        only: arms, with commas between them; "" plays all.
        workers: processes.
        seed_base: first scene; test scenes start at 1,000,000.
        full: train everything anew first, in `work`; with `quick` far too little of it, to see that it runs.

    Returns:
        `metrics` (see `rollout.uplift.metrics`) and `against`: success of every arm, task by task [%].

    Raises:
        ValueError: no setup, or an arm that does not exist.
    """
    if full:
        from vla_rl.commands.recipe import Recipe, train

        setup = str(train(Path(work), Recipe.quick() if quick else None))
    found = Setup.load(Path(setup) if setup else SHIPPED)
    arms = found.arms()
    chosen = [name.strip() for name in only.split(",") if name.strip()] or list(arms)
    if unknown := [name for name in chosen if name not in arms]:
        raise ValueError(f"no arm '{unknown[0]}'; there are: {', '.join(arms)}")
    for arm in (arms[name] for name in chosen):  # before hours of play, not after
        build.check_policy(arm.policy)
        build.plan(arm.policy, candidates=arm.candidates, critic=arm.critic, **arm.options)
    scenes = QUICK if quick else episodes
    with tempfile.TemporaryDirectory() as spare:
        folder = Path(work or spare) / f"arms-{seed_base}"
        results = {}
        for name in chosen:
            results[name] = play(arms[name], scenes, folder / name, workers, seed_base)
            rate = 100 * results[name]["mean_task_success_rate"]
            print(f"vla-rl: {name}: {rate:.1f}% of {results[name]['episodes']} episodes", file=sys.stderr)
    measured, success = metrics(results, found.candidates), rates(results)
    if work:
        lines = [*table(success), "", *(f"- {key}: {value}" for key, value in measured.items()), ""]
        (Path(work) / "uplift.md").write_text("\n".join(lines))
    return {"metrics": {**measured, "episodes": float(scenes)}, "against": success}


def play(arm: Arm, scenes: int, out: Path, workers: int, seed_base: int) -> dict[str, Any]:
    """One arm's result on all tasks; its log in `out`, where it goes on from."""
    policy = build.check_policy(arm.policy)
    env = build.fit_env(build.EnvConfig(randomisation=arm.level), policy)
    plan = build.plan(policy, candidates=arm.candidates, critic=arm.critic, trusted=True, **arm.options)
    audit = AuditConfig(**arm.audit) if arm.audit else None
    config = EvalConfig(tuple(build.task_names()), max(2, round(arm.share * scenes)), seed_base, films=0)
    player = partial(build.make_player, env, build.PolicyConfig(policy, plan=plan), threads=1, audit=audit)
    weights = {"checkpoint": build.fingerprint(policy)}
    weights |= {"critic_weights": build.critic_fingerprint(arm.critic)} if arm.critic else {}
    result = evaluate(config, {**arm.to_dict(), **weights}, player, workers, out)
    with whole_file(out / "eval.json") as file:
        file.write(json.dumps(result).encode())
    return result
