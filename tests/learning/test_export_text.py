"""A sentence-transformers model becomes a text bundle that is near to it and serves items."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nearkin.core.errors import Misconfigured
from nearkin.core.item import Content
from nearkin.core.vectors import Vectors
from nearkin.embedded.catalogue.online_retail import load_catalogue
from nearkin.encoders.bundle import load_encoder, verify_bundle
from nearkin.learning.export_text import export_text, load_sentence_transformer
from nearkin.learning.write_bundle import Origin

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("train_extra"), pytest.mark.filterwarnings("default")]

ORIGIN = Origin(name="tiny", source="made by a test", licence="CC0-1.0", training_data="nothing", languages=("en",))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, train_extra: None) -> "SentenceTransformer":
    """A small transformer that knows the catalogue's words, with weights drawn by chance."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("transformer")
    words = sorted({word for item in load_catalogue() for word in item.title.lower().split()})
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words) + 5, hidden_size=96, num_hidden_layers=2, num_attention_heads=4, intermediate_size=192
    )
    BertModel(config).save_pretrained(folder)
    transformer = Transformer(str(folder), max_seq_length=32)
    whole = tmp_path_factory.mktemp("whole")
    SentenceTransformer(modules=[transformer, Pooling(96, "mean")]).save(str(whole))
    return load_sentence_transformer(str(whole))


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_model_becomes_a_whole_bundle_that_serves_items(
    model: "SentenceTransformer", precision: str, tmp_path: Path
) -> None:
    titles = [item.title for item in load_catalogue()][:200]
    folder = tmp_path / "tiny"
    made = export_text(model, ORIGIN, folder, comparison=titles, compared_on="titles", precision=precision)  # type: ignore[arg-type]
    assert verify_bundle(folder) == made
    assert made.parity[0].samples == 200
    assert made.parity[0].cosine_p1 > (0.99 if precision == "int8" else 0.99999)
    text = made.modalities.text
    assert text is not None
    assert (text.max_tokens, text.pooling) == (32, "mean")
    encoder = load_encoder(folder, 1)
    assert encoder.bundle == made.id
    (vectors,) = encoder.encode([Content(title="red retrospot mug")])
    assert isinstance(vectors, Vectors)
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"site-packages" not in content


def test_a_model_with_a_layer_after_its_pooling_is_refused(model: "SentenceTransformer", tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    deeper = SentenceTransformer(modules=[*model, Dense(96, 8)])
    with pytest.raises(Misconfigured, match="Dense"):
        export_text(deeper, ORIGIN, tmp_path / "deeper", comparison=["a mug"], compared_on="titles")
    assert not (tmp_path / "deeper").exists()


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be loaded"):
        load_sentence_transformer(str(tmp_path / "nowhere"))
