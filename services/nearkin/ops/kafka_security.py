"""How connections to Kafka are protected, in the words that kafka-python and aiokafka share."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from nearkin.core.errors import Misconfigured
from nearkin.ops.tls import Tls

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class _Unseen(str):
    """A text that does not show itself: at DEBUG both clients log what they were configured with."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """TLS, a user with a password (SASL), both, or neither, which is the default.

    Attributes:
        tls: how the connection is encrypted, and what certificate is shown; not at all where it is None.
        username: the user; nobody where it is empty.
        password: of the user.
        mechanism: how the password is shown.

    Raises:
        Misconfigured: half a user, or an unknown mechanism.
    """

    tls: Tls | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    mechanism: Mechanism = "SCRAM-SHA-512"

    def __post_init__(self) -> None:
        if bool(self.username) != bool(self.password):
            raise Misconfigured(
                "there is a user without a password, or a password without a user",
                field="security",
                remedy="give both, or none",
                reason="security",
            )
        if self.mechanism not in get_args(Mechanism):
            raise Misconfigured(
                "the mechanism is unknown",
                field="security",
                remedy=f"give one of {', '.join(get_args(Mechanism))}",
                reason="security",
            )

    @property
    def protocol(self) -> str:
        """As Kafka calls it."""
        return f"{'SASL_' if self.username else ''}{'SSL' if self.tls else 'PLAINTEXT'}"

    @property
    def hint(self) -> str:
        """What a failure to connect may mean beside a broker that is away: it ends what it refuses without a word."""
        if self == PLAINTEXT:
            return "; it may be away, or want TLS or a password (NEARKIN_KAFKA_PROTOCOL)"
        shown = [f"the user {self.username} or its password"] if self.username else []
        shown += ["a certificate"] if self.tls else []
        return f" by {self.protocol}; the broker may be away, or {' or '.join(shown)} wrong"

    def options(self) -> dict[str, Any]:
        """Keyword arguments of every client of kafka-python and of aiokafka.

        Raises:
            Misconfigured: a file of TLS cannot be used.
        """
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.tls is not None:
            options["ssl_context"] = self.tls.context()
        if self.username:
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = _Unseen(self.password)
        return options


PLAINTEXT = KafkaSecurity()
