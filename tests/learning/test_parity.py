"""What is said of vectors beside their reference."""

import numpy as np
import pytest

from nearkin.learning.parity import NEIGHBOURS, compare, find_neighbours, name_processor


def vectors(count: int = 50, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_equal_vectors_are_as_near_as_can_be_whatever_their_length_in_the_reference() -> None:
    near = compare(vectors(), 7 * vectors())
    assert near.samples == 50
    assert (near.cosine_mean, near.cosine_p1, near.equal_neighbours) == pytest.approx((1, 1, 1))


def test_one_that_went_astray_shows_in_the_first_percentile() -> None:
    reference = vectors()
    astray = reference.copy()
    astray[3] *= -1
    near = compare(astray, reference)
    assert near.cosine_mean == pytest.approx(0.96, abs=1e-5)
    assert near.cosine_p1 < 0.1


def test_vectors_of_another_space_have_other_neighbours() -> None:
    near = compare(vectors(200, seed=1), vectors(200))
    assert near.equal_neighbours == pytest.approx(NEIGHBOURS / 199, abs=0.03)


def test_too_few_samples_say_nothing_of_neighbours() -> None:
    assert compare(vectors(NEIGHBOURS), vectors(NEIGHBOURS)).equal_neighbours is None


def test_the_nearest_are_found_and_nobody_is_its_own_neighbour() -> None:
    units = vectors(1500)
    found = find_neighbours(units)
    assert found.shape == (1500, NEIGHBOURS)
    assert not (found == np.arange(1500)[:, None]).any()
    by_hand = np.argsort(-(units[1400] @ units.T))[1 : NEIGHBOURS + 1]
    assert set(found[1400].tolist()) == set(by_hand.tolist())


@pytest.mark.parametrize("wrong", [np.zeros((3, 16), np.float32), np.full((3, 16), np.nan, np.float32)])
def test_what_has_no_direction_cannot_be_compared(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no direction"):
        compare(vectors(3), wrong)


def test_nothing_and_other_shapes_cannot_be_compared() -> None:
    for found, reference in ((vectors(0), vectors(0)), (vectors(3), vectors(4))):
        with pytest.raises(ValueError, match="cannot be compared"):
            compare(found, reference)


def test_this_processor_is_named_with_what_it_multiplies_integers_by() -> None:
    assert name_processor().strip()
