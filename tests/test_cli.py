import importlib
import json
import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vla_rl import bench, build, cli
from vla_rl.cli import COMMANDS, main
from vla_rl.commands import train
from vla_rl.commands.train import field_docs
from vla_rl.learn.config import BCConfig
from vla_rl.record.store import EpisodeStore

ROOT = Path(__file__).parents[1]
TOY = ("--env", "gymnasium:toy_env:toy/Reach-v0")
PUSHT = ("--env", "gymnasium:gym_pusht:gym_pusht/PushT-v0", "--env-kwargs", '{"obs_type": "pixels_agent_pos"}')


@pytest.fixture(autouse=True)
def toy_environment(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "rollout"))


def run(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "rollout")}
    command = [sys.executable, "-m", "vla_rl", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, **options)


def refused(capsys, *arguments, status=1):
    """The one line that a refused command prints, after its status was checked."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as error:
        code = error.code
    shown = capsys.readouterr()
    assert code == status, shown
    lines = shown.err.strip().splitlines()
    assert len(lines) == 1, shown.err
    assert lines[0].startswith("vla-rl")
    assert "Traceback" not in shown.err + shown.out
    return lines[0]


def test_help_lists_every_command_and_loads_nothing_heavy():
    heavy = ["numpy", "torch", "gymnasium", "mujoco", "lerobot", "rich"]
    code = f"import sys, vla_rl.cli as c; c.main(['--help']); print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert shown.strip().endswith("[]")


def test_the_module_is_the_command():
    assert run("--help").stdout.startswith("usage: vla-rl COMMAND")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_has_the_common_flags(command, capsys):
    arguments = {"train": ["bc"], "dataset": ["info"], "up": ["sim"]}.get(command, [])
    with pytest.raises(SystemExit) as error:
        main([command, *arguments, "--help"])
    shown = capsys.readouterr().out
    assert error.value.code == 0
    assert all(flag in shown for flag in ("--json", "--debug", "--seed"))


def test_train_has_a_flag_with_help_for_every_field_of_its_config(capsys):
    with pytest.raises(SystemExit):
        main(["train", "bc", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    docs = field_docs(BCConfig)
    assert docs.keys() == BCConfig.__dataclass_fields__.keys()
    assert all(f"--{name.replace('_', '-')}" in shown for name in docs)


OUT = "{tmp}/out"
WEAK = ("eval", "--policy", "weak", "--task", "lift")
BAD = {
    "unknown command": (("colect",), 2, "unknown command 'colect'; there are: demo, doctor, collect"),
    "no such flag": (("eval", "--polisy", "x"), 2, "--policy"),
    "wrong number": (("collect", "--out", OUT, *TOY, "--episodes", "many"), 2, "invalid int value: 'many'"),
    "no episodes": (("collect", "--out", OUT, *TOY, "--episodes", "0"), 1, "--episodes"),
    "unknown task": (("collect", "--out", OUT, "--task", "lft"), 1, "unknown task 'lft'; there are: lift, place"),
    "one unknown task": (
        ("eval", "--policy", "expert", "--task", "lift,fold"),
        1,
        "unknown task 'fold'; there are: lift",
    ),
    "no task": (("collect", "--out", OUT), 1, "give either --task (lift"),
    "task and env": (("collect", "--out", OUT, "--task", "lift", *TOY), 1, "give either --task"),
    "unknown camera": (
        ("collect", "--out", OUT, "--task", "lift", "--cameras", "top"),
        1,
        "'top'; there are: front, wrist",
    ),
    "tiny images": (("collect", "--out", OUT, "--task", "lift", "--image-size", "2"), 1, "--image-size 2"),
    "unknown level": (
        ("eval", "--policy", "expert", "--task", "lift", "--randomisation", "wild"),
        1,
        "none, train, positions",
    ),
    "unknown phrasing": (("eval", "--policy", "expert", "--task", "lift", "--phrasings", "rude"), 1, "train, unseen"),
    "malformed env": (("collect", "--out", OUT, "--env", "PushT"), 1, "gymnasium:<module>:<id>"),
    "unknown env module": (
        ("collect", "--out", OUT, "--env", "gymnasium:no_such:x/Y-v0", "--policy", "random", "--workers", "0"),
        1,
        "'no_such'",
    ),
    "unknown env id": (
        ("collect", "--out", OUT, "--env", "gymnasium:toy_env:toy/Rach-v0", "--policy", "random", "--workers", "0"),
        1,
        "no 'toy/Rach-v0'; there are: toy/Discrete-v0, toy/Drawn-v0, toy/Endless-v0, toy/Reach-v0, toy/Savable-v0",
    ),
    "env kwargs not JSON": (("collect", "--out", OUT, *TOY, "--env-kwargs", "{a}"), 1, "--env-kwargs is not JSON"),
    "env kwargs unknown": (
        ("collect", "--out", OUT, *TOY, "--env-kwargs", '{"colour": 1}', "--workers", "0"),
        1,
        "unexpected keyword argument 'colour'",
    ),
    "discrete actions": (
        ("collect", "--out", OUT, "--env", "gymnasium:toy_env:toy/Discrete-v0", "--policy", "random", "--workers", "0"),
        1,
        "Discrete(4); only a Box",
    ),
    "no success key": (
        ("eval", "--policy", "random", *TOY, "--env-kwargs", '{"success_key": "ok"}', "--workers", "0"),
        1,
        "is_success, success, succeed",
    ),
    "no expert": (("collect", "--out", OUT, *PUSHT, "--workers", "0"), 1, "no scripted expert; use --policy random"),
    "no such policy": (
        ("eval", "--policy", "exprt", "--task", "lift"),
        1,
        "no policy 'exprt'; there are: expert, clumsy, random",
    ),
    "a policy without a name": (("eval", "--policy", "", "--task", "lift"), 1, "no policy ''; there are: expert"),
    "not a checkpoint": (("eval", "--policy", "{tmp}", "--task", "lift"), 1, "no policy in {tmp}"),
    "chunks of a script": (
        ("eval", "--policy", "expert", "--task", "lift", "--candidates", "8"),
        1,
        "'expert' has no chunks",
    ),
    "perturbed chunks of a script": (
        ("eval", "--policy", "expert", "--task", "lift", "--draws", "1"),
        1,
        "'expert' has no chunks: leave out",
    ),
    "joining without a graph": (
        (*WEAK, "--joining", "blend"),
        1,
        "add --graph, or give --ensemble",
    ),
    "a number that the rule does not read": (
        (*WEAK, "--selector", "medoid", "--margin", "1"),
        1,
        "--selector medoid does not read --margin; it reads: none",
    ),
    "a number of another rule": (
        (*WEAK, "--critic", "tabletop", "--selector", "lcb", "--temperature", "1"),
        1,
        "--selector lcb does not read --temperature; it reads: --k, --margin, --novelty",
    ),
    "spread without draws": (
        (*WEAK, "--spread", "0.3"),
        1,
        "--spread is of --draws: add that",
    ),
    "an audit's flag without an audit": (
        (*WEAK, "--follow", "oracle", "--continuations", "4"),
        1,
        "--continuations, --follow only with --critic-audit",
    ),
    "a curve without a report": (
        (*WEAK, "--curve", "1,8"),
        1,
        "--curve only with --critic-report",
    ),
    "what the graph decides": (
        ("eval", "--graph", "--policy", "weak", "--task", "lift", "--max-steps", "9", "--instruction", "lift it"),
        1,
        "leave out --max-steps, --instruction",
    ),
    "no data set": (("dataset", "info", "{tmp}"), 1, "no data set in {tmp}"),
    "no such data": (("train", "bc", "--data", "{tmp}/none", "--out", OUT), 1, "no data set in {tmp}/none"),
    "train field": (("train", "bc", "--data", "{tmp}", "--out", OUT, "--batch", "0"), 1, "batch must be at least 1"),
    "unknown algorithm": (("train", "iql"), 2, "invalid choice: 'iql'"),
    "unknown benchmark": (("bench", "speed"), 1, "unknown benchmark 'speed'; there are: "),
    "compare with nonsense": (
        ("eval", "--policy", "random", *TOY, "--episodes", "1", "--workers", "0", "--compare", "{tmp}/notes.txt"),
        1,
        "is not the result of an evaluation",
    ),
    "out holds something else": (("collect", "--out", "{tmp}", *TOY), 1, "holds something else"),
    "eval out holds something else": (
        ("eval", "--policy", "random", "--out", "{tmp}", *TOY),
        1,
        "holds something else",
    ),
}


def shown(page):
    """The commands that are lines of a page's code blocks, without those that leave something out."""
    code = "\n".join(page.read_text().split("```")[1::2]).replace("\\\n", " ")
    return [line for line in map(str.strip, code.splitlines()) if line.startswith("vla-rl ") and "..." not in line]


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.stem
)
def test_every_command_that_a_page_shows_is_one_that_there_is(page):
    for line in shown(page):
        _, name, *arguments = shlex.split(line, comments=True)
        module = importlib.import_module(f"vla_rl.commands.{cli._MODULES.get(name, name)}")
        parser = cli.Parser(prog=f"vla-rl {name}")
        module.add_arguments(parser)
        cli._add_common(parser)
        try:
            parser.parse_args(arguments)
        except SystemExit as refusal:
            pytest.fail(f"{line}: {refusal}")


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_that_names_culprit_and_alternatives(name, capsys, tmp_path):
    arguments, status, said = BAD[name]
    (tmp_path / "notes.txt").write_text("mine")
    line = refused(capsys, *(a.replace("{tmp}", str(tmp_path)) for a in arguments), status=status)
    assert said.replace("{tmp}", str(tmp_path)) in line
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_debug_shows_the_whole_traceback(tmp_path):
    with pytest.raises(ValueError, match="unknown task"):
        main(["collect", "--task", "lft", "--out", str(tmp_path / "a"), "--debug"])


