"""Every setting of every process, in one place: `NEARKIN_<NAME>` in the environment, or a file of that name.

A file `nearkin_<name>` in the folder that `NEARKIN_SECRETS_DIR` names sets what the environment does not; credentials
belong there.
Values are checked when the process starts, and a wrong one is refused with its name and what would be right.
`python -m nearkin.ops.settings` prints the page that documents them.
"""

import os
import re
from pathlib import Path
from typing import Literal, Self, get_args, get_origin

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from nearkin.core.errors import Misconfigured
from nearkin.core.pseudonym import PseudonymKey
from nearkin.ops.addresses import split_address, split_addresses, split_parts, split_target
from nearkin.ops.kafka_security import KafkaSecurity, Mechanism
from nearkin.ops.media_sources import MediaSources, parse_networks
from nearkin.ops.tls import Tls

#: What the monitor watches beside the services that NEARKIN_MONITOR_PARTS names.
ENGINES = ("broker", "index", "redis", "lookup")


class Settings(BaseSettings):
    """What can be set; each field's description is its documentation."""

    model_config = SettingsConfigDict(
        env_prefix="NEARKIN_", frozen=True, extra="ignore", str_strip_whitespace=True, hide_input_in_errors=True
    )

    kafka_bootstrap: str = Field("127.0.0.1:9092", description="Kafka brokers, host:port separated by commas.")
    kafka_replication: int = Field(1, ge=1, le=9, description="Replication factor of topics that are created.")
    items_partitions: int = Field(4, ge=1, le=1024, description="Partitions of each topic that is created.")

    kafka_protocol: Literal["plaintext", "tls", "sasl_tls", "sasl_plaintext"] = Field(
        "plaintext",
        description="How brokers are spoken to: in the open, by TLS, as a user by TLS, as a user in the open.",
    )
    kafka_ca: Path | None = Field(
        None,
        description="PEM file of the authorities that brokers must be certified by; the system's if unset.",
    )
    kafka_cert: Path | None = Field(None, description="PEM file of the certificate that brokers are shown, if any.")
    kafka_key: Path | None = Field(None, description="PEM file of its private key, where that stands in another file.")
    kafka_sasl_mechanism: Mechanism = Field("SCRAM-SHA-512", description="How brokers are shown the password.")
    kafka_sasl_username: str = Field("", description="The user as which brokers are spoken to.")
    kafka_sasl_password: SecretStr | None = Field(None, description="The user's password.")

    qdrant_url: str = Field(
        "http://127.0.0.1:6334",
        description="The index's gRPC address: http:// or https://, and host:port; port 6334 where none is given.",
    )
    qdrant_api_key: SecretStr | None = Field(
        None, description="API key of the index; the embedded one asks everybody for it where it is set."
    )
    qdrant_ca: Path | None = Field(
        None,
        description="PEM file of the authorities that an index at https:// must be certified by; gRPC's own if unset.",
    )
    qdrant_cert: Path | None = Field(None, description="PEM file of the certificate that the index is shown, if any.")
    qdrant_key: Path | None = Field(None, description="PEM file of its private key.")
    index_cert: Path | None = Field(
        None, description="PEM file of the certificate that the embedded index shows; it then serves TLS alone."
    )
    index_key: Path | None = Field(None, description="PEM file of its private key.")
    index_alias: str = Field(
        "nearkin-items", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Alias that names the serving collection."
    )
    index_timeout_s: float = Field(
        5.0, gt=0, le=300, description="How long one call to the index may take, in seconds."
    )

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        repr=False,  # it may hold a password
        description="Redis with the evidence: redis://HOST:PORT/DATABASE, of a cluster "
        "redis+cluster://HOST:PORT,HOST:PORT; rediss for TLS.",
    )
    redis_username: str = Field("", description="The user of Redis, where it is not its default one.")
    redis_password: SecretStr | None = Field(None, description="The password of Redis; above one in NEARKIN_REDIS_URL.")
    redis_ca: Path | None = Field(
        None,
        description="PEM file of the authorities that Redis must be certified by; the system's if unset.",
    )
    redis_cert: Path | None = Field(None, description="PEM file of the certificate that Redis is shown, if any.")
    redis_key: Path | None = Field(None, description="PEM file of its private key, where that stands in another file.")
    redis_timeout_s: float = Field(5.0, gt=0, le=300, description="How long one call to Redis may take, in seconds.")

    clock: Literal["wall", "stream"] = Field(
        "wall",
        description="What is now to feedback: the wall's time, or that of the newest event where a log of the past is "
        "replayed. By it events are too late, and evidence decays.",
    )
    evidence_half_life_days: int = Field(
        90, ge=1, le=3650, description="Evidence counts half after so many days; the same for the life of a Redis."
    )
    evidence_most_pairs: int = Field(
        256, ge=8, le=4096, description="Pairs remembered of an anchor; beyond it the weakest eighth is forgotten."
    )
    evidence_idle_days: int = Field(
        400, ge=1, le=3650, description="An anchor that nothing happens to for so many days is forgotten."
    )
    evidence_most_partners: int = Field(
        400,
        ge=1,
        le=2000,
        description="With how many others of its visit an item is paired at most, drawn without bias; with fewer "
        "from 400 items on, so that a visit adds 160,000 pairs at most, or 100 for each item.",
    )
    priors_every_s: float = Field(
        60.0, ge=0, le=86_400, description="How often position priors are learned, in seconds; 0 never does."
    )
    feedback_batch: int = Field(512, ge=1, le=8192, description="Most events the feedback worker applies at once.")
    feedback_within_ms: int = Field(
        5, ge=1, le=5000, description="How long a lone event of feedback waits for company, in milliseconds."
    )
    feedback_window: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="An event_id that comes again within so many offsets of its partition counts once. The worker "
        "reads so many events of each partition when it begins (twice as many with NEARKIN_CLOCK=stream); it "
        "remembers so many, at 400 bytes each at most.",
    )
    feedback_clamp: int = Field(
        5,
        ge=1,
        le=1_000_000,
        description="How often one user counts who does the same with the same pair within that window. A skip, "
        "dislike, hide or report counts once, whatever stands here.",
    )

    pseudonym_key: SecretStr | None = Field(
        None,
        description="Key under which producers make pseudonyms of users: `<key id>:<64 hex digits>`, the digits as "
        "`openssl rand -hex 32` prints them.",
    )

    bundle_path: Path | None = Field(
        None, description="Folder of the encoder bundle; the default bundle where it is not set."
    )
    bundles_dir: Path | None = Field(
        None, description="Folder in which `nearkin bundle` keeps and finds bundles, each in a folder of its id."
    )
    encode_threads: int = Field(2, ge=1, le=64, description="Encoder calls that run at a time, each on one core.")

    media_sources: str = Field(
        "",
        description="Where pictures and videos may be fetched from (docs/media.md), separated by commas: HOST, *.HOST, "
        "* for every public one, HOST/FOLDER/; http:// before one that may be spoken to without TLS; "
        "s3://BUCKET=https://HOST/FOLDER/. Nothing is fetched where it is empty.",
    )
    media_networks: str = Field(
        "",
        description="Networks that are not public and in which sources named in full may lie, such as 10.20.0.0/16, "
        "separated by commas.",
    )
    media_ca: Path | None = Field(
        None,
        description="PEM file of the authorities that hosts of media must be certified by; the system's if unset.",
    )
    media_max_bytes: int = Field(20 * 2**20, ge=1024, le=2**30, description="Most bytes of one picture or video.")
    media_timeout_s: float = Field(
        15.0, gt=0, le=300, description="How long one fetch may take, redirects included, in seconds."
    )
    media_idle_s: float = Field(
        5.0,
        gt=0,
        le=300,
        description="How long a host of media may take to answer, and then send nothing, in seconds.",
    )
    media_least_rate: int = Field(
        4096,
        ge=0,
        description="Bytes a second at which media must come on average, once they have come for NEARKIN_MEDIA_IDLE_S.",
    )
    media_redirects: int = Field(3, ge=0, le=20, description="Redirects that are followed for one picture or video.")
    media_fetches: int = Field(16, ge=1, le=1000, description="Media that are fetched at a time.")
    media_fetches_per_host: int = Field(4, ge=1, le=1000, description="Media that are fetched from one host at a time.")
    media_cache_bytes: int = Field(
        64 * 2**20, ge=0, description="Bytes of media that are remembered, those fetched last; 0 for none."
    )
    media_cache_s: float = Field(
        300.0, ge=0, description="How long a reference stands for what was fetched by it, in seconds."
    )
    media_max_pixels: int = Field(
        50_000_000, ge=1, le=500_000_000, description="Most pixels of a picture, by its header, before it is decoded."
    )
    media_decode_processes: int = Field(1, ge=1, le=64, description="Pictures that are decoded at a time.")
    media_decode_timeout_s: float = Field(
        10.0, gt=0, le=300, description="How long one picture may take to decode, in seconds."
    )
    media_decode_memory_bytes: int = Field(
        2**30,
        ge=256 * 2**20,
        description="Memory that a decoder's process may take, as address space; it needs four to eight bytes a pixel.",
    )

    indexer_lane: Literal["live", "bulk"] = Field(
        "live", description="Which topic an indexer serves: items.v1 or items-bulk.v1."
    )
    indexer_batch: int = Field(
        64,
        ge=1,
        le=4096,
        description="Most events a live indexer applies at once; a bulk one takes four times as many.",
    )
    indexer_within_ms: int = Field(
        2, ge=1, le=5000, description="How long a lone event waits for company, in milliseconds."
    )
    retry_initial_ms: int = Field(100, ge=1, description="First pause after a temporary failure, in milliseconds.")
    retry_max_ms: int = Field(
        5_000,
        ge=1,
        description="Longest pause between tries, in milliseconds: so long after an engine is back a worker may wait.",
    )
    stall_timeout_s: float = Field(
        60.0,
        gt=0,
        description="A worker with work waiting and no progress for so long exits, in seconds; /live of a process "
        "whose event loop has hung for so long fails, and it exits after as long again.",
    )

    lookup_listen: str = Field(
        "127.0.0.1:7700", description="host:port of the look-up service; port 0 takes a free one."
    )
    lookup_cert: Path | None = Field(
        None, description="PEM file of the certificate that the look-up service shows; it then serves TLS alone."
    )
    lookup_key: Path | None = Field(None, description="PEM file of its private key.")
    lookup_client_ca: Path | None = Field(
        None,
        description="PEM file of the authorities that callers of the look-up service must be certified by; "
        "callers need no certificate if unset.",
    )
    lookup_tokens: Path | None = Field(
        None,
        description="File of the tokens that callers must bring, with their rights (docs/security.md); everybody may "
        "look up if unset.",
    )
    lookup_max_message_bytes: int = Field(
        1_048_576, ge=1024, description="Largest request that a look-up server takes, in bytes."
    )
    lookup_timeout_s: float = Field(
        10.0, gt=0, le=300, description="Longest time for a look-up whose caller sets no shorter deadline, in seconds."
    )
    lookup_concurrency: int = Field(
        128,
        ge=1,
        le=10_000,
        description="Anchors that a look-up server has at once, in work or waiting for their turn; it refuses what is "
        "beyond.",
    )
    lookup_at_once: int = Field(
        16,
        ge=1,
        le=1_000,
        description="Calls that a look-up server works on at a time; the others wait for their turn, for a quarter of "
        "a second at most. Raise it where the index is far away and processors are idle.",
    )
    lookup_candidates: int = Field(
        100, ge=1, le=1000, description="Hits that each search of a look-up gives, at least k."
    )
    lookup_partners: int = Field(
        100, ge=1, le=1000, description="Remembered partners of an anchor that become candidates, by each kind."
    )
    ranking_weights: Path | None = Field(
        None,
        description="File with the weights of the ranking, as `nearkin fit` writes it; the shipped weights where it is "
        "not set.",
    )
    lookup_evidence_budget_ms: int = Field(
        100, ge=1, description="How long evidence may take in one look-up, in milliseconds; then content decides."
    )
    lookup_grace_s: float = Field(
        5.0, ge=0, description="How long a stopping look-up server finishes what runs, in seconds."
    )
    lookup_log_rate: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of answers that lookups.v1 gets, by a hash of their request ids; explored ones always.",
    )
    lookup_log_buffer: int = Field(
        50_000,
        ge=1,
        le=10_000_000,
        description="Items of answers that wait to be logged, at most, at about 1 kB each; answers beyond are dropped.",
    )

    rules_file: Path | None = Field(
        None, description="File of decisions by hand: blocked items, blocked pairs, pins (docs/look-ups.md)."
    )
    rules_most_per_category: int = Field(
        0, ge=0, description="Items of one category in an answer at most; 0 for any number."
    )
    rules_most_per_maker: int = Field(0, ge=0, description="Items of one maker in an answer at most; 0 for any number.")
    rules_collapse_variants: bool = Field(
        True, description="Whether only the best variant of a product is shown, and none of the anchor's own product."
    )
    rules_near_duplicate: float = Field(
        0.98, gt=0, description="Cosine from which on two items are the same to a person; above 1 for none."
    )
    rules_hidden_after: float = Field(
        5.0,
        gt=0,
        description="Decayed hides from which on (less half of one) a pair is not shown, if they are 5 % of its "
        "exposures.",
    )
    rules_reported_after: float = Field(
        3.0,
        gt=0,
        description="Decayed reports from which on (less half of one) a pair is not shown, if they are 2 % of its "
        "exposures.",
    )
    diversity: float = Field(
        0.1, ge=0, le=1, description="How much likeness counts against relevance, from 0 (not at all) to 1."
    )
    explore_share: float = Field(0.02, ge=0, le=0.5, description="Share of answers that are drawn from the pool.")
    explore_pool: int = Field(20, ge=1, le=200, description="So many of the best an explored answer is drawn from.")
    explore_new_item_share: float = Field(
        0.05, ge=0, le=0.5, description="Share of answers that give a lower place to a new item."
    )
    explore_new_item_days: float = Field(7.0, gt=0, description="How long an item is new, in days.")

    lookup_address: str = Field("127.0.0.1:7700", description="host:port where the command line looks up.")
    lookup_tls: bool = Field(
        False, description="Whether the command line and the monitor speak TLS to the look-up service."
    )
    lookup_ca: Path | None = Field(
        None, description="PEM file of the authorities that it must be certified by then; gRPC's own if unset."
    )
    lookup_caller_cert: Path | None = Field(None, description="PEM file of the certificate that they show it, if any.")
    lookup_caller_key: Path | None = Field(None, description="PEM file of its private key.")
    lookup_token: SecretStr | None = Field(None, description="The token that they show the look-up service.")
    up_data: Path = Field(Path(".nearkin"), description="Folder of `nearkin up`, where the command line finds it.")

    traces: Literal["off", "otlp"] = Field(
        "off", description="Where spans go: nowhere, or to an OpenTelemetry collector (OTLP over gRPC; extra `trace`)."
    )
    traces_endpoint: str = Field(
        "http://127.0.0.1:4317", description="The collector: http:// or https://, and host:port."
    )
    traces_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of published events and of look-ups that begin a trace. What comes with a `traceparent` "
        "goes by its sampled flag.",
    )

    monitor_parts: str = Field(
        "",
        description="Services whose /ready the monitor asks for, and `nearkin status` too: NAME=HOST:PORT of their "
        "metrics, separated by commas, such as indexer-live=10.0.0.5:9101,feedback=10.0.0.6:9103; monitor= names the "
        "monitor itself.",
    )
    monitor_engines: str = Field(
        "broker,index,redis,lookup",
        description="Which of broker, index, redis and lookup the monitor watches, by the settings that name them.",
    )
    monitor_every_s: float = Field(
        1.0, gt=0, le=60, description="How often the monitor asks the broker and the parts, in seconds."
    )
    probe_every_s: float = Field(
        10.0, ge=0, le=3600, description="How often the monitor publishes a probe item, in seconds; 0 never does."
    )
    probe_late_s: float = Field(
        5.0,
        gt=0,
        le=300,
        description="A probe item that needs longer to be found, or to be gone, is late, in seconds; after six times "
        "as long it has failed.",
    )

    metrics_listen: str = Field(
        "127.0.0.1:0", description="host:port of /metrics, /live and /ready; port 0 takes a free one."
    )
    listen_insecure: bool = Field(
        False,
        description="Whether processes may listen beyond this machine (NEARKIN_LOOKUP_LISTEN, NEARKIN_METRICS_LISTEN, "
        "the embedded index) without TLS: in a private network alone.",
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="Log lines for a person or a machine; auto looks at the terminal."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="The least level that is logged."
    )

    data: Path | None = Field(None, description="Folder of evaluation data sets that the project does not ship.")

    @field_validator(
        *(f"{part}_{file}" for part in ("kafka", "redis", "qdrant") for file in ("ca", "cert", "key")),
        "index_cert",
        "index_key",
        "lookup_cert",
        "lookup_key",
        "lookup_client_ca",
        "lookup_tokens",
        "lookup_ca",
        "lookup_caller_cert",
        "lookup_caller_key",
        "media_ca",
        mode="before",
    )
    @classmethod
    def _file(cls, value: object) -> object:
        return value or None  # an empty one in the environment stands above a file of secrets

    @field_validator("kafka_bootstrap")
    @classmethod
    def _brokers(cls, value: str) -> str:
        split_addresses(value)
        return ",".join(part.strip() for part in value.split(","))

    @field_validator("lookup_listen", "metrics_listen")
    @classmethod
    def _listening(cls, value: str) -> str:
        split_address(value, least_port=0)
        return value

    @field_validator("monitor_parts")
    @classmethod
    def _parts(cls, value: str) -> str:
        split_parts(value)
        return value

    @field_validator("monitor_engines")
    @classmethod
    def _engines(cls, value: str) -> str:
        if unknown := {name for one in value.split(",") if (name := one.strip())} - set(ENGINES):
            raise ValueError(f"{min(unknown)!r} is none of {', '.join(ENGINES)}")
        return value

    @field_validator("lookup_address")
    @classmethod
    def _target(cls, value: str) -> str:
        split_target(value)
        return value

    @field_validator("media_sources")
    @classmethod
    def _media_sources(cls, value: str) -> str:
        MediaSources.parse(value)
        return value

    @field_validator("media_networks")
    @classmethod
    def _media_networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @field_validator("qdrant_url")
    @classmethod
    def _url(cls, value: str) -> str:
        if "@" in value:
            # Not quoted: what stands before the @ may be a secret.
            raise ValueError("it names a user, which is not sent: a key goes to NEARKIN_QDRANT_API_KEY")
        scheme, separator, address = value.partition("://")
        if scheme not in ("http", "https") or not separator:
            raise ValueError(f"{value!r} does not begin with http:// or https://")
        address = address.removesuffix("/")
        split_address(address if re.search(r":[^\]]*$", address) else f"{address}:6334")
        return value

    @field_validator("traces_endpoint")
    @classmethod
    def _collector(cls, value: str) -> str:
        scheme, separator, address = value.partition("://")
        if scheme not in ("http", "https") or not separator:
            raise ValueError(f"{value!r} does not begin with http:// or https://")
        split_address(address)
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str) -> str:
        # Not quoted: a URL of a Redis may hold a password.
        if not re.match(r"rediss?(\+cluster)?://.", value):
            raise ValueError(
                "it does not begin with redis:// or rediss://, of a cluster redis+cluster:// or rediss+cluster://"
            )
        return value

    @field_validator("pseudonym_key")
    @classmethod
    def _key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            PseudonymKey.parse(value.get_secret_value())
        return value

    @field_validator("qdrant_api_key")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch("[ -~]*", value.get_secret_value()):
            raise ValueError("it has characters that cannot be sent: it must be printable ASCII")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        self.kafka_security, self.redis_tls, self.qdrant_tls, self.lookup_caller_tls  # noqa: B018  # refuse halves
        _tls("index", None, self.index_cert, self.index_key)
        _tls("lookup", None, self.lookup_cert, self.lookup_key)
        if self.lookup_client_ca is not None and self.lookup_cert is None:
            raise Misconfigured(
                "NEARKIN_LOOKUP_CLIENT_CA is set without it: callers show certificates by TLS alone",
                field="NEARKIN_LOOKUP_CERT",
                remedy="set both, or neither",
                reason="setting",
            )
        return self

    @property
    def kafka_security(self) -> KafkaSecurity:
        """How brokers are spoken to.

        Raises:
            Misconfigured: half of it is set.
        """
        by_tls, as_user = "tls" in self.kafka_protocol, "sasl" in self.kafka_protocol
        password = self.kafka_sasl_password.get_secret_value() if self.kafka_sasl_password else ""
        if as_user and not (self.kafka_sasl_username and password):
            raise Misconfigured(
                f"it is {self.kafka_protocol}, and the user or the password is missing",
                field="NEARKIN_KAFKA_PROTOCOL",
                remedy="set NEARKIN_KAFKA_SASL_USERNAME and NEARKIN_KAFKA_SASL_PASSWORD too",
                reason="setting",
            )
        tls = _tls("kafka", self.kafka_ca, self.kafka_cert, self.kafka_key)
        return KafkaSecurity(
            tls=tls if by_tls else None,
            username=self.kafka_sasl_username if as_user else "",
            password=password if as_user else "",
            mechanism=self.kafka_sasl_mechanism,
        )

    @property
    def redis_tls(self) -> Tls:
        """TLS of connections to a Redis at rediss."""
        return _tls("redis", self.redis_ca, self.redis_cert, self.redis_key)

    @property
    def qdrant_tls(self) -> Tls | None:
        """TLS of connections to the index, where it is at https."""
        tls = _tls("qdrant", self.qdrant_ca, self.qdrant_cert, self.qdrant_key)
        return tls if self.qdrant_url.startswith("https:") else None

    @property
    def lookup_caller_tls(self) -> Tls | None:
        """TLS of connections to the look-up service, where it is asked for."""
        tls = _tls("lookup_caller", self.lookup_ca, self.lookup_caller_cert, self.lookup_caller_key)
        return tls if self.lookup_tls else None


