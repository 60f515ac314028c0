"""An Apache Kafka that lets in who shows a password or a certificate, by TLS, and who may do what it needs."""

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from certificates import Authority
from engines.apache_kafka import apache_kafka_command
from nearkin.embedded.programs import LOOPBACK, accepts, free_port, start
from waiting import until

#: Who may do what Nearkin does, with a password for each mechanism; and who may do nothing.
USER, STRANGER = "nearkin", "stranger"
PASSWORDS = {
    "PLAIN": "s3cret-plain",
    "SCRAM-SHA-256": "s3cret-scram-256",
    "SCRAM-SHA-512": "s3cret-scram-512",
}


class ProtectedKafka:
    """Started on entry and gone on exit.

    Args:
        jars: the folder of its jars.
        data: its folder.
        authority: certifies it, and whom it lets in by certificate.

    Attributes:
        bootstrap: host:port where clients are asked for a password, by TLS.
        mutual: host:port where they are asked for a certificate.
        inside: host:port in the open, where everybody may do everything: for the test itself.
    """

    def __init__(self, jars: Path, data: Path, authority: Authority) -> None:
        self.inside, self.bootstrap, self.mutual = (f"{LOOPBACK}:{free_port()}" for _ in range(3))
        shown = authority.issue()
        data.parent.mkdir(parents=True, exist_ok=True)
        keystore = data.parent / "keystore.pem"
        keystore.write_bytes(shown.key.read_bytes() + shown.cert.read_bytes())
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required "
        plain += " ".join(f'user_{name}="{PASSWORDS["PLAIN"]}"' for name in (USER, STRANGER)) + ";"

        def protected(options: dict[str, object]) -> dict[str, object]:
            listeners = f"USERS://{self.bootstrap},MUTUAL://{self.mutual}"
            return options | {
                "listeners": f"{options['listeners']},{listeners}",
                "advertised.listeners": f"{options['advertised.listeners']},{listeners}",
                "listener.security.protocol.map": f"{options['listener.security.protocol.map']},"
                "USERS:SASL_SSL,MUTUAL:SSL",
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": keystore,
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": authority.file,
                "listener.name.mutual.ssl.client.auth": "required",
                "listener.name.users.sasl.enabled.mechanisms": ",".join(PASSWORDS),
                "listener.name.users.plain.sasl.jaas.config": plain,
                "listener.name.users.scram-sha-256.sasl.jaas.config": scram,
                "listener.name.users.scram-sha-512.sasl.jaas.config": scram,
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            }

        users = [
            f"{mechanism}=[name={USER},password={password}]"
            for mechanism, password in PASSWORDS.items()
            if mechanism != "PLAIN"
        ]
        port = int(self.inside.rpartition(":")[2])
        self._command = apache_kafka_command(jars, data, port, self.inside, more=protected, users=users)
        self.log = data.parent / "kafka.log"

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = start(self._command, log.fileno())
        until(lambda: self._runs() and accepts(self.inside), "Kafka listens")
        until(lambda: self._runs() and accepts(self.bootstrap), "Kafka listens by TLS")
        self._allow(USER)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()

    process: "subprocess.Popen[bytes]"

    def _runs(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        return True

    def _allow(self, user: str) -> None:
        """What docs/security.md says that Nearkin needs: its topics and its groups."""
        rights = {
            ResourceType.TOPIC: (
                ACLOperation.READ,
                ACLOperation.WRITE,
                ACLOperation.DESCRIBE,
                ACLOperation.CREATE,
                ACLOperation.DESCRIBE_CONFIGS,
            ),
            ResourceType.GROUP: (ACLOperation.READ, ACLOperation.DESCRIBE),
        }
        acls = [
            ACL(f"User:{user}", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, "*"))
            for kind, operations in rights.items()
            for operation in operations
        ]
        acls.append(
            ACL(
                f"User:{user}",
                "*",
                ACLOperation.IDEMPOTENT_WRITE,
                ACLPermissionType.ALLOW,
                ResourcePattern(ResourceType.CLUSTER, "kafka-cluster"),
            )
        )
        admin = KafkaAdminClient(bootstrap_servers=self.inside)
        try:
            admin.create_acls(acls)
        finally:
            admin.close()
