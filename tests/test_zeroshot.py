from __future__ import annotations

import numpy as np
import pytest

from bindery.errors import InvalidParameter
from bindery.vectors import normalize
from bindery.zeroshot import expand_labels, label_vectors, probabilities


def test_labels_expand_label_major() -> None:
    assert expand_labels(["dog", "rain"], ["{}", "a sound of {}."]) == ["dog", "a sound of dog.", "rain", "a sound of rain."]


def test_a_label_may_hold_braces() -> None:
    assert expand_labels(["{0} set"], ["a {}"]) == ["a {0} set"]


@pytest.mark.parametrize(
    ("labels", "templates", "pointer"),
    [
        ([], ["{}"], "/labels"),
        (["a"], [], "/template"),
        (["a", " "], ["{}"], "/labels/1"),
        (["a"], ["{}", "x"], "/template/1"),
        (["a"], ["{}{}"], "/template/0"),
    ],
)
def test_broken_lists_are_refused_with_their_place(labels: list[str], templates: list[str], pointer: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        expand_labels(labels, templates)
    assert caught.value.pointer == pointer


def test_a_class_vector_is_the_unit_mean_over_its_templates() -> None:
    texts = normalize(np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32))
    classes = label_vectors(texts, 3)
    assert np.allclose(classes[1], normalize(texts[3:].mean(axis=0, keepdims=True))[0], atol=1e-6)


def test_probabilities_are_a_scaled_softmax() -> None:
    vectors = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    labels = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    result = probabilities(vectors, labels, 10.0)
    assert np.allclose(result.sum(axis=1), 1, atol=1e-6)
    assert result[0, 0] == pytest.approx(1 / (1 + np.exp(-10)), abs=1e-6)
    assert result[1, 1] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)


def test_one_string_of_labels_is_not_its_letters() -> None:
    with pytest.raises(InvalidParameter, match="give a list"):
        expand_labels("dog", ["{}"])
