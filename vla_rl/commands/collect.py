r"""Play episodes and write a LeRobotDataset v3.

  vla-rl collect --task lift --episodes 100 --out data/lift
  vla-rl collect --task all --policy clumsy --episodes 60 --out data/mixed
  vla-rl collect --task all --policy CHECKPOINT --candidates 8 --selector random --episodes 600 --out data/rollouts
  vla-rl collect --task all --policy CHECKPOINT --operator patience=1 --episodes 360 --out data/corrected
  vla-rl collect --env gymnasium:gym_pusht:gym_pusht/PushT-v0 --env-kwargs '{"obs_type": "pixels_agent_pos"}' \
      --policy random --episodes 10 --out data/pusht

OUT/episodes keeps every finished episode as it was; OUT/dataset is the LeRobotDataset made from it. The same command
goes on where an interrupted one stopped, and ends with the very same data. Failures are kept unless --only-success.
Of a learned policy all chunks are kept that were drawn, the rejected ones too, in OUT/dataset/meta/candidates.parquet.
With --operator a scripted operator watches the task's progress, takes over where it stalls, corrects and hands back:
`intervention` says who drove, `policy_action` what the policy would have done meanwhile.
Scenes are seeded from --seed (0) upwards; `vla-rl eval` starts at 1,000,000, so training never sees a test scene.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

from vla_rl import build
from vla_rl.commands import Result, steering, where
from vla_rl.commands.progress import Bar
from vla_rl.hil.scripted import OperatorConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `vla-rl collect`."""
    where.add_arguments(parser)
    parser.add_argument("--episodes", type=int, default=100, help="episodes to store (default 100); more goes on later")
    parser.add_argument("--out", required=True, metavar="DIR", help="the collection's folder")
    parser.add_argument("--policy", default="expert", help="expert (default), clumsy, random or a checkpoint folder")
    parser.add_argument(
        "--noise", type=float, default=0.02, help="execution noise of the expert's arm [rad] (default 0.02)"
    )
    parser.add_argument(
        "--steps-per-chunk", type=int, default=0, help="actions executed of a chunk (default: the policy's)"
    )
    steering.add_arguments(parser)
    parser.add_argument(
        "--operator", nargs="*", metavar="NAME=VALUE",
        help=f"a scripted operator corrects the policy: {', '.join(f.name for f in fields(OperatorConfig))}",
    )  # fmt: skip
    parser.add_argument(
        "--variants-per-scene", type=int, default=2, help="episodes a scene, each names another object (2)"
    )
    parser.add_argument("--only-success", action="store_true", help="drop failures and play on until there are enough")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2); 0 plays in this one")
    parser.add_argument("--images", default="png", choices=("png", "video"), help="how the data set keeps images")
    parser.add_argument("--seed", type=int, default=0, help="scene of the first episode (default 0)")


def run(args: argparse.Namespace) -> Result:
    """Collect, export, and say what came of it."""
    from vla_rl.rollout.collect import DATASET, STORE, CollectConfig, Progress, collect

    env = where.env_config(args)
    policy = build.check_policy(args.policy)
    config = CollectConfig(
        tasks=build.tasks(args.task, args.env),
        episodes=args.episodes,
        seed=args.seed,
        variants_per_scene=1 if args.env else args.variants_per_scene,
        only_success=args.only_success,
    )
    operator = None if args.operator is None else OperatorConfig.parse(args.operator)
    noise = args.noise if policy in ("expert", "clumsy") else 0.0
    plan = build.plan(policy, args.steps_per_chunk, **steering.options(args))
    request: dict[str, Any] = {"env": env.to_dict(), "policy": policy, "noise": noise}
    if plan is not None:
        steered = {**steering.request(args), "steps_per_chunk": args.steps_per_chunk}
        request |= {"policy_weights": build.fingerprint(policy), "steering": steered}
    if operator is not None:
        request["operator"] = asdict(operator)
    config_of_policy = build.PolicyConfig(policy, noise, plan, operator=operator)
    player = partial(build.make_player, build.fit_env(env, policy), config_of_policy, threads=1)
    out = Path(args.out)
    with Bar("collect", args.episodes) as bar:

        def show(progress: Progress) -> None:
            bar.update(progress.stored, f"{progress.successes} successes in {progress.attempts} attempts")

        try:
            counts = collect(config, request, out, player, args.workers, show)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(
                f"interrupted; finished episodes are kept, the same command goes on ({out})"
            ) from error
    from vla_rl.data.lerobot import export

    dataset = export(out / STORE, out / DATASET, images=args.images)
    print(f"{counts['episodes']} episodes, {counts['successes']} successes, {counts['frames']} frames in {dataset}")
    if operator is not None:
        print(f"{counts['takeovers']} takeovers, the operator drove {counts['human_share']:.0%} of the time")
    return Result({"command": "collect", "out": str(out), "dataset": str(dataset), **counts})
