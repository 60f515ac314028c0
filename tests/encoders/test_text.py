"""The real text model: unit vectors, the same alone, in company and from many threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nearkin.core.item import Content
from nearkin.embedded.catalogue.online_retail import load_catalogue
from nearkin.encoders.bundle import DEFAULT_BUNDLE, load_encoder, read_file, read_graphs, read_manifest
from nearkin.encoders.text import TextEncoder


@pytest.fixture(scope="module")
def text_encoder() -> TextEncoder:
    manifest = read_manifest(DEFAULT_BUNDLE)
    graph = read_graphs(DEFAULT_BUNDLE, manifest)["model.onnx"]
    tokenizer = read_file(DEFAULT_BUNDLE, manifest.file("tokenizer.json"))
    return TextEncoder(graph, tokenizer, max_tokens=256, threads=2)


def test_meaning_makes_texts_close(text_encoder: TextEncoder) -> None:
    mug, cup, tyre = text_encoder.encode(["red coffee mug", "crimson espresso cup", "winter tyre for trucks"])
    assert mug @ cup > 0.5 > mug @ tyre


def test_vectors_have_unit_length_and_stand_in_the_order_of_the_texts(text_encoder: TextEncoder) -> None:
    texts = [item.title for item in load_catalogue()[:100]]
    vectors = text_encoder.encode(texts)
    assert vectors.shape == (100, text_encoder.dimensions)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert text_encoder.encode([texts[57]])[0] @ vectors[57] == pytest.approx(1, abs=1e-3)


def test_a_text_has_the_same_vector_alone_and_in_company(text_encoder: TextEncoder) -> None:
    texts = [item.title for item in load_catalogue()[::40]]
    company = text_encoder.encode(texts)
    alone = np.concatenate([text_encoder.encode([text]) for text in texts])
    # Products of one row and of many run in different kernels, which round differently.
    assert np.sum(company * alone, axis=1).min() > 0.999


def test_no_texts_give_no_vectors(text_encoder: TextEncoder) -> None:
    assert text_encoder.encode([]).shape == (0, text_encoder.dimensions)


def test_words_beyond_the_models_window_change_nothing(text_encoder: TextEncoder) -> None:
    long, longer = text_encoder.encode(["cup " * 300, "cup " * 300 + "saucer " * 50])
    assert long @ longer == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\x00\x01",
        "\ud800",
        "\ufffe",
        "🎄",
        "a" * 200_000,
        "你好世界" * 5_000,
        "<script>[CLS][SEP]",
        "\u202e\u0301",
    ],
    ids=["empty", "blank", "control", "surrogate", "noncharacter", "emoji", "one word", "chinese", "markup", "marks"],
)
def test_any_text_gives_a_finite_vector(text_encoder: TextEncoder, text: str) -> None:
    assert np.linalg.norm(text_encoder.encode([text])[0]) == pytest.approx(1, abs=1e-5)


def test_many_threads_get_what_one_gets() -> None:
    encoder = load_encoder(None, 2)
    contents = [Content(title=item.title) for item in load_catalogue()[:64]]
    expected = encoder.encode(contents)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(encoder.encode, [contents] * 8))
    for answer in answers:
        for got, wanted in zip(answer, expected, strict=True):
            assert np.allclose(got.content, wanted.content, atol=1e-5)  # type: ignore[union-attr]
            assert np.array_equal(got.lexical.values, wanted.lexical.values)  # type: ignore[union-attr]
