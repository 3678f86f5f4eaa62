"""The doctor's look at a real arm: flags, the checkup's notes as findings, and the self-test."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from vla_rl import build_arm
from vla_rl.commands.arm_flags import add_arm_flags, read_arm_flags
from vla_rl.commands.finding import FAIL, OK, WARN, Finding
from vla_rl.ros.arm_settings import mapping

ASK = "every joint will move by 5 degrees and back. Is nobody near, and is the arm free to move? [y/N] "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which arm, and whether to move it."""
    parser.add_argument(
        "--arm", default="", metavar="ARM", help="look at a real arm: its description's name or .yaml file"
    )
    add_arm_flags(parser)
    parser.add_argument(
        "--camera-devices", default="", metavar="YAML", help="LeRobot's settings of each camera by name"
    )
    parser.add_argument("--self-test", action="store_true", help="then move each joint by 5 degrees, after asking")
    parser.add_argument("--yes", action="store_true", help="the answer to that question")


def findings(args: argparse.Namespace) -> Iterator[Finding]:
    """The checkup, and the self-test where it is asked for, all is well so far and somebody agrees.

    Raises:
        ValueError: no such arm, or settings that are none.
    """
    config = replace(read_arm_flags(args, args.arm), cameras=mapping("--camera-devices", args.camera_devices))
    failed = False
    for finding in _as_findings(build_arm.checkup(config)):
        failed = failed or finding.state == FAIL
        yield finding
    if args.self_test and not failed:
        yield from _self_test(config, args.yes)


def _self_test(config: Any, agreed: bool) -> Iterator[Finding]:
    if not agreed and input(ASK).strip().lower() not in ("y", "yes"):
        yield Finding("self-test", WARN, "not done: nobody agreed")
        return
    try:
        yield from _as_findings(build_arm.self_test(config, print))
    except ValueError as error:
        yield Finding("self-test", FAIL, str(error))


def _as_findings(notes: Iterable[Any]) -> Iterator[Finding]:
    for note in notes:
        yield Finding(note.part, FAIL if not note.well else WARN if note.look else OK, note.found)
