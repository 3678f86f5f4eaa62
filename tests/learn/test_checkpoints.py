import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from toy_learner import config, newest, training

from vla_rl.learn.checkpoint import CheckpointError, CheckpointStore, resolve

KILLS = 15


def store(root, **settings):
    return CheckpointStore(root, warn=lambda line: None, **settings)


def write(text="weights"):
    return lambda folder: (folder / "model.safetensors").write_text(text)


@pytest.fixture
def forks():
    """Children that start in milliseconds: `start(config) -> pid` and `wait() -> exit status`."""
    here = Path(__file__).parent
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, here / "fork_server.py"], env=settings, **pipes) as server:
        assert server.stdout.readline() == "ready\n"

        def start(**settings):
            print(json.dumps(settings), file=server.stdin, flush=True)
            return int(server.stdout.readline())

        yield start, lambda: int(server.stdout.readline())
        server.stdin.close()


def test_killed_at_any_moment_the_newest_checkpoint_is_valid_and_one_interval_is_lost_at_most(tmp_path, forks):
    """SIGKILL at random moments of one run that is resumed each time, often amid a save: they fill most of its time."""
    start, wait = forks
    chance = np.random.default_rng(0)
    settings = {"out": str(tmp_path), "steps": 10**6, "checkpoint_interval": 5, "log_interval": 1, "batch": 2}
    reached = 0
    for kill in range(KILLS):
        child = start(**settings, resume=kill > 0)
        patience = time.monotonic() + 60
        while newest_step(tmp_path) <= reached and time.monotonic() < patience:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        assert wait() == -signal.SIGKILL
        found = newest(tmp_path)
        assert found.step > reached
        assert logged(tmp_path) - found.step <= 5
        reached = found.step
    training(config(**settings | {"resume": True, "steps": reached + 3})).run()
    assert newest(tmp_path).step == reached + 3
    assert not list((tmp_path / "checkpoints").glob(".*"))


def newest_step(out):
    steps = [p.name for p in (out / "checkpoints").glob("step-*")]
    return max((int(s.removeprefix("step-")) for s in steps), default=0)


def logged(out):
    lines = [line for line in (out / "log.jsonl").read_text().splitlines(keepends=True) if line.endswith("\n")]
    return json.loads(lines[-1])["step"] if lines else 0


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "record"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, damage):
    lines = []
    kept = CheckpointStore(tmp_path, warn=lines.append)
    for step in (1, 2):
        kept.save(step, write("0123456789"), {})
    victim = tmp_path / "step-000002" / "model.safetensors"
    if damage == "truncate":
        victim.write_text("01234")
    elif damage == "flip":
        victim.write_text("0123x56789")
    elif damage == "remove":
        victim.unlink()
    else:
        (victim.parent / "training.json").write_text('{"step": 2')
    assert kept.newest().step == 1
    assert len(lines) == 1
    assert "step-000002" in lines[0]
    assert "trying the one before" in lines[0]


def test_newest_few_and_the_best_are_kept(tmp_path):
    kept = store(tmp_path, keep=2)
    for step, score in enumerate([5.0, 1.0, 3.0, 2.0, 4.0]):
        kept.save(step, write(), {"score": score})
    assert [p.name for p in kept.folders()] == ["step-000001", "step-000003", "step-000004"]
    assert (tmp_path / "best").resolve().name == "step-000001"
    assert (tmp_path / "last").resolve().name == "step-000004"


def test_order_is_by_number_beyond_a_million_steps(tmp_path):
    kept = store(tmp_path)
    for step in (999_999, 1_000_000):
        kept.save(step, write(), {})
    assert kept.newest().step == 1_000_000


def test_a_failed_save_leaves_everything_as_it_was(tmp_path):
    kept = store(tmp_path)
    kept.save(1, write(), {})
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))

    def fail(folder):
        (folder / "half").write_text("x")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        kept.save(2, fail, {})
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before
    assert kept.newest().step == 1


@pytest.fixture
def small_disk():
    """Files of at most 3000 bytes, for a while: writing more fails as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def shrink(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield shrink
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def fill_disk_between(run, first, last, shrink):
    """From batch `first` to batch `last` no file can grow beyond 3000 bytes."""
    make = run.learner.batch

    def batch(step):
        if step == first:
            shrink(3000)
        if step == last:
            shrink(resource.RLIM_INFINITY)
        return make(step)

    run.learner.batch = batch
    return run


def test_full_disk_keeps_the_old_checkpoint_trains_on_and_tries_again(tmp_path, small_disk, capsys):
    settings = config(tmp_path, steps=60, checkpoint_interval=20, log_interval=60, prefetch=0)
    result = fill_disk_between(training(settings), 30, 50, small_disk).run()
    said = capsys.readouterr().err
    assert said.count("WARNING") == 1
    assert "step 40 not saved" in said
    assert "the one of step 20 is whole" in said
    assert [p.name for p in store(tmp_path / "checkpoints").folders()] == ["step-000020", "step-000060"]
    assert result["steps"] == 60


def test_full_disk_at_the_end_is_an_error_and_the_old_checkpoint_still_resumes(tmp_path, small_disk):
    settings = dict(steps=60, checkpoint_interval=20, log_interval=60, prefetch=0)
    run = fill_disk_between(training(config(tmp_path, **settings)), 30, 1000, small_disk)
    with pytest.raises(OSError, match=r"step 60 not saved.*--resume"):
        run.run()
    small_disk(resource.RLIM_INFINITY)
    assert newest(tmp_path).step == 20
    assert training(config(tmp_path, resume=True, **settings)).run()["steps"] == 60


def test_full_disk_does_not_stop_the_run_for_a_log(tmp_path, small_disk, capsys):
    settings = config(tmp_path, steps=60, checkpoint_interval=60, prefetch=0, tensorboard=True)
    assert fill_disk_between(training(settings), 10, 59, small_disk).run()["steps"] == 60
    assert "log of step" in capsys.readouterr().err


def test_a_path_means_a_policy_folder_or_the_newest_valid_checkpoint_of_a_run(tmp_path):
    out = tmp_path / "run"
    kept = store(out / "checkpoints")
    for step in (1, 2):
        kept.save(step, lambda folder: (folder / "config.json").write_text("{}"), {})
    second = (out / "checkpoints/step-000002").resolve()
    assert resolve(second) == second
    assert resolve(out) == resolve(str(out / "checkpoints")) == second
    (second / "config.json").write_text("")
    assert resolve(out).name == "step-000001"
    with pytest.raises(CheckpointError, match="no policy in"):
        resolve(tmp_path / "nowhere")


def test_nothing_that_is_read_back_is_a_pickle(tmp_path):
    training(config(tmp_path, steps=20)).run()
    names = {p.name for p in newest(tmp_path).path.iterdir()}
    assert names == {"model.safetensors", "training_state.safetensors", "training.json"}
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pt", ".pth", ".pkl", ".bin")]


def test_a_checkpoint_of_other_shapes_is_refused_by_name(tmp_path):
    from safetensors.torch import load_file, save_file

    from vla_rl.learn.state import load_state

    run = training(config(tmp_path, steps=20))
    run.run()
    file = newest(tmp_path).path / "training_state.safetensors"
    state = load_file(file)
    state["weights/layers.0.weight"] = state["weights/layers.0.weight"][:5].clone()
    save_file(state, file)
    with pytest.raises(CheckpointError, match=r"\(5, 8\) for layers.0.weight, the model has \(32, 8\)"):
        load_state(file.parent, run.learner.model, run.optimizer)
