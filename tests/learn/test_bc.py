import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_learner import newest

from vla_rl.data.cache import FrameCache
from vla_rl.data.lerobot import export
from vla_rl.learn.bc import BehaviourCloning, train_bc
from vla_rl.learn.config import BCConfig
from vla_rl.learn.train import Training, make_accelerator
from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.record.store import EpisodeStore

SIZE, EPISODES, LENGTH = 16, 6, 20
NAMES = [f"joint_{i}.pos" for i in range(5)] + ["gripper.pos"]
SMALL = ("width=32", "text_width=16", "queries=2", "noise_draws=1")


def episode(number):
    rng = np.random.default_rng(number)
    state = np.cumsum(rng.normal(0, 1, (LENGTH, 6)), axis=0).astype(np.float32)
    pictures = {
        f"observation.images.{c}": rng.integers(0, 256, (LENGTH, SIZE, SIZE, 3), np.uint8) for c in ("front", "wrist")
    }
    return {"observation.state": state, "action": state + 1, "policy_action": state + 2, **pictures}


def meta(number):
    colour = ("red", "green")[number % 2]
    named = {"task": "push", "target": f"{colour} cube", "instruction": f"shove the {colour} cube over there"}
    return {**named, "seed": number, "episode_index": number}


def cache(**changes):
    """Six episodes in memory, as H3's cache of a data set holds them."""
    columns = {k: np.concatenate([episode(i)[k] for i in range(EPISODES)]) for k in episode(0)}
    images = {k: columns.pop(k) for k in list(columns) if "images" in k}
    number = np.repeat(np.arange(EPISODES), LENGTH)
    fields = dict(root=Path("cache"), source="set", fps=30.0, images=images, robot_type="so101", action_spec={})
    fields |= dict(columns={**columns, "task_index": number % 2, "episode_index": number})
    fields |= dict(
        names={"observation.state": NAMES, "action": NAMES}, tasks=("push the red cube", "push the green cube")
    )
    fields |= dict(starts=np.arange(0, EPISODES * LENGTH + 1, LENGTH), episodes=tuple(meta(i) for i in range(EPISODES)))
    return FrameCache(**fields | changes)


def config(out, **changes):
    settings = {"batch": 8, "steps": 6, "horizon": 4, "image_size": SIZE, "checkpoint_interval": 3, "log_interval": 1}
    settings |= {"out": str(out), "device": "cpu", "bf16": "off", "tensorboard": False, "warmup": 0, "policy": SMALL}
    return BCConfig(**settings | changes)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("set")
    with EpisodeStore(root / "episodes") as store:
        for number in range(EPISODES):
            extra = {
                "outcome": "success",
                "fps": 30,
                "robot_type": "so101",
                "names": {"observation.state": NAMES, "action": NAMES},
            }
            store.append(episode(number), {**meta(number), **extra})
    return export(root / "episodes", root / "dataset")


def losses(out):
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


def test_data_set_to_policy_and_resumed_bit_for_bit(tmp_path, dataset, monkeypatch):
    monkeypatch.setenv("VLA_RL_CACHE", str(tmp_path / "cache"))
    straight, parted = tmp_path / "straight", tmp_path / "parted"
    result = train_bc(config(straight, data=(str(dataset),)), progress=False)
    assert result["stopped"] == "done"
    for resume in (False, True):
        part = config(parted, data=(str(dataset),), resume=resume, steps=6)
        if not resume:
            stop_after_three(part)
        else:
            train_bc(part, progress=False)
    assert losses(straight) == losses(parted)
    policy = VLAPolicy.from_pretrained(result["checkpoint"])
    frame = {key: torch.from_numpy(value[:1]) for key, value in episode(0).items()}
    frame |= {k: v.permute(0, 3, 1, 2) for k, v in frame.items() if "images" in k}
    assert policy.predict_action_chunk({**frame, "task": ["push the red cube"]}).shape == (1, 4, 6)
    assert {"config.json", "model.safetensors"} <= {p.name for p in Path(result["checkpoint"]).iterdir()}


def test_resuming_from_nothing_but_damaged_checkpoints_is_refused(tmp_path, dataset, monkeypatch):
    monkeypatch.setenv("VLA_RL_CACHE", str(tmp_path / "cache"))
    train_bc(config(tmp_path / "run", data=(str(dataset),), steps=3), progress=False)
    newest(tmp_path / "run").path.joinpath("model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 1 checkpoints .* is whole"):
        train_bc(config(tmp_path / "run", data=(str(dataset),), resume=True), progress=False)


def stop_after_three(part):
    """Train three steps of a run of six, as an interrupted process does."""
    from vla_rl.data.cache import build

    learner = BehaviourCloning(part, [build(part.data[0], None, SIZE)])
    make = learner.batch

    def batch(step):
        if step == 3:
            raise KeyboardInterrupt
        return make(step)

    learner.batch = batch
    with pytest.raises(KeyboardInterrupt):
        Training(part, learner, Path(part.out), make_accelerator(part), talk=False).run()
    assert newest(part.out).step == 3


def test_overfits_one_batch_by_ten(tmp_path):
    settings = config(tmp_path, steps=150, lr=3e-3, brightness=0, contrast=0, saturation=0, checkpoint_interval=150)
    learner = BehaviourCloning(settings, [cache()])
    make = learner.batch
    learner.batch = lambda step: make(0)
    Training(settings, learner, tmp_path, make_accelerator(settings), talk=False).run()
    seen = losses(tmp_path)
    assert np.mean(seen[-20:]) < np.mean(seen[:3]) / 10


