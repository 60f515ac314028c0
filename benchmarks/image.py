"""The shipped image model beside the network in PyTorch: its speed, and how good the neighbours are.

    python -m benchmarks.image [--part speed|grocery|clipart]... [--rounds N] [--anchors N] [--json FILE]

*Speed*: from JPEG to vectors on two cores, our path (decoding at the size that is needed, and the graph in 8 bits)
against the same network with the same views in PyTorch in fp32, with Pillow's plain decoding, at the batch size that is
fastest for it; beside it the plain network, which reads one view and has a head. All decode in two threads. They take
turns within a round, so that whatever else the machine does hits all; a ratio is the median over the rounds of one
round's ratio. Photos are those of Grocery Store, of 128 pixels, and the same enlarged to 800, as shops publish them.

*Grocery Store* (beside the evaluation data): of each photo of the test set, which share of what can be found among the
ten nearest is of its class. Candidates are all other photos, those of other sets alone, or the one iconic picture of
each class. The plain network runs in fp32 by its traced graph, which is faster than PyTorch and gives the same; the
interval is of the paired difference, by bootstrap over the photos.

*Open Clipart*: how much the keywords of a drawing and of its ten nearest have in common (Jaccard), those by the same
creator left out, so that one artist's series does not answer. Chance is ten others drawn blindly by the same rule.

Needs the extra `train`. Exits with 1 where something that must be reached was missed.
"""

import argparse
import gzip
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.datasets import unpack
from benchmarks.report import Bar, conclude, print_table
from nearkin.encoders.bundle import IMAGE_BUNDLE, load_image_encoder, read_manifest
from nearkin.encoders.image import ImageEncoder, Pixels, prepare
from nearkin.learning.export_image import trace_image
from nearkin.learning.image_models import ImageModel, find_image_model
from nearkin.media.picture import decode_picture

CORES = 2

PARTS = ("speed", "grocery", "clipart")

#: What must be reached, and the goal: images a second over those of PyTorch.
MUST, GOAL = 1.5, 3.0

#: Pictures of one round, those that batch sizes are tried on, and the batch sizes that PyTorch may choose from.
PICTURES, TRIED, BATCHES = 64, 32, (1, 8, 32)

#: What is decoded at most: as the services set it.
MOST_PIXELS = 50_000_000

#: Pictures that are handed to the encoder at a time, the largest batch of an indexer.
AT_ONCE = 64

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Photos:
    """Grocery Store.

    Attributes:
        paths: of the photos.
        classes: of each.
        test: whether each is of the test set.
        iconic: the one picture of each class, by its number.
    """

    paths: list[Path]
    classes: NDArray[np.int64]
    test: NDArray[np.bool_]
    iconic: list[Path]


def read_photos(folder: Path) -> Photos:
    rows = [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]
    photos = [row for row in rows if row["split"] in ("train", "val", "test")]
    return Photos(
        [folder / row["image"] for row in photos],
        np.array([row["class_id"] for row in photos]),
        np.array([row["split"] == "test" for row in photos]),
        sorted(folder.glob("iconic_*.jpg")),
    )


def plain(content: bytes) -> Pixels:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def small(content: bytes, edge: int) -> Pixels:
    decoded = decode_picture(content, "jpeg", edge, MOST_PIXELS)
    return np.frombuffer(decoded.rgb, np.uint8).reshape(decoded.height, decoded.width, 3)


def enlarged(content: bytes, longer: int) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        scale = longer / max(image.size)
        out = io.BytesIO()
        size = round(image.width * scale), round(image.height * scale)
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=85)
        return out.getvalue()


def encode_all(encoder: ImageEncoder, paths: Sequence[Path]) -> Vectors:
    return np.concatenate(
        [
            encoder.encode([plain(path.read_bytes()) for path in paths[start : start + AT_ONCE]])
            for start in range(0, len(paths), AT_ONCE)
        ]
    )


def trace_plain(model: ImageModel, folder: Path) -> ImageEncoder:
    """The network in fp32, with the pixels that it was trained on."""
    trace_image(model, folder / "fp32.onnx")
    return ImageEncoder((folder / "fp32.onnx").read_bytes(), model.preparation, threads=CORES)


