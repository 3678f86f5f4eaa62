"""Plots of an evaluation, as SVG data URIs: an image in a page runs no script, whatever text it was drawn from."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

INK, SOFT, ACCENT, LINE = "#1c2430", "#5d6878", "#2563a8", "#e3e7ec"
NOTHING = "nothing"


def success_bars(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """One bar a task with its Wilson interval."""
    figure, axes = _figure(6.4, 1.2 + 0.45 * len(tasks))
    names = list(tasks)[::-1]
    rates = [tasks[n]["success_rate"] * 100 for n in names]
    ends = [[r - 100 * tasks[n]["ci95"][0] for n, r in zip(names, rates, strict=True)]]
    ends.append([100 * tasks[n]["ci95"][1] - r for n, r in zip(names, rates, strict=True)])
    axes.barh(names, rates, height=0.55, color=ACCENT)
    axes.errorbar(rates, names, xerr=[[max(0.0, v) for v in side] for side in ends], fmt="none", ecolor=INK, capsize=3)
    for name, rate in zip(names, rates, strict=True):
        axes.text(101.5, name, f"{rate:.0f}%", va="center", color=INK)
    axes.set_xlim(0, 100)
    axes.set_xlabel("success rate [%] with 95% Wilson interval")
    return _uri(figure)


def cycle_times(records: Sequence[Mapping[str, Any]]) -> str | None:
    """Cycle times of the successes, a box and the points of every task; None where nothing succeeded."""
    times: dict[str, list[float]] = {}
    for record in records:
        if record["success"]:
            times.setdefault(record["task"], []).append(record["cycle_time_s"])
    if not times:
        return None
    figure, axes = _figure(6.4, 1.2 + 0.45 * len(times))
    names = list(times)[::-1]
    axes.boxplot(
        [times[n] for n in names],
        orientation="horizontal",
        tick_labels=names,
        widths=0.5,
        showfliers=False,
        medianprops={"color": ACCENT, "linewidth": 2},
        boxprops={"color": SOFT},
        whiskerprops={"color": SOFT},
        capprops={"color": SOFT},
    )
    for row, name in enumerate(names, start=1):
        axes.plot(times[name], [row] * len(times[name]), "o", color=ACCENT, alpha=0.3, markersize=4, markeredgewidth=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("cycle time of successes [s]")
    return _uri(figure)


def confusion(records: Sequence[Mapping[str, Any]]) -> str | None:
    """Which object was touched first, for every named one; None where nothing is named."""
    counts = Counter((r["target"], r["touched"] or NOTHING) for r in records if r["target"])
    if not counts:
        return None
    named = sorted({target for target, _ in counts})
    touched = [*sorted({t for _, t in counts} - {NOTHING} | set(named)), NOTHING]
    figure, axes = _figure(1.8 + 0.62 * len(touched), 1.6 + 0.42 * len(named))
    totals = {n: sum(v for (target, _), v in counts.items() if target == n) for n in named}
    shares = [[counts[n, t] / totals[n] for t in touched] for n in named]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    axes.grid(visible=False)
    for row, n in enumerate(named):
        for column, t in enumerate(touched):
            if counts[n, t]:
                colour = "white" if shares[row][column] > 0.55 else INK
                axes.text(column, row, str(counts[n, t]), ha="center", va="center", color=colour)
    axes.set_xticks(range(len(touched)), [_plain(t) for t in touched], rotation=35, ha="right")
    axes.set_yticks(range(len(named)), [_plain(n) for n in named])
    axes.set_xlabel("touched first")
    axes.set_ylabel("named")
    return _uri(figure)


def choices(audits: Mapping[str, Mapping[str, Any]]) -> str:
    """Success after a decision by way of choosing, a row a task: what lies between first and oracle is to be won."""
    figure, axes = _figure(6.4, 1.4 + 0.45 * len(audits))
    marks = {"first": ("o", SOFT), "random": ("|", SOFT), "medoid": ("D", SOFT), "ranked": ("s", ACCENT)}
    marks |= {"chosen": ("x", INK), "oracle": ("*", INK)}
    names = list(audits)[::-1]
    for row, name in enumerate(names):
        success = audits[name]["success"]
        axes.plot([100 * success["first"], 100 * success["oracle"]], [row, row], color=LINE, linewidth=5, zorder=1)
        for way, (mark, colour) in marks.items():
            if way in success:
                label = way if row == 0 else None
                axes.plot(100 * success[way], row, mark, color=colour, markersize=8, label=label)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("success after a decision, the policy going on alone [%]")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.25), ncols=6, frameon=False, fontsize=9, handletextpad=0.2)
    return _uri(figure)


def calibration(bins: Sequence[Mapping[str, float]]) -> str:
    """Mean return against mean value, a point a bin; on the diagonal values mean what they say."""
    figure, axes = _figure(5.0, 4.2)
    values, returns = [b["value"] for b in bins], [b["return"] for b in bins]
    ends = [min(*values, *returns), max(*values, *returns)]
    axes.plot(ends, ends, color=SOFT, linewidth=1)
    axes.plot(values, returns, "o-", color=ACCENT)
    axes.set_xlabel("value (bins of equal size)")
    axes.set_ylabel("Monte-Carlo return")
    return _uri(figure)


def curve(points: Sequence[Mapping[str, Any]]) -> str | None:
    """Success against the number of candidates, and what the critic says of those it takes; None without points."""
    if not points:
        return None
    figure, axes = _figure(5.6, 4.2)
    counts, rates = [p["candidates"] for p in points], [100 * p["success_rate"] for p in points]
    ends = [[r - 100 * p["ci95"][0] for r, p in zip(rates, points, strict=True)]]
    ends.append([100 * p["ci95"][1] - r for r, p in zip(rates, points, strict=True)])
    axes.errorbar(counts, rates, yerr=[[max(0.0, v) for v in side] for side in ends], fmt="o-", color=INK, capsize=3)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.set_xlabel("candidates")
    axes.set_ylabel("success [%] with 95% Wilson interval")
    if all(p["value"] is not None for p in points):
        right = axes.twinx()
        right.plot(counts, [p["value"] for p in points], "s--", color=ACCENT)
        right.set_ylabel("mean value of the chosen", color=ACCENT)
        right.spines[["top", "right"]].set_visible(False)
    return _uri(figure)


def sessions(points: Sequence[Mapping[str, Any]]) -> str:
    """Success without help, the share that a human drove and cycle time, against the human's minutes so far."""
    figure, axes = _figure(6.4, 3.8)
    minutes, nan = [p["human_minutes_so_far"] for p in points], float("nan")
    alone, cycle = ([nan if p[name] is None else p[name] for p in points] for name in ("autonomous", "cycle_s"))
    axes.plot(minutes, [100 * share for share in alone], "o-", color=ACCENT, label="success without help")
    axes.plot(minutes, [100 * p["intervention_rate"] for p in points], "s--", color=INK, label="driven by the human")
    seconds = axes.twinx()
    seconds.plot(minutes, cycle, "^:", color=SOFT, label="cycle time (right)")
    seconds.spines[["top", "right", "left", "bottom"]].set_visible(False)
    seconds.tick_params(colors=SOFT, length=0)
    seconds.set_ylim(bottom=0)
    seconds.set_ylabel("cycle time [s]", color=SOFT)
    axes.set_ylim(0, 105)
    axes.set_xlim(left=0)
    axes.set_xlabel("human time so far [min]")
    axes.set_ylabel("episodes, frames [%]")
    handles = [*axes.get_lines(), *seconds.get_lines()]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    return _uri(figure)


def _plain(text: str) -> str:
    """Text that matplotlib draws as it is: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=SOFT, labelcolor=INK, length=0)
    axes.xaxis.label.set_color(SOFT)
    axes.yaxis.label.set_color(SOFT)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _uri(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
