"""Copy a trained policy into the package with its model card: `ship.py RUN EVAL_JSON DESTINATION`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from vla_rl.learn.checkpoint import resolve

LARGEST = 12_000_000  # bytes; the package stays small enough for pip and git
CARD = """# {name}: one policy for six tabletop tasks

A `VLAPolicy` (tiny backbone, tiny diffusion head) for the simulated SO-101: lift, place, push, stack, button, drawer,
told in words. Two 96x96 cameras and the joint positions in; chunks of {horizon} absolute joint targets at
{fps:.0f} Hz out, in LeRobot's units.

- **Data**: {data}, made by the scripted experts at level `train` with execution noise.
- **Commands**: those of `make reproduce`.
- **Training**: {steps} steps of {batch} samples, {hours:.1f} hours of training on {threads}.
- **Code**: git {git}.
- **Limits**: simulation only; the objects, colours and words of the six tasks; success differs by task, see below.

## Figures

`vla-rl eval --task all --randomisation {level} --episodes {episodes}{pairs}`, scenes from seed {seed}
(never trained on), 95% Wilson intervals:

| task | success | named object first | episodes |
|---|---|---|---|
{rows}

## Training config

```json
{config}
```
"""
NOT_SHOWN = ("data", "out", "cache")


def percent(value: float | None) -> str:
    """0.5 as '50%', None as 'n/a'."""
    return "n/a" if value is None else f"{100 * value:.0f}%"


def main(run: str, evaluation: str, destination: str) -> None:
    """Copy and write the card.

    Raises:
        ValueError: the weights are larger than the package may hold.
    """
    source, target = resolve(run), Path(destination)
    size = (source / "model.safetensors").stat().st_size
    if size > LARGEST:
        raise ValueError(f"{source / 'model.safetensors'} has {size} bytes; at most {LARGEST} may be shipped")
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.suffix in (".safetensors", ".json") and not path.name.startswith("training"):
            shutil.copyfile(path, target / path.name)
    training = json.loads((source / "training.json").read_text())
    policy = json.loads((source / "config.json").read_text())
    result = json.loads(Path(evaluation).read_text())
    (target / "README.md").write_text(card(target.name, training, policy, result))


def card(name: str, training: dict, policy: dict, result: dict) -> str:
    """The model card's text."""
    tasks = result.get("tasks") or {result["task"]: result}
    rows = [
        f"| {task} | {percent(f['success_rate'])} ({percent(f['ci95'][0])} to {percent(f['ci95'][1])}) "
        f"| {percent(f['language']['accuracy'])} | {f['episodes']} |"
        for task, f in tasks.items()
    ]
    mean = sum(f["success_rate"] for f in tasks.values()) / len(tasks)
    data, config = training["data"], training["config"]
    return CARD.format(
        name=name,
        horizon=policy["horizon"],
        fps=policy["fps"],
        rows="\n".join([*rows, f"| mean | {percent(mean)} | | |"]),
        steps=training["step"],
        batch=config["batch"],
        hours=training["elapsed"] / 3600,
        threads=f"{config['threads']} CPU thread(s)" if config["threads"] else "two CPU cores",
        git=training["git"],
        data=f"{data['episodes']} episodes, {data['frames']} frames, {data['instructions']} instructions",
        level=result["randomisation"],
        seed=min(result["seeds"]),
        episodes=len(result["seeds"]),
        pairs=" --pairs" if result["pairs"] else "",
        config=json.dumps({k: v for k, v in config.items() if k not in NOT_SHOWN}, indent=1),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
