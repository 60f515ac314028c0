import json
import sys

import pytest

TRUTH = {"1": ["a", "b"], "2": ["c"]}


@pytest.fixture
def files(tmp_path):
    """Judgements and two runs in the folder that commands run in."""
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    (tmp_path / "one.run").write_text("1 Q0 a 1 2 x\n1 Q0 z 2 1 x\n2 Q0 c 1 1 x\n")
    (tmp_path / "other.jsonl").write_text('{"anchor": "1", "items": ["z", "a"]}\n')
    return tmp_path


def test_a_run_is_scored_in_a_table(nearkin, files):
    result = nearkin("score", "one.run", "--truth", "truth.json")
    assert result.exit_code == 0, result.output
    (recall,) = [line.split() for line in result.output.splitlines() if "Recall@10" in line]
    assert [word for word in recall if word != "│"] == ["all", "2", "Recall@10", "0.7500", "[0.5000,", "1.0000]"]


def test_two_runs_are_compared(nearkin, files):
    result = nearkin("score", "one.run", "--truth", "truth.json", "--against", "other.jsonl", "-k", "1")
    assert result.exit_code == 0, result.output
    (mrr,) = [line for line in result.output.splitlines() if "MRR@1" in line]
    assert "1.0000" in mrr
    assert "0.0000" in mrr
    assert "+1.0000" in mrr


def test_json_holds_what_the_table_shows(nearkin, files):
    result = nearkin("score", "one.run", "--truth", "truth.json", "--against", "other.jsonl", "--json")
    scores = {one["metric"]: one for one in json.loads(result.output)}
    assert list(scores) == ["Recall@10", "NDCG@10", "MRR@10", "MAP@10"]
    assert scores["Recall@10"]["slice"] == "all"
    assert scores["Recall@10"]["anchors"] == 2
    assert scores["Recall@10"]["value"] == {"mean": 0.75, "low": 0.5, "high": 1.0}
    assert scores["Recall@10"]["against"]["mean"] == 0.25
    assert scores["Recall@10"]["difference"] == {"mean": 0.5, "low": 0.0, "high": 1.0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.run", "--truth", "truth.json"], "nowhere.run"),
        (["one.run", "--truth", "nowhere"], "nowhere"),
        (["one.run"], "--truth"),
        (["short.run", "--truth", "truth.json"], "short.run:1: has 3 columns instead of 6"),
        (["one.run", "--truth", "truth.json", "--against", "broken.jsonl"], "broken.jsonl:1: is no JSON object"),
        (["strange.jsonl", "--truth", "truth.json"], "run: answers none of the anchors"),
    ],
)
def test_a_file_that_cannot_be_scored_is_named_with_the_remedy(nearkin, files, arguments, said):
    (files / "broken.jsonl").write_text("x\n")
    (files / "strange.jsonl").write_text('{"anchor": "9", "items": ["a"]}\n')
    (files / "short.run").write_text("1 Q0 a\n")
    result = nearkin("score", *arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "Traceback" not in result.output


def write_log(folder):
    visits = [(f"2011-09-{day:02}", "ab") for day in range(1, 13)] + [("2011-09-20", "e")]
    visits += 3 * [("2011-10-02", "ab"), ("2011-10-03", "cd"), ("2011-10-04", "fg")]
    lines = [f"{n},{item},{day}" for n, (day, held) in enumerate(visits) for item in held]
    (folder / "log.csv").write_text("visit,item,time\n" + "\n".join(lines) + "\n")


def test_a_log_is_split_and_answers_to_it_are_scored_by_slice(nearkin, tmp_path):
    write_log(tmp_path)
    result = nearkin("split", "log.csv", "shop", "--cut", "2011-10-01")
    assert result.exit_code == 0, result.output
    assert "2 warm, 4 cold anchors, 7 items, 13 visits to learn from, in shop" in result.output
    assert json.loads((tmp_path / "shop" / "anchors.json").read_text())["cold"] == ["c", "d", "f", "g"]
    (tmp_path / "x.jsonl").write_text('{"anchor": "a", "items": ["b"]}\n{"anchor": "c", "items": ["e", "d"]}\n')
    scores = json.loads(nearkin("score", "x.jsonl", "--truth", "shop", "--json").output)
    found = {(one["slice"], one["metric"]): one["value"] for one in scores}
    assert found["warm", "Recall@10"]["mean"] == 0.5
    assert found["cold", "MRR@10"]["mean"] == 0.125
    assert found["cold", "Coverage@10"] == pytest.approx(2 / 7)
    assert 0 < found["warm", "Novelty@10"]["mean"] < found["cold", "Novelty@10"]["mean"]


def test_the_table_shows_coverage_without_an_interval(nearkin, tmp_path):
    write_log(tmp_path)
    nearkin("split", "log.csv", "shop", "--cut", "2011-10-01")
    (tmp_path / "x.run").write_text("a Q0 b 1 1 x\n")
    result = nearkin("score", "x.run", "--truth", "shop", "--against", "x.run")
    assert result.exit_code == 0, result.output
    (line, _) = [line.split() for line in result.output.splitlines() if "Coverage@10" in line]
    assert [word for word in line if word != "│"] == ["warm", "2", "Coverage@10", "0.1429", "0.1429", "+0.0000"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cut", "autumn"], "'autumn' is no time; write it as 2011-10-01"),
        (["--cut", "2012-01-01"], "cut: no item that is warm or cold"),
        ([], "--cut"),
    ],
)
def test_a_log_that_cannot_be_split_so_is_told(nearkin, tmp_path, arguments, said):
    write_log(tmp_path)
    result = nearkin("split", "log.csv", "shop", *arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert not (tmp_path / "shop").exists()


def test_a_folder_that_cannot_be_written_is_named(nearkin, tmp_path):
    write_log(tmp_path)
    (tmp_path / "file").touch()
    result = nearkin("split", "log.csv", "file/shop", "--cut", "2011-10-01")
    assert result.exit_code == 2, result.output
    assert "file/shop: Not a directory" in result.output


def test_a_command_whose_libraries_are_not_installed_says_what_to_install(nearkin, tmp_path, monkeypatch):
    write_log(tmp_path)
    for name in [name for name in sys.modules if name.startswith("nearkin.learning")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numpy", None)  # as import finds it where it is not installed
    result = nearkin("split", "log.csv", "shop", "--cut", "2011-10-01")
    assert result.exit_code == 2
    assert "this command needs numpy, which is not installed" in result.output
    assert f"run `{sys.executable} -m pip install -e '.[embedded,learn]'` in the clone" in result.output
