"""Make a better policy of sessions in which a human corrected it.

  vla-rl improve --session SESSION --policy outputs/lift --data data/lift --out outputs/better
  vla-rl improve --session S1 S2 --policy outputs/lift --data data/lift --method preference --out outputs/better
  vla-rl improve --session SESSION --policy outputs/lift --method hil_serl --out outputs/better
  vla-rl eval --policy outputs/better/policy --task lift --compare outputs/lift

SESSION is what `vla-rl record` wrote, what `vla-rl collect --operator` wrote, or any LeRobotDataset v3 with a column
`intervention`. Methods: hg_dagger (imitates corrections), preference (and moves away from what they overruled), recap,
hil_serl, pvp and expo (by a critic; the one of --value, or one that is trained first and kept in OUT/critic).
OUT/policy is a checkpoint as `vla-rl train` writes it. OUT/report.html has success, cycle time and intervention rate of
the sessions against minutes of human time. With --online it learns beside a running graph: see docs/improving.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from vla_rl import build
from vla_rl.commands import Result
from vla_rl.commands.train import add_config_flags, read_config_flags
from vla_rl.learn.improve_config import ImproveConfig

REPORT = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `vla-rl improve`: the fields of its config."""
    add_config_flags(parser, ImproveConfig, ("session", "policy", "out"))


def run(args: argparse.Namespace) -> Result:
    """Improve, write the report, and say what came of it."""
    config = read_config_flags(args, ImproveConfig)
    sessions = tuple(str(session_root(path)) for path in config.session if not config.online)
    shown = tuple(str(build.dataset_root(path)) for path in config.data)
    critic = build.check_critic(config.value) if config.value else ""
    policy = build.check_policy(config.policy)
    config = dataclasses.replace(config, session=sessions or config.session, data=shown, value=critic, policy=policy)
    from vla_rl.learn.improve import improve
    from vla_rl.rollout import improve_page

    if config.online:
        return _online(config, tuple(args.session))
    result = improve(config)
    improve_page.write(Path(config.out) / REPORT, result, shlex.join(["vla-rl", *sys.argv[1:]]))
    for line in improve_page.lines(result):
        print(line)
    print(f"policy: {Path(config.out) / 'policy'}, report: {Path(config.out) / REPORT}")
    return Result({"command": "improve", **result})


def _online(config: ImproveConfig, sessions: tuple[str, ...]) -> Result:
    """Round after round beside a running graph."""
    from vla_rl.learn.online import Online, give_way
    from vla_rl.rollout import improve_page

    def read() -> tuple[str, ...]:
        return tuple(str(session_root(path)) for path in sessions)

    def told(result: dict[str, Any]) -> None:
        out = Path(config.out)
        improve_page.write(out / REPORT, result, shlex.join(["vla-rl", *sys.argv[1:]]))
        said = improve_page.lines(result)[0]
        print(f"round {result['round']}: version {result['version']} is pushed; {said}", flush=True)

    learner = Online(config, lambda: sum(complete(path) for path in sessions), read)
    for path in (path for path in sessions if not Path(path).exists()):
        print(f"waits for {path}, which is not there yet", flush=True)
    give_way()
    params = f"--param policy.versions={learner.policies} --param steering.versions={learner.critics}"
    print(f"a graph takes over what is pushed with: vla-rl up ... {params}", flush=True)
    result = learner.run(told, lambda line: print(line, flush=True))
    return Result({"command": "improve --online", **result})


def complete(path: str) -> int:
    """Episodes of a session that can be learned from by now: none of one that the graph has not begun."""
    from vla_rl.record.folder import SessionFolder, is_session
    from vla_rl.record.store import EpisodeStore

    root = Path(path)
    if not root.exists():
        return 0
    if is_session(root):
        return len(SessionFolder(root).episodes())
    if (root / "episodes").is_dir():
        return len(EpisodeStore(root / "episodes", readonly=True))
    return int(json.loads((build.dataset_root(root) / "meta/info.json").read_text())["total_episodes"])


def session_root(path: str) -> Path:
    """The data set of a session: made of what was recorded where that was not done yet.

    Raises:
        ValueError: it is neither a session, nor a collection, nor a data set.
    """
    from vla_rl.record.folder import is_session

    if not is_session(Path(path)):
        return build.dataset_root(path)
    from vla_rl.data.sessions import dataset_of

    return dataset_of(path, lambda line: print(f"{path}: {line}", file=sys.stderr))
