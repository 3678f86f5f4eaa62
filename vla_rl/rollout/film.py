"""Films of episodes: H.264 in MP4 that every browser plays, bit for bit the same for the same frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_rl.record.durable import whole_file


def write(path: Path, frames: NDArray[np.uint8], fps: float, scale: int = 2) -> None:
    """Encode frames, (T, H, W, 3) uint8 RGB, enlarged `scale` times; the file is there whole or not at all."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = (side * scale // 2 * 2 for side in frames.shape[1:3])
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "24", "preset": "veryfast", "threads": "1"}
        for image in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame.reformat(stream.width, stream.height, interpolation="LANCZOS")))
        container.mux(stream.encode())
