import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.embedded.supervisor import Patience, Program, Supervisor

HASTY = Patience(ready_s=20, grace_s=10, first_pause_s=0.01, longest_pause_s=0.05, deaths=4, window_s=60)


def program(folder: Path, name: str, body: str = "", **rest) -> Program:
    """A child that writes its pid to a file when it is ready, and its name to a common journal when it ends."""
    code = f"""
import os, pathlib, signal, sys, time
folder = pathlib.Path({str(folder)!r})
def note(what):
    with open(folder / "journal", "a") as journal: journal.write(what + " {name}\\n")
def stop(*_):
    note("stopped"); sys.exit(0)
signal.signal(signal.SIGTERM, stop)
note("started")
{textwrap.dedent(body)}
(folder / "{name}.pid").write_text(str(os.getpid()))
while True: time.sleep(0.05)
"""
    pid_file = folder / f"{name}.pid"

    def ready() -> bool:
        try:
            return psutil.pid_exists(int(pid_file.read_text() or "0"))
        except (FileNotFoundError, ValueError):
            return False

    return Program(name, [sys.executable, "-c", code], ready, **rest)


def journal(folder: Path) -> list[str]:
    return (folder / "journal").read_text().splitlines()


async def until(condition, what: str) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"never happened: {what}")


async def test_the_start_does_not_wait_for_a_program_that_nothing_needs(tmp_path):
    beside = program(tmp_path, "beside", "while not (folder / 'go').exists(): time.sleep(0.01)", awaited=False)
    async with Supervisor([program(tmp_path, "broker"), beside], tmp_path / "logs", patience=HASTY):
        assert not (tmp_path / "beside.pid").exists()
        (tmp_path / "go").touch()
        await until((tmp_path / "beside.pid").exists, "it became ready later")


async def test_programs_start_after_what_they_follow_and_stop_before_it(tmp_path):
    programs = [program(tmp_path, "broker"), program(tmp_path, "worker", follows=("broker",))]
    async with Supervisor(programs, tmp_path / "logs", patience=HASTY) as supervisor:
        assert supervisor.pid("broker")
        assert supervisor.pid("worker")
    assert journal(tmp_path) == ["started broker", "started worker", "stopped worker", "stopped broker"]


async def test_what_a_program_needs_is_stopped_after_it_whatever_the_order_of_start(tmp_path):
    programs = [program(tmp_path, "worker", needs=("index",)), program(tmp_path, "index")]
    async with Supervisor(programs, tmp_path / "logs", patience=HASTY):
        pass
    assert journal(tmp_path)[-2:] == ["stopped worker", "stopped index"]


async def test_a_program_that_dies_is_started_again(tmp_path):
    async with Supervisor([program(tmp_path, "worker")], tmp_path / "logs", patience=HASTY) as supervisor:
        first = supervisor.pid("worker")
        os.kill(first, signal.SIGKILL)
        await until(lambda: supervisor.pid("worker") not in (None, first), "a second start")
        await until(lambda: journal(tmp_path) == ["started worker"] * 2, "a second start in the journal")


async def test_what_an_end_means_until_the_program_is_back_is_told(tmp_path):
    said = []
    worker = program(tmp_path, "worker", meanwhile="new items wait")
    patience = Patience(ready_s=20, first_pause_s=0.01)
    async with Supervisor(
        [worker], tmp_path / "logs", patience=patience, report=lambda _, what: said.append(what)
    ) as supervisor:
        os.kill(supervisor.pid("worker"), signal.SIGKILL)
        await until(lambda: any("starts again" in what for what in said), "the report of its end")
    assert "was killed by SIGKILL; starts again in 0.01 s; new items wait" in said


async def test_what_follows_a_program_is_started_again_with_it_and_the_preparation_repeated(tmp_path):
    prepared = []

    async def prepare(restart: bool) -> None:
        prepared.append((restart, journal(tmp_path)[-1]))

    programs = [
        program(tmp_path, "broker", prepare=prepare),
        program(tmp_path, "worker", follows=("broker",)),
        program(tmp_path, "bystander"),
    ]
    async with Supervisor(programs, tmp_path / "logs", patience=HASTY) as supervisor:
        worker, bystander = supervisor.pid("worker"), supervisor.pid("bystander")
        os.kill(supervisor.pid("broker"), signal.SIGKILL)
        await until(lambda: journal(tmp_path).count("started worker") == 2, "the worker's second start")
        assert supervisor.pid("worker") != worker
        assert supervisor.pid("bystander") == bystander
    assert [restart for restart, _ in prepared] == [False, True]
    assert prepared[1][1] == "started broker"


