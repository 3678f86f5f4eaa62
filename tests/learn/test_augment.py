import pytest
import torch

from vla_rl.learn.augment import Augmentation, _hue_turn

RED, GREEN, BLUE, YELLOW = (220, 40, 40), (40, 200, 60), (40, 60, 220), (230, 200, 40)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def images(batch=8, size=12, seed=0):
    return torch.randint(0, 256, (batch, 3, size, size), generator=chance(seed), dtype=torch.uint8)


def test_same_generator_same_images_and_another_seed_others():
    batch = {"observation.images.front": images(), "observation.images.wrist": images(seed=1), "task": ["x"] * 8}
    first, again, other = (Augmentation(shift=2)(batch, chance(seed)) for seed in (3, 3, 4))
    for camera in ("observation.images.front", "observation.images.wrist"):
        assert torch.equal(first[camera], again[camera])
        assert not torch.equal(first[camera], other[camera])


def test_everything_but_images_is_passed_on_and_the_batch_is_left_alone():
    batch = {"observation.images.front": images(), "observation.state": torch.ones(8, 6), "task": ["x"] * 8}
    before = batch["observation.images.front"].clone()
    result = Augmentation()(batch, chance())
    assert result["observation.state"] is batch["observation.state"]
    assert result["task"] is batch["task"]
    assert torch.equal(batch["observation.images.front"], before)


def test_images_stay_in_the_unit_range_with_their_shape():
    for image in (images(), images().float() / 255, images().unsqueeze(1).expand(-1, 3, -1, -1, -1)):
        result = Augmentation(0.9, 0.9, 0.9, 0.5, 0.5, 0.9, 0.5, 3).image(image, chance())
        assert result.shape == image.shape
        assert result.dtype == torch.float32
        assert 0 <= result.min() < result.max() <= 1


def test_no_augmentation_is_the_identity():
    result = Augmentation(0, 0, 0).image(images(), chance())
    assert torch.allclose(result, images().float() / 255, atol=1e-6)


@pytest.mark.parametrize(("name", "colour"), [("red", RED), ("green", GREEN), ("blue", BLUE), ("yellow", YELLOW)])
def test_a_colour_keeps_its_name(name, colour):
    """The order of the channels, which is what a colour's name hangs on, survives the default strength."""
    flat = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).expand(500, 3, 2, 2)
    result = Augmentation().image(flat, chance())
    order = torch.tensor(colour, dtype=torch.float32).argsort(stable=True)
    gaps = result[:, order].diff(dim=1)
    assert (gaps > -0.02).all()
    assert (result.amax(1) - result.amin(1) > 0.25).all()


def test_greys_stay_grey_and_a_third_of_a_turn_moves_every_channel_on_by_one():
    assert torch.allclose(_hue_turn(torch.rand(9)).sum(2), torch.ones(9, 3), atol=1e-6)
    assert torch.allclose(_hue_turn(torch.tensor([1 / 3]))[0], torch.eye(3).roll(1, 0), atol=1e-6)


def test_gamma_moves_the_middle_and_leaves_black_and_white():
    ramp = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 1, 1, 3).expand(200, 3, 1, 3)
    result = Augmentation(0, 0, 0, gamma=0.5).image(ramp, chance())
    assert torch.allclose(result[..., [0, 2]], torch.tensor([0.0, 1.0]))
    exponents = result[:, 0, 0, 1].log() / torch.tensor(128 / 255).log()
    assert -0.5 <= exponents.log().min() < -0.4 < 0.4 < exponents.log().max() <= 0.5


def test_noise_is_of_at_most_the_given_deviation_and_other_for_every_pixel():
    grey = torch.full((100, 3, 16, 16), 128, dtype=torch.uint8)
    deviation = Augmentation(0, 0, 0, noise=0.1).image(grey, chance()).flatten(1).std(1)
    assert deviation.min() < 0.02
    assert 0.08 < deviation.max() < 0.11


def test_samples_differ_and_frames_of_one_sample_do_not():
    frame = images(1)[:, None].expand(4, 3, -1, -1, -1)
    result = Augmentation(shift=2).image(frame, chance())
    assert torch.allclose(result[:, 0], result[:, 2], atol=1e-6)
    assert not torch.allclose(result[0], result[1], atol=1e-3)


def test_shift_moves_whole_pixels_and_repeats_the_edge():
    ramp = torch.arange(16, dtype=torch.uint8).view(1, 1, 1, 16).expand(50, 3, 16, 16)
    result = Augmentation(0, 0, 0, shift=2).image(ramp, chance()) * 255
    moved = (result[:, 0, 8] - torch.arange(16.0)).round()
    assert set(moved[:, 8].tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    assert result.min() == 0
    assert result.max() == pytest.approx(15)


def test_brightness_contrast_and_saturation_are_what_they_say():
    """One affine map of RGB does what the three steps would do one after the other."""
    augment, image = Augmentation(0.3, 0.3, 0.3), images(4).float() / 255 * 0.5 + 0.25
    factors = 1 + (torch.rand(4, 6, generator=chance(7))[:, :3] * 2 - 1) * 0.3
    bright, contrast, saturation = factors.view(4, 3, 1, 1, 1).unbind(1)
    grey = (image * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    step = saturation * image + (1 - saturation) * grey
    expected = (bright * (contrast * (step - 0.5) + 0.5)).clamp(0, 1)
    assert torch.allclose(augment.image(image, chance(7)), expected, atol=1e-5)
