"""Find out how an arm differs from its model: delay and servo gains, from what it was asked and what it did.

  vla-rl sysid --drive --arm so101 --port /dev/ttyACM0      swing the arm for a minute, after asking; then the same
  vla-rl sysid --session SESSION                   replay its commands in MuJoCo, fit, print
  vla-rl sysid --session DATASET --arm so101       the same from a LeRobotDataset v3 (its state and action)
  vla-rl sysid --session SESSION --plot track.png  and draw the tracking error

The delay is from a command until the servos follow it; the gain is a multiple of the model's stiffness and damping.
Give the twin the same: vla-rl twin --delay-ms D --gain-scale G. The gain wants a minute of slow and wide motion in the
air: it shows in how far gravity pulls a joint off its target, which is less than one step of the encoder. It also
wants joints that were read at several moments of a period, as --drive does: in sessions they were read once, always as
long after a command, and gains up to a sixth off explain them as well, more than the intervals say: those are of the
recording's noise alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vla_rl.commands import Result
from vla_rl.commands.arm_flags import add_arm_flags, read_arm_flags

if TYPE_CHECKING:
    from vla_rl.rollout.sysid_model import Motion, Simulate

ARM = "so101"
ASK = "the arm will swing widely in the air for {:.0f} s. Is nobody near, and nothing within its reach? [y/N] "
_STEEP = 500.0  # a ramp beyond it is none [rad/s^2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `vla-rl sysid`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--session", default="", metavar="DIR", help="a recorded session, or a data set")
    what.add_argument("--drive", action="store_true", help="a real arm, which is moved")
    parser.add_argument("--arm", default="", metavar="NAME", help="whose model (default: as recorded, or so101)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of driving, at most (default 60)")
    parser.add_argument("--plot", default="", metavar="FILE", help="draw what was asked, done and simulated, as PNG")
    add_arm_flags(parser.add_argument_group("drive"))
    parser.add_argument("--yes", action="store_true", help="the answer to whether the arm may move")


def run(args: argparse.Namespace) -> Result:
    """Fit and tell.

    Raises:
        ValueError: there is nothing to fit, or no model of the arm.
    """
    from vla_rl.build_arm import make_servo_replay
    from vla_rl.rollout.sysid import Fitter
    from vla_rl.rollout.sysid_motions import arm_of, motions_of

    if args.seconds <= 0:
        raise ValueError(f"--seconds {args.seconds:g} must be above 0")
    simulate = make_servo_replay(args.arm or (ARM if args.drive else arm_of(args.session)))
    motions = _drive(args, simulate) if args.drive else motions_of(args.session, simulate.spec, args.seconds)
    fit = Fitter(motions, simulate).fit()
    found = fit.to_dict(simulate.spec.names)
    print(
        f"delay  {found['delay_ms']:7.1f} ms   +- {found['delay_ms_ci95']:.1f}\n"
        f"gain   {found['gain']:7.3f}      +- {found['gain_ci95']:.3f} (of the model's stiffness and damping)"
    )
    if fit.servo.ramp > 2 * fit.half_widths[2] and found["ramp_acceleration"] < _STEEP:
        print(f"ramp   {found['ramp_acceleration']:7.1f} rad/s^2 (the servos' own, towards a goal)")
    print(f"\n{'joint':<16}{'model':>9}{'fit':>9}   rms difference from the arm [mrad]")
    for name, joint in found["joints"].items():
        print(f"{name:<16}{1e3 * joint['rms_model']:9.2f}{1e3 * joint['rms_fit']:9.2f}")
    print(f"\nfrom {fit.samples} joint vectors in {fit.seconds:.0f} s of driving")
    if args.plot:
        from vla_rl.rollout.sysid_plot import draw

        draw(Path(args.plot), max(motions, key=lambda m: m.seen_ns[-1] - m.seen_ns[0]), fit, simulate)
        print(args.plot)
    return Result({"command": "sysid", "arm": simulate.spec.name, "session": args.session, **found})


def _drive(args: argparse.Namespace, simulate: Simulate) -> list[Motion]:
    """What a real arm does, where somebody agrees that it moves.

    Raises:
        ValueError: nobody does, or the arm cannot be used as it is.
    """
    from vla_rl.build_arm import excite

    if not args.yes and input(ASK.format(args.seconds)).strip().lower() not in ("y", "yes"):
        raise ValueError("not driven: nobody agreed")
    return [excite(read_arm_flags(args, simulate.spec.name), simulate, args.seconds, print)]
