"""Runs docker-compose.yml without Docker: each service's own command, environment and health check, on loopback.

What a container is to a service, a folder and a port are here: `kafka:9092`, `0.0.0.0:9092` and `127.0.0.1:9092` of the
file become one free port of this machine, and the paths of volumes, secrets and configurations become folders of the
test. A process gets the file's environment and no other, and starts when what it depends on is as the file says.

The engines are those of the file where they can be had: Apache Kafka from its jars, set up by the image's own program
from the image's own variables; Redis; Prometheus. In place of Qdrant stands the embedded index, asked by gRPC's own
health; the broker's health is asked by a client in place of Kafka's tool, which is not among the jars. Grafana cannot
be had.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from deploy.compose_file import COMPOSE, ROOT, SERVICES, bytes_of, seconds_of
from nearkin.embedded.programs import LOOPBACK, free_port, leashed

#: What has no program here.
ABSENT = ("grafana",)

_JAVA_OPTIONS = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"

#: The programs of the environment that the tests run in.
_ENVIRONMENT = Path(sys.executable).parent


def machines_path() -> str:
    """Where this machine keeps its programs: without our own environment, which has an older Redis of its own."""
    return os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != _ENVIRONMENT)


class Service:
    """One service of the file.

    Attributes:
        process: its process, once it was started.
        log: what it wrote.
    """

    def __init__(self, name: str, command: Sequence[str], health: Sequence[str], environment: dict[str, str]) -> None:
        self.name, self.environment = name, environment
        self.process: subprocess.Popen[bytes] | None = None
        self.log = Path(environment["HOME"]) / "log"
        self._command, self._health = command, health
        self._healthy = False

    def start(self) -> None:
        program = shutil.which(self._command[0], path=self.environment["PATH"])
        assert program, f"{self.name}: there is no {self._command[0]}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                leashed([program, *self._command[1:]]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.environment["HOME"],
                process_group=0,
            )

    @property
    def completed(self) -> bool:
        """Whether it has come to its end, and to a good one."""
        status = self.process.poll() if self.process else None
        assert status in (None, 0), f"{self.name} ended with {status}:\n{self.written()}"
        return status == 0

    @property
    def healthy(self) -> bool:
        """Whether its health check has passed once, while it runs."""
        if self.process is None:
            return False
        assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}:\n{self.written()}"
        if not self._healthy:
            timeout = seconds_of(SERVICES[self.name]["healthcheck"]["timeout"])
            self._healthy = self._ask(timeout) == 0
        return self._healthy

    def _ask(self, timeout_s: float) -> int | None:
        try:
            asked = subprocess.run(
                self._health,
                env=self.environment,
                cwd=self.environment["HOME"],
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
        return asked.returncode

    def written(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def stop(self) -> int | None:
        """SIGTERM, and its exit status; None where it does not end within the grace that the file gives it."""
        if self.process is None:
            return None
        self.process.terminate()
        try:
            return self.process.wait(seconds_of(SERVICES[self.name].get("stop_grace_period", "10s")))
        except subprocess.TimeoutExpired:
            return None

    def used(self) -> tuple[int, int]:
        """Resident bytes and threads of it and its children."""
        assert self.process
        processes = [psutil.Process(self.process.pid)]
        processes += processes[0].children(recursive=True)
        return sum(each.memory_info().rss for each in processes), sum(each.num_threads() for each in processes)


class ComposeRun:
    """The stack of the file, up while this context lasts.

    Args:
        folder: for all that the stack keeps.
        jars: of Apache Kafka.
    """

    def __init__(self, folder: Path, jars: Path) -> None:
        self._folder, self._jars = folder, jars
        self._ports: dict[tuple[str, str], int] = {}
        self._draw_secrets()
        self.services = {name: self._service(name) for name in SERVICES if name not in ABSENT}

    def address(self, service: str, port: int) -> str:
        """Where a port of a service is here."""
        return f"{LOOPBACK}:{self._port(service, str(port))}"

    def up(self, timeout_s: float) -> list[str]:
        """Start everything in the order of the file; the names in which they became healthy.

        Args:
            timeout_s: after so long it hangs.
        """
        deadline = time.monotonic() + timeout_s
        reached: list[str] = []
        while len(reached) < len(self.services):
            waiting = [name for name in self.services if name not in reached]
            assert time.monotonic() < deadline, "\n".join(
                f"{name} is not healthy: {self.services[name].written()}" for name in waiting
            )
            for name in waiting:
                service, wants = self.services[name], SERVICES[name].get("depends_on", {})
                if service.process is None and set(wants) <= set(reached):
                    service.start()
                one_shot = SERVICES[name]["restart"] == "no"
                if service.process is not None and (service.completed if one_shot else service.healthy):
                    reached.append(name)
            time.sleep(0.2)
        return reached

    def down(self) -> dict[str, int | None]:
        """Stop everything at once, as `docker compose stop` does; the exit statuses."""
        running = [each for each in self.services.values() if each.process and each.process.poll() is None]
        statuses: dict[str, int | None] = {}
        threads = [
            threading.Thread(target=lambda each=each: statuses.__setitem__(each.name, each.stop())) for each in running
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return statuses

    def over_its_limits(self) -> list[str]:
        """What uses more than the file lets it."""
        over = []
        for name, service in self.services.items():
            limits = SERVICES[name]["deploy"]["resources"]["limits"]
            if service.process is None or service.process.poll() is not None:
                continue
            memory, threads = service.used()
            if memory > bytes_of(limits["memory"]) or threads > limits["pids"]:
                over.append(f"{name}: {memory / 2**20:.0f} MiB, {threads} threads")
        return over

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for service in self.services.values():
            if service.process is not None:
                service.process.kill()
                service.process.wait()

    def _port(self, service: str, port: str) -> int:
        return self._ports.setdefault((service, port), free_port())

    def _draw_secrets(self) -> None:
        script = self._folder / "deploy" / "make-secrets"
        script.parent.mkdir(parents=True)
        shutil.copy(ROOT / "deploy" / "make-secrets", script)
        subprocess.run(["sh", script], check=True, capture_output=True)

    def _service(self, name: str) -> Service:
        file = SERVICES[name]
        folder = self._folder / name
        (folder / "bin").mkdir(parents=True)
        paths = {"/run/secrets": str(folder / "secrets")}
        for secret in file.get("secrets", []):
            (folder / "secrets").mkdir(exist_ok=True)  # there is none in a container without secrets
            source, target = (secret, secret) if isinstance(secret, str) else (secret["source"], secret["source"])
            shutil.copy(self._folder / COMPOSE["secrets"][source]["file"], folder / "secrets" / target)
        for volume in file.get("volumes", []):
            source, target = volume.split(":")[:2]
            kept = folder / "volumes" / target.strip("/")
            if source.startswith("./"):
                shutil.copytree(ROOT / source, kept)
            else:
                kept.mkdir(parents=True)
            paths[target] = str(kept)
        for config in file.get("configs", []):
            kept = folder / "configs" / Path(config["target"]).name
            kept.parent.mkdir()
            paths[config["target"]] = str(kept)
            shutil.copy(ROOT / COMPOSE["configs"][config["source"]]["file"], kept)
        for copied in [*(folder / "configs").glob("*"), *(folder / "volumes").rglob("*.yml")]:
            copied.write_text(self._here(name, self._config(name, copied.read_text()), paths))
        environment = {key: self._here(name, value, paths) for key, value in file.get("environment", {}).items()}
        for program in ("python", "nearkin"):
            link = folder / "bin" / program
            link.write_text(f'#!/bin/sh\nexec "{_ENVIRONMENT / program}" "$@"\n')
            link.chmod(0o755)
        environment |= {
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "PATH": f"{folder / 'bin'}{os.pathsep}{machines_path()}",
        }
        command, health = list(file.get("command", [])), list(file.get("healthcheck", {}).get("test", []))
        if name == "prometheus":  # what the image puts before, and the port that it takes by itself
            command = ["prometheus", *command, "--web.listen-address=0.0.0.0:9090"]
        if name == "kafka":
            command = self._kafka(folder, environment)
        if name == "qdrant":
            command, health = self._index(environment)
        kind, *asked = health or ["NONE"]
        shell = ["sh", "-c"] if kind == "CMD-SHELL" else []
        return Service(
            name,
            [self._here(name, word, paths) for word in command],
            [*shell, *(self._here(name, word, paths).replace("$$", "$") for word in asked)],
            environment,
        )

    def _here(self, service: str, text: str, paths: dict[str, str]) -> str:
        """A text of the file with the addresses and the paths of this run."""
        own = rf"(?:0\.0\.0\.0|127\.0\.0\.1|localhost)(:|/| -p )(\d+)|\b({'|'.join(SERVICES)}):(\d+)"

        def address(found: re.Match[str]) -> str:
            if found[3]:
                return self.address(found[3], int(found[4]))
            return f"{LOOPBACK}{found[1]}{self._port(service, found[2])}"

        paths = {**paths, "/opt/kafka/bin": str(self._folder / "kafka" / "bin")}
        longest_first = "|".join(map(re.escape, sorted(paths, key=len, reverse=True)))
        text = re.sub(own, address, text)
        return re.sub(rf"(?<![\w.-])(?:{longest_first})(?![\w.-])", lambda found: paths[found[0]], text)

    def _config(self, name: str, text: str) -> str:
        """A configuration file with addresses where it has a port alone, or a name that DNS would resolve."""
        if name == "prometheus":
            by_name = r"dns_sd_configs: \[\{names: \[([\w-]+)\], type: A, port: (\d+), [^}]*\}\]"
            return re.sub(by_name, r'static_configs: [{targets: ["\1:\2"]}]', text)
        if name != "redis":
            return text
        text = re.sub(r"^port (\d+)$", lambda found: f"port {self._port(name, found[1])}", text, flags=re.MULTILINE)
        return re.sub(r"^bind .*$", f"bind {LOOPBACK}", text, flags=re.MULTILINE)

    def _kafka(self, folder: Path, environment: dict[str, str]) -> list[str]:
        """What the image's `run` does: its own program makes the properties of the environment, and formats the log."""
        configs = folder / "configs"
        for each in ("default", "mounted", "final"):
            (configs / each).mkdir(parents=True)
        java = f"java {environment['KAFKA_HEAP_OPTS']} {environment['KAFKA_GC_LOG_OPTS']} {_JAVA_OPTIONS}"
        java += f" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp '{self._jars}/*'"
        setup = " ".join(f"--{each}-configs-dir {configs / each}" for each in ("default", "mounted", "final"))
        script = folder / "run"
        script.write_text(
            f"set -e\n{java} kafka.docker.KafkaDockerWrapper setup {setup}\n"
            f"exec {java} kafka.Kafka {configs}/final/server.properties\n"
        )
        tool = folder / "bin" / "kafka-broker-api-versions.sh"
        tool.write_text(
            f"#!{sys.executable}\nimport sys\nfrom nearkin.embedded.broker import broker_answers\n"
            "sys.exit(not broker_answers(sys.argv[2]))\n"
        )
        tool.chmod(0o755)
        return ["sh", str(script)]

    def _index(self, environment: dict[str, str]) -> tuple[list[str], list[str]]:
        """The embedded index at Qdrant's address, with Qdrant's key."""
        environment["NEARKIN_QDRANT_API_KEY"] = (
            self._folder / COMPOSE["secrets"]["nearkin_qdrant_api_key"]["file"]
        ).read_text()
        owner = ["python", "-m", "nearkin.embedded.index_owner", "--data", f"{environment['HOME']}/index"]
        asks = (
            "import grpc, sys; from grpc_health.v1 import health_pb2 as p, health_pb2_grpc as g; "
            "sys.exit(g.HealthStub(grpc.insecure_channel('qdrant:6334')).Check(p.HealthCheckRequest()).status != 1)"
        )
        return [*owner, "--listen", "0.0.0.0:6334"], ["CMD", "python", "-c", asks]
