"""Cameras of a real arm, through LeRobot's own class: capture times, silence, and what does not open."""

import base64
import json
import time
from threading import Event, Thread

import cv2
import numpy as np
import pytest
import zmq
from twin_desk import until

from vla_rl.hardware.cameras import open_cameras

FPS = 30


class Server:
    """A camera that LeRobot's ZMQCamera reads."""

    def __init__(self):
        self._socket = zmq.Context.instance().socket(zmq.PUB)
        self.port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.silent, self._stopping = Event(), Event()
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self):
        image = np.full((48, 64, 3), (200, 40, 90), np.uint8)
        text = base64.b64encode(cv2.imencode(".png", image)[1]).decode()
        while not self._stopping.wait(1 / FPS):
            if not self.silent.is_set():
                self._socket.send_string(json.dumps({"timestamps": {"top": time.time()}, "images": {"top": text}}))

    def settings(self, **further):
        where = {"type": "zmq", "server_address": "127.0.0.1", "port": self.port, "camera_name": "top"}
        return {**where, "width": 64, "height": 48, "fps": FPS, **further}

    def close(self):
        self._stopping.set()
        self._thread.join()
        self._socket.close(0)


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def camera(server):
    stream = open_cameras({"top": server.settings()})["top"]
    yield stream
    stream.close()


def test_a_picture_comes_as_it_was_taken_with_the_time_of_its_capture(camera):
    until(lambda: camera.frame is not None)
    first = camera.frame
    assert first.image.shape == (48, 64, 3)
    assert first.image[0, 0].tolist() == [200, 40, 90]
    until(lambda: camera.frame.stamp_ns > first.stamp_ns)
    assert first.stamp_ns <= time.time_ns()
    assert camera.size == (64, 48)
    assert camera.complaint == ""


def test_a_camera_that_falls_silent_shows_nothing_and_says_so_until_it_is_back(server, camera):
    until(lambda: camera.frame is not None)
    server.silent.set()
    until(lambda: camera.complaint, "it is named")
    assert camera.frame is None
    assert "camera top shows nothing" in camera.complaint
    server.silent.clear()
    until(lambda: camera.frame is not None and camera.complaint == "")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"type": "webcam"}, "camera top is of type 'webcam'; there are: opencv, .*zmq"),
        ({"type": "opencv", "index": 0}, "camera top: .*index"),
        ({"type": "opencv", "index_or_path": 63, "width": 64, "height": 48, "fps": 30}, "camera top does not open"),
    ],
)
def test_one_that_cannot_be_used_is_refused_in_one_line(settings, said):
    with pytest.raises(ValueError, match=said) as error:
        open_cameras({"top": settings})
    assert "\n" not in str(error.value)
