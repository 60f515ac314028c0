"""The drawings that ship with Nearkin can be read, and are described."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nearkin.learning.drawings import load_drawings, read_folder, read_pictures


def test_every_drawing_can_be_decoded_and_names_who_drew_it() -> None:
    drawings = load_drawings()
    assert [drawing.id for drawing in drawings] == sorted({drawing.id for drawing in drawings})
    assert all(drawing.creator and drawing.category_path for drawing in drawings)
    for picture in read_pictures(drawings[:40]):
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert max(picture.shape) <= 96


def test_no_creator_stands_for_all() -> None:
    creators = Counter(drawing.creator for drawing in load_drawings())
    assert max(creators.values()) <= 0.1 * creators.total() + 1


@pytest.mark.parametrize("most", [1, 5])
def test_pictures_of_ones_own_are_read_in_the_order_of_their_names(most: int, tmp_path: Path) -> None:
    for level in (40, 0, 20):
        Image.new("L", (8, 8), level).save(tmp_path / f"{level:02}.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    found = read_folder(tmp_path, most)
    assert [round(picture.mean() / 20) for picture in found] == [0, 1, 2][:most]
