"""An episode in Rerun: its MCAP file as Rerun reads it, with a layout of pictures, commands and values."""

from __future__ import annotations

from pathlib import Path


def show(path: Path, save: str = "") -> str:
    """Open an episode in Rerun's viewer, or write its file.

    Args:
        path: the episode's MCAP file.
        save: where to write a .rrd instead of opening a viewer; "" opens one.

    Returns:
        What was done, one line.
    """
    import rerun as rr
    import rerun.blueprint as bp

    rr.init(f"vla_rl {path.stem}", spawn=not save)
    if save:
        rr.save(save)
    rr.log_file_from_path(path)
    pictures = bp.Grid(*(bp.Spatial2DView(origin=origin) for origin in _cameras(path)))
    curves = bp.Vertical(bp.TimeSeriesView(origin="/control/step"), bp.TimeSeriesView(origin="/steering/values"))
    rr.send_blueprint(bp.Blueprint(bp.Vertical(pictures, curves), collapse_panels=True))
    return f"{save} is written: rerun {save}" if save else f"{path} is open in Rerun"


def _cameras(path: Path) -> list[str]:
    """Topics of the pictures."""
    from mcap.reader import make_reader

    with open(path, "rb") as file:
        summary = make_reader(file).get_summary()
    channels = [] if summary is None else summary.channels.values()
    return sorted(c.topic for c in channels if c.topic.startswith("/camera/") and not c.topic.endswith("camera_info"))
