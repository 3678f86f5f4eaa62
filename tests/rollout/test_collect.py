import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from vla_rl import build
from vla_rl.cli import main
from vla_rl.data.cache import open_numbers
from vla_rl.data.features import FeatureTable
from vla_rl.data.rollouts import trajectories
from vla_rl.record.store import EpisodeStore
from vla_rl.rollout.collect import CollectConfig, claim, collect, jobs
from vla_rl.rollout.evaluate import EvalConfig
from vla_rl.rollout.evaluate import jobs as eval_jobs

ENV = build.EnvConfig(env="gymnasium:toy_env:toy/Reach-v0")
TASK = "toy/Reach-v0"
HERE = Path(__file__).parent


def gather(out, episodes, workers=0, policy="clumsy", on_progress=lambda _: None, env=ENV, **changes):
    config = CollectConfig((TASK,), episodes, **changes)
    player = partial(build.make_player, env, build.PolicyConfig(policy))
    return collect(config, {"env": env.to_dict(), "policy": policy}, out, player, workers, on_progress)


def contents(out):
    with EpisodeStore(Path(out) / "episodes", readonly=True) as store:
        return [store.read(i) for i in range(len(store))]


def assert_same(a, b):
    assert [meta for _, meta in a] == [meta for _, meta in b]
    for (first, _), (second, _) in zip(a, b, strict=True):
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[name], second[name]) for name in first)


class StopError(Exception):
    pass


def stop_after(count):
    def listen(progress):
        if progress.stored == count:
            raise StopError

    return listen


def test_an_interrupted_collection_goes_on_to_the_very_same_set(tmp_path):
    gather(tmp_path / "whole", 6)
    with pytest.raises(StopError):
        gather(tmp_path / "parts", 6, on_progress=stop_after(2))
    assert len(contents(tmp_path / "parts")) == 2
    counts = gather(tmp_path / "parts", 6, workers=2)
    assert_same(contents(tmp_path / "whole"), contents(tmp_path / "parts"))
    assert counts == gather(tmp_path / "whole", 6)