def test_a_batch_is_a_pure_function_of_its_step(tmp_path):
    learner = BehaviourCloning(config(tmp_path), [cache()])
    first, again, other = learner.batch(3), learner.batch(3), learner.batch(4)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["action"], other["action"])


def test_processes_share_a_batch_without_overlap(tmp_path):
    settings = config(tmp_path)
    parts = [BehaviourCloning(settings, [cache()], rank=rank, world=2)._indices(0) for rank in (0, 1)]
    whole = BehaviourCloning(config(tmp_path, batch=16), [cache()])._indices(0)
    assert sorted(np.concatenate(parts)) == sorted(whole)


def test_held_out_and_excluded_episodes_are_never_trained_on(tmp_path):
    learner = BehaviourCloning(config(tmp_path, exclude=("push:green",), holdout=0.4, seed=1), [cache()])
    drawn = {int(e) for step in range(50) for e in learner.data.episode_of(learner._indices(step))}
    held = {int(e) for e in learner.data.episode_of(np.flatnonzero(learner.held))}
    assert held
    assert drawn
    assert not drawn & held
    assert drawn | held == {0, 2, 4}
    assert learner.facts()["excluded"] == {"push:green": 3}


def test_held_out_loss_decides_which_checkpoint_is_best(tmp_path):
    settings = config(tmp_path, holdout=0.4, seed=1)
    learner = BehaviourCloning(settings, [cache()])
    assert learner.score() == learner.score()
    Training(settings, learner, tmp_path, make_accelerator(settings), talk=False).run()
    assert newest(tmp_path).record["held_out"]
    assert BehaviourCloning(config(tmp_path), [cache()]).score() is None


def test_policy_action_is_learned_where_asked(tmp_path):
    executed = BehaviourCloning(config(tmp_path, action="action"), [cache()]).batch(0)["action"]
    proposed = BehaviourCloning(config(tmp_path, action="policy_action"), [cache()]).batch(0)["action"]
    assert torch.allclose(proposed - executed, torch.ones(()))


@pytest.mark.parametrize(("valid", "column"), [(True, "policy_action"), (False, "action")])
def test_the_clean_target_is_chosen_where_every_frame_has_one(tmp_path, valid, column):
    flags = np.ones(EPISODES * LENGTH, bool)
    flags[17] = valid
    learner = BehaviourCloning(config(tmp_path), [cache(columns={**cache().columns, "policy_action_valid": flags})])
    assert learner.facts()["action"] == column


def test_what_the_policy_does_not_read_is_said_and_left_out(tmp_path):
    extra = {"observation.environment_state": np.zeros((EPISODES * LENGTH, 2), np.float32)}
    learner = BehaviourCloning(config(tmp_path, exclude=("push:red",)), [cache(columns={**cache().columns, **extra})])
    assert "observation.environment_state" not in learner.policy.config.input_features
    said = ["--exclude push:red leaves out 3 of 6 episodes", "the policy does not read 'observation.environment_state'"]
    assert learner.remarks() == said
    numbers = {k: v for k, v in cache().columns.items() if k != "observation.state"}
    with pytest.raises(ValueError, match=r"reads cameras and .*; the data has: observation.environment_state"):
        BehaviourCloning(config(tmp_path), [cache(images={}, columns={**numbers, **extra})])


def test_only_the_first_episodes_are_used_where_asked(tmp_path):
    learner = BehaviourCloning(config(tmp_path, episodes=2), [cache(), cache()])
    assert learner.facts()["frames"] == 4 * LENGTH


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fps": 15.0}, "differ in fps: 30.0 against 15.0"),
        (
            {"names": {"observation.state": NAMES[::-1], "action": NAMES[::-1]}},
            r"differ in state_names: .*joint_0.pos.*against",
        ),
        ({"images": {}}, "differ in input_features"),
    ],
)
def test_other_data_than_the_checkpoint_was_made_for_is_refused_with_both_sides(tmp_path, changes, said):
    settings = config(tmp_path)
    Training(settings, BehaviourCloning(settings, [cache()]), tmp_path, make_accelerator(settings), talk=False).run()
    with pytest.raises(ValueError, match=said):
        BehaviourCloning(settings, [cache(**changes)], newest(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"policy": ("wings=2",)}, "--policy wings=2: expected key=value with a key of: .*width"),
        ({"backbone": "resnet"}, "unknown backbone 'resnet'; there are: tiny, hf:"),
        ({"head": "XXL"}, "unknown head 'XXL'"),
        ({"exclude": ("push:",)}, "keeps none of 6 episodes"),
        (
            {"exclude": ("push:grey",)},
            "--exclude push:grey matches none of 6 episodes; there are: push:green cube, push:red",
        ),
        ({"action": "wish"}, "lacks wish; it has"),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        BehaviourCloning(config(tmp_path, **changes), [cache()])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changes", [{"batch": 0}, {"lr": 0.0}, {"minutes": -1.0}, {"bf16": "maybe"}, {"holdout": 1.0}])
def test_impossible_settings_are_refused_by_name(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        BCConfig(**changes)


def test_a_missing_gpu_is_said_and_the_config_stays_light():
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no GPU"):
            make_accelerator(BCConfig(device="cuda"))
    assert "vla_rl.learn.config" in sys.modules