def time_pairs(
    encoder: ImageEncoder, size: int, models: tuple[ImageModel, ImageModel], jpegs: list[bytes], rounds: int
) -> dict[str, Any]:
    def decode(content: bytes) -> Pixels:
        return small(content, size)

    def ours() -> None:
        for start in range(0, len(jpegs), AT_ONCE):
            encoder.encode(list(pool.map(decode, jpegs[start : start + AT_ONCE])))

    def in_torch(model: ImageModel, batch: int, contents: Sequence[bytes] = jpegs) -> None:
        import torch

        pictures = list(pool.map(plain, contents))
        with torch.inference_mode():
            for start in range(0, len(pictures), batch):
                model.network(torch.from_numpy(prepare(pictures[start : start + batch], model.preparation)))

    def seconds(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    with ThreadPoolExecutor(CORES) as pool:
        calls: dict[str, Callable[[], object]] = {"ours": ours}
        batches = {}
        for name, model in zip(("same", "plain"), models, strict=True):
            model.network.eval()
            tried = {batch: seconds(partial(in_torch, model, batch, jpegs[:TRIED])) for batch in BATCHES}
            batches[name] = min(tried, key=lambda batch: tried[batch])
            calls[name] = partial(in_torch, model, batches[name])
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for count in range(rounds + 1):
            for name in sorted(calls, reverse=bool(count % 2)):
                once = seconds(calls[name])
                if count:  # the first round warms all up
                    taken[name].append(once)
    ratios = {name: [slow / fast for slow, fast in zip(taken[name], taken["ours"], strict=True)] for name in batches}
    decoding = seconds(lambda: [decode(content) for content in jpegs]) / len(jpegs)
    one = statistics.median(seconds(lambda: encoder.encode([decode(jpegs[0])])) for _ in range(20))
    return {
        "pictures": len(jpegs),
        "kilobytes": round(statistics.mean(map(len, jpegs)) / 1000, 1),
        "rounds": rounds,
        "torch_batch": batches,
        "per_s": {name: len(jpegs) / statistics.median(times) for name, times in taken.items()},
        "ratio": {
            name: {"median": statistics.median(all_), "min": min(all_), "max": max(all_)}
            for name, all_ in ratios.items()
        },
        "one_picture_ms": 1000 * one,
        "decoding_ms": 1000 * decoding,
    }


def recall(photos: Photos, vectors: Vectors, iconic: Vectors) -> dict[str, NDArray[np.float64]]:
    """By kind of candidates, of each photo of the test set which share of what can be found is found."""
    asked = np.flatnonzero(photos.test)
    found = {}
    for name, among in (("photos", np.arange(len(vectors))), ("photos of other sets", np.flatnonzero(~photos.test))):
        cosines = vectors[asked] @ vectors[among].T
        if name == "photos":
            cosines[np.arange(len(asked)), asked] = -np.inf
        nearest = among[np.argpartition(-cosines, 10, axis=1)[:, :10]]
        right = (photos.classes[nearest] == photos.classes[asked][:, None]).sum(1)
        held = np.bincount(photos.classes[among], minlength=len(iconic))[photos.classes[asked]]
        held = held - 1 if name == "photos" else held
        found[name] = (right / np.clip(held, 1, 10))[held > 0]
    nearest = np.argsort(-(vectors[asked] @ iconic.T), axis=1)[:, :10]
    found["iconic pictures"] = (nearest == photos.classes[asked][:, None]).any(1).astype(float)
    return found


def interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Of the mean, 95%, by bootstrap."""
    rng = np.random.default_rng(0)
    means = [differences[rng.integers(0, len(differences), len(differences))].mean() for _ in range(1000)]
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def measure_grocery(folder: Path, encoder: ImageEncoder, plain_network: ImageEncoder) -> dict[str, Any]:
    photos = read_photos(unpack("grocery_store_128", folder))
    ours, theirs = (
        (encode_all(each, photos.paths), encode_all(each, photos.iconic)) for each in (encoder, plain_network)
    )
    mine, others = recall(photos, *ours), recall(photos, *theirs)
    return {
        "photos": len(photos.paths),
        "recall@10": {
            name: {
                "anchors": len(mine[name]),
                "ours": float(mine[name].mean()),
                "network": float(others[name].mean()),
                "difference": float((mine[name] - others[name]).mean()),
                "interval": interval(mine[name] - others[name]),
            }
            for name in mine
        },
    }


def measure_clipart(folder: Path, encoder: ImageEncoder, plain_network: ImageEncoder, anchors: int) -> dict[str, Any]:
    source = unpack("openclipart", folder)
    items = [json.loads(line) for line in gzip.decompress((source / "items.jsonl.gz").read_bytes()).splitlines()]
    paths = [source / "thumb96" / item["image"] for item in items]
    keywords = [frozenset(item["keywords"]) for item in items]
    creators = np.unique([item["creator"] for item in items], return_inverse=True)[1]
    rng = np.random.default_rng(0)
    asked = rng.permutation([row for row, words in enumerate(keywords) if words])[:anchors]
    chance = rng.random((len(asked), len(items)), np.float32)

    def overlap(scores: NDArray[np.float32]) -> NDArray[np.float64]:
        scores[creators[asked][:, None] == creators[None]] = -np.inf
        nearest = np.argpartition(-scores, 10, axis=1)[:, :10]
        return np.array(
            [
                np.mean([len(keywords[row] & keywords[near]) / len(keywords[row] | keywords[near]) for near in found])
                for row, found in zip(asked, nearest, strict=True)
            ]
        )

    ours, theirs = encode_all(encoder, paths), encode_all(plain_network, paths)
    found = {
        "ours": overlap(ours[asked] @ ours.T),
        "network": overlap(theirs[asked] @ theirs.T),
        "chance": overlap(chance),
    }
    difference = found["ours"] - found["network"]
    return {
        "drawings": len(items),
        "anchors": len(asked),
        "keyword_overlap@10": {name: float(each.mean()) for name, each in found.items()},
        "difference": float(difference.mean()),
        "interval": interval(difference),
    }


def measure_speed(
    folder: Path, encoder: ImageEncoder, size: int, models: tuple[ImageModel, ImageModel], rounds: int
) -> dict[str, dict[str, Any]]:
    photos = read_photos(unpack("grocery_store_128", folder))
    stored = [path.read_bytes() for path in photos.paths[:: len(photos.paths) // PICTURES][:PICTURES]]
    sized = {"128 pixels": stored, "800 pixels": [enlarged(content, 800) for content in stored]}
    return {name: time_pairs(encoder, size, models, jpegs, rounds) for name, jpegs in sized.items()}


def bars_of(results: dict[str, Any]) -> list[Bar]:
    """What is asked of this run, of the parts that it measured."""
    bars = [
        Bar(
            what=f"images/s from JPEG, {name}, over {model} in PyTorch fp32",
            measured=figures["ratio"][way]["median"],
            must=must,
            goal=goal,
            unit="×",
            at_least=True,
        )
        for name, figures in results.get("speed", {}).items()
        for way, model, must, goal in (("same", "the same", MUST, GOAL), ("plain", "the plain network", None, None))
    ]
    bars += [
        Bar(
            what=f"Grocery Store recall@10 among {name}, over the plain network",
            measured=figures["ours"] / figures["network"],
            must=1.0,
            goal=1.1,
            unit="×",
            at_least=True,
            note=f"{figures['ours']:.4f} against {figures['network']:.4f}",
        )
        for name, figures in results.get("grocery", {}).get("recall@10", {}).items()
    ]
    if "clipart" in results:
        overlap = results["clipart"]["keyword_overlap@10"]
        bars.append(
            Bar(
                what="Open Clipart keyword overlap@10 by picture alone, over chance",
                measured=overlap["ours"] / overlap["chance"],
                unit="×",
                at_least=True,
                note="{ours:.4f} against {chance:.4f}; the plain network {network:.4f}".format(**overlap),
            )
        )
    return bars


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="measure this alone; may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--anchors", type=int, default=2000, help="drawings whose neighbours are judged")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(CORES)
    parts = args.part or PARTS
    manifest = read_manifest(IMAGE_BUNDLE)
    settings = manifest.modalities.image
    assert settings is not None  # it is the bundle of pictures
    model, plain_model = find_image_model(manifest.name), find_image_model(f"{manifest.name}-plain")
    encoder = load_image_encoder(IMAGE_BUNDLE, CORES)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "speed" in parts:
            results["speed"] = measure_speed(
                folder, encoder, settings.preparation.size, (model, plain_model), args.rounds
            )
        plain_network = trace_plain(plain_model, folder)
        if "grocery" in parts:
            results["grocery"] = measure_grocery(folder, encoder, plain_network)
        if "clipart" in parts:
            results["clipart"] = measure_clipart(folder, encoder, plain_network, args.anchors)
    for part, show in (("speed", show_speed), ("grocery", show_grocery), ("clipart", show_clipart)):
        if part in results:
            show(results[part])
    return conclude({"bundle": manifest.id, **results}, bars_of(results), args.json)


def show_speed(speed: dict[str, Any]) -> None:
    print_table(
        f"From JPEG to vectors on {CORES} cores, medians of interleaved rounds",
        ("photos", "kB", "ours", "PyTorch", "plain", "batches", "ratio", "to plain", "one alone", "decoding"),
        [
            (
                name,
                one["kilobytes"],
                *(f"{one['per_s'][way]:.0f}/s" for way in ("ours", "same", "plain")),
                "{same}, {plain}".format(**one["torch_batch"]),
                *("{median:.2f} ({min:.2f} to {max:.2f})".format(**one["ratio"][way]) for way in ("same", "plain")),
                f"{one['one_picture_ms']:.1f} ms",
                f"{one['decoding_ms']:.2f} ms",
            )
            for name, one in speed.items()
        ],
    )


def show_grocery(grocery: dict[str, Any]) -> None:
    print_table(
        "Grocery Store, recall@10 of the same class by picture",
        ("among", "anchors", "ours", "plain network", "difference, 95%"),
        [
            (
                name,
                one["anchors"],
                f"{one['ours']:.4f}",
                f"{one['network']:.4f}",
                "{:+.4f} [{:+.4f}, {:+.4f}]".format(one["difference"], *one["interval"]),
            )
            for name, one in grocery["recall@10"].items()
        ],
    )


def show_clipart(clipart: dict[str, Any]) -> None:
    print_table(
        "Open Clipart, keyword overlap@10 with other creators' drawings by picture alone",
        ("drawings", "anchors", "ours", "plain network", "chance", "difference, 95%"),
        [
            (
                clipart["drawings"],
                clipart["anchors"],
                *(f"{clipart['keyword_overlap@10'][name]:.4f}" for name in ("ours", "network", "chance")),
                "{:+.4f} [{:+.4f}, {:+.4f}]".format(clipart["difference"], *clipart["interval"]),
            )
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
