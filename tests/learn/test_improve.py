"""`vla-rl improve`: every method from a small session to a policy that loads, round after round; what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_bc import NAMES, SIZE, SMALL, episode, meta

from vla_rl.cli import main
from vla_rl.data.cache import build
from vla_rl.data.dataset import open_dataset
from vla_rl.data.features import FeatureTable
from vla_rl.data.lerobot import export
from vla_rl.data.rollouts import trajectories
from vla_rl.data.sessions import NoRowsError
from vla_rl.data.sidecars import read_column, tags
from vla_rl.learn import online, preference, versions
from vla_rl.learn.bc import train_bc
from vla_rl.learn.config import BCConfig
from vla_rl.learn.hg_dagger import NothingToImitateError
from vla_rl.learn.improve import improve as offline
from vla_rl.learn.improve_config import METHODS, ImproveConfig
from vla_rl.learn.online import Online
from vla_rl.learn.preference import Pairs
from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.record.candidates import Draw, stack
from vla_rl.record.store import EpisodeStore
from vla_rl.reward.label import label

H, PERIOD, EPISODES = 8, 4, 4
QUICK = {"steps": 2, "critic_steps": 4, "batch": 8, "threads": 1, "device": "cpu"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_RL_CACHE", str(tmp_path / "cache"))


def store(root, number=EPISODES, corrected=True, **changes):
    """Episodes as `vla-rl collect` leaves them; in each a human drove frames 4 to 11, and the last one failed."""
    with EpisodeStore(root / "episodes") as out:
        for i in range(number):
            out.append(*recorded(i, corrected, **changes))
    return export(root / "episodes", root / "dataset")


def recorded(i, corrected=True, fps=30.0, names=NAMES):
    columns = episode(i)
    steps = len(columns["action"])
    last = np.arange(steps) == steps - 1
    won = i % EPISODES != EPISODES - 1
    drove = (np.arange(steps) >= 4) & (np.arange(steps) < 12) & corrected
    columns |= {"intervention": drove, "policy_action_valid": np.ones(steps, bool), "next.done": last & won}
    columns |= {"next.truncated": last & (not won), "next.success": last & won}
    columns["next.reward"] = (last & won).astype(np.float32)
    columns["chunk.index"] = np.full(steps, 0 if corrected else -1)
    rng = np.random.default_rng(i)
    draws = [Draw(row, rng.normal(0, 3, (1, H, 6)).astype(np.float32)) for row in range(0, steps, PERIOD)]
    described = {"fps": fps, "robot_type": "so101", "outcome": "success" if won else "failure"}
    described["names"] = {"observation.state": names, "action": names, "policy_action": names}
    return columns, {**meta(i), **described}, stack(draws) if corrected else {}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Demonstrations, a session, and a policy that was trained on the former for a moment."""
    root = tmp_path_factory.mktemp("world")
    shown, session = store(root / "shown", corrected=False), store(root / "session")
    settings = {"data": (str(shown),), "out": str(root / "policy"), "steps": 2, "batch": 8, "horizon": H, "threads": 1}
    settings |= {"image_size": SIZE, "policy": (*SMALL, f"n_action_steps={PERIOD}", "inference_steps=2")}
    settings |= {"device": "cpu", "bf16": "off", "tensorboard": False, "cache": str(root / "cache")}
    checkpoint = train_bc(BCConfig(**settings), progress=False)["checkpoint"]
    return {"shown": shown, "session": session, "policy": checkpoint, "root": root}


