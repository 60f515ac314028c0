"""On real purchases, the split and the scores are those of the evaluation protocol that lies beside the data."""

import json
import tarfile
from argparse import Namespace
from datetime import UTC, datetime
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from nearkin.learning.item_to_item import read_log, split_log, write_evaluation
from nearkin.learning.run_file import read_run, write_run
from nearkin.learning.score import score_run
from nearkin.learning.truth import read_truth

PRODUCTS = r"\d{5}"


@pytest.fixture(scope="module")
def protocol(evaluation_data):
    spec = spec_from_file_location("item_to_item_protocol", evaluation_data / "protocols" / "item_to_item.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def transactions(evaluation_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transactions")
    with tarfile.open(evaluation_data / "onlineretail.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "onlineretail" / "transactions.parquet"


@pytest.fixture(scope="module")
def log(protocol, transactions, tmp_path_factory):
    """The same purchases as a log, by way of a CSV file."""
    sales = protocol.load_sales(transactions, PRODUCTS)
    file = tmp_path_factory.mktemp("log") / "log.csv"
    sales.rename(columns={"at": "time"})[["visit", "item", "time"]].to_csv(file, index=False)
    return read_log(file)


@pytest.fixture(
    scope="module", params=[("2011-03-01", "2011-05-01"), ("2011-10-01", None)], ids=["tuned on", "held out"]
)
def split(request, protocol, transactions, tmp_path_factory):
    """A cut, its end, and the folder of the protocol's own split with its baselines."""
    cut, until = request.param
    folder = tmp_path_factory.mktemp("split")
    protocol.split(Namespace(transactions=transactions, out=folder, cut=cut, until=until, items=PRODUCTS))
    protocol.floors(Namespace(out=folder))
    return cut, until, folder


@pytest.mark.slow
def test_the_split_is_the_protocols(log, split, tmp_path):
    cut, until, folder = split
    start, end = (None if time is None else datetime.fromisoformat(time).replace(tzinfo=UTC) for time in (cut, until))
    write_evaluation(tmp_path, split_log(log, start, end))
    assert read_truth(tmp_path) == read_truth(folder)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jsonl", "run"])
def test_scores_and_intervals_are_the_protocols(protocol, split, form, tmp_path):
    *_, folder = split
    ours: dict[str, dict[str, list[str]]] = {}
    for name in ("cooccurrence", "tfidf"):
        write_run(tmp_path / f"{name}.{form}", read_run(folder / "runs" / f"{name}.jsonl"))
        ours[name] = read_run(tmp_path / f"{name}.{form}")
    # What a run may lack, repeat or hold of its own anchor.
    anchors = list(ours["tfidf"])
    del ours["tfidf"][anchors[0]]
    ours["tfidf"][anchors[1]] = [anchors[1], *ours["tfidf"][anchors[1]][:4], *ours["tfidf"][anchors[1]][:2]]
    write_run(tmp_path / "gaps.jsonl", ours["tfidf"])

    protocol.score(
        Namespace(
            out=folder,
            run=tmp_path / "gaps.jsonl",
            against=folder / "runs" / "cooccurrence.jsonl",
            json=tmp_path / "theirs.json",
        )
    )
    theirs = json.loads((tmp_path / "theirs.json").read_text())
    scores = score_run(ours["tfidf"], read_truth(folder), ours["cooccurrence"])
    found = {f"{one.slice} {one.metric}": one for one in scores}
    assert len(theirs) == 4
    for name, one in theirs.items():
        assert found[name].anchors == one["n"]
        for mine, expected in ((found[name].value, one), (found[name].difference, one["difference"])):
            figures = [expected["mean"], expected["low"], expected["high"]]
            assert [mine.mean, mine.low, mine.high] == pytest.approx(figures, rel=0, abs=1e-9)
