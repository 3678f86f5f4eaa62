"""A Foxglove layout for a session's episodes: pictures, joints, what the critic said, who acted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_COLOURS = ("#4e98e2", "#f5774d", "#f7df71", "#5cd6a9", "#c792ea", "#e06c9f", "#9aa5b1")


def foxglove(cameras: Sequence[str], joints: Sequence[str]) -> dict[str, Any]:
    """The layout, JSON-ready.

    Args:
        cameras: names, a panel each.
        joints: names; executed and proposed are drawn over each other.
    """
    panels: dict[str, Any] = {f"Image!{name}": _picture(f"/camera/{name}/compressed") for name in cameras}
    panels["Plot!joints"] = _plot(
        "executed and proposed [rad]",
        [f"/control/step.position[:]{{name=='{what}/{name}'}}" for name in joints for what in ("executed", "proposed")],
    )
    panels["Plot!values"] = _plot("critic", [f"/steering/values.position[{i}]" for i in range(4)])
    panels["StateTransitions!mode"] = _states(
        "/control/mode.data", "/instruction.data", "/episode/status.header.frame_id"
    )
    panels["RawMessages!step"] = {"topicPath": "/control/step", "diffEnabled": False}
    pictures = _row([f"Image!{name}" for name in cameras])
    curves = _stack(["Plot!joints", "Plot!values", "StateTransitions!mode"])
    words = {"first": curves, "second": "RawMessages!step", "direction": "row", "splitPercentage": 75}
    layout = {"first": pictures, "second": words, "direction": "column", "splitPercentage": 45} if cameras else words
    return {"configById": panels, "globalVariables": {}, "userNodes": {}, "layout": layout}


def _picture(topic: str) -> Mapping[str, Any]:
    return {"cameraTopic": topic, "imageMode": {"imageTopic": topic}, "synchronize": False}


def _plot(title: str, paths: Sequence[str]) -> Mapping[str, Any]:
    series = [
        {"value": path, "enabled": True, "timestampMethod": "receiveTime", "color": _COLOURS[i % len(_COLOURS)]}
        for i, path in enumerate(paths)
    ]
    return {"paths": series, "foxglovePanelTitle": title, "showLegend": True, "isSynced": True, "xAxisVal": "timestamp"}


def _states(*paths: str) -> Mapping[str, Any]:
    return {"paths": [{"value": p, "timestampMethod": "receiveTime"} for p in paths], "isSynced": True}


def _row(panels: Sequence[str]) -> Any:
    """Panels side by side."""
    return _split(panels, "row")


def _stack(panels: Sequence[str]) -> Any:
    """Panels one below the other."""
    return _split(panels, "column")


def _split(panels: Sequence[str], direction: str) -> Any:
    if len(panels) == 1:
        return panels[0]
    return {
        "first": panels[0],
        "second": _split(panels[1:], direction),
        "direction": direction,
        "splitPercentage": 100 / len(panels),
    }
