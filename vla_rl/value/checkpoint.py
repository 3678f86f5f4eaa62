"""Critic folders: what a critic is, what it was made with and whether it fits, beside its weights (ADR 0006).

::

    FOLDER/critic.json          configs, card, SHA-256 of all weights; written last, it seals the rest
           critic.safetensors   the critic's and the state value's weights and statistics
           encoder/             a policy folder, where the critic reads features of an encoder of its own
           report.json          what a critic report said of these very weights
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from vla_rl.policy.folder import choose_device, fingerprint
from vla_rl.policy.weights import CheckpointError, load_weights
from vla_rl.value.config import CriticConfig, ValueConfig
from vla_rl.value.critic import ChunkCritic
from vla_rl.value.state_value import StateValue

FORMAT = 1
RECORD, WEIGHTS, ENCODER, REPORT = "critic.json", "critic.safetensors", "encoder", "report.json"
FIELDS = ("format", "config", "value", "weights_sha256", "encoder_sha256", "card")
REQUIRED = ("policy_type", "policy_fingerprint", "names", "data", "algorithm", "steps")

Card = dict[str, Any]


class CriticMismatchError(ValueError):
    """A critic does not fit what it is to value; the message lists both sides."""


@dataclass(frozen=True, eq=False)
class CriticFolder:
    """A critic as it lies on disk.

    Attributes:
        critic: in evaluation mode.
        value: the state value beside it, None where the algorithm has none.
        card: see `save_critic`; and "config", the critic's, and "report", what `write_report` wrote, or None.
        encoder: policy folder of the critic's own encoder, None where it reads the served policy's features.
    """

    critic: ChunkCritic
    value: StateValue | None
    card: Card
    encoder: Path | None


def save_critic(
    folder: str | Path,
    critic: ChunkCritic,
    value: StateValue | None,
    card: Mapping[str, Any],
    encoder: str | Path | None = None,
) -> None:
    """Write a critic folder. Killed between its files over an older one, it leaves a folder that loading refuses.

    Args:
        folder: where to.
        critic, value: with statistics.
        card: JSON-ready facts: policy_type and policy_fingerprint (whose features and candidates it learned from),
            names (of the action's dimensions), data (fingerprints of the data sets), algorithm, steps; and whatever
            else explains the critic.
        encoder: policy folder of the critic's own encoder, which is copied; given where config.encoder is "own" only.

    Raises:
        ValueError: the card lacks a fact, there are no statistics, or encoder and config contradict each other.
    """
    missing = [name for name in REQUIRED if name not in card]
    if missing:
        raise ValueError(f"a critic's card needs {', '.join(REQUIRED)}; missing: {', '.join(missing)}")
    if (encoder is None) == (critic.config.encoder == "own"):
        raise ValueError(f"a critic that reads features of '{critic.config.encoder}' and encoder folder {encoder}")
    for part in _modules(critic, value).values():
        part.require()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if encoder is not None and Path(encoder).resolve() != (folder / ENCODER).resolve():
        _copy_policy(Path(encoder), folder / ENCODER)
    fresh = folder / f".{WEIGHTS}.new"
    state = nn.ModuleDict(_modules(critic, value)).state_dict()
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, fresh)
    record = {
        "format": FORMAT,
        "config": critic.config.to_dict(),
        "value": value.config.to_dict() if value is not None else None,
        "weights_sha256": _sha256(fresh),
        "encoder_sha256": fingerprint(folder / ENCODER) if encoder is not None else None,
        "card": dict(card),
    }
    fresh.replace(folder / WEIGHTS)
    _write(folder / RECORD, record)


def read_card(folder: str | Path) -> Card:
    """The card of a critic folder with "config" and "report", without loading weights.

    Raises:
        CheckpointError: it is no critic folder, or the record cannot be read.
    """
    return _card(Path(folder), _read(folder))


def load_critic(folder: str | Path, device: str = "cpu") -> CriticFolder:
    """Load a critic folder.

    Raises:
        CheckpointError: in one line, why it cannot be used.
    """
    folder, record = Path(folder), _read(folder)
    try:
        critic = ChunkCritic(CriticConfig.from_dict(record["config"]))
        value = StateValue(ValueConfig.from_dict(record["value"])) if record["value"] else None
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder / RECORD} describes no critic of this version: {error}") from None
    modules = nn.ModuleDict(_modules(critic, value))
    load_weights(modules, folder / WEIGHTS)
    if _sha256(folder / WEIGHTS) != record["weights_sha256"]:
        raise CheckpointError(f"{folder / WEIGHTS} is not the file that {RECORD} was written with")
    critic.require()
    encoder = folder / ENCODER if critic.config.encoder == "own" else None
    if encoder is not None and fingerprint(encoder) != record["encoder_sha256"]:
        raise CheckpointError(f"{encoder} is missing or not the encoder that {RECORD} was written with")
    modules.to(choose_device(device)).eval()
    return CriticFolder(critic, value, _card(folder, record), encoder)


def write_report(folder: str | Path, report: Mapping[str, Any]) -> None:
    """Put a critic report, {"verdict": "pass" or "fail", "reason": ..., figures}, beside the critic that it judges.

    It counts for these weights only, and changes no file that was there.

    Raises:
        CheckpointError: it is no critic folder.
        ValueError: the report has no verdict.
    """
    if report.get("verdict") not in ("pass", "fail"):
        raise ValueError(f"a report's verdict is pass or fail, not {report.get('verdict')!r}")
    _write(Path(folder) / REPORT, {**report, "weights_sha256": _read(folder)["weights_sha256"]})


def require_fit(
    card: Mapping[str, Any],
    *,
    policy_fingerprint: str | None = None,
    layer: str | None = None,
    feature_dim: int | None = None,
    state_dim: int | None = None,
    action_dim: int | None = None,
    names: Sequence[str] | None = None,
    horizon: int | None = None,
    window: int | None = None,
    where: str = "the policy",
) -> None:
    """Compare a critic with what it is to value. What is None or unknown on a side is not compared.

    A critic with an encoder of its own fits any policy of the same robot: features and fingerprint are not compared.
    One that reads no state fits any.

    Args:
        card: from `read_card` or `load_critic`.
        policy_fingerprint, layer, feature_dim: whose features the critic would be given, which, and their size.
        state_dim, action_dim, names: of state and actions; one name an action dimension.
        horizon: actions H in a candidate, of which the critic needs the first h.
        window: actions of a chunk that will really be executed.
        where: what the other side is called in the message.

    Raises:
        CriticMismatchError: in one line, everything that differs, both sides.
    """
    config = card["config"]
    theirs = {"state size": state_dim, "action size": action_dim, "action names": names and list(names)}
    theirs |= {"actions executed of a chunk": window}
    ours = {"state size": config["state_dim"] or None, "action size": config["action_dim"]}
    ours |= {"action names": list(card["names"]) or None, "actions executed of a chunk": config["window"]}
    if config["encoder"] == "policy":
        theirs |= {"policy": policy_fingerprint, "feature layer": layer, "feature size": feature_dim}
        ours |= {"policy": card["policy_fingerprint"] or None, "feature layer": config["layer"]}
        ours |= {"feature size": config["feature_dim"]}
    differences = [
        f"{name} {_short(ours[name])} in the critic, {_short(other)} in {where}"
        for name, other in theirs.items()
        if other is not None and ours[name] is not None and other != ours[name]
    ]
    if horizon is not None and horizon < config["window"]:
        differences.append(f"chunks of {config['window']} actions or more in the critic, {horizon} in {where}")
    if differences:
        raise CriticMismatchError(f"the critic does not fit {where}: {'; '.join(differences)}")


def _modules(critic: ChunkCritic, value: StateValue | None) -> dict[str, Any]:
    return {"critic": critic} | ({"value": value} if value is not None else {})


def _short(side: Any) -> str:
    """A side of a comparison; a fingerprint's first 12 digits are enough to tell two apart."""
    return side[:12] if isinstance(side, str) and len(side) == 64 else str(side)


def _read(folder: str | Path) -> dict[str, Any]:
    path = Path(folder) / RECORD
    try:
        record = json.loads(path.read_text())
        if record["format"] != FORMAT:
            raise CheckpointError(f"{path} has format {record['format']}, this version reads {FORMAT}")
        return {name: record[name] for name in FIELDS}
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} is not a critic folder: it has no {RECORD}; a run of train value has some in checkpoints/"
        ) from None
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not the record of a critic: {type(error).__name__} {error}") from None


def _card(folder: Path, record: Mapping[str, Any]) -> Card:
    """A record's card, with the config and the report on these weights."""
    report = None
    if (folder / REPORT).is_file():
        try:
            found = json.loads((folder / REPORT).read_text())
            report = found if found["weights_sha256"] == record["weights_sha256"] else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder / REPORT} is not a critic report: {type(error).__name__} {error}") from None
    return {**record["card"], "config": record["config"], "report": report}


def _write(path: Path, record: Mapping[str, Any]) -> None:
    """Replace a file in one step."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps(record, indent=1))
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(path)


def _copy_policy(source: Path, target: Path) -> None:
    """A policy folder's own files, without what training left beside them."""
    if not (source / "config.json").is_file():
        raise ValueError(f"{source} is not a policy folder: it has no config.json")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("training*", "*.tmp", ".*"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
