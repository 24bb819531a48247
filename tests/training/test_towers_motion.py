"""The part of a video tower that sees how the frames moved, at toy size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from export.onnx_graph import to_onnx
from training.towers.convnet import ConvNetConfig, ConvNetTower, Stage
from training.towers.motion import Motion, MotionConfig

MOTION = MotionConfig(grid=16, reach=(2, 3), cells=2, hidden=8)
STAGES = (Stage(kernel=3, stride=2, expand=1, channels=4, blocks=1),)
CONFIG = ConvNetConfig(size=(32, 32), frames=4, stem=4, stages=STAGES, features=6, dimension=5, motion=MOTION)


def walk(down: int, across: int, *, frames: int = 4, size: int = 32, seed: int = 0) -> torch.Tensor:
    """A clip whose content shifts by so many pixels from frame to frame, (1, 3, frames, size, size)."""
    scene = np.random.default_rng(seed).standard_normal((4 * size, 4 * size)).astype(np.float32)
    # Detail as large as the grid's points.
    scene = scene.reshape(2 * size, 2, 2 * size, 2).mean(axis=(1, 3)).repeat(2, axis=0).repeat(2, axis=1)
    middle = 3 * size // 2
    windows = [
        scene[middle - down * number : middle - down * number + size, middle - across * number : middle - across * number + size]
        for number in range(frames)
    ]
    return torch.from_numpy(np.stack(windows)).expand(3, -1, -1, -1).unsqueeze(0).contiguous()


def tower() -> ConvNetTower:
    torch.manual_seed(0)
    made = ConvNetTower(CONFIG).eval()
    assert made.head.motion is not None
    torch.nn.init.normal_(made.head.motion.out.weight)  # a trained head has something to say
    return made


@pytest.mark.parametrize(("down", "across"), [(0, 4), (0, -6), (2, 0), (-4, 2)])
def test_a_shift_of_the_picture_is_found_in_every_block(down: int, across: int) -> None:
    shifts = Motion(MOTION)(walk(down, across))
    assert shifts.shape == (1, 4, MOTION.width)
    field = shifts[0, :3].unflatten(1, (2, MOTION.cells**2))  # a point is two pixels
    torch.testing.assert_close(field[:, 0], torch.full((3, 4), across / 2 / 3), atol=0.05, rtol=0)
    torch.testing.assert_close(field[:, 1], torch.full((3, 4), down / 2 / 2), atol=0.05, rtol=0)
    assert not shifts[0, 3].any()  # the last frame has no next one


def test_a_still_clip_has_no_motion_whatever_its_light() -> None:
    clip = walk(0, 0) * torch.linspace(1, 2, 4)[:, None, None] + 0.3
    assert Motion(MOTION)(clip).abs().max() < 0.02


def test_the_tower_hears_of_the_order_of_frames_and_not_of_its_neighbours() -> None:
    made = tower()
    clips = torch.cat([walk(0, 4), walk(0, 4).flip(2), walk(2, 0, seed=1)])
    with torch.no_grad():
        together = made(clips)
        alone = torch.cat([made(clip[None]) for clip in clips])
        features = made.features(clips)
    assert features.shape == (3, 4, made.feature_width or 0)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_a_new_head_says_what_it_would_without_motion() -> None:
    torch.manual_seed(0)
    made = ConvNetTower(CONFIG).eval()
    with torch.no_grad():
        torch.testing.assert_close(made(walk(0, 4)), made(walk(0, 4).flip(2)), atol=1e-6, rtol=0)


def test_the_exported_graph_computes_the_same(tmp_path: Path) -> None:
    made = tower()
    clips = torch.cat([walk(0, 4), walk(2, -2, seed=1), walk(-2, 2, seed=2)])
    ir.save(to_onnx(made, {"pixel_values": clips}, {"batch": 8}), tmp_path / "tower.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "tower.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 3):
        (vectors,) = session.run(None, {"pixel_values": clips[:count].numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(vectors, made(clips[:count]).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"frames": None}, "needs frames"), ({"frames": 1}, "two at least"), ({"size": (30, 32)}, "does not divide")],
)
def test_motion_wants_clips_of_a_size_that_its_grid_divides(change: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ConvNetConfig.model_validate(CONFIG.model_dump() | change)


def test_blocks_must_be_able_to_move() -> None:
    with pytest.raises(ValueError, match="leaves no 4 blocks"):
        MotionConfig(grid=8, reach=(3, 3), cells=4)
