"""Online: a learner beside a running graph. Whenever enough new episodes are complete, a round; then a push.

::

    session     e e e e e e e e e e e e e e e e e e e ...     the graph goes on recording
    learner             |- round 1 -|     |- round 2 -| ...   each goes on from the policy of the one before
    graph       v0 . . . . . . . . . v1 . . . . . . . . v2    takes over between two inferences

    OUT/rounds/000001/      what `improve` writes
    OUT/sessions/0/         the first session's data set as the round under way found it, in links, with its sidecars:
                            the recorder makes SESSION/dataset anew whenever it likes
    OUT/versions/policy/    see vla_rl.learn.versions; the policy node's parameter `versions` is this folder
    OUT/versions/critic/    likewise the steering node's
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vla_rl.data.lerobot import snapshot
from vla_rl.data.sessions import NoRowsError
from vla_rl.learn import versions
from vla_rl.learn.hg_dagger import NothingToImitateError
from vla_rl.learn.improve import RESULT, improve
from vla_rl.learn.improve_config import ImproveConfig
from vla_rl.learn.run import write_json

POLL_S = 1.0

Result = dict[str, Any]


def give_way() -> None:
    """Learn with what the graph leaves of the processors.

    Linux hides a process's niceness from other sessions (autogroup, see sched(7)): one that has a session to itself
    makes the whole of it nice.
    """
    os.nice(19)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # another system, or no such feature
            Path("/proc/self/autogroup").write_text("19")


class Online:
    """Rounds of improvement.

    Args:
        config: of each round; `policy` is what the first one goes on from.
        episodes: how many episodes can be learned from by now.
        sessions: the sessions' data sets, brought up to date.
        wait: called between two looks.

    Attributes:
        policies, critics: the folders that versions are pushed into.
    """

    def __init__(
        self,
        config: ImproveConfig,
        episodes: Callable[[], int],
        sessions: Callable[[], tuple[str, ...]],
        wait: Callable[[], None] = lambda: time.sleep(POLL_S),
    ) -> None:
        self.config, self._episodes, self._sessions, self._wait = config, episodes, sessions, wait
        out = Path(config.out)
        self.policies, self.critics = out / "versions/policy", out / "versions/critic"
        self._rounds = out / "rounds"

    def run(
        self, told: Callable[[Result], None] = lambda _: None, said: Callable[[str], None] = lambda _: None
    ) -> Result:
        """Go on until enough rounds are done, from the last one that was pushed.

        Args:
            told: takes each round's result: that of `improve`, `round`, `version` and `episodes`.
            said: takes one line where a round finds nothing to imitate, and more episodes are waited for.

        Returns:
            The last round's result, {} where there was none.
        """
        done, seen, result = self._pushed(), self._seen(), Result()
        while not self.config.rounds or done < self.config.rounds:
            if (count := self._episodes()) < seen + self.config.every:
                self._wait()
                continue
            seen = count
            try:
                result = self._round(done + 1, count)
            except (NothingToImitateError, NoRowsError) as error:
                shutil.rmtree(self._folder(done + 1), ignore_errors=True)
                said(f"round {done + 1} waits for {self.config.every} more episodes: {error}")
                continue
            done += 1
            told(result)
        return result

    def _pushed(self) -> int:
        """Rounds that are done: number of the newest version."""
        found = versions.newest(self.policies)
        return found.number if found else 0

    def _seen(self) -> int:
        """Episodes that the last round learned from."""
        found = versions.newest(self.policies)
        return self._learned(found.number) if found else 0

    def _learned(self, number: int) -> int:
        path = self._folder(number) / RESULT
        return int(json.loads(path.read_text()).get("episodes", 0)) if path.is_file() else 0

    def _folder(self, number: int) -> Path:
        return self._rounds / f"{number:06d}"

    def _frozen(self, resume: bool) -> tuple[str, ...]:
        """The sessions' data sets as they are now; of a round that is gone on with, as they were."""
        there = self._rounds.with_name("sessions")
        if not (resume and there.is_dir()):
            fresh = there.with_name("sessions.partial")
            for leftover in (fresh, there):
                shutil.rmtree(leftover, ignore_errors=True)
            for number, root in enumerate(self._sessions()):
                snapshot(root, fresh / str(number))
            fresh.rename(there)
        return tuple(str(there / str(number)) for number in range(len(self.config.session)))

    def _round(self, number: int, episodes: int) -> Result:
        """One round, and its push; the policy goes last, so that the critic that belongs to it is there already."""
        found = versions.newest(self.policies)
        policy = str(found.path) if found else self.config.policy
        out, resume = self._folder(number), self._folder(number).is_dir()
        session = self._frozen(resume)
        config = dataclasses.replace(
            self.config, session=session, policy=policy, out=str(out), resume=resume, online=False
        )
        result = {**improve(config, progress=False), "round": number, "episodes": episodes}
        write_json(out / RESULT, result)
        if result["critic"] and not self.config.value:
            versions.publish(self.critics, result["critic"])
        result["version"] = versions.publish(self.policies, result["policy"]).number
        write_json(out / RESULT, result)
        return result
