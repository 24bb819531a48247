from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from training.towers.build import build_tower
from training.towers.tower import Tower
from training.towers.vit import VideoBlock, VitConfig, VitTower

CONFIG = VitConfig(width=16, layers=2, heads=2, mlp_width=32, patch=4, size=(8, 12), dimension=6)
CLIPS = CONFIG.model_copy(update={"frames": 3})
VIDEO = CLIPS.model_copy(update={"temporal_attention": True, "class_token_per_frame": True})


def _tower(config: VitConfig) -> Tower:
    torch.manual_seed(0)
    return build_tower(config).eval()


@pytest.mark.parametrize(("config", "shape"), [(CONFIG, (5, 3, 8, 12)), (CLIPS, (5, 3, 3, 8, 12)), (VIDEO, (5, 3, 3, 8, 12))])
def test_vectors_are_unit_rows_that_do_not_depend_on_their_batch(config: VitConfig, shape: tuple[int, ...]) -> None:
    tower, inputs = _tower(config), torch.randn(shape)
    vectors = tower(inputs)
    assert vectors.shape == (5, 6)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(torch.cat([tower(inputs[i : i + 1]) for i in range(5)]), vectors, rtol=0, atol=1e-6)
    assert tower.inputs[0].shape == ("batch", *shape[1:])


def test_without_attention_over_time_a_clip_is_the_mean_of_its_frames_before_the_projection() -> None:
    clips = _tower(CLIPS)
    pictures = VitTower(CONFIG).eval()
    pictures.load_state_dict(clips.state_dict())
    clip = torch.randn(2, 3, 3, 8, 12)
    frames = torch.stack([pictures.pooled(clip[:, :, t]) for t in range(3)])
    assert isinstance(clips, VitTower)
    torch.testing.assert_close(clips.pooled(clip), frames.mean(dim=0))


def test_attention_over_time_sees_the_order_of_the_frames() -> None:
    tower, clip = _tower(VIDEO), torch.randn(1, 3, 3, 8, 12)
    assert not torch.allclose(tower(clip), tower(clip.flip(2)), atol=1e-4)


def test_attention_over_time_mixes_no_two_clips() -> None:
    tower, clips = _tower(VIDEO), torch.randn(2, 3, 3, 8, 12)
    other = clips.clone()
    other[1] = 7
    torch.testing.assert_close(tower(clips)[0], tower(other)[0])


@pytest.mark.parametrize(
    ("config", "shape"), [(VIDEO, (2, 3, 6, 8, 12)), (VIDEO, (2, 3, 8, 12)), (CONFIG, (2, 3, 12, 8)), (CONFIG, (2, 3, 1, 8, 12))]
)
def test_a_wrong_frame_count_or_size_is_refused_with_both_shapes(config: VitConfig, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"has shape .* this tower takes \(batch, 3"):
        _tower(config)(torch.zeros(shape))


def test_a_zero_vector_stays_finite() -> None:
    tower = _tower(CONFIG)
    torch.nn.init.zeros_(tower.get_parameter("projection.weight"))
    assert torch.equal(tower(torch.ones(1, 3, 8, 12)), torch.zeros(1, 6))


def test_patch_dropout_works_in_training_only() -> None:
    tower = _tower(CONFIG.model_copy(update={"patch_dropout": 0.5}))
    pictures = torch.randn(2, 3, 8, 12)
    assert torch.equal(tower(pictures), tower(pictures))
    tower.train()
    assert not torch.allclose(tower(pictures), tower(pictures), atol=1e-5)


def test_patch_dropout_keeps_the_class_token_and_the_same_patches_in_all_frames() -> None:
    tower = _tower(CLIPS.model_copy(update={"patch_dropout": 0.4})).train()
    assert isinstance(tower, VitTower)
    places = torch.arange(7.0).expand(6, 7)[..., None].expand(-1, -1, 16)  # (2 clips * 3 frames, 1 + 6 patches, width), each its own place
    kept = tower._drop_patches(places, 3)[..., 0]
    assert kept.shape == (6, 1 + 3)  # int(6 * 0.6) patches
    assert (kept[:, 0] == 0).all()
    assert all(len(set(row.tolist())) == 4 for row in kept)
    for clip in kept.unflatten(0, (2, 3)):
        assert torch.equal(clip[0], clip[1])
        assert torch.equal(clip[0], clip[2])


def test_time_attention_can_start_as_a_copy_of_space_attention() -> None:
    tower = _tower(VIDEO)
    block = tower.get_submodule("layers.1")
    assert isinstance(block, VideoBlock)
    block.start_from_space()
    assert torch.equal(block.temporal_attention.q.weight, block.attention.q.weight)
    assert torch.equal(block.temporal_norm.bias, block.norm1.bias)
    assert block.temporal_attention.q.weight is not block.attention.q.weight


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heads": 3}, "not a multiple"),
        ({"size": (2, 12)}, "holds no patch"),
        ({"temporal_attention": True}, "need frames"),
        ({"patch_dropout": 1.0}, "less than 1"),
        ({"head": 2}, "Extra inputs"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        VitConfig.model_validate({**CONFIG.model_dump(), **change})


def test_a_picture_may_be_no_multiple_of_the_patch() -> None:
    config = CONFIG.model_copy(update={"size": (9, 14)})
    tower, pictures = _tower(config), torch.randn(1, 3, 9, 14)
    unseen = pictures.clone()
    unseen[..., 8:, :] = 0
    unseen[..., 12:] = 0
    assert config.grid == (2, 3)
    torch.testing.assert_close(tower(pictures), tower(unseen))
