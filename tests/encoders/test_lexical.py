"""The tokeniser and its weights: any script, any text, the same numbers everywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.core.vectors import SparseVector
from nearkin.encoders.lexical import WORDS_READ, encode_lexical, find_words, hash_term


def overlap(left: str, right: str) -> float:
    """The cosine of two texts' term weights."""
    one, other = encode_lexical(left), encode_lexical(right)
    _, rows, columns = np.intersect1d(one.indices, other.indices, return_indices=True)
    return float(one.values[rows] @ other.values[columns])


def assert_valid(vector: SparseVector) -> None:
    assert vector.indices.dtype == np.uint32
    assert vector.values.dtype == np.float32
    assert vector.indices.shape == vector.values.shape
    assert (np.diff(vector.indices.astype(np.int64)) > 0).all()
    assert np.isfinite(vector.values).all()
    assert (vector.values > 0).all()
    assert len(vector.values) == 0 or np.linalg.norm(vector.values) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("WHITE HANGING T-LIGHT HOLDER", ["white", "hanging", "t", "light", "holder"]),
        ("Straße, façade; ﬁne Ⅷ", ["strasse", "facade", "fine", "viii"]),
        ("Кружка с ёлкой", ["кружка", "с", "елкои"]),
        ("हिन्दी किताब", ["हिन्दी", "किताब"]),
        ("مكتبة بيت", ["مكتبة", "بيت"]),
        ("你好世界", ["你好", "好世", "世界"]),
        ("茶", ["茶"]),
        ("ラーメン鉢", ["ラー", "ーメ", "メン", "ン鉢"]),
        ("머그컵", ["머그", "그컵"]),
        ("ถ้วยชา", ["ถ้ว", "วย", "ยช", "ชา"]),
        ("iPhone用ケース 13pro", ["iphone", "用ケ", "ケー", "ース", "13pro"]),
        ("❤️ 🎄", ["❤", "🎄"]),
        (" \t\n.,;-_'\u200b\x00", []),
        ("", []),
    ],
)
def test_words_are_found_in_any_script(text: str, words: list[str]) -> None:
    assert list(find_words(text)) == words


def test_two_spellings_of_a_word_give_the_same_terms() -> None:
    for left, right in [
        ("CAFÉ", "cafe"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("café", "cafe\u0301"),
        ("STRASSE", "straße"),
    ]:
        assert np.array_equal(encode_lexical(left).indices, encode_lexical(right).indices)


def test_a_terms_index_is_the_same_for_ever() -> None:
    assert hash_term("retrospot") == 2993262848
    assert hash_term("你好") == 2948967273


def test_pieces_match_plurals_and_compounds_and_whole_words_match_more() -> None:
    assert 0 < overlap("drawer knob", "drawerknobs") < overlap("drawer knob", "drawer knob blue")
    assert overlap("red cup", "blue saucer") == 0


def test_the_words_that_open_a_title_count_more() -> None:
    assert overlap("retrospot bowl", "retrospot lantern") > overlap("bowl retrospot", "lantern retrospot")


def test_repeats_of_a_word_add_ever_less() -> None:
    once, ten, hundred = (encode_lexical("plain other " + "red " * count) for count in (1, 10, 100))
    row = [int(np.flatnonzero(vector.indices == hash_term("red"))[0]) for vector in (once, ten, hundred)]
    shares = [float(vector.values[i]) for vector, i in zip((once, ten, hundred), row, strict=True)]
    assert shares[0] < shares[1] < shares[2] < 1
    assert shares[2] - shares[1] < shares[1] - shares[0]


@given(st.text(st.characters(), max_size=200))
def test_any_text_gives_a_valid_vector(text: str) -> None:
    assert_valid(encode_lexical(text))


@pytest.mark.parametrize(
    "text",
    [
        "\ud800\udfff lone",
        "a" * 100_000,
        "漢" * 50_000,
        "ก\u0e31" * 50_000,
        "a\u0301" * 50_000,
        "\u0301" * 1000,
        "x " * 50_000,
    ],
    ids=["surrogates", "one word", "one run", "marks", "accents", "marks alone", "many words"],
)
def test_hostile_texts_cost_a_bounded_number_of_terms(text: str) -> None:
    vector = encode_lexical(text)
    assert_valid(vector)
    assert len(vector.values) <= 64 * WORDS_READ
