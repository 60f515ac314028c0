"""Which fields of a content are encoded, by the real bundle and by its stand-in."""

from dataclasses import replace

import numpy as np
import pytest

from nearkin.core.errors import NothingToEncode
from nearkin.core.item import Content, Quantity, Status
from nearkin.core.ports import ContentEncoder
from nearkin.core.vectors import Vectors
from nearkin.encoders.bundle import load_encoder
from nearkin.encoders.content import TextContentEncoder, compose_text
from nearkin.encoders.fake import HashingEncoder
from nearkin.encoders.text import TextEncoder

MUG = Content(
    title="Retrospot mug",
    description="A mug with red dots.",
    language="en",
    categories=(("home", "kitchen", "mugs"), ("home", "gifts")),
    tags=("red", "dots"),
    attributes={"material": "china", "colour": "red"},
    numbers={"volume": Quantity(250, "ml")},
    images=("https://example.org/mug.jpg",),
    maker="Spotty",
    variant_group="mugs",
)


@pytest.fixture(scope="module", params=["the default bundle", "its stand-in"])
def encoder(request: pytest.FixtureRequest) -> ContentEncoder:
    return load_encoder(None, 1) if request.param == "the default bundle" else HashingEncoder()


def test_the_text_holds_every_field_in_words_the_title_first() -> None:
    assert compose_text(MUG) == (
        "Retrospot mug. Spotty. home, kitchen, mugs, gifts. red, dots. A mug with red dots. colour red, material china"
    )


def test_fields_without_text_leave_no_trace() -> None:
    assert compose_text(Content(title=" Mug ", description="\n", tags=("", " "))) == "Mug"


@pytest.mark.parametrize(
    "change",
    [
        {"title": "Other"},
        {"description": "Other"},
        {"categories": (("other",),)},
        {"tags": ("other",)},
        {"maker": "Other"},
        {"attributes": {"material": "tin"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_change_of_what_is_read_changes_the_fingerprint(encoder: ContentEncoder, change: dict[str, object]) -> None:
    assert encoder.fingerprint(replace(MUG, **change)) != encoder.fingerprint(MUG)  # type: ignore[arg-type]


def test_a_change_of_anything_else_does_not(encoder: ContentEncoder) -> None:
    unread = replace(
        MUG,
        images=(),
        numbers={},
        status=Status.HIDDEN,
        variant_group="",
        language="",
        attributes=dict(reversed(MUG.attributes.items())),
    )
    assert encoder.fingerprint(unread) == encoder.fingerprint(MUG)


def test_two_bundles_never_share_a_fingerprint() -> None:
    assert HashingEncoder(bundle="a").fingerprint(MUG) != HashingEncoder(bundle="b").fingerprint(MUG)


@pytest.mark.parametrize("title", ["", " \n\t", "\x00\x07\x1b", "\u200b\u2060\ufeff", "\u00a0\u3000"])
def test_a_content_without_visible_text_gets_its_error_in_its_place(encoder: ContentEncoder, title: str) -> None:
    before, error, after = encoder.encode([MUG, Content(title=title), MUG])
    assert isinstance(error, NothingToEncode)
    assert (error.field, error.reason) == ("content", "nothing_to_encode")
    assert "title" in error.remedy
    assert isinstance(before, Vectors)
    assert isinstance(after, Vectors)
    assert before.content @ after.content == pytest.approx(1, abs=1e-5)


def test_any_one_field_is_enough(encoder: ContentEncoder) -> None:
    contents = [
        Content(description="a mug"),
        Content(categories=(("mugs",),)),
        Content(tags=("mug",)),
        Content(maker="Spotty"),
        Content(attributes={"material": "china"}),
        Content(title="🎄"),
        Content(title="ถ้วย"),
    ]
    for vectors in encoder.encode(contents):
        assert isinstance(vectors, Vectors)
        assert vectors.content.shape == (encoder.dimensions,)
        assert np.linalg.norm(vectors.content) == pytest.approx(1, abs=1e-5)
        assert len(vectors.lexical.indices)


def test_contents_that_share_words_are_closer(encoder: ContentEncoder) -> None:
    red, green, tyre = (
        vectors.content
        for vectors in encoder.encode(
            [Content(title="red mug"), Content(title="green mug"), Content(title="truck tyre")]
        )
        if isinstance(vectors, Vectors)
    )
    assert red @ green > red @ tyre


def test_nothing_asked_is_nothing_answered(encoder: ContentEncoder) -> None:
    assert encoder.encode([]) == []


def test_a_vector_that_is_not_finite_is_refused_for_its_item_alone() -> None:
    class Broken(TextEncoder):
        dimensions = 2

        def __init__(self) -> None: ...

        def encode(self, texts):  # type: ignore[no-untyped-def, override]
            return np.array([[np.nan, np.nan] if text == "bad" else [0, 1] for text in texts], np.float32)

    good, bad = TextContentEncoder("broken", Broken()).encode([Content(title="good"), Content(title="bad")])
    assert isinstance(good, Vectors)
    assert isinstance(bad, NothingToEncode)
    assert bad.reason == "not_finite"
