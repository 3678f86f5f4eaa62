"""Start a robot with its policy, steering and control as a ROS 2 graph, without ROS's own tools.

  vla-rl up sim                                  the tabletop in MuJoCo, driven by the shipped policy
  vla-rl up sim --task push --selector medoid --candidates 8 --logs logs
  vla-rl up sim --namespace left --param control.joining=blend --params-file my.yaml
  vla-rl up correct --session monday             the same with an operator: console, devices, recorder

Each node's lines have its name before them. Ctrl-C (or SIGTERM) holds the arm and stops everything within five seconds.
A process that dies is started again, three times at most. `ros2 launch vla_rl sim.launch.py` starts the same nodes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING

from vla_rl.commands import Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vla_rl.ros.bringup.graph import Graph
    from vla_rl.ros.bringup.options import Option
    from vla_rl.ros.bringup.supervisor import Progress

BEGAN = time.monotonic()
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A subcommand for every graph, with a flag for every option of it."""
    from vla_rl.ros.bringup.graphs import GRAPHS

    kinds = parser.add_subparsers(dest="graph", required=True, metavar="|".join(GRAPHS))
    for name, (_, options, text) in GRAPHS.items():
        add_graph(kinds.add_parser(name, help=text), options)


def add_graph(graph: argparse.ArgumentParser, options: Sequence[Option]) -> None:
    """A flag for every option of a graph, and those of all graphs."""
    for option in options:
        choices = f"; {', '.join(option.choices)}" if option.choices else ""
        default = f" (default {option.default})" if option.default else ""
        graph.add_argument(
            f"--{option.name.replace('_', '-')}", default="", metavar="VALUE", help=option.help + choices + default
        )
    graph.add_argument("--param", action="append", default=[], metavar="NODE.NAME=VALUE", help="a parameter of a node")
    graph.add_argument("--remap", action="append", default=[], metavar="FROM:=TO", help="rename a topic or service")
    graph.add_argument("--duration", type=float, default=0.0, metavar="S", help="stop by itself after S seconds")
    graph.add_argument("--start-timeout", type=float, default=120.0, metavar="S", help="longest start (default 120)")
    graph.add_argument("--logs", default="", metavar="DIR", help="write one log file a node there")


class Stop:
    """Set by the first Ctrl-C, SIGTERM or hang-up; further ones change nothing."""

    def __init__(self) -> None:
        self.asked = False
        for number in _SIGNALS:
            signal.signal(number, self._ask)

    def deafen(self) -> None:
        """Nothing is left to stop: a late signal must not spoil the exit status."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def run(args: argparse.Namespace) -> Result:
    """Run the graph until it is told to stop.

    Raises:
        ValueError: an option, parameter, remapping or file that does not fit.
        RuntimeError: nodes of these names run already.
    """
    stop = Stop()
    from vla_rl.ros.bringup.graphs import GRAPHS

    _check_ros()
    make_graph, options, _ = GRAPHS[args.graph]
    asked = {option.name: str(getattr(args, option.name)) for option in options}
    with _keys(asked) as given:
        progress = _supervise(make_graph({**asked, **given}, args.param, args.remap), args, stop)
        stop.deafen()
    _say(progress)
    command = "record" if args.graph == "record" else "up"
    return Result({"command": command, **asdict(progress)}, 1 if progress.failure else 0)


def _keys(asked: dict[str, str]) -> AbstractContextManager[dict[str, str]]:
    """What else to ask for, so that an operator's keyboard is this terminal's."""
    if asked.get("operator_device") != "keyboard" or asked.get("device_path"):
        return nullcontext({})
    return _relayed()


@contextmanager
def _relayed() -> Iterator[dict[str, str]]:
    from vla_rl.ros.bringup.keys import relayed

    with relayed() as path:
        yield {"device_path": path}


def _check_ros() -> None:
    """What ROS itself would only stumble over.

    Raises:
        RuntimeError: two rclpys, none, or an impossible ROS domain.
    """
    from vla_rl.commands import doctor
    from vla_rl.commands.finding import FAIL

    for finding in (doctor.check_ros_domain(), doctor.check_ros_copies()):
        if finding.state == FAIL:
            raise RuntimeError(f"{finding.found}; {finding.mend}")


def _supervise(graph: Graph, args: argparse.Namespace, stop: Stop) -> Progress:
    """Run the graph until somebody asks to stop, its time is over or it fails."""
    from vla_rl.ros.bringup.console import Console

    try:
        from vla_rl.ros.bringup.supervisor import Supervisor
    except ImportError as error:
        raise RuntimeError(f"ROS 2 cannot be loaded ({error}); vla-rl doctor says what to do") from error
    shown = [n.name for n in graph.nodes] + [p.name for p in graph.processes]
    console = Console(shown, sys.stderr if args.json == "-" else sys.stdout, args.logs)
    end = BEGAN + args.duration if args.duration else float("inf")
    try:
        supervisor = Supervisor(graph, console, patience_s=args.start_timeout, began=BEGAN)
        return supervisor.run(until=lambda: stop.asked or console.closed or time.monotonic() > end)
    finally:
        console.close()


def _say(progress: Progress) -> None:
    if progress.failure:
        print(f"vla-rl: {progress.failure}", file=sys.stderr)
    else:
        print("vla-rl: stopped; the arm is held", file=sys.stderr)
