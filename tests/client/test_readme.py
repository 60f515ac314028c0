import asyncio
import re
from pathlib import Path

import pytest

from live_lookups import live_lookups
from nearkin.core import item
from nearkin.core.item import Content
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.ops.topics import apply_topics

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text()
PUBLISHING, LOOKING_UP = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def run(example: str, **names: str) -> None:
    exec(compile(example, str(README), "exec"), {"__name__": "example", **names})


def test_the_example_that_publishes_runs(capsys):
    with EmbeddedBroker() as broker:
        apply_topics(broker.bootstrap, 4, 1)
        run(PUBLISHING, bootstrap=broker.bootstrap)
    assert "topic='items.v1'" in capsys.readouterr().out


async def test_the_example_that_looks_up_runs(capsys):
    async with live_lookups() as live:
        await live.publish(*(item.upserted(f"mug-{n}", Content(title=f"mug number {n}"), 1) for n in range(1, 6)))
        await asyncio.to_thread(run, LOOKING_UP, address=live.address)
    assert "mug-2" in capsys.readouterr().out


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", TEXT))
def test_what_the_readme_links_to_is_there(link):
    assert link.startswith("https://") or (README.parent / link).exists()