def flags(config):
    return [word for name, value in config.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def features_of(cache):
    return FeatureTable(np.arange(len(cache)), np.zeros((len(cache), 2), np.float32))


def improved(world, out, *more, session=None, **changes):
    asked = ["improve", "--session", str(session or world["session"]), "--policy", str(world["policy"])]
    asked += ["--out", str(out), *flags(QUICK | changes)]
    return main([*asked, *more, "--json", str(out.parent / "result.json")])


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_makes_a_policy_a_report_and_says_what_the_session_was(world, tmp_path, method, capsys):
    more = ["--data", str(world["shown"])]
    if method == "recap":
        more += ["--set", "positive=0.5"]
    assert improved(world, tmp_path / "out", *more, method=method) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    before, after = VLAPolicy.from_pretrained(world["policy"]), VLAPolicy.from_pretrained(result["policy"])
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=False))
    assert result["session"]["takeovers"] == 1.0
    assert result["session"]["success"] == pytest.approx(0.75)
    assert result["session"]["autonomous"] == 0.0
    assert bool(result["critic"]) == (method in ("recap", "hil_serl", "pvp", "expo"))
    assert "Improvement by" in (tmp_path / "out/report.html").read_text()
    assert "the human drove 40%" in capsys.readouterr().out


def test_recap_writes_returns_that_end_where_the_human_took_over(world, tmp_path):
    assert (
        improved(world, tmp_path / "out", "--data", str(world["shown"]), "--set", "positive=0.5", method="recap") == 0
    )
    returns, about = read_column(world["session"], "return", "recap", EPISODES * 20)
    first = returns.reshape(EPISODES, 20)
    assert (first[:3, 3] < first[:3, 4:12].min(1)).all()  # failure before, what it came to behind
    assert first[0, 3] == pytest.approx(-21 / 40)
    assert about["reward"] == "recap"
    advantages, _ = read_column(world["session"], "advantage", "recap", EPISODES * 20)
    assert advantages.std() > 0


def test_a_learner_beside_a_session_pushes_round_after_round(world, tmp_path):
    root, counts = tmp_path / "live", []
    session = store(root, 2)
    asked = {"session": (str(root),), "policy": str(world["policy"]), "out": str(tmp_path / "out")}
    config = ImproveConfig(**asked, every=2, rounds=2, online=True, **QUICK)

    def episodes():
        return len(EpisodeStore(root / "episodes", readonly=True))

    def wait():
        with EpisodeStore(root / "episodes") as out:
            out.append(*recorded(len(out)))

    def sessions():
        counts.append(episodes())
        return (str(export(root / "episodes", root / "dataset")),)

    learner = Online(config, episodes, sessions, wait)
    result = learner.run()
    assert counts == [2, 4]
    assert (result["round"], result["version"], result["session"]["episodes"]) == (2, 2, 4)
    assert versions.newest(learner.policies).number == 2
    VLAPolicy.from_pretrained(versions.newest(learner.policies).path)
    second = json.loads((tmp_path / "out/rounds/000002/improve.json").read_text())
    assert second["config"]["policy"].endswith("versions/policy/000001")  # goes on from the one before
    assert Online(config, episodes, sessions, wait).run() == {}  # all rounds are done
    assert session.is_dir()


def test_a_learner_may_be_started_before_the_session_that_it_waits_for(world, tmp_path, monkeypatch, capsys):
    root = tmp_path / "live"
    monkeypatch.setattr(online, "give_way", lambda: None)
    monkeypatch.setattr(online, "time", SimpleNamespace(sleep=lambda _: store(root, 2)))
    assert improved(world, tmp_path / "out", "--online", session=root, every=2, rounds=1) == 0
    said = capsys.readouterr().out
    assert f"waits for {root}, which is not there yet" in said
    assert "round 1: version 1 is pushed" in said


def learner_of(root, world, improve, monkeypatch, **more):
    """A learner beside the collection in `root`, whose rounds are what `improve` does."""
    asked = {"session": (str(root),), "policy": str(world["policy"]), "out": str(root / "out"), "every": 1, "rounds": 1}

    def wait():
        with EpisodeStore(root / "episodes") as out:
            out.append(*recorded(len(out)))

    def made(config, progress):
        Path(config.out).mkdir(parents=True, exist_ok=True)
        return improve(config, progress)

    monkeypatch.setattr(online, "improve", made)
    episodes = lambda: len(EpisodeStore(root / "episodes", readonly=True))  # noqa: E731
    sessions = lambda: (str(export(root / "episodes", root / "dataset")),)  # noqa: E731
    return Online(ImproveConfig(**asked | more, online=True), episodes, sessions, wait)