def arguments(out):
    slow = ["--env", ENV.env, "--env-kwargs", '{"pause": 0.01}', "--policy", "clumsy"]
    return ["collect", *slow, "--episodes", "12", "--out", str(out)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    assert main(arguments(out)) == 0
    return contents(out)


def wait_for_episodes(out, count):
    end = time.monotonic() + 60
    while len(list((out / "episodes").glob("*.episode"))) < count:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_killed_collection_resumes_and_no_worker_stays_behind(tmp_path, kill, uninterrupted):
    command = [sys.executable, "-m", "vla_rl", *arguments(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hear_ctrl_c
    )
    wait_for_episodes(tmp_path / "out", 3)
    os.kill(process.pid, kill)
    _, errors = process.communicate(timeout=60)
    if kill == signal.SIGINT:
        assert process.returncode == 130
        assert errors.count("\n") == 1
        assert "the same command goes on" in errors
    assert 3 <= len(contents(tmp_path / "out")) < 12
    await_silence(process.pid)
    assert main(arguments(tmp_path / "out")) == 0
    assert_same(uninterrupted, contents(tmp_path / "out"))


def hear_ctrl_c():
    """As in a terminal, also where the tests run in the background, which ignores the signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def await_silence(group):
    """The process group is empty: no worker outlives its parent."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("a worker is still there")


def test_a_finished_collection_can_grow_and_what_was_there_stays(tmp_path):
    gather(tmp_path / "a", 3)
    before = contents(tmp_path / "a")
    gather(tmp_path / "a", 5)
    after = contents(tmp_path / "a")
    assert_same(before, after[:3])
    assert len(after) == 5
    gather(tmp_path / "b", 5)
    assert_same(after, contents(tmp_path / "b"))


def test_another_request_in_the_same_folder_is_refused_by_what_differs(tmp_path):
    gather(tmp_path / "a", 2)
    with pytest.raises(ValueError, match="seed was 0, now 7"):
        gather(tmp_path / "a", 2, seed=7)
    with pytest.raises(ValueError, match="policy was 'clumsy', now 'expert'"):
        gather(tmp_path / "a", 2, policy="expert")
    assert len(contents(tmp_path / "a")) == 2


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        gather(tmp_path, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_only_success_drops_failures_and_resumes_alike(tmp_path):
    gather(tmp_path / "all", 10)
    successes = [pair for pair in contents(tmp_path / "all") if pair[1]["outcome"] == "success"]
    assert 0 < len(successes) < 10, "the clumsy expert does both"
    wanted = len(successes)
    with pytest.raises(StopError):
        gather(tmp_path / "good", wanted, only_success=True, on_progress=stop_after(1))
    gather(tmp_path / "good", wanted, only_success=True)
    assert_same(successes, contents(tmp_path / "good"))


def test_a_policy_that_never_succeeds_ends_only_success_with_an_error(tmp_path):
    with pytest.raises(ValueError, match="only 0 of 1 episodes succeeded in 20 attempts"):
        gather(tmp_path / "a", 1, only_success=True, env=build.EnvConfig(env=ENV.env, max_steps=2))


def test_each_scene_is_used_with_several_targets(tmp_path):
    gather(tmp_path / "a", 6, variants_per_scene=2)
    metas = [meta for _, meta in contents(tmp_path / "a")]
    assert [m["seed"] for m in metas] == [0, 0, 1, 1, 2, 2]
    assert all(a["target"] != b["target"] for a, b in zip(metas[::2], metas[1::2], strict=True))


def test_tasks_take_turns_scene_by_scene():
    sequence = list(jobs(CollectConfig(("lift", "push"), 6)))
    assert [(j.task, j.seed, j.choice) for j in sequence] == [
        ("lift", 0, 0), ("lift", 0, 1), ("push", 1, 0), ("push", 1, 1), ("lift", 2, 0), ("lift", 2, 1),
    ]  # fmt: skip


def test_no_training_scene_is_a_test_scene():
    trained = {job.seed for job in jobs(CollectConfig(("lift",), 100_000, variants_per_scene=1))}
    tested = {job.seed for job in eval_jobs(EvalConfig(("lift",), 1000))}
    assert not trained & tested


def test_a_checkpoint_is_known_by_its_weights_wherever_it_lies(tmp_path):
    asked = {"episodes": 3, "policy": "/here/run", "policy_weights": "a" * 64}
    claim(tmp_path / "a", asked)
    claim(tmp_path / "a", {**asked, "policy": "/there/run"})
    for other in ({"policy_weights": "b" * 64}, {"policy": "/there/run", "policy_weights": ""}, {"seed": 1}):
        with pytest.raises(ValueError, match="holds a collection made otherwise"):
            claim(tmp_path / "a", {**asked, **other})


def test_the_request_is_kept_beside_the_episodes(tmp_path):
    gather(tmp_path / "a", 1)
    kept = json.loads((tmp_path / "a" / "collect.json").read_text())
    assert (kept["policy"], kept["seed"], kept["env"]["env"]) == ("clumsy", 0, ENV.env)


@pytest.mark.parametrize(("policy", "shown"), [("clumsy", True), ("random", False)])
def test_only_what_an_expert_did_is_a_demonstration(tmp_path, policy, shown):
    """A critic would be taught that candidates are the better the nearer they come to noise."""
    asked = ["--env", ENV.env, "--policy", policy, "--episodes", "2", "--workers", "0", "--out", str(tmp_path)]
    assert main(["collect", *asked]) == 0
    cache = open_numbers(tmp_path / "dataset")
    rows = trajectories(cache, FeatureTable(np.arange(len(cache)), np.zeros((len(cache), 2), np.float32)))
    assert (rows.demonstrated == shown).all()