def _tls(part: str, ca: Path | None, cert: Path | None, key: Path | None) -> Tls:
    if key is not None and cert is None:
        raise Misconfigured(
            f"NEARKIN_{part.upper()}_KEY is set without it",
            field=f"NEARKIN_{part.upper()}_CERT",
            remedy="set both, or neither",
            reason="setting",
        )
    return Tls(ca, cert, key)


def load_settings(**overrides: object) -> Settings:
    """Read and check the settings.

    Args:
        overrides: values that stand above the environment, by field name.

    Raises:
        Misconfigured: a value is wrong; names the setting and what would be right, never a secret's value.
    """
    secrets = os.environ.get("NEARKIN_SECRETS_DIR")
    if secrets and not Path(secrets).is_dir():
        raise Misconfigured(
            f"there is no folder {secrets!r}",
            field="NEARKIN_SECRETS_DIR",
            remedy="name the folder that holds the files of secrets, or leave it out",
            reason="setting",
        )
    try:
        return Settings(_secrets_dir=secrets or None, **overrides)  # type: ignore[call-arg, arg-type]  # a keyword of pydantic-settings
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        if first["type"] == "value_error":  # of a check above, which quotes what may be quoted
            problem = str(first["ctx"]["error"])
        else:
            shown = "" if "key" in name or "password" in name else f" (it is {first['input']!r})"
            problem = f"{first['msg']}{shown}"
        raise Misconfigured(
            problem,
            field=f"NEARKIN_{name.upper()}",
            remedy=Settings.model_fields[name].description or "correct it",
            reason="setting",
        ) from error


