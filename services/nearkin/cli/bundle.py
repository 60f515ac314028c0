"""`nearkin bundle`: which encoder bundles are installed, what each encodes, and whether it is whole."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from nearkin.cli.printable import printable
from nearkin.cli.terminal import terminal
from nearkin.core.errors import Misconfigured
from nearkin.ops.settings import load_settings

if TYPE_CHECKING:
    from nearkin.encoders.find_bundles import Place
    from nearkin.encoders.manifest import Figure, Manifest

#: What a command exits with that found a bundle which is not whole.
BROKEN = 2


@click.group()
def bundle() -> None:
    """Show, verify and fetch encoder bundles.

    A bundle makes vectors of items; docs/bundles.md says what it is and how to bring one's own. BUNDLE is an id, a name
    or a folder.
    """


@bundle.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """List the bundles that are installed.

    Those shipped with Nearkin, carried by packages, and in NEARKIN_BUNDLES_DIR. Only manifests are read: `verify`
    proves the files. The one that serves here, by NEARKIN_BUNDLE_PATH, bears a star.
    """
    from nearkin.encoders.find_bundles import find_bundles

    settings = load_settings()
    places = find_bundles(settings.bundles_dir)
    serving = _serving(settings.bundle_path)
    if serving.folder.resolve() not in [place.folder.resolve() for place in places]:
        places.append(serving)
    rows = [_listed(place, serves=place.folder.resolve() == serving.folder.resolve()) for place in places]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    table = _table("", "id", "version", "encodes", "dimensions", "MB", "from")
    for row in rows:
        star = "*" if row["serves"] else ""
        if row["problem"] is not None:
            table.add_row(star, printable(row["folder"]), "", "[red]broken[/red]", "", "", printable(row["source"]))
            continue
        cells = (row["version"], ", ".join(row["modalities"]), str(row["dimensions"]), f"{row['bytes'] / 1e6:.1f}")
        table.add_row(star, printable(row["id"]), *cells, printable(row["source"]))
    console = terminal()
    console.print(table)
    for row in rows:
        if row["problem"] is not None:
            console.print(printable(row["problem"]))


@bundle.command()
@click.argument("bundle", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(bundle: str | None, as_json: bool) -> None:
    """Show what a bundle encodes, where it comes from, and what was measured on it.

    The one that serves here where none is named.
    """
    from nearkin.encoders.bundle import MANIFEST

    place = _wanted(bundle)
    manifest = place.read()
    digest = hashlib.sha256((place.folder / MANIFEST).read_bytes()).hexdigest()
    if as_json:
        import msgspec

        shown = {"folder": str(place.folder), "source": place.source, "manifest_sha256": digest}
        click.echo(json.dumps(shown | {"manifest": msgspec.to_builtins(manifest)}, indent=1))
        return
    console = terminal()
    for line in _lines(place, manifest, digest):
        console.print(printable(line), soft_wrap=True)
    table = _table("file", "bytes", "licence", "source")
    for file in manifest.files:
        inside = f"{file.path} (package {file.package})" if file.package else file.path
        table.add_row(printable(inside), f"{file.size:,}", printable(file.licence), printable(file.source))
    console.print(table)
    _print_figures("quality", manifest.quality)
    _print_figures("speed", manifest.speed)
    if manifest.parity:
        table = _table("parity of", "with", "on", "processor", "cosine, mean", "1st percentile", "neighbours@10")
        for one in manifest.parity:
            neighbours = f"{one.equal_neighbours_at_10:.4f}" if one.equal_neighbours_at_10 is not None else ""
            words = (one.modality, one.reference, f"{one.samples:,} {one.on}", one.processor)
            table.add_row(*map(printable, words), f"{one.cosine_mean:.4f}", f"{one.cosine_p1:.4f}", neighbours)
        console.print(table)


@bundle.command()
@click.argument("bundles", metavar="[BUNDLE]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(bundles: tuple[str, ...], as_json: bool) -> None:
    """Prove bundles whole, as a service would before it loads one.

    Every file by its size and SHA-256, every graph by its operators, inputs and outputs. Those that are installed where
    none is named. Exits with 2 where one is broken.
    """
    from nearkin.encoders.find_bundles import find_bundle, find_bundles

    settings = load_settings()
    places = [find_bundle(each, settings.bundles_dir) for each in bundles] or find_bundles(settings.bundles_dir)
    if not bundles and settings.bundle_path is not None:
        places.append(_serving(settings.bundle_path))
    rows = [_verified(place) for place in places]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        console = terminal()
        for row in rows:
            said = f"{row['id']}: whole" if row["problem"] is None else f"broken: {row['problem']}"
            console.print(printable(said), soft_wrap=True)
    if any(row["problem"] is not None for row in rows):
        raise click.exceptions.Exit(BROKEN)


@bundle.command()
@click.argument("url")
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of bundles that gets it; NEARKIN_BUNDLES_DIR by default.",
)
@click.option("--sha256", metavar="HEX", help="Refuse a manifest of another SHA-256, as `show` prints it.")
def pull(url: str, to: Path | None, sha256: str | None) -> None:
    """Fetch a bundle, prove it whole, and keep it under its id.

    URL is s3://BUCKET/PATH or a folder. The credentials and the address of an S3-compatible store are taken from
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL; the extra `s3` must be installed.
    """
    from nearkin.encoders.pull_bundle import pull_bundle

    folder = to or load_settings().bundles_dir
    if folder is None:
        raise Misconfigured(
            "it is not said where to keep the bundle",
            field="NEARKIN_BUNDLES_DIR",
            remedy="set it to a folder, or give --to",
            reason="setting",
        )
    manifest, kept = pull_bundle(url, folder, sha256=sha256)
    click.echo(f"{manifest.id} is whole; serve it with NEARKIN_BUNDLE_PATH={kept}")


def _table(*columns: str) -> Table:
    """A table that cuts nothing off where the terminal is narrow."""
    table = Table(*columns)
    for column in table.columns:
        column.overflow = "fold"
    return table


def _serving(bundle_path: Path | None) -> "Place":
    from nearkin.encoders.bundle import DEFAULT_BUNDLE
    from nearkin.encoders.find_bundles import Place

    if bundle_path is None:
        return Place(DEFAULT_BUNDLE, "shipped with nearkin")
    return Place(bundle_path, "NEARKIN_BUNDLE_PATH")


def _wanted(named: str | None) -> "Place":
    from nearkin.encoders.find_bundles import find_bundle

    settings = load_settings()
    return _serving(settings.bundle_path) if named is None else find_bundle(named, settings.bundles_dir)


def _listed(place: "Place", *, serves: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"folder": str(place.folder), "source": place.source, "serves": serves}
    try:
        manifest = place.read()
    except Misconfigured as error:
        return row | {"id": None, "problem": str(error)}
    return row | {
        "id": manifest.id,
        "name": manifest.name,
        "version": manifest.version,
        "modalities": list(manifest.modalities.present()),
        "dimensions": manifest.dimensions,
        "languages": list(manifest.languages),
        "bytes": sum(file.size for file in manifest.files),
        "problem": None,
    }


def _verified(place: "Place") -> dict[str, Any]:
    row: dict[str, Any] = {"folder": str(place.folder), "source": place.source}
    try:
        return row | {"id": place.verify().id, "problem": None}
    except Misconfigured as error:
        return row | {"id": None, "problem": str(error)}


def _lines(place: "Place", manifest: "Manifest", digest: str) -> list[str]:
    import msgspec

    encodes = [
        f"  {name}: {', '.join(f'{field} {value}' for field, value in msgspec.to_builtins(settings).items())}"
        for name, settings in manifest.modalities.present().items()
    ]
    return [
        f"{manifest.id}, version {manifest.version}, format {manifest.format}",
        f"{manifest.dimensions} dimensions; languages: {', '.join(manifest.languages) or 'not told'}",
        f"folder {place.folder} ({place.source})",
        f"manifest's SHA-256 {digest}",
        "encodes",
        *encodes,
        f"trained on {manifest.training_data}",
    ]


def _print_figures(what: str, figures: "Sequence[Figure]") -> None:
    if not figures:
        return
    table = _table(what, "value", "on", "processor", "shown by")
    for one in figures:
        value = f"{one.value:g}"
        if one.low is not None and one.high is not None:
            value += f" [{one.low:g}, {one.high:g}]"
        table.add_row(printable(one.what), value, *map(printable, (one.on, one.processor or "", one.by)))
    terminal().print(table)
