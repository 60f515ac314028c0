"""A real Apache Kafka: a broker that is its own controller (KRaft), and that keeps its records over its own death.

Its jars come from Maven Central, at the versions of `pom.xml` beside this file, once for a machine and a `pom.xml`:
into `~/.cache/nearkin`, or below XDG_CACHE_HOME. It needs Java 17 and Maven.
"""

import base64
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from nearkin.embedded.programs import LOOPBACK, free_port

_POM = Path(__file__).with_name("pom.xml")

#: A test's records are few: a small heap, and a start without the slower compiler (1.3 s here, 280 MB resident).
_JAVA = ["java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]

_COPY_TIMEOUT_S = 300


class NoApacheKafka(Exception):
    """This machine cannot run it; says what is missing."""


def apache_kafka_jars() -> Path:
    """The folder of its jars, copied first where they are not there.

    Two runs that need them at once copy them one after the other, and a run that is killed leaves nothing half done.

    Raises:
        NoApacheKafka: no Java, or no Maven, or Maven could not fetch them.
    """
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise NoApacheKafka(f"there is no {program} on the PATH: install Java 17 and Maven")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nearkin"
    jars = cache / f"apache-kafka-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "apache-kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                copied = Path(folder) / "jars"
                _copy(copied)
                copied.rename(jars)
    return jars


def apache_kafka_command(jars: Path, data: Path, port: int, advertised: str) -> list[str]:
    """How to start a broker on a loopback port; its folder is formatted first where it is new.

    Args:
        jars: the folder of its jars.
        data: its folder, with all that it keeps.
        port: where it listens.
        advertised: host:port where it tells clients to come to.
    """
    properties = data / "server.properties"
    if not properties.exists():
        data.mkdir(parents=True)
        properties.write_text("".join(f"{name}={value}\n" for name, value in _options(data, port, advertised).items()))
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        _java(jars, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(properties))
    return [*_JAVA, *_classes(jars), "kafka.Kafka", str(properties)]


def _options(data: Path, port: int, advertised: str) -> dict[str, object]:
    controller = f"{LOOPBACK}:{free_port()}"
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{advertised}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": data / "log",
        "auto.create.topics.enable": "false",
        # One broker holds every replica that there is.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        # A broker that was killed is let in again once its last session is over.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "group.initial.rebalance.delay.ms": 0,
        "num.network.threads": 2,
        "num.io.threads": 2,
    }


def _copy(jars: Path) -> None:
    command = ["mvn", "--batch-mode", "--quiet", "--strict-checksums", "--file", str(_POM)]
    command += ["dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COPY_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise NoApacheKafka(f"mvn did not copy its jars within {_COPY_TIMEOUT_S} s") from None
    if done.returncode or not jars.is_dir():
        raise NoApacheKafka(f"mvn could not copy its jars: {(done.stdout + done.stderr).strip()[:500]}")


def _java(jars: Path, *arguments: str) -> None:
    done = subprocess.run([*_JAVA, *_classes(jars), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _classes(jars: Path) -> list[str]:
    return ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{jars}/*"]