def page() -> str:
    """The documentation of the settings, as Markdown."""
    rows = []
    for name, field in Settings.model_fields.items():
        kind, rules = _kind(field.annotation), ", ".join(_rule(rule) for rule in field.metadata)
        shown = "" if field.default is None else f"`{field.default}`"
        rows.append(
            f"| `NEARKIN_{name.upper()}` | {kind}{', ' if rules else ''}{rules} | {shown} | {field.description} |"
        )
    return "\n".join(
        [
            "# Settings",
            "",
            "Every process reads these from its environment; what it does not need it ignores. A file",
            "`nearkin_<name>` in the folder that `NEARKIN_SECRETS_DIR` names sets what the environment does not:",
            "credentials belong there.",
            "A wrong value is refused at the start, with its name and what would be right.",
            "This page is made by `python -m nearkin.ops.settings`.",
            "",
            "| setting | what it takes | default | what it does |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _kind(annotation: object) -> str:
    """A type as a person reads it."""
    options = [option for option in get_args(annotation) if option is not type(None)]
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{option}`" for option in options)
    of = options[0] if options else annotation
    names = {
        bool: "true or false",
        int: "whole number",
        float: "number",
        str: "text",
        Path: "path",
        SecretStr: "secret",
    }
    return names[of] if of in names else str(of)


def _rule(rule: object) -> str:
    """A rule of pydantic as a person reads it."""
    words = {"ge": "from", "gt": "above", "le": "to", "lt": "below", "pattern": "matching"}
    return " ".join(
        f"{word} `{value}`" for name, word in words.items() if (value := getattr(rule, name, None)) is not None
    )


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201  # its purpose
