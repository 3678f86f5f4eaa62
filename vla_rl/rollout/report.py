"""Report: an evaluation as one self-contained HTML page with figures, plots and films."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from vla_rl.record.durable import whole_file
from vla_rl.rollout import plots
from vla_rl.rollout.evaluate import VIDEOS, film_name

DASH = "–"


def write(path: Path, result: Mapping[str, Any], command: str = "") -> None:
    """Write the report of an evaluation's result; films are taken from `videos` beside it.

    Args:
        path: the HTML file; it is there whole or not at all.
        result: what `evaluate` returned, with `compare` where two were compared.
        command: how to get the same again.
    """
    with whole_file(path) as file:
        file.write(render(result, path.parent / VIDEOS, command).encode())


def render(result: Mapping[str, Any], videos: Path, command: str = "") -> str:
    """The page's text. Instructions and names are escaped: whatever they hold, they stay text."""
    tasks = result.get("tasks") or {result["task"]: result}
    pictures: list[tuple[str, str | None]] = [("success rate", plots.success_bars(tasks))]
    pictures += [("cycle time", plots.cycle_times(result["per_episode"]))]
    pictures += [("named and touched objects", plots.confusion(result["per_episode"]))]
    audits = {name: figures["audit"] for name, figures in tasks.items() if figures.get("audit")}
    pictures += [("choices", plots.choices(audits) if audits else None)]
    return page(
        title=f"Evaluation of {result.get('policy', 'a policy')}",
        lead=_lead(result),
        heading="Success",
        tiles=_tiles(result),
        plots=pictures,
        tables=[*([_audits(audits)] if audits else []), *_lesson(result.get("corrections"))],
        rows=[_row(name, figures) for name, figures in tasks.items()],
        comparison=_comparison(result.get("compare")),
        groups=_groups(result, videos),
        episodes=result["per_episode"],
        command=command,
    )


def page(plots: Sequence[tuple[str, str | None]], **parts: Any) -> str:
    """A page of our style: `title`, `lead`, `heading`, `tiles`, `tables` and what else report.html has places for.

    Args:
        plots: names and sources; None for what there was nothing to draw of.
        parts: of the template; everything is escaped.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("vla_rl.rollout") / "report.html").read_text())
    return template.render(plots=[{"name": name, "source": source} for name, source in plots if source], **parts)


def _lesson(taught: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A correction session and what it bought, as a table; none without one."""
    if not taught:
        return []
    lesson, session, compared = taught["lesson"], taught["session"], taught["compare"]
    low, high = (100 * end for end in compared["ci95"])
    rates = [f"{taught[w]['success_rate']:.0%} ({_interval(taught[w]['ci95'])})" for w in ("before", "after")]
    drove = f"{60 * session['human_minutes']:.0f} of {60 * session['robot_minutes']:.0f} s"
    gain = f"{100 * compared['difference']:+.0f} points ({low:+.0f} to {high:+.0f})"
    head = ["policy", "task", "episodes corrected", "the operator drove", "demonstrations", "before", "after", "gained"]
    row = [lesson["policy"], lesson["task"], str(session["episodes"]), drove, str(lesson["episodes"]), *rates, gain]
    title = f"A correction session, and what it bought on the same {compared['pairs']} scenes"
    return [{"title": title, "head": head, "rows": [row]}]


