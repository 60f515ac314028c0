"""A real Apache Kafka: brokers that are their own controllers (KRaft), and keep their records over their own death.

One is enough for most tests; three are a cluster, in which one may be dead: every record has three replicas, and is
acknowledged once two of them have it.

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
from collections.abc import Callable, Sequence
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


def apache_kafka_command(
    jars: Path,
    data: Path,
    port: int,
    advertised: str,
    links: Sequence[tuple[int, str]] = (),
    more: Callable[[dict[str, object]], dict[str, object]] = dict,
    users: Sequence[str] = (),
) -> list[str]:
    """How to start a broker on a loopback port; its folder is formatted first where it is new.

    Args:
        jars: the folder of its jars.
        data: its folder, with all that it keeps.
        port: where it listens.
        advertised: host:port where it tells clients to come to.
        links: more ports where it listens, each with what it tells the clients that come there.
        more: given its options, gives those that it starts with.
        users: whom it knows from the beginning, as `--add-scram` of its StorageTool takes them.
    """
    options = _options(data, 1, [f"{LOOPBACK}:{free_port()}"], port, advertised, links)
    return _command(jars, data, _cluster_id(), more(options), users)


def apache_kafka_cluster(jars: Path, data: Path, ports: Sequence[int]) -> list[list[str]]:
    """How to start each broker of a cluster; their folders are formatted first where they are new.

    Args:
        jars: the folder of its jars.
        data: the folder of theirs.
        ports: where they listen, and where they tell clients to come to.
    """
    controllers = [f"{LOOPBACK}:{free_port()}" for _ in ports]
    cluster = _cluster_id()
    commands = []
    for node, port in enumerate(ports, 1):
        folder = data / str(node)
        options = _options(folder, node, controllers, port, f"{LOOPBACK}:{port}")
        commands.append(_command(jars, folder, cluster, options))
    return commands


def _command(jars: Path, data: Path, cluster: str, options: dict[str, object], users: Sequence[str] = ()) -> list[str]:
    properties = data / "server.properties"
    if not properties.exists():
        data.mkdir(parents=True)
        properties.write_text("".join(f"{name}={value}\n" for name, value in options.items()))
        known = [word for user in users for word in ("--add-scram", user)]
        _java(jars, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(properties), *known)
    return [*_JAVA, *_classes(jars), "kafka.Kafka", str(properties)]


def _cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _options(
    data: Path,
    node: int,
    controllers: Sequence[str],
    port: int,
    advertised: str,
    links: Sequence[tuple[int, str]] = (),
) -> dict[str, object]:
    controller, replicas = controllers[node - 1], len(controllers)
    clients = {"PLAINTEXT": (port, advertised)} | {f"LINK{number}": link for number, link in enumerate(links)}
    return {
        "process.roles": "broker,controller",
        "node.id": node,
        "controller.quorum.voters": ",".join(f"{number}@{one}" for number, one in enumerate(controllers, 1)),
        "controller.listener.names": "CONTROLLER",
        "listeners": ",".join(
            [f"CONTROLLER://{controller}", *(f"{name}://{LOOPBACK}:{at}" for name, (at, _) in clients.items())]
        ),
        "advertised.listeners": ",".join(f"{name}://{told}" for name, (_, told) in clients.items()),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in ("CONTROLLER", *clients)),
        "log.dirs": data / "log",
        "auto.create.topics.enable": "false",
        # Of three replicas one may be away.
        "min.insync.replicas": max(1, replicas - 1),
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": 1,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": max(1, replicas - 1),
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