async def test_a_program_that_keeps_dying_is_told_with_its_last_words_and_stops_the_rest(tmp_path):
    programs = [
        program(tmp_path, "steady"),
        program(
            tmp_path,
            "broken",
            "while not (folder / 'steady.pid').exists(): time.sleep(0.01)\nprint('no coffee'); sys.exit(9)",
        ),
    ]
    with pytest.raises(Unavailable, match=r"(?s)broken.*ended 4 times.*exited with 9.*no coffee"):
        async with Supervisor(programs, tmp_path / "logs", patience=HASTY) as supervisor:
            await supervisor.wait()
    assert "stopped steady" in journal(tmp_path)


async def test_a_program_that_says_its_configuration_is_wrong_is_not_tried_again(tmp_path):
    broken = program(tmp_path, "broken", "print('the lid is open', flush=True); sys.exit(2)")
    with pytest.raises(Misconfigured, match="the lid is open"):
        async with Supervisor([broken], tmp_path / "logs", patience=HASTY):
            pytest.fail("it started")
    assert journal(tmp_path) == ["started broken"]


async def test_a_program_that_never_answers_counts_as_dying(tmp_path):
    mute = Program("mute", [sys.executable, "-c", "import time; time.sleep(600)"], lambda: False)
    hasty = Patience(ready_s=0.1, first_pause_s=0.01, deaths=2)
    with pytest.raises(Unavailable, match=r"did not answer within 0\.1 s"):
        async with Supervisor([mute], tmp_path / "logs", patience=hasty):
            pytest.fail("it started")


async def test_a_program_that_never_answers_is_given_up_though_its_deaths_lie_far_apart(tmp_path):
    mute = Program("mute", [sys.executable, "-c", "import time; time.sleep(600)"], lambda: False)
    hasty = Patience(ready_s=0.1, first_pause_s=0.01, deaths=3, window_s=0.05)
    with pytest.raises(Unavailable, match="ended 3 times"):
        async with Supervisor([mute], tmp_path / "logs", patience=hasty):
            pytest.fail("it started")


async def test_a_program_may_have_more_time_than_others_to_answer(tmp_path):
    slow = program(tmp_path, "slow", "time.sleep(0.5)", ready_s=20)
    async with Supervisor([slow], tmp_path / "logs", patience=Patience(ready_s=0.05)):
        assert journal(tmp_path) == ["started slow"]


async def test_a_program_that_ignores_the_stop_signal_is_killed(tmp_path):
    stubborn = program(tmp_path, "stubborn", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    hasty = Patience(grace_s=0.2)
    async with Supervisor([stubborn], tmp_path / "logs", patience=hasty) as supervisor:
        process = psutil.Process(supervisor.pid("stubborn"))
    assert not process.is_running()


async def test_hurry_ends_the_grace(tmp_path):
    stubborn = program(tmp_path, "stubborn", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    async with Supervisor([stubborn], tmp_path / "logs", patience=Patience(grace_s=3600)) as supervisor:
        supervisor.hurry()


async def test_a_program_that_is_not_there_is_named(tmp_path):
    missing = Program("missing", ["no-such-program-anywhere"], lambda: True)
    with pytest.raises(Misconfigured, match="no-such-program-anywhere"):
        async with Supervisor([missing], tmp_path / "logs", patience=HASTY):
            pytest.fail("it started")


async def test_what_programs_write_is_kept_in_bounded_logs_and_echoed_on_request(tmp_path, monkeypatch):
    monkeypatch.setattr("nearkin.embedded.supervisor._LOG_BYTES", 10_000)
    echoed = []
    talker = program(tmp_path, "talker", "for i in range(3000): print('line', i, flush=True)")
    logs = tmp_path / "logs"
    async with Supervisor([talker], logs, patience=HASTY, echo=lambda name, line: echoed.append((name, line))):
        await until(lambda: len(echoed) == 3000, "every line")
    assert echoed[-1] == ("talker", "line 2999")
    assert (logs / "talker.log").read_text().endswith("line 2999\n")
    assert sum(file.stat().st_size for file in logs.iterdir()) <= 20_000


async def test_what_a_program_left_behind_is_ended_with_it(tmp_path):
    parent = program(
        tmp_path,
        "parent",
        "import subprocess; c = subprocess.Popen(['sleep', '600']); (folder / 'left').write_text(str(c.pid))",
    )
    async with Supervisor([parent], tmp_path / "logs", patience=HASTY):
        pass
    left = int((tmp_path / "left").read_text())
    await until(lambda: not psutil.pid_exists(left) or psutil.Process(left).status() == "zombie", "its end")


def test_programs_die_with_a_supervisor_that_is_killed(tmp_path):
    code = f"""
import asyncio, os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_supervisor import program
from nearkin.embedded.supervisor import Supervisor
async def main():
    folder = Path({str(tmp_path)!r})
    async with Supervisor([program(folder, "orphan")], folder / "logs"):
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    pid = int((tmp_path / "orphan.pid").read_text())
    for _ in range(1000):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie":
            return
        time.sleep(0.01)
    pytest.fail("it outlived its supervisor")
