from __future__ import annotations

import pytest
import torch

from training.towers.convnet import EFFICIENTNET_LITE0, ConvNetConfig, ConvNetTower, ConvNorm, Stage, TaggerConfig

STAGES = (Stage(kernel=3, stride=1, expand=1, channels=4, blocks=1), Stage(kernel=5, stride=2, expand=3, channels=6, blocks=2))
CONFIG = ConvNetConfig(size=(20, 32), stem=4, stages=STAGES, features=10, dimension=5)


def test_lite0_has_its_published_number_of_weights() -> None:
    tower = ConvNetTower(ConvNetConfig(dimension=1000, norm=False))
    assert sum(parameter.numel() for parameter in tower.parameters()) == 4_652_008
    assert sum(stage.blocks for stage in EFFICIENTNET_LITE0) == 16


def test_the_padding_is_tensorflows_with_the_odd_pixel_at_the_far_side() -> None:
    layer = ConvNorm(1, 1, 3, stride=2).eval()
    with torch.no_grad():
        layer.conv.weight.fill_(0.0)
        layer.conv.weight[0, 0, 0, 0] = 1.0  # the kernel's first tap: reads the input itself when nothing is padded in front
        picture = torch.arange(16.0).reshape(1, 1, 4, 4)
        seen = layer(picture) * (1 + 1e-3) ** 0.5
    torch.testing.assert_close(seen[0, 0], picture[0, 0, ::2, ::2], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("length", "out"), [(4, 2), (5, 3), (7, 4)])
def test_a_strided_layer_gives_the_ceiling_of_half(length: int, out: int) -> None:
    assert ConvNorm(1, 1, 5, stride=2)(torch.zeros(2, 1, length, length)).shape == (2, 1, out, out)


def test_vectors_are_of_unit_length_and_do_not_depend_on_the_batch() -> None:
    tower = ConvNetTower(CONFIG).eval()
    pictures = torch.randn(3, 3, 20, 32)
    with torch.no_grad():
        together, alone = tower(pictures), tower(pictures[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


def test_a_clip_is_the_mean_of_its_frames() -> None:
    clips = torch.randn(2, 3, 4, 20, 32)
    tower = ConvNetTower(CONFIG.model_copy(update={"frames": 4, "hidden": 7})).eval()
    with torch.no_grad():
        features = tower.features(clips)
        assert features.shape == (2, 4, 10)
        torch.testing.assert_close(features[1, 2], tower.trunk(clips[1:2, :, 2])[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(tower(clips.flip(2)), tower(clips), atol=1e-6, rtol=0)


def test_a_wrong_shape_is_an_error_that_says_the_right_one() -> None:
    with pytest.raises(ValueError, match=r"takes \(batch, 3, 20, 32\)"):
        ConvNetTower(CONFIG)(torch.zeros(1, 3, 32, 20))


def test_a_tagger_speaks_by_the_names_of_its_best_classes() -> None:
    tower = ConvNetTower(CONFIG.model_copy(update={"tagger": TaggerConfig(classes=4, best=2)})).eval()
    assert tower.tagger is not None
    with torch.no_grad():
        tower.tagger.names.copy_(torch.eye(4, 5))
        pictures = torch.randn(3, 3, 20, 32)
        features = tower.features(pictures)
        shares = tower.tagger.classify(features.mean(dim=1)).softmax(dim=1)
        vectors = tower(pictures)
    for row, share in zip(vectors, shares, strict=True):
        first, second = share.argsort(descending=True)[:2]
        wanted = torch.zeros(5)
        wanted[first], wanted[second] = share[first], share[second]
        torch.testing.assert_close(row, wanted / wanted.norm())  # the head says nothing before it is trained
    with torch.no_grad():
        tower.head.out.bias[4] = 2.0
        assert tower(pictures)[:, 4].min() > 0.5  # and corrects afterwards


def test_a_tagger_of_sounds_takes_each_class_from_the_frame_that_has_most_of_it() -> None:
    tagger = TaggerConfig(classes=4, best=2, scores="sigmoid", frames="most")
    tower = ConvNetTower(CONFIG.model_copy(update={"tagger": tagger})).eval()
    assert tower.tagger is not None
    with torch.no_grad():
        tower.tagger.names.copy_(torch.eye(4, 5))
        features = torch.randn(3, 6, CONFIG.features)
        scores = tower.tagger.classify(features).sigmoid().amax(dim=1)  # (3, 4): of one frame or another
        vectors = tower.vector(features)
    first = scores.topk(2, dim=1)
    wanted = torch.zeros(3, 5).scatter(1, first.indices, first.values / first.values.sum(dim=1, keepdim=True))
    torch.testing.assert_close(vectors, wanted)
    torch.testing.assert_close(tower.vector(features.flip(1)), vectors)
