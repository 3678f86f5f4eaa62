"""What runs the benchmarks: one module each, with `run(quick=False) -> {"metrics": {...}, "against": {...}}`."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_VERSIONS = ("mujoco", "torch", "lerobot", "gymnasium", "numpy")

Result = dict[str, Any]


LONG = ("uplift", "improve", "online", "twin")  # hours: only when named


def names() -> list[str]:
    """All benchmarks."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def run(name: str, quick: bool = False, **options: Any) -> Result:
    """Run one benchmark in this process.

    Args:
        name: which.
        quick: rougher, in seconds.
        options: further arguments of its `run`, as its module describes them.

    Returns:
        {"name", "machine", "metrics", "against", "command"}, JSON-ready.

    Raises:
        ValueError: no such benchmark, or it takes no such option; the message lists those that exist.
    """
    if name not in names():
        raise ValueError(f"unknown benchmark '{name}'; there are: {', '.join(names())}, all")
    os.environ.setdefault("MUJOCO_GL", "egl")
    function = importlib.import_module(f"vla_rl.bench.{name}").run
    if unknown := [key for key in options if key not in inspect.signature(function).parameters]:
        raise ValueError(f"benchmark '{name}' takes no --{unknown[0].replace('_', '-')}")
    measured = function(quick=quick, **options)
    given = [f"--{key.replace('_', '-')}" + ("" if value is True else f" {value}") for key, value in options.items()]
    command = " ".join(["vla-rl", "bench", name, *(["--quick"] if quick else []), *given])
    figures = {key: _rounded(value) for key, value in measured["metrics"].items()}
    against = {
        peer: {key: _rounded(value) for key, value in values.items()} if isinstance(values, dict) else _rounded(values)
        for peer, values in measured.get("against", {}).items()
    }
    return {"name": name, "machine": machine(), "metrics": figures, "against": against, "command": command}


def run_apart(name: str, quick: bool = False) -> Result:
    """Run one benchmark in a fresh process, so that none slows the next one down.

    Raises:
        RuntimeError: it failed; one line.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "result.json"
        command = [
            sys.executable,
            "-m",
            "vla_rl",
            "bench",
            name,
            "--json",
            str(target),
            *(["--quick"] if quick else []),
        ]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise RuntimeError(f"benchmark {name} failed: {last.removeprefix('vla-rl: ')}")
        result: Result = json.loads(target.read_text())
        return result


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in _VERSIONS:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def write(out: Path, results: Sequence[Result]) -> None:
    """Write every result as OUT/<name>.json and a table of all that are there as OUT/README.md."""
    out.mkdir(parents=True, exist_ok=True)
    for result in results:
        (out / f"{result['name']}.json").write_text(json.dumps(result, indent=1) + "\n")
    known = [json.loads(path.read_text()) for name in names() if (path := out / f"{name}.json").is_file()]
    (out / "README.md").write_text(
        f"# Benchmarks\n\nWritten by `vla-rl bench all`; each JSON file says on which machine.\n\n{table(known)}\n"
    )


def table(results: Sequence[Result]) -> str:
    """All metrics as a Markdown table."""
    rows = ["| benchmark | metric | value |", "|---|---|---|"]
    for result in results:
        for key, value in result["metrics"].items():
            rows.append(f"| {result['name']} | {key} | {value if isinstance(value, str) else format(value, ',.4g')} |")
        for peer, values in result["against"].items():
            for key, value in values.items() if isinstance(values, dict) else [("", values)]:
                shown = value if isinstance(value, str) else format(value, ",.4g")
                rows.append(f"| {result['name']} | {peer}: {key} | {shown} |")
    return "\n".join(rows)


def _rounded(value: Any) -> Any:
    """Four significant digits: more would pretend."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
