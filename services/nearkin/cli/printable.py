"""Shows text that came from elsewhere: it can neither style nor steer the terminal."""

from rich.text import Text


def printable(text: str) -> Text:
    """The text with every control character replaced, and no markup in it understood."""
    return Text("".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text))
