"""What sessions with corrections say, as lines and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vla_rl.record.durable import whole_file
from vla_rl.rollout import plots
from vla_rl.rollout.report import DASH, page


def write(path: Path, result: Mapping[str, Any], command: str = "") -> None:
    """Write the page of an improvement; it is there whole or not at all.

    Args:
        path: the HTML file.
        result: of `learn.improve`.
        command: how to get the same again.
    """
    with whole_file(path) as file:
        file.write(render(result, command).encode())


def render(result: Mapping[str, Any], command: str = "") -> str:
    """The page's text; names are escaped."""
    return page(
        title=f"Improvement by {result['method']}",
        lead="; ".join(lines(result)),
        heading="Sessions",
        tiles=_tiles(result["session"]),
        plots=[("against minutes of human time", plots.sessions(result["curve"]))],
        tables=[_curve(result["curve"])],
        rows=[],
        groups=[],
        episodes=[],
        comparison=None,
        command=command,
    )


def lines(result: Mapping[str, Any]) -> list[str]:
    """What the sessions say of the policy that drove them, for people."""
    said, curve = result["session"], result["curve"]
    alone, helped = _share(said["autonomous"]), _share(said["success"])
    found = [
        f"{said['episodes']} episodes, {alone} succeeded without and {helped} with help, "
        f"the human drove {said['intervention_rate']:.0%} of {said['robot_minutes']:.1f} minutes"
    ]
    if said["unmarked"]:
        found.append(f"{said['unmarked']} episodes were never marked: they count as neither success nor failure")
    if len(curve) > 1:
        ends = (curve[0]["intervention_rate"], curve[-1]["intervention_rate"])
        found.append(f"intervention rate {ends[0]:.0%} at first, {ends[1]:.0%} in the end")
    return found


def _share(value: float | None) -> str:
    """A share of episodes; a dash where none was marked."""
    return DASH if value is None else f"{value:.0%}"


def _tiles(said: Mapping[str, Any]) -> list[dict[str, str]]:
    human, robot = said["human_minutes"], said["robot_minutes"]
    cycle = DASH if said["cycle_s"] is None else f"{said['cycle_s']:.1f} s"
    return [
        {"name": "Success without help", "value": _share(said["autonomous"]), "note": f"{said['episodes']} episodes"},
        {"name": "Success", "value": _share(said["success"]), "note": f"{said['takeovers']:.2f} takeovers an episode"},
        {"name": "Human time", "value": f"{human:.1f} min", "note": f"of {robot:.1f} min of the robot's"},
        {"name": "Cycle time", "value": cycle, "note": "mean of the successes"},
    ]


def _curve(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    head = ["episodes", "human minutes so far", "success without help", "success", "the human drove", "cycle time"]
    rows = [
        [
            str(point["episodes"]),
            f"{point['human_minutes_so_far']:.1f}",
            _share(point["autonomous"]),
            _share(point["success"]),
            f"{point['intervention_rate']:.0%}",
            DASH if point["cycle_s"] is None else f"{point['cycle_s']:.1f} s",
        ]
        for point in points
    ]
    return {"title": "In the order in which they were played", "head": head, "rows": rows}
