"""Look at, check, export or label a data set.

  vla-rl dataset info DIR       what is in it
  vla-rl dataset check DIR      everything that is wrong with it; status 1 where anything is
  vla-rl dataset export DIR     make a collection's episodes a LeRobotDataset v3 (collect does it by itself)
  vla-rl dataset reward DIR --reward step-penalty --tag steps --gamma 0.99
                                write rewards and Monte-Carlo returns beside it (meta/reward_steps.parquet, ...)

DIR is a LeRobotDataset v3 or the folder of a collection. Any LeRobotDataset v3 will do, whoever wrote it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vla_rl import build
from vla_rl.commands import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`info`, `check`, `export` and `reward`."""
    subparsers = parser.add_subparsers(dest="action", required=True, metavar="info|check|export|reward")
    info = subparsers.add_parser("info", help="what is in it")
    info.add_argument("dir", metavar="DIR")
    check = subparsers.add_parser("check", help="everything that is wrong with it")
    check.add_argument("dir", metavar="DIR")
    check.add_argument("--fps", type=float, help="the rate it must have")
    check.add_argument("--robot", default="", help="arm whose joint names and order it must have: so101")
    export = subparsers.add_parser("export", help="a collection's episodes to LeRobotDataset v3")
    export.add_argument("dir", metavar="DIR")
    export.add_argument("--out", default="", help="the data set's folder (default DIR/dataset)")
    export.add_argument("--images", default="png", choices=("png", "video"), help="how images are kept (default png)")
    reward = subparsers.add_parser("reward", help="rewards and returns beside it; the set itself stays as it is")
    reward.add_argument("dir", metavar="DIR")
    reward.add_argument(
        "--reward", required=True, help="sparse, step-penalty, dense, classifier, time-to-success or a plug-in's"
    )
    reward.add_argument("--tag", required=True, help="what they are called by: training takes --reward TAG")
    reward.add_argument("--gamma", type=float, default=0.99, help="discount of the returns (default 0.99)")
    reward.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the rule: folder=DIR, success=1, ..."
    )


def run(args: argparse.Namespace) -> Result:
    """Do what `action` says."""
    actions = {"info": _info, "check": _check, "export": _export, "reward": _reward}
    return actions[args.action](args)


def _info(args: argparse.Namespace) -> Result:
    from vla_rl.data.inspect import info

    found = info(build.dataset_root(args.dir))
    print("\n".join(_lines(found)))
    return Result(found)


def _lines(found: dict[str, Any]) -> list[str]:
    """A summary for people."""
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(found["outcomes"].items()))
    cameras = ", ".join(f"{name} {'x'.join(map(str, shape[:2]))}" for name, shape in found["cameras"].items())
    tasks, megabytes = found["tasks"], found["bytes"] / 1e6
    return [
        f"{found['root']}: {found['robot_type'] or 'unknown robot'}, {found['fps']:g} fps, {megabytes:.1f} MB",
        f"{found['episodes']} episodes ({outcomes}), {found['frames']} frames, {found['seconds']:.0f} s",
        f"cameras: {cameras or 'none'}",
        *(
            f"{name}: {f['dtype']} {f['shape']}"
            for name, f in found["features"].items()
            if name not in found["cameras"]
        ),
        f"{len(tasks)} instructions: {'; '.join(tasks[:5])}{' ...' if len(tasks) > 5 else ''}",
    ]


def _check(args: argparse.Namespace) -> Result:
    from vla_rl.data.inspect import check

    names = None
    if args.robot:
        from vla_rl.robot import arm_spec

        names = arm_spec(args.robot).lerobot_action_spec.names
    root = build.dataset_root(args.dir)
    problems = check(root, fps=args.fps, joint_names=names)
    print("\n".join(problems) or f"{root}: no problem found")
    return Result({"dataset": str(root), "problems": problems}, 1 if problems else 0)


def _export(args: argparse.Namespace) -> Result:
    from vla_rl.commands.progress import Bar
    from vla_rl.data.lerobot import export
    from vla_rl.record.store import EpisodeStore

    root = Path(args.dir)
    store = root / "episodes" if (root / "episodes").is_dir() else root
    with Bar("export", len(EpisodeStore(store, readonly=True))) as bar:
        out = export(store, args.out or root / "dataset", images=args.images, progress=lambda done, _: bar.update(done))
    print(f"{out}")
    return Result({"dataset": str(out)})


def _reward(args: argparse.Namespace) -> Result:
    from vla_rl.commands.progress import Bar
    from vla_rl.data.inspect import info
    from vla_rl.reward.label import label

    if not 0.0 <= args.gamma <= 1.0:
        raise ValueError(f"--gamma {args.gamma:g} must be in [0, 1]")
    root = build.dataset_root(args.dir)
    options = dict(_option(text) for text in args.option)
    if args.reward == "classifier" and "folder" in options:
        options["folder"] = _checkpoint(str(options["folder"]))
    with Bar("reward", int(info(root)["episodes"])) as bar:
        made = label(root, args.reward, args.tag, args.gamma, options, progress=lambda done, _: bar.update(done))
    returns = made["return_of_episodes"]
    print(f"{made['files'][0]}: mean reward {made['reward_mean']:.4g}")
    print(
        f"{made['files'][1]}: {returns['low']:.4g} to {returns['high']:.4g} over episodes, mean {returns['mean']:.4g}"
    )
    return Result({"command": "dataset reward", **made})


def _checkpoint(folder: str) -> str:
    """A classifier's folder, or the newest of a run's: `vla-rl train classifier --out` names the run."""
    from vla_rl.learn.checkpoint import CheckpointError, resolve

    try:
        return str(resolve(folder))
    except CheckpointError:
        return folder  # the rule says what is wrong with it


def _option(text: str) -> tuple[str, Any]:
    """KEY=VALUE, a number where it reads as one."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"--option '{text}' must read KEY=VALUE")
    try:
        return key, float(value)
    except ValueError:
        return key, value
