"""vla-rl: one command line for collecting, training, evaluating and measuring.

Each subcommand is a module of `vla_rl.commands` with `add_arguments(parser)` and `run(args) -> Result`, imported only
when it is asked for, so that `vla-rl --help` is there at once. Exit status: 0 done, 1 a one-line error, 2 wrong usage,
130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

COMMANDS = {
    "demo": "the shipped policy on all tasks through the graph, then a correction session and what it bought",
    "doctor": "check this machine: Python, rendering, ROS, GPU, disk; says how to mend what is wrong",
    "collect": "play episodes with a scripted expert or a policy and write a LeRobotDataset v3",
    "train": "train a policy: vla-rl train bc --data DIR --out DIR",
    "eval": "measure a policy over seeded episodes: success, language, cycle time; HTML report",
    "improve": "make a better policy of sessions with corrections: vla-rl improve --session DIR --policy CKPT",
    "calibrate": "when a policy asks for help: vla-rl calibrate --data COLLECTED --out help.json",
    "pair": "put a policy and its critic into one folder that LeRobot's tools run: vla-rl pair CKPT --critic DIR",
    "up": "start robot, policy, steering and control as a ROS 2 graph: vla-rl up sim",
    "twin": "an SO-101 that is not there: its servo bus on a pseudo-terminal, MuJoCo behind it",
    "record": "record a graph that runs already: vla-rl record SESSION",
    "replay": "run a recorded session again: every candidate, choice and command, bit by bit",
    "sysid": "find an arm's delay and servo gains from a session: vla-rl sysid --session DIR",
    "dataset": "look at, check or export a data set: vla-rl dataset info|check|export DIR",
    "bench": "measure this machine's speed: vla-rl bench NAME|all",
}
_MODULES = {"eval": "evaluate"}
_EXPECTED = (ValueError, KeyError, OSError, RuntimeError, ImportError)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 after one line that says where help is."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        Exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        return _overview(arguments)
    name, rest = arguments[0], arguments[1:]
    debug = "--debug" in rest
    _quiet(debug)
    try:
        module = importlib.import_module(f"vla_rl.commands.{_MODULES.get(name, name)}")
        parser = Parser(
            prog=f"vla-rl {name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(parser)
        _add_common(parser)
        args = parser.parse_args(rest)
        result = module.run(args)
        if args.json:
            _write_json(args.json, result.data)
        return int(result.status)
    except KeyboardInterrupt as interrupt:
        _complain(str(interrupt) or "interrupted")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        _complain(describe(error))
        return 1


def _quiet(debug: bool) -> None:
    """Keep libraries' warnings, which speak to developers, off the terminal; workers inherit that."""
    logging.basicConfig(level=logging.INFO if debug else logging.ERROR)
    if not debug:
        warnings.simplefilter("ignore")
        os.environ.setdefault("PYTHONWARNINGS", "ignore")


def describe(error: BaseException) -> str:
    """One line for a person: expected errors speak for themselves, others get their type and a way to the trace."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    line = " ".join(text.split())
    if isinstance(error, _EXPECTED) and line:
        return line
    return f"unexpected {type(error).__name__}: {line}; --debug shows where"


def _overview(arguments: list[str]) -> int:
    """The help of all subcommands, or an error that lists them."""
    if arguments and arguments[0] not in ("-h", "--help", "--version"):
        _complain(f"unknown command '{arguments[0]}'; there are: {', '.join(COMMANDS)}")
        return 2
    if arguments[:1] == ["--version"]:
        from importlib.metadata import version

        print(f"vla-rl {version('vla_rl')}")
        return 0
    width = max(map(len, COMMANDS))
    print("usage: vla-rl COMMAND [options]        vla-rl COMMAND --help says more\n")
    print("\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()))
    print("\nevery command: --json FILE (machine-readable result), --debug (whole traceback of an error)")
    return 0 if arguments else 2


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Flags that every command has where it did not define them itself; subcommands have them, not their parent."""
    children = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for child in (child for action in children for child in action.choices.values()):
        _add_common(child)
    if children:
        return
    group = parser.add_argument_group("everywhere")
    group.add_argument("--json", metavar="FILE", help="write the result as JSON; '-' writes it to standard output")
    group.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    if not any("--seed" in action.option_strings for action in parser._actions):
        group.add_argument("--seed", type=int, default=0, help="seed of everything drawn at random (default 0)")


def _write_json(target: str, data: Any) -> None:
    text = json.dumps(data, indent=1, allow_nan=False) + "\n"
    if target == "-":
        print(text, end="")
        return
    from vla_rl.record.durable import whole_file

    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(text.encode())


def _complain(message: str) -> None:
    print(f"vla-rl: {message}", file=sys.stderr)
