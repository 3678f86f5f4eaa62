"""A view of the desk as JSON for the page. Texts stay texts: the page never reads them as markup."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from vla_rl.hil.episodes import EpisodeMark, Statistics
from vla_rl.hil.view import Plan, Stream, View
from vla_rl.types import Array


def encode(view: View, at: float = 0.0, record: bool = True) -> str:
    """The view, as the page's `state` message; numbers that are not finite become null.

    Args:
        view: what to tell.
        at: when it was so, by the server's clock [s]; the page says it again with all that it sends.
        record: with the lists of what has been, which a page needs only where they changed.
    """
    state = _now(view) | (_record(view) if record else {})
    return json.dumps({"at": at, "state": state}, allow_nan=False, separators=(",", ":"))


def urgent(view: View) -> tuple[Any, ...]:
    """What an operator must see at once: a change of it is sent without waiting for the next turn."""
    episode = view.episode and (view.episode.ordinal, view.episode.recording)
    return view.mode, view.operator, view.reason, view.help, view.device_alive, view.cameras, episode, lists(view)


def lists(view: View) -> tuple[Any, ...]:
    """What the lists of what has been consist of."""
    return view.episodes, view.messages


def _now(view: View) -> dict[str, Any]:
    return {
        "mode": view.mode and str(view.mode),
        "source": view.source and view.source.name,
        "reason": view.reason,
        "operator": view.operator,
        "device": view.device,
        "device_alive": view.device_alive,
        "help": view.help,
        "instruction": view.instruction,
        "episode": view.episode and _episode(view.episode, view.episode_s),
        "streams": [_stream(name, stream) for name, stream in sorted(view.streams.items())],
        "values": [[_number(v, 3) for v in row] for row in view.values],
        "plan": view.plan and _plan(view.plan),
        "cameras": list(view.cameras),
    }


def _record(view: View) -> dict[str, Any]:
    return {
        "episodes": [_episode(mark, mark.seconds(0)) for mark in view.episodes],
        "statistics": _statistics(view.statistics),
        "messages": [[m.time_s, m.level, m.text] for m in view.messages],
    }


def _episode(mark: EpisodeMark, seconds: float) -> dict[str, Any]:
    return {
        "ordinal": mark.ordinal,
        "recording": mark.recording,
        "outcome": "discarded" if mark.discarded else str(mark.outcome),
        "note": mark.note,
        "instruction": mark.instruction,
        "seconds": round(seconds, 1),
        "human_s": round(mark.human_s, 1),
        "takeovers": mark.takeovers,
    }


def _statistics(s: Statistics) -> dict[str, Any]:
    return {
        "episodes": s.episodes,
        "successes": s.successes,
        "failures": s.failures,
        "unknown": s.unknown,
        "discarded": s.discarded,
        "success_rate": _number(s.success_rate, 4),
        "intervention_rate": _number(s.intervention_rate, 4),
        "human_s": _number(s.human_s, 1),
        "takeovers": s.takeovers,
        "cycle_s": _number(s.cycle_s, 2),
    }


def _stream(name: str, stream: Stream) -> dict[str, Any]:
    return {
        "name": name, "age_s": _number(stream.age_s, 3), "rate_hz": _number(stream.rate_hz, 1), "well": stream.well,
    }  # fmt: skip


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "chosen": plan.chosen,
        "values": [_number(v, 3) for v in plan.values],
        "paths": {camera: _points(pixels) for camera, pixels in plan.pixels.items()},
    }


def _points(pixels: Array) -> list[list[list[float] | None]]:
    """(K, H, 2) as lists; null for a point that is not in front of the camera."""
    shown = np.asarray(np.isfinite(pixels).all(axis=-1))
    rounded = np.round(np.where(shown[..., None], pixels, 0.0), 4).tolist()
    return [[p if ok else None for p, ok in zip(*path, strict=True)] for path in zip(rounded, shown, strict=True)]


def _number(value: float, digits: int) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None
