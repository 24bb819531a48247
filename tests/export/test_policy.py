from __future__ import annotations

import pytest

from bindery.spec import AudioSpec, ImageSpec
from export.errors import ExportUsageError
from export.policy import apply_policies
from export.source import TowerSource
from tests.export.towers import image_source, text_source

AUDIO = TowerSource("sound", AudioSpec(), image_source().tower, None, ("{}",))


def test_a_policy_changes_one_field_of_one_modality() -> None:
    sources = [image_source(), image_source("other")]
    changed = apply_policies(sources, ["image.antialias=true", "image.exif=apply"])
    assert changed[0].spec == ImageSpec(size=32, antialias=True, exif="apply")
    assert changed[1] == sources[1]


@pytest.mark.parametrize(
    ("policy", "field", "value"),
    [
        ("sound.long_audio=thirds_middle", "long_audio", "thirds_middle"),
        ("sound.audio_channels=mean", "audio_channels", "mean"),
        ("sound.mean=-5", "mean", -5.0),
    ],
)
def test_values_are_words_numbers_or_json(policy: str, field: str, value: object) -> None:
    assert getattr(apply_policies([AUDIO], [policy])[0].spec, field) == value


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("image.antialias", "is not MODALITY.FIELD=VALUE"),
        ("antialias=true", "is not MODALITY.FIELD=VALUE"),
        ("audio.antialias=true", "no modality 'audio'; this bundle has image, text"),
        ("image.sharpness=3", "image has no field 'sharpness'; it has size, interpolation, antialias"),
        ("image.kind=depth", "no field 'kind'"),
        ("text.tokenizer=elsewhere.json", "no field 'tokenizer'"),
        ("image.exif=maybe", "'ignore' or 'apply'"),
        ("image.std=[0,1,1]", "std must be positive"),
    ],
)
def test_a_policy_that_makes_no_sense_says_what_is_allowed(policy: str, said: str) -> None:
    with pytest.raises(ExportUsageError, match=said.replace("(", r"\(")):
        apply_policies([image_source(), text_source()], [policy])
