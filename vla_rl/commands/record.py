"""Record a graph that runs already: everything that happens in an episode, into a session's folder.

  vla-rl record sessions/monday                      episodes are what the operator says (`vla-rl up correct` has both)
  vla-rl record sessions/monday --always true        one episode from now until Ctrl-C, without an operator
  vla-rl record sessions/monday --cameras front,side --param recorder.min_free_gb=10

What a killed recorder left is repaired first; a second recorder of one session is refused. `vla-rl replay` runs a
session again, `vla-rl improve --session` learns from it.
"""

from __future__ import annotations

import argparse

from vla_rl.commands import Result, up


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SESSION, and a flag for every other option of the recorder's graph."""
    from vla_rl.ros.bringup.options import RECORD_OPTIONS

    parser.set_defaults(graph="record")
    parser.add_argument("session", metavar="SESSION", help="its folder, made where it does not exist")
    up.add_graph(parser, [option for option in RECORD_OPTIONS if option.name != "session"])


def run(args: argparse.Namespace) -> Result:
    """Record until told to stop.

    Raises:
        ValueError: an option that does not fit.
        RuntimeError: a recorder of this name runs already.
    """
    return up.run(args)
