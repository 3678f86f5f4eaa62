r"""An SO-101 that is not there: drivers find its servo bus at a port, cameras and a scene of MuJoCo behind it.

  vla-rl twin --task lift --port /tmp/twin/follower --cameras 5555 --calibration /tmp/twin/calibration
  vla-rl twin --task lift --port /tmp/twin/follower --leader /tmp/twin/leader --control /tmp/twin/control
  vla-rl twin --port /tmp/twin/follower --faults faults.json --delay-ms 60 --gain-scale 0.8

The ports are links to pseudo-terminals: LeRobot's own SO-101 drivers open them as they open /dev/ttyACM0. Its
`ZMQCamera` reads the cameras: front at the port given, wrist at the next. DIR of --calibration gets follower.json and
leader.json, as LeRobot keeps them; with --new the servos are as new, and `lerobot-calibrate` has to be run.
Without --task there is an arm without weight, and neither scene nor cameras. docs/twin.md has the faults and the
control socket's commands. Ctrl-C stops it.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from vla_rl import build, build_arm
from vla_rl.commands import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `vla-rl twin`."""
    parser.add_argument("--port", required=True, metavar="PATH", help="where drivers find the follower: a link is made")
    parser.add_argument("--leader", metavar="PATH", help="a leader arm too, and where drivers find it")
    parser.add_argument("--task", default="", help=f"the scene: {', '.join(build.task_names())} (default: none)")
    parser.add_argument("--cameras", type=int, metavar="PORT", help="serve the cameras from this port on; 0: any free")
    parser.add_argument("--image-size", type=int, default=96, help="height and width of the pictures (default 96)")
    parser.add_argument("--control", metavar="PATH", help="listen there for commands: reset, status, faults, ...")
    parser.add_argument("--calibration", metavar="DIR", help="write the arms' calibration there, as LeRobot keeps it")
    parser.add_argument("--new", action="store_true", help="servos as from the factory: not calibrated")
    parser.add_argument("--faults", metavar="FILE", help="a script of faults, JSON")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="from a goal to the motor's motion (default 0)")
    parser.add_argument("--gain-scale", type=float, default=1.0, help="multiple of the servos' gains (default 1)")
    parser.add_argument("--backlash-rad", type=float, default=0.0, help="play of every joint (default 0)")
    parser.add_argument(
        "--camera-offset", action="append", default=[], metavar="NAME=X,Y,Z[,RX,RY,RZ]", help="a camera is off [m, rad]"
    )
    parser.add_argument("--randomisation", default="train", choices=build.LEVELS, help="of the scene (default train)")
    parser.add_argument("--duration", type=float, metavar="S", help="stop by itself after S seconds")
    parser.add_argument("--until-closed", action="store_true", help="stop when standard input ends, its parent with it")


def run(args: argparse.Namespace) -> Result:
    """Be there until somebody says stop."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    if args.until_closed:
        threading.Thread(target=_wait_for_end, args=(stop,), daemon=True).start()
    config = build_arm.twin_config(
        **{k: getattr(args, k) for k in ("port", "leader", "control", "task", "cameras", "seed", "faults")},
        **{k: getattr(args, k) for k in ("delay_ms", "gain_scale", "backlash_rad", "randomisation")},
        calibrated=not args.new,
        own_process=True,
        image_size=(args.image_size, args.image_size),
        camera_offsets=dict(map(_offset, args.camera_offset)),
    )
    with build_arm.make_twin(config) as twin:
        if args.calibration:
            twin.save_calibration(Path(args.calibration))
        where = {"port": args.port, "leader": args.leader, "control": args.control, "cameras": dict(twin.camera_ports)}
        print("twin:", json.dumps({k: v for k, v in where.items() if v}), flush=True)
        stop.wait(args.duration)
        status = twin.status()
    counts = {name: status[name]["counts"] for name in ("follower", "leader") if name in status}
    print("twin:", json.dumps(counts))
    return Result({"command": "twin", **status})


def _wait_for_end(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def _offset(text: str) -> tuple[str, tuple[float, ...]]:
    """NAME=X,Y,Z[,RX,RY,RZ] as a camera and six numbers.

    Raises:
        ValueError: it reads otherwise.
    """
    name, _, numbers = text.partition("=")
    try:
        values = tuple(float(v) for v in numbers.split(","))
    except ValueError:
        values = ()
    if len(values) not in (3, 6):
        raise ValueError(f"--camera-offset '{text}' must read NAME=X,Y,Z or NAME=X,Y,Z,RX,RY,RZ, in m and rad")
    return name, (*values, 0.0, 0.0, 0.0)[:6]
