"""The proof of the design: three coloured blobs in view, and the words decide where the action goes."""

from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature

from vla_rl.policy.configuration_vla_rl import VLAConfig
from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.policy.normalize import compute_stats

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (40, 60, 220)}
TRAINED = ("pick up the {} cube", "lift the {} one", "grab the {} block please", "take the {} cube")
UNSEEN = ("now kindly lift the {} block", "could you grab that {} cube for me")
SIZE, BLOB, HORIZON, STEPS = 48, 5, 4, 170


class Blobs:
    """Images of three blobs; the right action is the place of the named one, (x, y) in -50..50."""

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        slots = np.stack(np.meshgrid(*[np.linspace(-0.7, 0.7, 4)] * 2), -1).reshape(16, 2)
        chosen = np.stack([rng.permutation(16)[:3] for _ in range(count)])
        self.places = (slots[chosen] + rng.uniform(-0.1, 0.1, (count, 3, 2))).astype(np.float32)
        self.images = rng.integers(110, 140, (count, SIZE, SIZE, 3)).astype(np.float32)
        axis = np.arange(SIZE) + 0.5
        for j, colour in enumerate(COLOURS.values()):
            centre = (self.places[:, j] + 1) / 2 * SIZE
            near = np.clip(BLOB / 2 + 0.5 - np.abs(axis - centre[..., None]), 0, 1)  # (count, xy, SIZE), antialiased
            cover = (near[:, 1, :, None] * near[:, 0, None, :])[..., None]
            self.images = self.images * (1 - cover) + np.array(colour) * cover

    def batch(self, index: np.ndarray, named: np.ndarray, phrasings: tuple[str, ...]) -> dict[str, Any]:
        place = self.places[index, named]
        words = [phrasings[i % len(phrasings)].format(list(COLOURS)[c]) for i, c in zip(index, named, strict=True)]
        chunk = 50 * place[:, None] * np.linspace(0.25, 1, HORIZON, dtype=np.float32)[:, None]
        return {
            "observation.images.front": torch.tensor(self.images[index]).to(torch.uint8).permute(0, 3, 1, 2),
            "action": torch.tensor(chunk),
            "task": words,
            "labels.pixels.front": torch.tensor(np.concatenate([place, place], 1)),
        }


def test_another_word_sends_the_same_scene_to_the_other_blob() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    train, test = Blobs(1000, rng), Blobs(60, rng)
    config = VLAConfig(
        input_features={"observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        device="cpu", horizon=HORIZON, n_action_steps=2, noise_draws=2,
    )  # fmt: skip
    everything = train.batch(np.arange(1000), rng.integers(0, 3, 1000), TRAINED)
    policy = VLAPolicy(config, stats=compute_stats(None, everything["action"].numpy(), None, config.relative_mask))
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=2e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS, pct_start=0.2)
    policy.train()
    for _ in range(STEPS):
        batch = train.batch(rng.integers(0, 1000, 48), rng.integers(0, 3, 48), TRAINED)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = policy.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    policy.eval()
    index, right = np.arange(60), []
    for colour in range(3):
        batch = test.batch(index, np.full(60, colour), UNSEEN)
        ends = policy.sample(policy.encode(batch), 1, torch.Generator().manual_seed(0))[:, 0, -1].numpy() / 50
        distances = np.linalg.norm(ends[:, None] - test.places, axis=-1)
        right.append((distances.argmin(1) == colour) & (distances[:, colour] < 0.2))
    assert np.mean(right) > 0.9, "goes to the named blob, in phrasings it has never seen"
    assert np.mean(np.all(right, axis=0)) > 0.8, "counterfactual triples: all three words in the same scene"
