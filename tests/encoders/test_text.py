"""The real text model: unit vectors, the same alone, in company and from many threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from made_bundles import WORDS, make_bundle, make_graph, make_tokenizer, table_of
from nearkin.core.errors import Misconfigured
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


RED, BLUE, MUG = (table_of(4)[WORDS.index(word)] for word in ("red", "blue", "mug"))


@pytest.mark.parametrize(
    ("options", "vector"),
    [
        ({"pooling": "mean"}, RED + MUG),
        ({"pooling": "first"}, RED),
        ({"pooling": "none"}, RED + MUG),
        ({"pooling": "first", "prefix": "blue "}, BLUE),
        ({"pooling": "mean", "prefix": "blue "}, BLUE + RED + MUG),
    ],
    ids=str,
)
def test_a_text_model_is_used_as_its_bundle_says(tmp_path: Path, options: dict[str, str], vector: np.ndarray) -> None:
    make_bundle(tmp_path / "bundle", **options)  # type: ignore[arg-type]
    (vectors,) = load_encoder(tmp_path / "bundle", 1).encode([Content(title="red mug")])
    assert vectors.content == pytest.approx(vector / np.linalg.norm(vector), abs=1e-6)  # type: ignore[union-attr]


def refusal(model: onnx.ModelProto, tokenizer: bytes = make_tokenizer(WORDS), **options: str) -> str:
    with pytest.raises(Misconfigured) as refused:
        TextEncoder(model.SerializeToString(), tokenizer, max_tokens=16, threads=1, where="it", **options)  # type: ignore[arg-type]
    assert refused.value.field == "it"
    return refused.value.problem


def test_a_model_that_takes_something_else_than_tokens_is_refused() -> None:
    model = make_graph(4)
    model.graph.input.append(helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["texts", 3]))
    assert "takes input_ids, pixel_values" in refusal(model)


@pytest.mark.parametrize(("pools", "pooling", "axes"), [(True, "mean", 3), (True, "first", 3), (False, "none", 2)])
def test_a_model_whose_output_does_not_fit_its_pooling_is_refused(pools: bool, pooling: str, axes: int) -> None:
    assert f"with pooling {pooling!r} it has {axes} axes" in refusal(make_graph(4, pools=pools), pooling=pooling)


def test_a_model_that_cannot_encode_what_its_tokenizer_gives_is_refused_before_the_first_item() -> None:
    with_more_words = make_tokenizer(["[UNK]", *(f"word{at}" for at in range(20)), "warm"])
    assert "cannot encode a text" in refusal(make_graph(4), with_more_words)


def test_a_model_that_gives_no_direction_is_refused_before_the_first_item() -> None:
    model = make_graph(4)
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    assert "gives no finite vector" in refusal(model)


def test_bytes_that_the_runtime_cannot_load_are_refused() -> None:
    model = make_graph(4)
    model.graph.node[0].op_type = "NoSuchOperator"
    assert "cannot be loaded" in refusal(model)
