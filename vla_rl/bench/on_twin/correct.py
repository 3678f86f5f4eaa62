"""A correction session on the twin: somebody takes over with the leader arm, does the task, marks it.

It is recorded, checked byte by byte, and improved from: a few steps of HG-DAgger, to see that the way is open.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from vla_rl import build
from vla_rl.bench.on_twin.bench_arm import a_twin
from vla_rl.bench.on_twin.episodes import FIRST_SEED, POLICY, Desk
from vla_rl.data.sessions import dataset_of
from vla_rl.hardware.twin.process import TwinProcess
from vla_rl.learn.improve import improve
from vla_rl.learn.improve_config import ImproveConfig
from vla_rl.record.folder import SessionFolder
from vla_rl.rollout.world import World
from vla_rl.types import Array

TASK, EPISODES, QUICK_EPISODES = "lift", 10, 2
STEPS, BATCH = 20, 16
POLICY_S = 0.7  # the policy acts so long before somebody takes over


def run(seconds: float, quick: bool) -> dict[str, float]:
    """Episodes in which somebody takes over early and does the task with the leader arm.

    Returns:
        corrections; corrections_succeeded; corrections_recorded: whole episodes of the session that are marked so;
        session_problems: files of the session that are not what they should be; corrected_frames: of its data set, in
        which the human drove; corrected_share; improved_steps: of a policy that learned from it and was saved.
    """
    import pyarrow.parquet as pq

    episodes = QUICK_EPISODES if quick else EPISODES
    with tempfile.TemporaryDirectory(prefix="session") as folder:
        session = Path(folder) / "session"
        succeeded = _correct(session, range(FIRST_SEED, FIRST_SEED + episodes))
        recorded = SessionFolder(session)
        kept = [e for e in recorded.episodes() if e.meta["outcome"] == "success"]
        dataset, problems = dataset_of(session), recorded.problems(thorough=True)
        files = sorted((dataset / "data").rglob("*.parquet"))
        learned = improve(
            ImproveConfig(session=(str(dataset),), policy=build.check_policy(POLICY), out=str(Path(folder) / "out"),
                          steps=STEPS, batch=BATCH),
            progress=False,
        )  # fmt: skip
        drove = np.concatenate([np.ravel(pq.read_table(f)["intervention"].to_pylist()) for f in files])
    return {
        "corrections": episodes,
        "corrections_succeeded": sum(succeeded),
        "corrections_recorded": len(kept),
        "session_problems": len(problems),
        "corrected_frames": int(drove.sum()),
        "corrected_share": float(drove.mean()),
        "improved_steps": int(learned["train"]["steps"]),
    }


def _correct(session: Path, seeds: range) -> list[bool]:
    env = build.fit_env(build.EnvConfig(), build.check_policy(POLICY))
    scout = build.make_world(build.EnvConfig(cameras=()), TASK)
    with a_twin(task=TASK, cameras=0, image_size=env.image_size) as twin:
        desk = LeaderDesk(twin, build.check_policy(POLICY), session)
        try:
            return [desk.correct(scout, seed) for seed in seeds]
        finally:
            desk.close()
            scout.close()


class LeaderDesk(Desk):
    """A graph on a twin with an operator, who drives with LeRobot's leader arm.

    Args:
        twin: with cameras and a leader.
        policy: folder of the checkpoint that drives until somebody takes over.
        session: folder that the recorder fills.
    """

    def __init__(self, twin: TwinProcess, policy: str, session: Path) -> None:
        teleop = {"port": str(twin.leader_port), "id": "leader", "calibration": str(twin.calibration)}
        named = {f"teleop_{key}": value for key, value in teleop.items()}
        super().__init__(
            twin, policy, operator="true", console="false", teleop="so101_leader", session=str(session), **named
        )

    def take_over(self) -> None:
        """Bring the leader to where the arm is, then take over."""
        self._twin.ask("carry", joints=self.joints().tolist(), arm="leader", wait=True)
        super().take_over()

    def _steer(self, joints: Array) -> None:
        self._twin.ask("carry", joints=joints.tolist(), arm="leader")

    def correct(self, scout: World, seed: int) -> bool:
        """One episode in which somebody takes over soon; whether it succeeded."""
        self.prepare(scout, seed)
        self._watch.trigger("episode/start")
        self._watch.trigger("control/resume")
        success = self.wait_for_end(POLICY_S)
        if not success:
            self.take_over()
            self._twin.ask("operate", on=True)
            success = self.wait_for_end()
            self._twin.ask("operate", on=False)
        self._watch.trigger(f"episode/{'success' if success else 'failure'}")
        self._watch.trigger("control/pause")
        return success
