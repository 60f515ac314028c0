import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nearkin.embedded.broker import EmbeddedBroker
from nearkin.ops.topics import apply_topics

PAGE = Path(__file__).parents[2] / "docs" / "producing.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
PIPES = re.findall(r"^(echo .* \| nearkin publish -)$", PAGE.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker() as running:
        apply_topics(running.bootstrap, 4, 1)
        yield running


@pytest.mark.parametrize("example", EXAMPLES, ids=range(1, len(EXAMPLES) + 1))
def test_an_example_of_the_producing_page_runs(example, broker, capsys):
    exec(compile(example, str(PAGE), "exec"), {"bootstrap": broker.bootstrap, "__name__": "example"})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("typed", PIPES)
def test_a_line_of_the_page_is_published_as_it_is_typed(typed, broker, tmp_path):
    here = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NEARKIN_KAFKA_BOOTSTRAP": broker.bootstrap}

    ran = subprocess.run(
        ["sh", "-c", typed], check=False, capture_output=True, text=True, cwd=tmp_path, env=os.environ | here
    )

    assert ran.returncode == 0, ran.stderr
    assert "published 1 events" in ran.stderr


def test_the_page_has_examples():
    assert len(EXAMPLES) >= 4
    assert len(PIPES) >= 2
