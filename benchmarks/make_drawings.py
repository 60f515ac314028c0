"""Choose the drawings that the package ships from those of Open Clipart.

    python -m benchmarks.make_drawings [--count N] [FILE]

Image models are calibrated and compared with their originals on them. All are in the public domain
(`ATTRIBUTION.txt` beside the archive), and their creators are named in its `items.jsonl`. Which are chosen depends on
nothing but their ids: they are the first in the order of their hashes. No creator gives more than a tenth, so that one
artist's series does not stand for all drawings, and what has no title, keywords or creator is left out. The same input
gives the same bytes.
"""

import argparse
import collections
import gzip
import json
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.datasets import REPOSITORY, unpack

SHIPPED = REPOSITORY / "services" / "nearkin" / "learning" / "drawings.zip"

#: What of a drawing is told.
TOLD = ("id", "title", "keywords", "category_path", "creator", "image")


def choose(items: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Drawings in the order of their ids, no more than a tenth by one creator."""
    by: collections.Counter[str] = collections.Counter()
    chosen: list[dict[str, Any]] = []
    described = [item for item in items if all(item[name] for name in TOLD)]
    for item in sorted(described, key=lambda item: sha256(str(item["id"]).encode()).digest()):
        if len(chosen) == count:
            break
        if by[item["creator"]] < count / 10:
            by[item["creator"]] += 1
            chosen.append(item)
    return sorted(chosen, key=lambda item: str(item["id"]))


def pack(items: list[dict[str, Any]], pictures: Path, out: Path) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        lines = "".join(json.dumps({name: item[name] for name in TOLD}, ensure_ascii=False) + "\n" for item in items)
        archive.writestr(zipfile.ZipInfo("items.jsonl"), lines, zipfile.ZIP_DEFLATED)
        for item in items:
            archive.writestr(zipfile.ZipInfo(item["image"]), (pictures / item["image"]).read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("file", nargs="?", type=Path, default=SHIPPED)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = unpack("openclipart", Path(folder))
        lines = gzip.decompress((source / "items.jsonl.gz").read_bytes()).splitlines()
        chosen = choose([json.loads(line) for line in lines], args.count)
        pack(chosen, source / "thumb96", args.file)
    print(f"{args.file}: {len(chosen)} drawings, {args.file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
