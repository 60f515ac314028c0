"""What was refused under a key, as a person reads it."""

from rich.console import Console

from nearkin.cli.find_refusals import show_refusals
from nearkin.contracts.topics import ITEMS
from nearkin.ops.letters import Letter, read_letter
from nearkin.ops.record import Record


def test_what_a_refusal_quotes_neither_styles_nor_steers_the_terminal():
    headers = (("nearkin-reason", b"too_long"), ("nearkin-problem", b"\x1b[2J[red]long"))
    letter = read_letter(Record(ITEMS.dead_letters.name, 0, 0, 1_700_000_000_000, b"mug", b"{}", headers))
    assert isinstance(letter, Letter)
    console = Console(width=200)
    with console.capture() as capture:
        show_refusals(console, [letter])
    assert "\x1b[2J" not in capture.get()
    assert "[red]long" in capture.get()
