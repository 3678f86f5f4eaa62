"""Cameras of a real arm: each in a thread of its own, its pictures with the time at which they were captured."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from threading import Event, Thread
from typing import Any

from vla_rl.robot import Frame

SILENT_S, SLOW = 0.15, 2.5  # a camera that shows nothing for longer, and for so many of its periods, is named
_WAIT_MS = 100


class CameraStream:
    """The newest picture of one of LeRobot's cameras.

    Args:
        name: of the camera.
        camera: connected; this thread alone reads it.
        fps: what it promises [Hz]; 0 where it does not.

    Attributes:
        frames: pictures so far.
        failure: why the last read failed, "" where it did not.
    """

    def __init__(self, name: str, camera: Any, fps: float = 0.0) -> None:
        self.name, self.frames, self.failure = name, 0, ""
        self._frame: Frame | None = None
        self._camera, self._stopping = camera, Event()
        self._patience_s = max(SILENT_S, SLOW / fps if fps else 0.0)
        self._since_ns = self._started_ns = time.monotonic_ns()
        self._thread = Thread(target=self._run, name=f"camera {name}", daemon=True)
        self._thread.start()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its pictures [pixels]."""
        return int(self._camera.width), int(self._camera.height)

    @property
    def silent_s(self) -> float:
        """How long ago the last picture came, monotonic [s]."""
        return (time.monotonic_ns() - self._since_ns) * 1e-9

    @property
    def rate(self) -> float:
        """Pictures a second since it was opened [Hz]."""
        return self.frames / max((time.monotonic_ns() - self._started_ns) * 1e-9, 1e-9)

    @property
    def frame(self) -> Frame | None:
        """The newest picture, None while it is silent."""
        return self._frame if self.silent_s <= self._patience_s else None

    @property
    def complaint(self) -> str:
        """One line about a silent camera, "" about one that shows something."""
        if self.silent_s <= self._patience_s:
            return ""
        return f"camera {self.name} shows nothing: {self.failure or 'its thread is late'}"

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                image = self._camera.async_read(timeout_ms=_WAIT_MS)
            except TimeoutError:
                self.failure = f"no picture in {_WAIT_MS} ms"
            except Exception as error:
                self.failure = " ".join(str(error).split()) or type(error).__name__
                self._stopping.wait(_WAIT_MS * 1e-3)
            else:
                self._frame = Frame(image, _captured_ns(self._camera))
                self._since_ns, self.failure, self.frames = time.monotonic_ns(), "", self.frames + 1

    def close(self) -> None:
        """Stop reading and let go of the camera."""
        self._stopping.set()
        self._thread.join(1.0)
        with contextlib.suppress(Exception):  # one that was unplugged cannot be closed
            self._camera.disconnect()


def _captured_ns(camera: Any) -> int:
    """When its newest picture was captured, system clock [ns]; now where the camera does not tell."""
    told = getattr(camera, "latest_timestamp", None)
    age = time.perf_counter() - told if told is not None else 0.0
    return time.time_ns() - round(max(age, 0.0) * 1e9)


def open_cameras(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, CameraStream]:
    """Cameras by name, from LeRobot's own settings (`type`, `width`, `height`, `fps`, and what its class takes).

    Raises:
        ValueError: settings that LeRobot does not know, or a camera that does not open; one line with those that exist.
    """
    streams: dict[str, CameraStream] = {}
    try:
        for name, settings in configs.items():
            camera = _connected(name, settings)
            streams[name] = CameraStream(name, camera, float(camera.fps or 0.0))
    except ValueError:
        for stream in streams.values():
            stream.close()
        raise
    return streams


def _connected(name: str, settings: Mapping[str, Any]) -> Any:
    from lerobot.cameras import make_cameras_from_configs

    camera = make_cameras_from_configs({name: camera_config(name, settings)})[name]
    try:
        camera.connect()
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"camera {name} does not open: {reason[:160]}; {_there(camera)}") from error
    return camera


def camera_config(name: str, settings: Mapping[str, Any]) -> Any:
    """LeRobot's configuration of a camera.

    Raises:
        ValueError: what LeRobot does not know.
    """
    import draccus
    from lerobot.cameras import CameraConfig
    from lerobot.cameras.opencv import OpenCVCameraConfig  # registers "opencv"
    from lerobot.cameras.zmq import ZMQCameraConfig  # registers "zmq"

    if not isinstance(settings, Mapping):
        example = f"{{{name}: {{type: opencv, index_or_path: 0, width: 640, height: 480, fps: 30}}}}"
        raise ValueError(f"camera {name} is {settings!r}, where its settings are expected: {example} for one")
    known = {OpenCVCameraConfig, ZMQCameraConfig} and CameraConfig.get_known_choices()
    if settings.get("type") not in known:
        raise ValueError(f"camera {name} is of type '{settings.get('type')}'; there are: {', '.join(sorted(known))}")
    try:
        return draccus.decode(CameraConfig, dict(settings))
    except Exception as error:
        raise ValueError(f"camera {name}: {' '.join(str(error).split())}") from error


def _there(camera: Any) -> str:
    """The cameras of this machine that the same class finds."""
    try:
        found = [str(c.get("id", c.get("name"))) for c in type(camera).find_cameras()]
    except Exception:  # a class that cannot look for cameras
        return "is it connected, and does its server run?"
    return f"this machine has: {', '.join(found)}" if found else "this machine has no camera of that kind"
