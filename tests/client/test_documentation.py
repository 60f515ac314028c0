import asyncio
import re
from pathlib import Path

import pytest

from live_lookups import live_lookups
from nearkin.core import item
from nearkin.core.item import Content, Offer, Price

PAGE = Path(__file__).parents[2] / "docs" / "look-ups.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(1, len(EXAMPLES) + 1))
async def test_an_example_of_the_look_up_page_runs(example: str, capsys: pytest.CaptureFixture[str]):
    offer = Offer(Price(8.5, "EUR"))
    async with live_lookups() as live:
        await live.publish(
            *(item.upserted(f"mug-{n}", Content(title=f"mug number {n}"), 1, offer, 1) for n in range(1, 6))
        )
        code = compile(example, str(PAGE), "exec")
        await asyncio.to_thread(exec, code, {"address": live.address, "__name__": "example"})
    assert capsys.readouterr().out.strip()


def test_the_page_has_examples():
    assert len(EXAMPLES) >= 3
