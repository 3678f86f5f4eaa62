import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_learner import Net, ToyLearner, config, newest, training

from vla_rl.learn.guard import Diverged
from vla_rl.record.durable import LockedError


def losses(out):
    return {line["step"]: line["loss"] for line in map(json.loads, (out / "log.jsonl").read_text().splitlines())}


def weights(out):
    found = newest(out)
    return {**load_file(found.path / "model.safetensors"), **load_file(found.path / "training_state.safetensors")}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def stop_at(step, signal_number=signal.SIGINT):
    """A learner that is interrupted, as by Ctrl-C, while a step's batch is being made."""

    class Stopped(ToyLearner):
        def batch(self, number):
            if number == step:
                os.kill(os.getpid(), signal_number)
            return super().batch(number)

    return Stopped


def test_resumed_run_equals_a_straight_one_bit_for_bit(tmp_path):
    training(config(tmp_path / "straight", steps=100)).run()
    parted = config(tmp_path / "parted", steps=100, prefetch=0)
    result = training(parted, stop_at(50)(parted)).run()
    assert result["stopped"] == "interrupted"
    training(config(tmp_path / "parted", steps=100, prefetch=0, resume=True)).run()
    straight, parted = losses(tmp_path / "straight"), losses(tmp_path / "parted")
    assert len(straight) == 100
    assert straight == parted
    assert same(weights(tmp_path / "straight"), weights(tmp_path / "parted"))


def test_same_seed_same_run_and_other_seed_another(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        training(config(tmp_path / name, steps=20, seed=seed)).run()
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_finishes_the_step_saves_and_gives_the_signal_back(tmp_path, number, capsys):
    before = signal.getsignal(number)
    settings = config(tmp_path, prefetch=0)
    result = training(settings, stop_at(7, number)(settings)).run()
    assert result["stopped"] == "interrupted"
    assert result["steps"] == newest(tmp_path).step == 8
    assert "--resume" in capsys.readouterr().err
    assert signal.getsignal(number) == before


def test_learning_lowers_the_loss_by_ten(tmp_path):
    training(config(tmp_path, steps=600, ema=0.9)).run()
    seen = losses(tmp_path)
    assert seen[600] < seen[1] / 10


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(tmp_path):
    settings = config(tmp_path, steps=20)
    result = training(settings, poisoned=(7, 8)).run()
    assert result["skipped"] == 2
    assert all(torch.isfinite(v).all() for v in weights(tmp_path).values())
    assert load_file(newest(tmp_path).path / "training_state.safetensors")["optimizer/step/layers.0.weight"] == 18


def test_many_in_a_row_stop_the_run_name_the_batch_and_keep_the_good_weights(tmp_path):
    training(config(tmp_path / "good", steps=30, ema=0.0, lr=1e-3)).run()
    settings = config(tmp_path / "bad", steps=100, bad_steps=5, ema=0.0)
    run = training(settings, poisoned=range(30, 100))
    with pytest.raises(Diverged, match=r"5 steps in a row.*step 34 on episodes 34 and 35"):
        run.run()
    saved = weights(tmp_path / "bad")
    assert all(torch.isfinite(v).all() for v in saved.values())
    assert newest(tmp_path / "bad").record["skipped"] == 5
    assert torch.equal(saved["layers.0.weight"], saved["weights/layers.0.weight"])


def test_saved_policy_has_the_averaged_weights_and_the_state_the_raw_ones(tmp_path):
    run = training(config(tmp_path, steps=40))
    run.run()
    saved = weights(tmp_path)
    raw, averaged = saved["weights/layers.0.weight"], saved["layers.0.weight"]
    assert torch.equal(raw, run.learner.model.layers[0].weight)
    assert torch.equal(averaged, run.ema.shadow[0])
    assert not torch.equal(raw, averaged)


def test_minutes_anneal_to_the_end_whatever_the_speed(tmp_path):
    started = time.monotonic()
    result = training(config(tmp_path, steps=None, minutes=0.02, warmup=0)).run()
    assert 1.0 < time.monotonic() - started < 30
    rates = [json.loads(line)["lr"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert result["stopped"] == "done"
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.9e-2 > 1e-3 > rates[-1]


def test_out_of_another_kind_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"holds something else \(thesis.tex\)"):
        training(config(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_is_neither_overwritten_nor_resumed_as_another(tmp_path):
    training(config(tmp_path, steps=20)).run()
    with pytest.raises(ValueError, match="add --resume"):
        training(config(tmp_path, steps=20))
    with pytest.raises(ValueError, match="batch was 16, now 32"):
        training(config(tmp_path, steps=20, batch=32, resume=True))
    assert training(config(tmp_path, steps=30, resume=True)).run()["steps"] == 30


def test_two_runs_cannot_share_a_folder(tmp_path):
    class Nested(ToyLearner):
        def batch(self, number):
            if number == 3:
                with pytest.raises(LockedError):
                    training(config(tmp_path, resume=True)).run()
            return super().batch(number)

    settings = config(tmp_path, steps=10, prefetch=0)
    assert training(settings, Nested(settings)).run()["steps"] == 10


def test_processes_train_one_model_and_skip_a_step_that_is_bad_in_any_of_them(tmp_path):
    toy = Path(__file__).with_name("toy_learner.py")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        toy,
        tmp_path / "run",
    ]
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    subprocess.run(launch, env=here, check=True, capture_output=True, timeout=300)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["steps"], result["skipped"]) == (6, 1)
    assert all(torch.isfinite(v).all() for v in weights(tmp_path / "run").values())


def test_an_error_while_making_a_batch_reaches_the_caller(tmp_path):
    class Broken(ToyLearner):
        def batch(self, number):
            if number == 5:
                raise OSError("frame 5 is gone")
            return super().batch(number)

    settings = config(tmp_path)
    with pytest.raises(OSError, match="frame 5 is gone"):
        training(settings, Broken(settings)).run()


def test_loss_and_info_are_logged(tmp_path):
    training(config(tmp_path, steps=4, log_interval=2, tensorboard=True)).run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert {"loss", "noise", "grad_norm", "lr", "steps_per_s", "skipped"} <= set(lines[0])
    assert list((tmp_path / "tensorboard").iterdir())
    assert isinstance(Net(), torch.nn.Module)
