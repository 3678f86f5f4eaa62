"""A critic's report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_rl.record.durable import whole_file
from vla_rl.rollout import plots
from vla_rl.rollout.report import DASH, page


def write(path: Path, report: Mapping[str, Any], name: str, command: str = "") -> None:
    """Write the page of a report; it is there whole or not at all.

    Args:
        path: the HTML file.
        report: of `critic_report`, with `n_curve` where it was played.
        name: of the critic.
        command: how to get the same again.
    """
    with whole_file(path) as file:
        file.write(render(report, name, command).encode())


def render(report: Mapping[str, Any], name: str, command: str = "") -> str:
    """The page's text; names are escaped."""
    points = report.get("n_curve", [])
    return page(
        title=f"Critic {name}: {report['verdict']}",
        lead=f"{report['reason']}; {report['decisions']} decisions of {report['episodes']} episodes it never saw",
        heading="Values",
        tiles=_tiles(report),
        plots=[("calibration", plots.calibration(report["calibration"])), ("candidates", plots.curve(points))],
        tables=[_actions(report), *([_curve(points)] if points else [])],
        rows=[],
        groups=[],
        episodes=[],
        comparison=None,
        command=command,
    )


def _tiles(report: Mapping[str, Any]) -> list[dict[str, str]]:
    low, high = report["rank_correlation_ci95"]
    seen = report.get("rank_correlation_seen")
    note = f"95% interval {low:.2f}{DASH}{high:.2f}" + ("" if seen is None else f", {seen:.2f} on what it saw")
    tiles = [{"name": "Rank correlation with the return", "value": f"{report['rank_correlation']:.2f}", "note": note}]
    bias = f"share of the returns' range, bias {report['bias']:+.3f}"
    tiles.append({"name": "Calibration error", "value": f"{report['calibration_error']:.2f}", "note": bias})
    if report.get("success_auc") is not None:
        note = "chance that a decision of a success is valued higher"
        tiles.append({"name": "Tells successes from failures", "value": f"{report['success_auc']:.2f}", "note": note})
    for key, title, note in (
        ("advantage_rank", "Ranks what was done", "rank correlation of its advantages with those that came out"),
        ("candidate_rank", "Ranks candidates", "rank correlation with nearness to what was demonstrated"),
    ):
        if key in report:
            low, high = report[f"{key}_ci95"]
            interval = f"95% interval {low:.2f}{DASH}{high:.2f}"
            tiles.append({"name": title, "value": f"{report[key]:.2f}", "note": f"{note}, {interval}"})
    return tiles


def _actions(report: Mapping[str, Any]) -> dict[str, Any]:
    rows = [[name, f"{found['wins']:.0%}", f"{found['gap']:+.2f}"] for name, found in report["actions"].items()]
    head = ["against chunks that are", "the data's own is valued above", "by [spreads of the value]"]
    return {"title": "The data's own chunk against others", "head": head, "rows": rows}


def _curve(points: list[Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for point in points:
        low, high = (100 * end for end in point["compare"]["ci95"])
        gain = f"{100 * point['compare']['difference']:+.1f} ({low:+.1f} to {high:+.1f})"
        value = DASH if point["value"] is None else f"{point['value']:.3f}"
        rows.append([str(point["candidates"]), f"{point['success_rate']:.1%}", gain, value])
    head = ["candidates", "success", f"points over {points[0]['candidates']}", "mean value of the chosen"]
    return {"title": "Success against candidates", "head": head, "rows": rows}
