"""A feeder of a real Desk, for the console's tests: what hil_node would hear and do, without a graph."""

import threading
import time
from functools import partial

import cv2
import numpy as np

from vla_rl.hil.desk import Desk
from vla_rl.hil.view import Plan, Stream
from vla_rl.types import Mode, Source

PERIOD_S = 1 / 30
PATIENCE = 4  # the desk's clock goes so much slower: a busy machine is no lost page


class Feeder:
    """Feeds a desk at 30 Hz from a thread, and does at once what it is asked; `asked` has all of it.

    An operator in `others` is there without a page; a camera in `unplugged` sends nothing.
    """

    def __init__(self, cameras=("front", "wrist"), size=(120, 160)):
        self.asked, self.instructions, self.marks, self.commands = [], [], [], []
        self.desk, self._cameras, self._size = Desk(self, clock), cameras, size
        self.others = []
        self.unplugged, self.reason = set(), ""
        self._ending, self._mode = threading.Event(), Mode.AUTONOMOUS
        self._pictures = {name: self._film(i) for i, name in enumerate(cameras)}
        self.desk.moded(self._mode)
        self.instruct("put the red cube on the plate")
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._ending.set()
        self._thread.join()

    # -- Ports ---------------------------------------------------------------

    def control(self, name, on):
        self.asked.append((name, on))
        modes = {"pause": Mode.PAUSED, "resume": Mode.AUTONOMOUS, "stop": Mode.STOPPED, "reset_stop": Mode.PAUSED}
        self._mode = modes.get(name, Mode.CORRECTING if on else Mode.AUTONOMOUS)

    def instruct(self, text):
        self.instructions.append(text)
        self.desk.instructed(text)

    def episode(self, mark):
        self.marks.append(mark)
        if not mark.recording:
            self.desk.thumbnails[mark.ordinal] = self.desk.frame(self._cameras[0]).jpeg

    # -- the world -----------------------------------------------------------

    def _film(self, shade):
        """One second of a square that moves."""
        height, width = self._size
        pictures = []
        for i in range(30):
            picture = np.full((height, width, 3), (60 + 30 * shade, 70, 60), np.uint8)
            left, top, side = i * (width - width // 8) // 30, height // 3, width // 8
            cv2.rectangle(picture, (left, top), (left + side, top + side), (40, 40, 220), -1)
            pictures.append(cv2.imencode(".jpg", picture)[1].tobytes())
        return pictures

    def _run(self):
        period = 0
        while not self._ending.wait(PERIOD_S):
            period += 1
            self.feed(period)

    def feed(self, period):
        desk = self.desk
        for operator in self.others:
            desk.heartbeat(operator)
        desk.moded(self._mode)
        desk.stepped(Source.HUMAN if desk.driving else Source.POLICY, self.reason, PERIOD_S)
        command = desk.page(clock())
        desk.device("page", command is not None)
        if command is not None and command.twist is not None and np.any(command.twist):
            self.commands.append(command)
        for name in set(self._cameras) - self.unplugged:
            desk.saw(name, partial(bytes, self._pictures[name][period % 30]))
        if period % 3 == 0:
            desk.valued(0.6 + 0.3 * np.sin(period / 40), 0.05 + 0.03 * np.cos(period / 17))
            desk.planned(plan(period))
        desk.streamed(
            {
                "joints": Stream(0.012, 30.0, True),
                **{name: Stream(0.03, 30.0, True) for name in self._cameras},
                "steering/chunk": Stream(0.11, 9.8, True),
                "recorder": Stream(2.4, 0.0, False),
            }
        )


def clock():
    """The desk's monotonic time [ns]."""
    return time.monotonic_ns() // PATIENCE


def plan(period, count=8, horizon=16):
    """Candidates that fan out from one point of the picture."""
    rng = np.random.default_rng(0)
    along = np.linspace(0, 1, horizon)[:, None]
    start, ends = np.array([0.0, -0.2]), rng.normal([0.1 * np.sin(period / 30), 0.2], 0.08, (count, 2))
    pixels = start + along * (ends[:, None] - start) + 0.04 * np.sin(3 * along) * [1, 0]
    return Plan(np.zeros((count, horizon, 3)), 2, {"front": pixels}, rng.uniform(0, 1, count))
