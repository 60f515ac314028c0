"""deploy/Dockerfile as a list of instructions, with lines that go on joined and comments gone."""

from dataclasses import dataclass

from deploy.compose_file import ROOT

TEXT = (ROOT / "deploy" / "Dockerfile").read_text()


@dataclass(frozen=True)
class Instruction:
    """`COPY services services`: the word, and what follows it."""

    word: str
    rest: str


def stages() -> list[list[Instruction]]:
    """The instructions of each stage; before the first stands what is global."""
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ").splitlines()
    found: list[list[Instruction]] = [[]]
    for line in filter(str.strip, whole):
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append(Instruction(word, " ".join(rest.split())))
    return found
