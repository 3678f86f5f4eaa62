"""The twin's cameras as LeRobot's ZMQ cameras: JPEG in JSON, one camera a port.

LeRobot's `ZMQCamera` shows any other picture of a message that lacks its own: so no message has more than one.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from typing import TYPE_CHECKING

from vla_rl.hardware.twin.body import Painter
from vla_rl.hardware.twin.priority import draw_soon
from vla_rl.types import Image

if TYPE_CHECKING:
    import zmq

    from vla_rl.hardware.twin.twin import Twin

QUALITY = 95
KEPT = 2  # messages that wait for a slow reader


def message(camera: str, picture: Image, stamp: float) -> str:
    """A picture (H, W, 3) RGB as LeRobot's image server sends it, with its capture time, system clock [s].

    The server gives RGB to an encoder that takes it for BGR, and the camera leaves it so: the colours come out right.
    """
    import cv2

    _, jpeg = cv2.imencode(".jpg", picture, [int(cv2.IMWRITE_JPEG_QUALITY), QUALITY])
    return json.dumps({"timestamps": {camera: stamp}, "images": {camera: base64.b64encode(jpeg.tobytes()).decode()}})


class CameraServer:
    """Publishes what the twin's cameras see, each on a port of its own.

    Args:
        twin: with a scene.
        port: of the first camera on the loopback interface, the others follow; 0 takes any that are free.
        fps: pictures a second.

    Attributes:
        ports: camera to port.

    Raises:
        ValueError: the twin has no scene.
        OSError: a port is taken.
    """

    def __init__(self, twin: Twin, port: int = 0, fps: float = 30.0) -> None:
        import zmq

        self._twin, self._stage, self._period = twin, twin.stage, 1.0 / fps
        self._context = zmq.Context()
        self._sockets = {name: self._context.socket(zmq.PUB) for name in self._stage.cameras}
        try:
            self.ports = {n: _bind(s, port and port + i) for i, (n, s) in enumerate(self._sockets.items())}
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise OSError(f"no camera port {port} on the loopback interface: {error}; choose another") from error
        self._stop, drawn = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(drawn,), name="twin cameras", daemon=True)
        self._thread.start()
        while self._thread.is_alive() and not drawn.wait(0.1):
            pass  # the first picture takes long, and stops everything else meanwhile

    def _run(self, drawn: threading.Event) -> None:
        draw_soon()
        with self._stage.painter() as painter:
            due = time.monotonic()
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                self._publish(painter)
                drawn.set()
                due = max(due + self._period, time.monotonic())

    def _publish(self, painter: Painter) -> None:
        with self._twin.lock:
            snapshot, stamp, stopped = self._stage.snapshot(), time.time(), self._twin.stopped_cameras
        for name in self._stage.cameras:
            if not stopped & {name, ""}:
                self._sockets[name].send_string(message(name, painter.draw(snapshot, name), stamp))

    def close(self) -> None:
        """Stop, and let go of the ports."""
        self._stop.set()
        self._thread.join()
        self._context.destroy(linger=0)


def _bind(socket: zmq.Socket, port: int) -> int:
    """Bind a publisher to a port of the loopback interface, 0 for a free one; returns which."""
    import zmq

    socket.setsockopt(zmq.SNDHWM, KEPT)
    if not port:
        return socket.bind_to_random_port("tcp://127.0.0.1")
    socket.bind(f"tcp://127.0.0.1:{port}")
    return port
