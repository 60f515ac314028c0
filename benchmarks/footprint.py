"""What is installed to serve: megabytes, packages, and what is known against them.

`python -m benchmarks.footprint [--json FILE]` does what the build stage of deploy/Dockerfile does, command by command,
into a temporary folder: the environment is the image's, but for the base below it. Its services are then imported
there, so that nothing is missing that the development environment happens to have. Where `pip-audit` is on the PATH (or
PIP_AUDIT names it), the lock is held against the advisories of PyPI, which needs the network; otherwise that is said.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import Bar, conclude, print_table

ROOT = Path(__file__).parents[1]

#: Where the image keeps its environment.
PLACE = "/opt/nearkin"

#: What the image's containers run.
MODULES = ("indexer.__main__", "feedback.__main__", "lookup.__main__", "monitor.__main__", "cli.topics")

MEGABYTE = 1e6


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("benchmarks.footprint", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nearkin-footprint-") as folder:
        environment = build(Path(folder))
        require_importable(environment)
        packages = sizes(environment)
        total = size(environment) / MEGABYTE
    known = vulnerabilities()
    rows = [(name, f"{megabytes:.1f}") for name, megabytes in list(packages.items())[:12]]
    print_table(f"{total:.0f} MB, {len(packages)} packages", ("package", "MB"), rows)
    told = (
        "not asked: no pip-audit here, or PyPI's advisories cannot be reached"
        if known is None
        else "; ".join(known) or "none"
    )
    print(f"known vulnerabilities: {told}")
    bars = [
        Bar(what="installed to serve", measured=total, unit="MB"),
        Bar(what="packages to serve, Nearkin's own included", measured=len(packages)),
        Bar(what="known vulnerabilities", measured=None if known is None else len(known), note=told),
    ]
    return conclude({"megabytes": total, "packages": packages, "vulnerabilities": known}, bars, chosen.json)


def build(folder: Path) -> Path:
    """The image's environment, made below a folder by the build stage's own commands."""
    context, environment = folder / "build", folder / "nearkin"
    context.mkdir()
    # A virtual environment stands for the base image's Python, which the build installs into as well.
    subprocess.run([sys.executable, "-m", "venv", folder / "base"], check=True)
    variables = os.environ | {"PATH": f"{folder / 'base' / 'bin'}:{os.environ['PATH']}", "SOURCE_DATE_EPOCH": "0"}
    variables |= {"PYTHONDONTWRITEBYTECODE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for word, rest in build_stage():
        if word == "COPY":
            *sources, _ = rest.split()
            for source in sources:
                copy(ROOT / source, context)
        elif word == "RUN":
            command = rest.replace(PLACE, str(environment))
            subprocess.run(["sh", "-ec", command], cwd=context, env=variables, check=True, stdout=subprocess.DEVNULL)
    return environment


def build_stage() -> Iterator[tuple[str, str]]:
    """The instructions of the first stage of deploy/Dockerfile."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stage = re.split(r"^FROM .*$", "\n".join(lines).replace("\\\n", " "), flags=re.MULTILINE)[1]
    for line in filter(str.strip, stage.splitlines()):
        word, _, rest = line.strip().partition(" ")
        yield word, " ".join(rest.split())


def copy(source: Path, context: Path) -> None:
    """What COPY takes of the context, as .dockerignore leaves it."""
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(source, context / source.name, ignore=ignored)
    else:
        shutil.copy(source, context)


def require_importable(environment: Path) -> None:
    """Refuse an environment in which a service would not start for want of a package."""
    imports = ", ".join(f"nearkin.{module}" for module in MODULES)
    subprocess.run([environment / "bin" / "python", "-I", "-c", f"import {imports}"], check=True)
    subprocess.run([environment / "bin" / "nearkin", "--help"], check=True, stdout=subprocess.DEVNULL)


def size(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def sizes(environment: Path) -> dict[str, float]:
    """The megabytes of each package, the largest first, by the files that it says are its own."""
    asked = (
        "import json, importlib.metadata as m; "
        "print(json.dumps({d.name: [str(d.locate_file(f)) for f in d.files or ()] for d in m.distributions()}))"
    )
    python = environment / "bin" / "python"
    told = subprocess.run([python, "-I", "-c", asked], check=True, capture_output=True, text=True).stdout
    found = {name: sum(map(size_of, files)) / MEGABYTE for name, files in json.loads(told).items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def size_of(file: str) -> int:
    """A file's bytes, with those of its byte code."""
    path = Path(file)
    compiled = path.parent.glob(f"__pycache__/{path.stem}.*.pyc") if path.suffix == ".py" else ()
    return sum(each.stat().st_size for each in (path, *compiled) if each.is_file())


def vulnerabilities() -> list[str] | None:
    """What PyPI knows against the locked packages; None where nobody can be asked of every one of them.

    A mirror of PyPI has packages and no advisories: there pip-audit passes over each, and finds nothing.
    """
    program = os.environ.get("PIP_AUDIT") or shutil.which("pip-audit")
    if program is None:
        return None
    command = [program, "--requirement", str(ROOT / "requirements-serve.lock"), "--require-hashes", "--disable-pip"]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, check=False)
    packages = json.loads(done.stdout)["dependencies"] if done.stdout else []
    if not packages or any("skip_reason" in package for package in packages):
        return None
    return [f"{one['name']} {one['version']}: {known['id']}" for one in packages for known in one["vulns"]]


if __name__ == "__main__":
    sys.exit(main())
