"""A disk that runs full: what was finished stays, one line says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Runs with a disk of a few megabytes mounted at its first argument or, given a fourth one, limits its own files' size.
ON_A_SMALL_DISK = """
import json, resource, sys
from pathlib import Path
from vla_rl.record.durable import DiskFullError
from vla_rl.record.store import EpisodeStore

disk, big, samples = map(Path, sys.argv[1:4])
limit = lambda kilobytes: len(sys.argv) > 4 and resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes << 10, -1))
sys.path.insert(0, str(samples))
import sample_episodes as sample

def refusal(action):
    try:
        action()
    except DiskFullError as error:
        return str(error)
    return ""

def collect():
    with EpisodeStore(disk / "episodes") as store:
        while True:
            store.append(sample.columns(len(store), 10 + 10 * len(store), 96), sample.meta(len(store)))

limit(256)
told = {"collect": refusal(collect)}
store = EpisodeStore(disk / "episodes", readonly=True)
told |= {"kept": len(store), "damaged": store.damaged(), "left": [p.name for p in disk.rglob("*.partial")]}

from vla_rl.data.lerobot import export
limit(32)
told["export"] = refusal(lambda: export(disk / "episodes", disk / "set"))
told["after_export"] = sorted(p.name for p in disk.iterdir())

from vla_rl.data.cache import build
told["cache"] = refusal(lambda: build(big, disk / "caches", 96))
told["after_cache"] = [p.name for p in (disk / "caches").rglob("*") if p.is_file() and p.suffix != ".lock"]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, png_set: Path) -> dict:
    """What the script saw: on a tmpfs of its own where the system allows one, else with files limited in size."""
    disk, samples = tmp_path_factory.mktemp("disk"), Path(__file__).parent
    script = [sys.executable, "-c", ON_A_SMALL_DISK, str(disk), str(png_set), str(samples)]
    mount = f'mount -t tmpfs -o size=3m tmpfs "{disk}" && exec "$@"'
    probe = subprocess.run(["unshare", "-rm", "sh", "-c", mount, "sh", "true"], capture_output=True, check=False)
    small = probe.returncode == 0
    command = ["unshare", "-rm", "sh", "-c", mount, "sh", *script] if small else [*script, "limited"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_collecting_keeps_all_finished_episodes_and_says_so(told: dict) -> None:
    assert told["collect"].startswith("no room left for")
    assert f"its {told['kept']} finished episodes are kept" in told["collect"]
    assert told["kept"] > 0
    assert told["damaged"] == {}
    assert told["left"] == []


def test_exporting_leaves_the_store_alone_and_nothing_half_done(told: dict) -> None:
    assert "no room left to export" in told["export"]
    assert f"keeps all {told['kept']} episodes" in told["export"]
    assert told["after_export"] == ["episodes"]


def test_caching_leaves_nothing_half_done(told: dict) -> None:
    assert "no room for the cache" in told["cache"]
    assert told["after_cache"] == []


def test_every_message_is_one_line(told: dict) -> None:
    assert not any("\n" in told[key] for key in ("collect", "export", "cache"))
