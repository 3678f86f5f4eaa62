"""Run a recorded session again: why did it do that, and would it do it again?

  vla-rl replay SESSION                        every candidate, choice and command again, held against the recorded ones
  vla-rl replay SESSION --episode 3 --part gate
  vla-rl replay SESSION --policy outputs/new   what another policy would have proposed, and where that differs
  vla-rl replay SESSION --check                every byte of every episode
  vla-rl replay SESSION --view --episode 3     open an episode in Rerun (Foxglove: open the .mcap with --layout's file)

Status 1 where anything differs or is damaged. What can not be compared is counted by its reason: pictures that were
kept with loss, a critic that was late, the first half second of an episode that begins in motion.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from vla_rl import build
from vla_rl.commands import Result
from vla_rl.record.episode_file import DamagedEpisodeError
from vla_rl.record.folder import EpisodeEntry, SessionFolder

MODES = {"check": (), "layout": (), "view": ("episode", "save"), "": ("episode", "part", "policy", "critic", "device")}
"""What replay does instead of running a session again, and which flags each takes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `vla-rl replay`."""
    parser.add_argument("session", metavar="SESSION", help="folder of a session")
    parser.add_argument("--episode", type=int, action="append", metavar="N", help="only this one (can be repeated)")
    parser.add_argument("--part", action="append", metavar="PART", help="only policy, steering or gate (default: all)")
    parser.add_argument("--policy", default="", metavar="CKPT", help="another policy than the recorded one")
    parser.add_argument("--critic", default="", metavar="DIR", help="another critic than the recorded one")
    parser.add_argument("--device", default="", help="where they compute (default: as recorded)")
    parser.add_argument("--check", action="store_true", help="only check every byte of the session")
    parser.add_argument("--view", action="store_true", help="open an episode in Rerun")
    parser.add_argument(
        "--save", default="", metavar="FILE", help="with --view: write Rerun's file instead of opening it"
    )
    parser.add_argument(
        "--layout", default="", metavar="FILE", help="write a Foxglove layout for the session's cameras"
    )


def run(args: argparse.Namespace) -> Result:
    """Retrace, check or show.

    Raises:
        NotASessionError: SESSION is none.
        ValueError: no such episode, one that is damaged, a checkpoint that is not the recorded one, or a flag that
            means nothing beside another.
    """
    _require_meaning(args)
    session = SessionFolder(args.session)
    if args.check:
        return _check(session)
    if args.layout:
        return _layout(session, Path(args.layout))
    chosen = _chosen(session, args.episode)
    if args.view:
        return _view(chosen, args.save)
    return _retrace(session, chosen, args)


def _require_meaning(args: argparse.Namespace) -> None:
    """Raise ValueError for a flag that would be ignored: whoever gave it would take the answer for another one."""
    mode = next((name for name in MODES if name and getattr(args, name)), "")
    flags = dict.fromkeys([*filter(None, MODES), *(flag for takes in MODES.values() for flag in takes)])
    if idle := [name for name in flags if name not in (mode, *MODES[mode]) and getattr(args, name)]:
        taken = ", ".join(f"--{name}" for name in MODES[mode]) or "no other"
        beside = f"--{mode}" if mode else "running it again"
        raise ValueError(f"--{idle[0]} means nothing beside {beside}, which takes {taken}")


def _check(session: SessionFolder) -> Result:
    problems = session.problems(thorough=True)
    for line in problems:
        print(line)
    print(f"{len(session.episodes())} complete episodes, {len(problems)} problems")
    return Result({"command": "replay", "episodes": len(session.episodes()), "problems": problems}, int(bool(problems)))


def _chosen(session: SessionFolder, numbers: list[int] | None) -> list[EpisodeEntry]:
    episodes = {entry.number: entry for entry in session.episodes() if not entry.damage()}
    if missing := [number for number in numbers or () if number not in episodes]:
        have = ", ".join(map(str, episodes)) or "none"
        why = [f" ({line})" for line in session.problems() if f"{missing[0]:06d}." in line]
        raise ValueError(f"{session.root} has no whole episode {missing[0]}{''.join(why)}; there are: {have}")
    return [episodes[number] for number in numbers or episodes]


def _retrace(session: SessionFolder, chosen: list[EpisodeEntry], args: argparse.Namespace) -> Result:
    from vla_rl.rollout.retrace_episode import PARTS, RetraceConfig, Retracer

    config = RetraceConfig(tuple(args.part or PARTS), args.policy, args.critic, args.device)
    retrace = Retracer(session.robot, config, build.check_policy, build.check_critic)
    found: list[dict[str, Any]] = []
    differs, problems = False, [] if args.episode else session.problems()
    for entry in chosen:
        try:
            parts = retrace(entry)
        except DamagedEpisodeError as error:
            problems.append(str(error))
            continue
        found.append({"episode": entry.number, **{name: part.to_dict() for name, part in parts.items()}})
        differs |= any(part.equal < part.compared for part in parts.values())
        for name, part in parts.items():
            skipped = "".join(f"; {count} not compared: {reason}" for reason, count in part.skipped.items())
            print(f"{entry.number:06d} {name:<8} {part.equal} of {part.compared} the same{skipped}")
            for line in part.differences:
                print(f"       {line}", file=sys.stderr)
    for line in problems:
        print(f"left out: {line}", file=sys.stderr)
    result = {"command": "replay", "session": str(session.root), "episodes": found, "problems": problems}
    return Result(result, int(differs or bool(problems)))


def _layout(session: SessionFolder, path: Path) -> Result:
    from vla_rl.record.folder import write_json
    from vla_rl.record.layout import foxglove

    write_json(path, foxglove([str(camera) for camera in session.about["cameras"]], session.robot.names))
    print(f"{path}: in Foxglove, Layouts > Import from file, then open an episode's .mcap")
    return Result({"command": "replay", "layout": str(path)})


def _view(chosen: list[EpisodeEntry], save: str) -> Result:
    from vla_rl.rollout.view import show

    if len(chosen) != 1:
        raise ValueError(f"--view shows one episode: --episode N, one of {', '.join(str(e.number) for e in chosen)}")
    shown = show(chosen[0].path, save)
    print(shown)
    return Result({"command": "replay", "view": shown})
