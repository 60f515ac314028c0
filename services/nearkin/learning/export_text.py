"""Makes a text bundle of a sentence-transformers model: traced to ONNX, its weights in 8 bits, compared with the model.

What is compared is the whole way of a text, by the encoder that serves, with the model in PyTorch in fp32.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import onnx
from tokenizers import Tokenizer

from nearkin.core.errors import Misconfigured
from nearkin.encoders import content, lexical
from nearkin.encoders.integer_graph import with_integer_products
from nearkin.encoders.manifest import LexicalSettings, Manifest, Modalities, TextSettings
from nearkin.encoders.text import TextEncoder
from nearkin.learning.parity import compare, parity_of
from nearkin.learning.quantise import store_int8_weights
from nearkin.learning.trace_network import trace_network
from nearkin.learning.write_bundle import Origin, require_free, write_bundle

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MODEL, TOKENIZER = "text.onnx", "tokenizer.json"

#: By the name that sentence-transformers has for it, how token vectors become one.
POOLING: dict[object, Literal["mean", "first"]] = {"mean": "mean", "cls": "first"}

#: The last steps of a model that change no direction, so that they need not be in the graph.
_WITHOUT_EFFECT = frozenset({"Normalize", "Dropout"})


def export_text(
    model: "SentenceTransformer",
    origin: Origin,
    folder: Path,
    *,
    comparison: Sequence[str],
    compared_on: str,
    precision: Literal["int8", "fp32"] = "int8",
    version: str = "1.0.0",
) -> Manifest:
    """Make a text bundle of a model.

    Args:
        model: a transformer and a pooling of its token vectors, loaded with attention "eager".
        origin: where it comes from.
        folder: of the bundle; made by this.
        comparison: texts that the bundle is compared with the model on.
        compared_on: what those are.
        precision: of the products.
        version: of the bundle.

    Raises:
        Misconfigured: the model has parts that a bundle cannot have, or the folder is there.
    """
    require_free(folder)
    pooling = _pooling(model, origin)
    tokenizer = _tokenizer(model, origin)
    prefix = model.prompts.get(model.default_prompt_name or "") or ""
    with tempfile.TemporaryDirectory() as beside:
        traced, made = Path(beside) / "traced.onnx", Path(beside) / "made.onnx"
        _trace(model, traced)
        if precision == "int8":
            store_int8_weights(traced, made)
        graph = (made if precision == "int8" else traced).read_bytes()
    max_tokens = int(model.max_seq_length or 512)
    served = with_integer_products(onnx.load_model_from_string(graph), MODEL) if precision == "int8" else graph
    encoder = TextEncoder(
        served, tokenizer, max_tokens=max_tokens, threads=1, pooling=pooling, prefix=prefix, where=MODEL
    )
    reference = model.encode(list(comparison), convert_to_numpy=True, show_progress_bar=False)
    near = compare(encoder.encode(comparison), reference)
    parity = parity_of(near, "text", "the model in PyTorch, fp32, by sentence-transformers", compared_on)
    settings = TextSettings(
        model=MODEL,
        tokenizer=TOKENIZER,
        recipe=content.RECIPE,
        max_tokens=max_tokens,
        products="int8_by_token" if precision == "int8" else "as_stored",
        pooling=pooling,
        prefix=prefix,
    )
    return write_bundle(
        folder,
        origin,
        version=version,
        dimensions=encoder.dimensions,
        modalities=Modalities(text=settings, lexical=LexicalSettings(lexical.SCHEME)),
        files={MODEL: graph, TOKENIZER: tokenizer},
        parity=(parity,),
    )


def load_sentence_transformer(name: str) -> "SentenceTransformer":
    """A model of that name or in that folder, as it can be traced.

    Raises:
        Misconfigured: it cannot be loaded.
    """
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(name, device="cpu", model_kwargs={"attn_implementation": "eager"})
    except (OSError, ValueError) as error:
        raise Misconfigured(
            f"cannot be loaded by sentence-transformers ({error})",
            field=name,
            remedy="name a folder that holds a model, or one that can be downloaded from here",
            reason="model",
        ) from error


def _pooling(model: "SentenceTransformer", origin: Origin) -> Literal["mean", "first"]:
    first, *rest = model
    names = [type(module).__name__ for module in (first, *rest)]
    kept = [module for module in rest if type(module).__name__ not in _WITHOUT_EFFECT]
    mode = getattr(kept[0], "pooling_mode", None) if len(kept) == 1 and names[0] == "Transformer" else None
    if mode not in POOLING:
        problem = (
            f"is made of {', '.join(names)}; a bundle takes a transformer whose tokens are pooled by mean or first"
        )
        raise Misconfigured(problem, field=origin.name, remedy="choose another model", reason="model")
    return POOLING[mode]


def _tokenizer(model: "SentenceTransformer", origin: Origin) -> bytes:
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        problem = "has no tokenizer that the library tokenizers can run"
        raise Misconfigured(problem, field=origin.name, remedy="choose another model", reason="model")
    plain = Tokenizer.from_str(backend.to_str())
    plain.no_padding()
    plain.no_truncation()
    text: str = plain.to_str()
    return text.encode()


def _trace(model: "SentenceTransformer", out: Path) -> None:
    import torch

    tokens = model.tokenizer(["a red mug", "a blue cup"], return_tensors="pt")
    names: list[str] = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in tokens]

    class TokenVectors(torch.nn.Module):
        """What the transformer gives for each token, without the pooling."""

        def __init__(self, transformer: Any) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
        ) -> torch.Tensor:
            more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            found = self.transformer(input_ids=input_ids, attention_mask=attention_mask, **more)
            vectors: torch.Tensor = found.last_hidden_state
            return vectors

    transformer: Any = model[0]
    examples = {name: tokens[name] for name in names}
    trace_network(TokenVectors(transformer.auto_model), examples, {0: "texts", 1: "tokens"}, "token_vectors", out)
