from __future__ import annotations

import numpy as np
import pytest

from bindery.vectors import normalize
from training.metrics import Share, calibration_error, fit_logit_scale, fit_min_similarity, negative_log_likelihood, recall_at, top_k

SCORES = np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.1], [0.0, 0.4, 0.2]], dtype=np.float32)


def test_top_k_counts_the_right_label_among_the_best() -> None:
    assert top_k(SCORES, [0, 0, 2], 1) == Share(1, 3)
    assert top_k(SCORES, [0, 0, 2], 2) == Share(3, 3)


def test_recall_takes_any_of_several_right_ones() -> None:
    together = np.array([[False, False, True], [True, True, False], [True, False, False]])
    assert recall_at(SCORES, together, 1) == Share(1, 3)
    assert recall_at(SCORES, together, 2) == Share(2, 3)


def test_the_interval_is_wilsons() -> None:
    low, high = Share(8, 10).interval
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert Share(10, 10).interval[1] == pytest.approx(1.0)
    assert Share(0, 0).interval == (0.0, 1.0)


def test_the_fitted_scale_says_as_much_as_the_labels_bear_out() -> None:
    rng = np.random.default_rng(0)
    labels = normalize(rng.standard_normal((5, 32)))
    right = rng.integers(5, size=400)
    sure = normalize(labels[right] + 0.1 * rng.standard_normal((400, 32)))
    unsure = normalize(labels[right] + 0.6 * rng.standard_normal((400, 32)))
    high, low = fit_logit_scale(sure, labels, right.tolist()), fit_logit_scale(unsure, labels, right.tolist())
    assert 1 <= low < high <= 100
    best = negative_log_likelihood(unsure, labels, right.tolist(), low)
    assert all(best <= negative_log_likelihood(unsure, labels, right.tolist(), low * factor) for factor in (0.8, 1.25))


def test_probabilities_that_mean_what_they_say_have_no_calibration_error() -> None:
    labels = np.eye(2, dtype=np.float32)
    # cosines 0.6 and 0.8 at scale ln(3) / 0.2: the better label's probability is 3/4
    vectors = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (8, 1))
    scale = float(np.log(3) / 0.2)
    assert calibration_error(vectors, labels, [1, 1, 1, 0] * 2, scale) == pytest.approx(0.0, abs=1e-6)
    assert calibration_error(vectors, labels, [1] * 8, scale) == pytest.approx(0.25, abs=1e-6)
    assert calibration_error(vectors, labels, [0] * 8, scale) == pytest.approx(0.75, abs=1e-6)


def test_the_least_similarity_lets_right_names_and_half_of_the_wrong_ones_pass() -> None:
    labels = np.eye(3, dtype=np.float32)
    rng = np.random.default_rng(1)
    right = rng.integers(3, size=400)
    vectors = normalize(labels[right] + 0.3 * rng.standard_normal((400, 3)))
    least = fit_min_similarity(vectors, labels, right.tolist())
    assert least is not None
    scores = vectors @ labels.T
    assert (scores.max(axis=1) >= least).mean() > 0.95
    scores[np.arange(400), right] = -1
    assert (scores.max(axis=1) >= least).mean() == pytest.approx(0.5, abs=0.01)  # of strangers half are let through
    noisy = normalize(labels[right] + 1.5 * rng.standard_normal((400, 3)))
    kept = fit_min_similarity(noisy, labels, right.tolist())
    named = (noisy @ labels.T).argmax(axis=1) == right
    assert ((noisy @ labels.T).max(axis=1)[named] >= kept).mean() >= 0.94  # and more where right and wrong are hard to tell apart
    assert fit_min_similarity(labels[:1], labels, [1]) is None
    assert fit_min_similarity(labels[:1], labels[:1], [0]) is None
