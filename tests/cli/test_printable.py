from io import StringIO

from rich.console import Console

from nearkin.cli.printable import printable


def test_text_from_elsewhere_can_neither_style_nor_steer_the_terminal():
    out = StringIO()
    Console(file=out, force_terminal=True, width=200).print(printable("[red]mug[/red]\x1b[2J\x07 ☕ кружка\u202e"))
    assert out.getvalue() == "[red]mug[/red]�[2J� ☕ кружка�\n"
