"""The tracking error as a picture: what was asked, what the arm did, and what simulation makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vla_rl.rollout.sysid import Fit
from vla_rl.rollout.sysid_model import Motion, Servo, Simulate, replayed
from vla_rl.types import Array

_INK, _SOFT, _LINE = "#1f2328", "#656d76", "#d0d7de"
_COLOURS = {"asked": "#8c959f", "measured": _INK, "simulated": "#0969da", "model": "#cf222e"}


def draw(path: Path, motion: Motion, fit: Fit, simulate: Simulate, seconds: float = 12.0) -> None:
    """Write a PNG: one row a joint, positions on the left, distance from the measured joint on the right.

    Args:
        path: of the file.
        motion: what is drawn of it are its first seconds.
        fit: what was found.
        simulate: the arm's model.
        seconds: how much is drawn [s].
    """
    from matplotlib.figure import Figure

    names = simulate.spec.names
    times = (motion.seen_ns - motion.seen_ns[0]) * 1e-9
    shown = times <= seconds
    model, found = replayed(motion, [Servo(), fit.servo], simulate)
    asked = _asked(motion)
    figure = Figure(figsize=(13, 1.9 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), 2, sharex=True, squeeze=False)
    for row, name in enumerate(names):
        lines = {"asked": asked, "measured": motion.joints, "simulated": found + fit.offsets}
        for label, values in lines.items():
            axes[row, 0].plot(times[shown], values[shown, row], color=_COLOURS[label], label=label, linewidth=1.1)
        errors = {"asked": asked, "model": model, "simulated": found + fit.offsets}
        for label, values in errors.items():
            away = 1e3 * (values - motion.joints)[shown, row]
            axes[row, 1].plot(times[shown], away, color=_COLOURS[label], label=label, linewidth=1.0)
        axes[row, 0].set_ylabel(f"{name} [rad]", color=_SOFT)
        axes[row, 1].set_ylabel("minus measured [mrad]", color=_SOFT)
    _finish(figure, axes, fit, np.array([not joint.gripper for joint in simulate.spec.joints]))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _finish(figure: Any, axes: Any, fit: Fit, arm: Array) -> None:
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color=_LINE, linewidth=0.6)
        axis.tick_params(colors=_SOFT, length=0)
    above: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "frameon": False, "ncols": 3}
    axes[0, 0].legend(**above)
    axes[0, 1].legend(["asked", "the model as it is", "with what was found"], **above)
    for axis in axes[-1]:
        axis.set_xlabel("time [s]", color=_SOFT)
    figure.suptitle(
        f"delay {1e3 * fit.servo.delay_s:.1f} ms, gain {fit.servo.gain:.2f} of the model's: "
        f"{1e3 * fit.rms_before[arm].max():.1f} mrad from the arm before, {1e3 * fit.rms_after[arm].max():.1f} after",
        color=_INK,
    )  # fmt: skip


def _asked(motion: Motion) -> Array:
    """The target in force at each measured joint vector, (M, J) [rad]."""
    held = np.searchsorted(motion.asked_ns, motion.seen_ns, side="right") - 1
    return np.asarray(motion.targets[held.clip(0)])