def test_a_worker_reports_bad_input_in_the_same_one_line(capsys, tmp_path):
    line = refused(capsys, "collect", "--out", tmp_path / "out", *PUSHT, "--workers", "1")
    assert line.endswith("has no scripted expert; use --policy random or a checkpoint folder")


def test_rendering_that_does_not_work_is_one_line_and_names_the_cure(tmp_path):
    environment = {**os.environ, "MUJOCO_GL": "egl", "MUJOCO_EGL_DEVICE_ID": "99"}
    command = [sys.executable, "-m", "vla_rl", "collect", "--task", "lift", "--episodes", "1", "--workers", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path / "a")], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "libegl1" in done.stderr


def test_a_full_disk_keeps_every_finished_episode_and_the_same_command_goes_on(tmp_path):
    arguments = ("collect", *TOY, "--policy", "expert", "--episodes", "3", "--workers", "0", "--out", tmp_path / "a")
    assert main([str(a) for a in arguments]) == 0
    sizes = [p.stat().st_size for p in sorted((tmp_path / "a" / "episodes").glob("*.episode"))]
    full = ("collect", *TOY, "--policy", "expert", "--episodes", "3", "--workers", "0", "--out", tmp_path / "b")
    limit = max(max(sizes) - 1, sizes[0])
    done = run(*full, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "no room left" in done.stderr
    kept = len(EpisodeStore(tmp_path / "b" / "episodes", readonly=True))
    assert kept < 3
    assert main([str(a) for a in full]) == 0
    assert len(EpisodeStore(tmp_path / "b" / "episodes", readonly=True)) == 3


@pytest.mark.parametrize(("field", "name"), [("init", "weak"), ("critic", "tabletop")])
def test_training_knows_what_comes_with_the_package_by_name(tmp_path, monkeypatch, field, name):
    asked = []
    monkeypatch.setattr(train, "_trainer", lambda _: lambda config, progress: asked.append(config) or {})
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text("{}")
    given = {"init": "mine", "critic": "mine", field: name}
    flags = [text for key, value in given.items() for text in (f"--{key}", value)]
    assert main(["train", "best_of_n", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *flags]) == 0
    known = {"init": build.shipped(), "critic": build.shipped_critics()}
    assert Path(getattr(asked[0], field)) == known[field][name]
    assert "mine" in (asked[0].init, asked[0].critic)


def test_an_environment_that_is_not_ours_is_collected_trained_and_evaluated_without_code(tmp_path, capsys):
    short = (*PUSHT, "--max-steps", "20", "--workers", "0")
    steps = [
        ["collect", *short, "--policy", "random", "--episodes", "3", "--out", "{}/data"],
        ["dataset", "check", "{}/data"],
        [
            "train",
            "bc",
            "--data",
            "{}/data",
            "--out",
            "{}/run",
            "--steps",
            "2",
            "--batch",
            "4",
            "--no-tensorboard",
            "--image-size",
            "48",
            "--prefetch",
            "0",
            "--cache",
            "{}/cache",
        ],
        [
            "eval",
            *short,
            "--policy",
            "{}/run",
            "--episodes",
            "2",
            "--device",
            "cpu",
            "--out",
            "{}/eval",
            "--json",
            "{}/e.json",
        ],
    ]
    for step in steps:
        assert main([part.replace("{}", str(tmp_path)) if part.startswith("{}") else part for part in step]) == 0, step
    result = json.loads((tmp_path / "e.json").read_text())
    assert {"task", "policy", "selector", "candidates", "episodes", "successes", "ci95", "per_episode"} <= result.keys()
    assert (result["task"], result["episodes"], result["invalid"]) == ("gym_pusht/PushT-v0", 2, 0)
    assert json.loads((tmp_path / "eval" / "eval.json").read_text()) == result
    assert "gym_pusht/PushT-v0" in (tmp_path / "eval" / "report.html").read_text()
    line = refused(
        capsys, "eval", "--policy", tmp_path / "run", *TOY, "--episodes", "1", "--workers", "0", "--device", "cpu"
    )
    assert "needs 'observation.image'" in line
    assert "observation.images.top" in line


def test_our_own_tasks_go_from_collection_to_report(tmp_path, capsys):
    small = ("--image-size", "32")
    assert main(["collect", "--task", "lift,push", *small, "--episodes", "4", "--out", f"{tmp_path}/data"]) == 0
    assert main(["dataset", "check", f"{tmp_path}/data", "--robot", "so101"]) == 0
    out = f"{tmp_path}/eval"
    ask = ["--policy", "expert", "--task", "lift", *small, "--episodes", "2", "--pairs"]
    assert main(["eval", *ask, "--compare", "random", "--out", out, "--json", "-"]) == 0
    result = json.loads((tmp_path / "eval" / "eval.json").read_text())
    assert (result["successes"], result["pairs"]["right"], result["language"]["right"]) == (4, 2, 4)
    assert result["compare"]["difference"] == 1.0
    assert json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""])) == result
    assert (tmp_path / "eval" / "report.html").read_text().count("<video") == 4


def test_json_of_a_failed_write_leaves_no_half_file(capsys, tmp_path):
    (tmp_path / "folder.json").mkdir()
    refused(capsys, "bench", "startup", "--quick", "--json", tmp_path / "folder.json")
    assert list((tmp_path / "folder.json").iterdir()) == []


def test_a_benchmark_tells_its_machine_and_command():
    result = bench.run("startup", quick=True)
    assert result.keys() == {"name", "machine", "metrics", "against", "command"}
    assert result["command"] == "vla-rl bench startup --quick"
    assert result["metrics"]["help_s"] > 0
    assert {"cpu", "cores", "memory_gb", "python", "versions"} <= result["machine"].keys()
    assert "| startup | help_s |" in bench.table([result])


def test_numbers_survive_json(tmp_path):
    assert (
        main(["eval", "--policy", "clumsy", *TOY, "--episodes", "2", "--workers", "0", "--json", f"{tmp_path}/r.json"])
        == 0
    )
    result = json.loads((tmp_path / "r.json").read_text())
    assert np.isfinite(result["ci95"]).all()
