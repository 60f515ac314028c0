"""256 signs are enough to tell how alike two vectors are."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.core.sketch import SIZE, similarities, sketch

D = 384


def vectors_with_cosine(cosine, count, seed):
    rng = np.random.default_rng(seed)
    ones = rng.standard_normal((count, D))
    ones /= np.linalg.norm(ones, axis=1, keepdims=True)
    others = rng.standard_normal((count, D))
    others -= (others * ones).sum(1, keepdims=True) * ones
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    return ones.astype(np.float32), (cosine * ones + np.sqrt(1 - cosine**2) * others).astype(np.float32)


@pytest.mark.parametrize("cosine", [-0.5, 0.0, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98])
def test_the_estimated_cosine_is_right_on_average_and_as_sure_as_the_binomial_says(cosine):
    pairs = zip(*vectors_with_cosine(cosine, 400, seed=7), strict=True)
    errors = np.array([similarities([sketch(one), sketch(other)])[0, 1] - cosine for one, other in pairs])
    angle = np.arccos(cosine)
    share = angle / np.pi
    deviation = np.sin(angle) * np.pi * np.sqrt(share * (1 - share) / 256)
    assert abs(errors.mean()) < 0.02
    assert errors.std() == pytest.approx(deviation, rel=0.2)


def test_a_sketch_says_nothing_of_a_vectors_length():
    (vector,), _ = vectors_with_cosine(0, 1, seed=1)
    assert sketch(vector) == sketch(vector * np.float32(12.5))
    assert len(sketch(vector)) == SIZE


def test_a_vector_and_its_opposite_are_as_far_as_can_be():
    (vector,), _ = vectors_with_cosine(0, 1, seed=1)
    assert similarities([sketch(vector), sketch(-vector)]) == pytest.approx(np.array([[1, -1], [-1, 1]]))


def test_what_is_not_known_is_like_nothing_but_itself():
    (one, other), _ = vectors_with_cosine(0, 2, seed=3)
    alike = similarities([sketch(one), b"", sketch(one), b"", sketch(other)])
    assert alike[1].tolist() == [0, 1, 0, 0, 0]
    assert alike[:, 3].tolist() == [0, 0, 0, 1, 0]
    assert alike[0, 2] == 1
    assert similarities([]).shape == (0, 0)


@given(st.lists(st.binary(min_size=SIZE, max_size=SIZE) | st.just(b""), max_size=12))
def test_similarities_are_cosines_of_a_symmetric_matrix(sketches):
    alike = similarities(sketches)
    assert (alike == alike.T).all()
    assert (np.abs(alike) <= 1).all()
    assert (np.diag(alike) == 1).all()


def test_sketches_of_an_older_version_stay_comparable():
    """The index keeps sketches: if this fails, what is stored no longer compares with what is computed."""
    vector = np.sin(np.arange(1, D + 1)).astype(np.float32)
    assert hashlib.sha256(sketch(vector)).hexdigest()[:16] == "279a4234cdfce7da"
