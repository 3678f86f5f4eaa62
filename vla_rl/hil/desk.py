"""Desk: everything an operator sees and may do, for any console; no topics, no web, safe to use from every thread.

hil_node feeds it what it hears and does what it is asked through `Ports`; a console draws `view()` and calls the
actions, each of which is answered at once with (whether it was granted, why not). What control makes of a request
shows in the next view's mode and messages.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from vla_rl.hil.device import Command
from vla_rl.hil.devices.fed import Fed
from vla_rl.hil.episodes import EpisodeMark, Episodes
from vla_rl.hil.operator import Answer, Lease
from vla_rl.hil.view import Frame, Message, Plan, Stream, View
from vla_rl.observe.instruction import clean
from vla_rl.types import Mode, Outcome, Source

__all__ = ["Desk", "Frame", "Message", "Plan", "Ports", "Stream", "View"]

MESSAGES, VALUES, EPISODES = 50, 600, 200
HEARTBEAT_S, KEY_S, ANSWER_S = 0.5, 0.25, 1.0


class Ports(Protocol):
    """What a desk asks the world for; each returns at once."""

    def control(self, name: str, on: bool) -> None:
        """Ask control for take_over (on or not), pause, resume, stop or reset_stop."""

    def instruct(self, text: str) -> None:
        """Say what to do."""

    def episode(self, mark: EpisodeMark) -> None:
        """Tell what has become of an episode."""


class _Asked(NamedTuple):
    """A takeover (`on`) or hand-back that control has not answered yet.

    `before` is how many modes control will have told before this one's: each that is under way brings one.
    """

    on: bool
    at_ns: int
    before: int


class Desk:
    """See the module.

    Args:
        ports: how to ask the world.
        clock: monotonic time [ns].

    Attributes:
        thumbnails: ordinal of an episode to a JPEG of its last picture.
        obstacle: why nobody can take over now, "" where one can.
    """

    def __init__(self, ports: Ports, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._ports, self._clock, self._lock = ports, clock, threading.RLock()
        self._lease, self._episodes = Lease(), Episodes()
        self._pages: dict[str, Fed] = {}
        self._frames: dict[str, Frame] = {}
        self.thumbnails: dict[int, bytes] = {}
        self.obstacle = ""
        self._values: deque[tuple[int, float, float]] = deque(maxlen=VALUES)
        self._messages: deque[Message] = deque(maxlen=MESSAGES)
        self._asked: deque[_Asked] = deque()
        self._mode: Mode | None = None
        self._told_modes = 0  # how often control has told its mode
        self._source: Source | None = None
        self._reason = self._help = self._instruction = self._device = ""
        self._device_alive = False
        self._streams: Mapping[str, Stream] = {}
        self._plan: Plan | None = None

    # -- what an operator sees --------------------------------------------------------------------------------------

    def view(self) -> View:
        """All that is known now."""
        with self._lock:
            now, current = self._clock(), self._episodes.current
            return View(
                self._mode, self._source, self._reason, self._lease.holder, self._device,
                self._device_alive and not self._lease.lost,
                self._help, self._instruction, current, current.seconds(now) if current else 0.0,
                tuple(self._episodes.closed[-EPISODES:]), self._episodes.statistics(), dict(self._streams),
                tuple(((now - at) * 1e-9, value, spread) for at, value, spread in self._values),
                self._plan, tuple(self._frames), tuple(self._messages),
            )  # fmt: skip

    def frame(self, camera: str) -> Frame | None:
        """A camera's newest picture."""
        return self._frames.get(camera)

    # -- what an operator does --------------------------------------------------------------------------------------

    def take_over(self, on: bool, operator: str) -> Answer:
        """Take the arm, or hand it back; one operator at a time."""
        with self._lock:
            if on and self.obstacle:
                return self._told((False, self.obstacle))
            mine = self.wanted and self._lease.holder == operator and not self._lease.lost
            answer = self._lease.claim(operator) if on else self._lease.allows(operator)
            if not answer[0] or (on and mine):
                return self._told(answer)
            self._asked.append(_Asked(on, self._clock(), self._told_modes + len(self._asked)))
            self._ports.control("take_over", on)
            return True, ""

    def pause(self, operator: str) -> Answer:
        """Hold until `resume`; anybody may."""
        return self._control("pause")

    def resume(self, operator: str) -> Answer:
        """Go on after a pause."""
        return self._for(operator, lambda: self._control("resume"))

    def stop(self, operator: str) -> Answer:
        """Hold until `reset_stop`; anybody may."""
        return self._control("stop")

    def reset_stop(self, operator: str) -> Answer:
        """Clear a stop; the arm stays paused."""
        return self._for(operator, lambda: self._control("reset_stop"))

    def start(self, operator: str) -> Answer:
        """Begin recording an episode."""
        return self._mark(operator, lambda: self._episodes.start(self._clock(), self._instruction))

    def success(self, operator: str) -> Answer:
        """End the episode: it succeeded."""
        return self._mark(operator, lambda: self._episodes.end(self._clock(), Outcome.SUCCESS))

    def failure(self, operator: str) -> Answer:
        """End the episode: it failed."""
        return self._mark(operator, lambda: self._episodes.end(self._clock(), Outcome.FAILURE))

    def end(self, operator: str) -> Answer:
        """End the episode without an outcome."""
        return self._mark(operator, lambda: self._episodes.end(self._clock()))

    def discard(self, operator: str) -> Answer:
        """Discard the episode that goes on, or the last one."""
        return self._mark(operator, lambda: self._episodes.discard(self._clock()))

    def rerecord(self, operator: str) -> Answer:
        """Discard the episode that goes on, or the last one, and begin anew."""
        with self._lock:
            answer = self.discard(operator)
            return self.start(operator) if answer[0] else answer

    def note(self, text: str, operator: str) -> Answer:
        """Write about the episode that goes on, or the last one."""
        return self._mark(operator, lambda: self._episodes.note(clean(text)))

    def instruct(self, text: str, operator: str) -> Answer:
        """Say what to do: one line of at most 1000 characters is used."""
        answer = self._for(operator, lambda: (True, ""))
        if answer[0]:
            self._ports.instruct(clean(text))
        return answer

    def teleop(self, command: Command, operator: str) -> Answer:
        """Drive from the page: holds for a quarter of a second, so a key that stays down is told again and again."""
        self._page(operator).put(command, self._clock())
        return self._lease.allows(operator)

    def heartbeat(self, operator: str) -> None:
        """The page is there: while its operator has the arm, half a second without this means hold."""
        self._page(operator).beat(self._clock())

    def lost(self, operator: str) -> None:
        """The page is gone: while its operator has the arm, hold."""
        with self._lock:
            self._page(operator).lose()
            if self._lease.holder != operator:
                del self._pages[operator]

    def _page(self, operator: str) -> Fed:
        """The device that an operator's page is."""
        with self._lock:
            return self._pages.setdefault(operator, Fed(f"{operator}'s page", HEARTBEAT_S, KEY_S))

    def _control(self, name: str) -> Answer:
        self._ports.control(name, True)
        return True, ""

    def _for(self, operator: str, act: Callable[[], Answer]) -> Answer:
        """Do something that only whoever has the arm may do, or anybody where nobody has it."""
        with self._lock:
            answer = self._lease.allows(operator)
            return self._told(act() if answer[0] else answer)

    def _mark(self, operator: str, change: Callable[[], Answer]) -> Answer:
        """Change an episode and tell of it, before anybody else's mark: they come from several threads."""
        with self._lock:
            answer = self._for(operator, change)
            current = self._episodes.current
            if answer[0] and current is not None:
                if not current.recording and self._frames:
                    self.thumbnails.setdefault(current.ordinal, next(iter(self._frames.values())).jpeg)
                    self.thumbnails.pop(current.ordinal - EPISODES, None)  # shown no more
                self._ports.episode(current)
            return answer

    def _told(self, answer: Answer) -> Answer:
        """A refusal is shown as well."""
        if not answer[0]:
            self.say(answer[1], 1)
        return answer

    # -- whose hand moves the arm -----------------------------------------------------------------------------------

    @property
    def correcting(self) -> bool:
        """Whether a human has the arm."""
        return self._mode is Mode.CORRECTING

    @property
    def wanted(self) -> bool:
        """Whether a human has the arm, or will once control has answered what it was asked."""
        with self._lock:  # an answer may come at any time
            while self._asked and self._clock() - self._asked[0].at_ns > ANSWER_S * 1e9:  # control died over it
                self._asked.popleft()
            return self._asked[-1].on if self._asked else self.correcting

    @property
    def driving(self) -> bool:
        """Whether the operator who has the arm may move it."""
        return self.correcting and not self._lease.lost

    @property
    def stranded(self) -> bool:
        """Whether a human has the arm whose device is lost."""
        return self.correcting and self._lease.lost

    def page(self, now_ns: int) -> Command | None:
        """What the page of whoever has the arm says; where nobody has it, that some page is there."""
        with self._lock:
            if self._lease.holder:
                return self._pages[self._lease.holder].read(now_ns) if self._lease.holder in self._pages else None
            there = any(page.read(now_ns) is not None for page in self._pages.values())
        return Command() if there else None

    @property
    def by_page(self) -> bool:
        """Whether whoever has the arm took it from a page."""
        return self._lease.holder in self._pages

    def device(self, name: str, alive: bool) -> None:
        """What the arm is driven with, and whether it is heard; losing it while somebody drives means hold."""
        with self._lock:
            self._device, self._device_alive = name, alive
            if self.driving and not alive:
                self._lease.lose()
                self.say(f"{name} is lost: the arm holds. Take over again, hand back or stop", 2)

    # -- what hil_node feeds ----------------------------------------------------------------------------------------

    def moded(self, mode: Mode) -> None:
        """Who may act from now on, as control tells it."""
        with self._lock:
            self._told_modes += 1
            self._enter(mode)

    def _enter(self, mode: Mode) -> None:
        before, self._mode = self._mode, mode
        if mode is before:
            return
        self._help = self._help if mode is Mode.PAUSED else ""
        if mode is Mode.CORRECTING:
            self._episodes.drove(0.0, 1)
            if not self._lease.holder:
                self._lease.claim(self._device or "somebody")
                self._lease.lost = before is None  # a takeover from before us: who drove, and where, is not known
        elif before is Mode.CORRECTING and not self.wanted:  # who has asked for it again keeps it
            self._lease.release()
        self.say(f"{mode}{f', {self._lease.holder} drives' if mode is Mode.CORRECTING else ''}")

    def stepped(self, source: Source, reason: str, seconds: float) -> None:
        """Who acted for a period of so many seconds, and why the arm holds."""
        with self._lock:
            self._source, self._reason = source, reason
            if self.correcting:
                self._episodes.drove(seconds)

    def answered(self, name: str, granted: bool, why: str) -> None:
        """What control said to a request; a mode that it has told since is newer than its answer."""
        with self._lock:
            asked = self._asked.popleft() if name == "take_over" and self._asked else None
            if granted:
                if asked and self._told_modes <= asked.before and self._mode is not Mode.STOPPED:
                    self._enter(Mode.CORRECTING if asked.on else Mode.AUTONOMOUS)
                elif asked and asked.on and not self.wanted:  # granted, and over already: somebody stopped it just then
                    self._lease.release()
                return
            self.say(f"{name}: {why}", 1)
            if name == "take_over" and not self.correcting:
                self._lease.release()
            elif asked and asked.on:  # somebody else drives, or did just now: whoever asked does not
                self._lease.lose()

    def instructed(self, text: str) -> None:
        """What is to be done from now on."""
        self._instruction = clean(text)

    def valued(self, value: float, spread: float) -> None:
        """What the critic said of the chunk that was chosen."""
        with self._lock:
            self._values.append((self._clock(), value, spread))

    def planned(self, plan: Plan | None) -> None:
        """The chunk under way."""
        self._plan = plan

    def streamed(self, streams: Mapping[str, Stream]) -> None:
        """How the streams are doing."""
        self._streams = dict(streams)

    def call(self, why: str) -> None:
        """A human is asked for."""
        with self._lock:
            if self._help != why:
                self._help = why
                self.say(f"help: {why}", 2)

    def say(self, text: str, level: int = 0) -> None:
        """A line for the operator: level 0 well, 1 warning, 2 error."""
        with self._lock:
            self._messages.append(Message(time.time(), level, text))

    def saw(self, camera: str, draw: Callable[[], bytes]) -> None:
        """A camera's newest picture; `draw` makes a JPEG of it where somebody looks."""
        with self._lock:
            before = self._frames.get(camera)
            self._frames[camera] = Frame(before.number + 1 if before else 0, draw)