def _audits(audits: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The audits of all tasks as a table."""
    head = ["task", "decisions", "of all", "contested", "best over first", "regret of the chosen"]
    head += ["regret of the ranking", "concordance"]
    return {
        "title": "Audit: every candidate executed",
        "head": head,
        "rows": [[task, *_audit(audit)] for task, audit in audits.items()],
    }


def _audit(audit: Mapping[str, Any]) -> list[str]:
    def points(name: str) -> str:
        if name not in audit:
            return DASH
        low, high = audit[f"{name}_ci95"]
        return f"{audit[name]:+.1f} ({low:+.1f} to {high:+.1f})"

    agreed = audit.get("concordance")
    return [
        str(audit["decisions"]),
        f"{audit['coverage']:.0%}",
        f"{audit['contested']:.0%}",
        points("oracle_gain_points"),
        points("regret_points"),
        points("ranking_regret_points"),
        DASH if agreed is None else f"{agreed:.2f}",
    ]


def _lead(result: Mapping[str, Any]) -> str:
    seeds = result["seeds"]
    parts = [f"{result['episodes']} episodes", f"scenes {seeds[0]} to {seeds[-1]}"]
    joined = "joining" if "through" in result else "ensemble"  # the graph joins chunks in its control node
    shown = {key: key for key in ("randomisation", "phrasings", joined, "selector")} | {"through": "through the"}
    parts += [f"{label} {result[key]}" for key, label in shown.items() if result.get(key)]
    return ", ".join(parts)


def _tiles(result: Mapping[str, Any]) -> list[dict[str, str]]:
    tiles = [_tile("Success", result["success_rate"], result["ci95"], f"{result['successes']} of {result['episodes']}")]
    if said := result.get("language"):
        tiles.append(
            _tile(
                "Touches the named object first",
                said["accuracy"],
                said["ci95"],
                f"{said['right']} of {said['episodes']}",
            )
        )
    if pairs := result.get("pairs"):
        tiles.append(
            _tile(
                "Pairs: both objects right", pairs["accuracy"], pairs["ci95"], f"{pairs['right']} of {pairs['pairs']}"
            )
        )
    if steered := result.get("steering"):
        kept = sum(steered["abstained"].values())
        note = f"of {steered['decisions']} decisions, {kept:.0%} kept to the first"
        tiles.append({"name": "Another candidate taken", "value": f"{steered['steered']:.0%}", "note": note})
    if result["cycle_time_s"] is not None:
        note = f"mean of {result['successes']} successes"
        tiles.append({"name": "Cycle time", "value": f"{result['cycle_time_s']:.1f} s", "note": note})
    return tiles


def _tile(name: str, rate: float, interval: list[float], counts: str) -> dict[str, str]:
    return {"name": name, "value": f"{rate:.0%}", "note": f"{counts}, 95% interval {_interval(interval)}"}


def _interval(ends: list[float]) -> str:
    return f"{100 * ends[0]:.0f}{DASH}{100 * ends[1]:.0f}%"


def _row(task: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    said, pairs, cycle = figures.get("language"), figures.get("pairs"), figures["cycle_time_s"]
    return {
        "task": task,
        "episodes": figures["episodes"],
        "successes": figures["successes"],
        "rate": f"{figures['success_rate']:.0%}",
        "interval": _interval(figures["ci95"]),
        "language": f"{said['accuracy']:.0%}" if said else DASH,
        "pairs": f"{pairs['right']} of {pairs['pairs']}" if pairs else DASH,
        "cycle": f"{cycle:.1f} s" if cycle is not None else DASH,
        "invalid": figures["invalid"],
    }


def _comparison(compared: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not compared:
        return None
    low, high = compared["ci95"]
    shown = {
        "difference": f"{100 * compared['difference']:+.0f} points",
        "interval": f"{100 * low:+.0f} to {100 * high:+.0f}",
    }
    return {**compared, **shown, "p_value": f"{compared['p_value']:.3g}"}


def _groups(result: Mapping[str, Any], videos: Path) -> list[dict[str, Any]]:
    """Films of every task, those that exist."""
    groups: dict[str, list[dict[str, str]]] = {}
    for record in result["per_episode"]:
        path = videos / film_name(record)
        if path.is_file():
            groups.setdefault(record["task"], []).append(_film(record, path))
    return [{"task": task, "films": films} for task, films in groups.items()]


def _film(record: Mapping[str, Any], path: Path) -> dict[str, str]:
    encoded = base64.b64encode(path.read_bytes()).decode()
    note = f"{record['cycle_time_s']:.1f} s" if record["success"] else record["invalid"] or str(record["termination"])
    if record["target"] and record["touched"] != record["target"]:
        note += f", touched {record['touched'] or plots.NOTHING} first"
    return {
        "source": f"data:video/mp4;base64,{encoded}",
        "instruction": record["instruction"],
        "outcome": record["outcome"],
        "note": note.replace("_", " "),
    }