def test_what_a_round_writes_beside_its_data_outlives_an_export_of_the_growing_session(world, tmp_path, monkeypatch):
    live = store(tmp_path / "live", 2)

    def improve(config, progress):
        label(config.session[0], "recap", "recap", 1.0)
        learner._wait()
        learner._sessions()  # as the recorder does whenever it likes
        assert len(open_dataset(live).episodes) == 3
        cache = build(config.session[0], tmp_path / "cache", SIZE)  # of the same pictures as the session's own
        assert trajectories(cache, features_of(cache), "recap").reward.shape == (40,)
        return {"policy": str(world["policy"]), "critic": ""}

    build(live, tmp_path / "cache", SIZE)
    learner = learner_of(tmp_path / "live", world, improve, monkeypatch)
    assert learner.run()["version"] == 1
    assert tags(live, "reward") == []


def test_a_round_with_nothing_to_imitate_says_so_and_waits_for_more_episodes(world, tmp_path, monkeypatch):
    store(tmp_path / "live", 1)
    said, asked = [], []

    def improve(config, progress):
        asked.append(config)
        if len(asked) == 1:
            raise NothingToImitateError("nobody corrected anything")
        return {"policy": str(world["policy"]), "critic": ""}

    learner = learner_of(tmp_path / "live", world, improve, monkeypatch)
    assert learner.run(said=said.append)["episodes"] == 2
    assert said == ["round 1 waits for 1 more episodes: nobody corrected anything"]
    assert [config.resume for config in asked] == [False, False]


def test_a_session_without_a_row_or_a_pair_yet_is_waited_for(world, tmp_path, monkeypatch):
    store(tmp_path / "live", 1)
    said, rounds = [], iter([NoRowsError("the session has no row"), None])

    def sessions():
        if error := next(rounds):
            raise error
        return (str(export(tmp_path / "live/episodes", tmp_path / "live/dataset")),)

    def improve(config, progress):
        return {"policy": str(world["policy"]), "critic": ""}

    learner = learner_of(tmp_path / "live", world, improve, monkeypatch)
    learner._sessions = sessions
    assert learner.run(said=said.append)["episodes"] == 2
    assert said == ["round 1 waits for 1 more episodes: the session has no row"]
    monkeypatch.setattr(preference, "pairs", lambda drivers, *_: Pairs(np.zeros(0, np.int64), np.zeros((0, H, 6))))
    asked = {"session": (str(world["session"]),), "policy": str(world["policy"]), "out": str(tmp_path / "no")}
    with pytest.raises(NothingToImitateError, match="needs recorded candidates"):
        offline(ImproveConfig(**asked, method="preference", **QUICK), progress=False)


def test_a_learner_killed_while_it_pushed_knows_what_it_had_learned_from(world, tmp_path, monkeypatch):
    store(tmp_path / "live", 2)

    def improve(config, progress):
        return {"policy": str(world["policy"]), "critic": ""}

    def killed(*_):
        pushed(*_)
        raise KeyboardInterrupt

    pushed = versions.publish
    learner = learner_of(tmp_path / "live", world, improve, monkeypatch)
    monkeypatch.setattr(versions, "publish", killed)
    with pytest.raises(KeyboardInterrupt):
        learner.run()
    assert (learner._pushed(), learner._seen()) == (1, 2)


def test_where_nobody_corrected_the_critics_choice_is_imitated_or_it_is_said_why_not(world, tmp_path, capsys):
    untouched = {"session": world["shown"], "method": "hil_serl"}
    assert improved(world, tmp_path / "out", "--set", "threshold=-1e9", **untouched) == 0
    assert improved(world, tmp_path / "no", "--set", "threshold=1e9", **untouched) == 1
    assert "lower 'threshold'" in capsys.readouterr().err
    assert improved(world, tmp_path / "pvp", session=world["shown"], method="pvp") == 1
    assert "pvp's critic learns from nothing else" in capsys.readouterr().err
    assert not (tmp_path / "pvp").exists()


