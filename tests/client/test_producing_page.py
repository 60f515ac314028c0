import re
from pathlib import Path

import pytest

from nearkin.embedded.broker import EmbeddedBroker
from nearkin.ops.topics import apply_topics

PAGE = Path(__file__).parents[2] / "docs" / "producing.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker() as running:
        apply_topics(running.bootstrap, 4, 1)
        yield running


@pytest.mark.parametrize("example", EXAMPLES, ids=range(1, len(EXAMPLES) + 1))
def test_an_example_of_the_producing_page_runs(example, broker, capsys):
    exec(compile(example, str(PAGE), "exec"), {"bootstrap": broker.bootstrap, "__name__": "example"})
    assert capsys.readouterr().out.strip()


def test_the_page_has_examples():
    assert len(EXAMPLES) >= 4
