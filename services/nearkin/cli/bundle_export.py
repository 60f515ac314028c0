"""`nearkin bundle export`: make a bundle of a model, and tell how near its vectors are to the model's."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from nearkin.cli.printable import printable
from nearkin.cli.terminal import terminal
from nearkin.core.errors import Misconfigured

if TYPE_CHECKING:
    from nearkin.encoders.image import Pixels
    from nearkin.encoders.manifest import Manifest

#: How many texts a bundle is compared on at most, how many pictures, and how many others it is calibrated on.
TEXTS, PICTURES, CALIBRATING = 2000, 256, 128

_OUT = click.argument("folder", type=click.Path(path_type=Path))
_PRECISION = click.option(
    "--precision", type=click.Choice(["int8", "fp32"]), default="int8", show_default=True, help="Of the products."
)
_VERSION = click.option("--version", default="1.0.0", show_default=True, help="Of the bundle, semantic.")


@click.group()
def export() -> None:
    """Make a bundle of a model: an ONNX graph, optimised and in 8 bits, with its parity report.

    Needs the extra `train`, which brings PyTorch; what it makes is served without. docs/image-encoder.md has an image
    model of one's own in a few lines.
    """


@export.command()
@click.argument("model")
@_OUT
@click.option("--name", help="Of the bundle; the model's own by default.")
@click.option("--licence", required=True, help="Of the model, as an SPDX identifier.")
@click.option("--trained-on", required=True, help="What the model was trained on.")
@click.option(
    "--language", "languages", multiple=True, help="BCP 47 tag of one that it was trained for; may be repeated."
)
@click.option(
    "--texts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What it is compared on, a text in each line; titles of the shipped catalogue by default.",
)
@_PRECISION
@_VERSION
def text(
    model: str,
    folder: Path,
    name: str | None,
    licence: str,
    trained_on: str,
    languages: tuple[str, ...],
    texts: Path | None,
    precision: Literal["int8", "fp32"],
    version: str,
) -> None:
    """Make a text bundle of MODEL, one of sentence-transformers, in FOLDER.

    MODEL is a folder that holds one, or its name where it can be downloaded from.
    """
    _require_training("sentence_transformers")
    from nearkin.embedded.catalogue.online_retail import load_catalogue
    from nearkin.learning.export_text import export_text, load_sentence_transformer
    from nearkin.learning.write_bundle import Origin, require_free

    require_free(folder)
    if texts is None:
        comparison, compared_on = [item.title for item in load_catalogue()][:TEXTS], "titles of Online Retail"
    else:
        comparison, compared_on = _lines(texts), f"texts of {texts.name}"
    origin = Origin(
        name=name or Path(model).name.lower(),
        source=f"{Path(model).name} of sentence-transformers",
        licence=licence,
        training_data=trained_on,
        languages=languages,
    )
    made = export_text(
        load_sentence_transformer(model),
        origin,
        folder,
        comparison=comparison,
        compared_on=compared_on,
        precision=precision,
        version=version,
    )
    _tell(made, folder)


@export.command()
@click.argument("model")
@_OUT
@click.option(
    "--pictures",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of JPEG files: one half calibrates, the other compares. Shipped drawings by default.",
)
@_PRECISION
@_VERSION
def image(model: str, folder: Path, pictures: Path | None, precision: Literal["int8", "fp32"], version: str) -> None:
    """Make an image bundle of MODEL in FOLDER.

    MODEL is efficientnet-lite0, or MODULE:FUNCTION, a function that gives a network in PyTorch and what becomes of
    pixels before it.
    """
    _require_training("torch")
    from nearkin.learning.export_image import export_image
    from nearkin.learning.image_models import find_image_model
    from nearkin.learning.write_bundle import require_free

    require_free(folder)
    shown, compared_on = _read_pictures(pictures)
    made = export_image(
        find_image_model(model),
        folder,
        calibration=shown[::2][:CALIBRATING],
        comparison=shown[1::2],
        compared_on=compared_on,
        precision=precision,
        version=version,
    )
    _tell(made, folder)


def _read_pictures(folder: Path | None) -> "tuple[list[Pixels], str]":
    from nearkin.learning.drawings import load_drawings, read_folder, read_pictures

    if folder is None:
        return read_pictures(load_drawings()[: 2 * PICTURES]), "drawings of Open Clipart"
    shown = read_folder(folder, 2 * PICTURES)
    if len(shown) < 2:
        remedy = "name a folder with hundreds of JPEG files"
        raise Misconfigured(f"holds {len(shown)} JPEG files", field=str(folder), remedy=remedy, reason="file")
    return shown, f"pictures of {folder.name}"


def _lines(path: Path) -> list[str]:
    found = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not found:
        remedy = "write a text in each line"
        raise Misconfigured("holds no text", field=str(path), remedy=remedy, reason="file")
    return found[:TEXTS]


def _require_training(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise Misconfigured(
            f"this command needs {module}, which is not installed",
            field="nearkin",
            remedy="run `pip install -e '.[train]'` in the clone that Nearkin was installed from",
            reason="not_installed",
        )


def _tell(made: "Manifest", folder: Path) -> None:
    console = terminal()
    console.print(printable(f"{made.id} in {folder}: {sum(file.size for file in made.files):,} bytes"), soft_wrap=True)
    for one in made.parity:
        equal = "" if one.equal_neighbours_at_10 is None else f", equal neighbours@10 {one.equal_neighbours_at_10:.4f}"
        said = f"cosine mean {one.cosine_mean:.4f}, 1st percentile {one.cosine_p1:.4f}{equal}"
        console.print(printable(f"parity with {one.reference}: {said}"), soft_wrap=True)
        console.print(printable(f"on {one.samples:,} {one.on}, by {one.processor}"), soft_wrap=True)