@pytest.mark.parametrize("other", ["method", "session", "data"])
def test_what_was_begun_is_gone_on_with_as_it_was_begun_or_not_at_all(world, tmp_path, capsys, other):
    assert improved(world, tmp_path / "out", "--data", str(world["shown"])) == 0
    assert improved(world, tmp_path / "out", "--data", str(world["shown"]), "--resume", steps=3) == 0
    before = (tmp_path / "out/improve.json").read_bytes()
    changes = {"method": {"method": "preference"}, "session": {"session": store(tmp_path / "other")}}
    more = [] if other == "data" else ["--data", str(world["shown"])]
    assert improved(world, tmp_path / "out", *more, "--resume", **changes.get(other, {})) == 1
    assert f"was begun otherwise: --{other} was " in capsys.readouterr().err
    assert (tmp_path / "out/improve.json").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--method", "magic"], "unknown method 'magic'; there are: hg_dagger"),
        (["--set", "share"], "must read name=value"),
        (["--set", "magic=1"], "hg_dagger has no such setting; there are:"),
        (["--set", "own=abc"], "--set own=abc: 'own' must be a number, by default it is 0.0"),
        (["--set", "own=true"], "--set own=true: 'own' must be a number"),
        (["--set", "shift=1.5"], "--set shift=1.5: 'shift' must be a whole number, by default it is 0"),
        (["--set", "exclude=3"], "--set exclude=3: 'exclude' must be a list like [1, 2], by default it is ()"),
        (["--set", "out=elsewhere"], "--set out: improve decides that itself"),
        (["--set", "init="], "--set init: improve decides that itself"),
        (["--set", "sessions=2"], "--set sessions: improve decides that itself"),
        (["--online", "--reward", "mine"], "--reward names rewards that new episodes have not"),
        (["--steps", "0"], "must be at least 1"),
        (["--pace", "0"], "--pace must be positive, got 0.0"),
        (["--method", "recap", "--pace", "1.5"], "--pace must be 1 with recap, got 1.5"),
        (["--data", "nowhere"], "no data set in nowhere"),
        (["--method", "hil_serl", "--value", "nobody"], "no critic 'nobody'"),
        (["--value", "mine"], "--value: hg_dagger takes none; methods that do: recap, hil_serl, pvp, expo"),
        (["--method", "pvp", "--reward", "mine"], "--reward: pvp takes none; methods that do: recap, hil_serl, expo"),
        (["--method", "recap", "--gamma", "0.9"], "--gamma: recap takes none; methods that do: hil_serl, pvp, expo"),
        (["--method", "hil_serl", "--set", "magic=1"], "hil_serl has no such setting"),
        (["--method", "hil_serl", "--share", "2"], "share must lie in"),
        (["--method", "expo", "--value", "tabletop"], "is a critic of iql, and expo is nothing but its own"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(world, tmp_path, capsys, more, said):
    assert improved(world, tmp_path / "out", *more) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert said in error[0]
    assert not (tmp_path / "out").exists()


def test_a_session_of_another_robot_or_rate_is_refused_with_both_sides(world, tmp_path, capsys):
    for number, (what, changes) in enumerate(
        {"state": {"names": [f"j{i}" for i in range(6)]}, "rate": {"fps": 15.0}}.items()
    ):
        foreign = store(tmp_path / f"foreign{number}", 2, **changes)
        assert improved(world, tmp_path / "out", session=foreign) == 1
        assert f"does not fit {world['policy']} in {what}" in capsys.readouterr().err


def test_a_session_in_which_nobody_was_corrected_is_refused(world, tmp_path, capsys):
    assert improved(world, tmp_path / "out", session=world["shown"]) == 1
    assert "nobody corrected anything" in capsys.readouterr().err
