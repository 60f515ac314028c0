import pytest

from nearkin.core.errors import Misconfigured
from nearkin.ops.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def no_other_settings(monkeypatch):
    monkeypatch.delenv("NEARKIN_SECRETS_DIR", raising=False)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("QDRANT_URL", "127.0.0.1:6334", "'127.0.0.1:6334' does not begin with http:// or https://"),
        ("QDRANT_URL", "grpc://127.0.0.1:6334", "does not begin with http"),
        ("QDRANT_URL", "http://", "is not host:port"),
        ("QDRANT_URL", "http://:6334", "is not host:port"),
        ("QDRANT_URL", "http://127.0.0.1:63x4", "'127.0.0.1:63x4' is not host:port"),
        ("QDRANT_URL", "http://127.0.0.1:99999", "the port of '127.0.0.1:99999' is not from 1 to 65535"),
        ("QDRANT_URL", "http://127.0.0.1:0", "is not from 1 to 65535"),
        ("QDRANT_URL", "http://127.0.0.1:6334/collections", "is not host:port"),
        ("QDRANT_URL", "http://a..b", "not a name that can be resolved"),
        ("KAFKA_BOOTSTRAP", "foo", "'foo' is not host:port"),
        ("KAFKA_BOOTSTRAP", "", "'' is not host:port"),
        ("KAFKA_BOOTSTRAP", "a:9092,", "'' is not host:port"),
        ("KAFKA_BOOTSTRAP", "a:9092,b:909x", "'b:909x' is not host:port"),
        ("KAFKA_BOOTSTRAP", "a:99999", "is not from 1 to 65535"),
        ("LOOKUP_LISTEN", "7700", "'7700' is not host:port"),
        ("LOOKUP_LISTEN", "0.0.0.0:77000", "is not from 0 to 65535"),
        ("METRICS_LISTEN", ":9464", "':9464' is not host:port"),
        ("LOOKUP_ADDRESS", "lookup", "'lookup' is not host:port"),
        ("ITEMS_PARTITIONS", "0", "greater than or equal to 1 (it is '0')"),
        ("INDEXER_LANE", "fast", "'live' or 'bulk' (it is 'fast')"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_what_would_be_right(monkeypatch, name, value, problem):
    monkeypatch.setenv(f"NEARKIN_{name}", value)

    with pytest.raises(Misconfigured) as refusal:
        load_settings()

    assert refusal.value.field == f"NEARKIN_{name}"
    assert problem in refusal.value.problem
    assert refusal.value.remedy


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("QDRANT_URL", "https://qdrant.internal", "https://qdrant.internal"),
        ("QDRANT_URL", "http://127.0.0.1:6334/", "http://127.0.0.1:6334/"),
        ("QDRANT_URL", "http://[::1]:6334", "http://[::1]:6334"),
        ("QDRANT_URL", "http://[::1]", "http://[::1]"),
        ("QDRANT_URL", "http://127.0.0.1:6334 ", "http://127.0.0.1:6334"),
        ("KAFKA_BOOTSTRAP", " a:1, b:2\n", "a:1,b:2"),
        ("LOOKUP_LISTEN", "[::]:7700", "[::]:7700"),
        ("METRICS_LISTEN", "0.0.0.0:0", "0.0.0.0:0"),
        ("LOOKUP_ADDRESS", "dns:///lookup:7700", "dns:///lookup:7700"),
    ],
)
def test_an_address_is_kept_without_the_blanks_around_it(monkeypatch, name, value, kept):
    monkeypatch.setenv(f"NEARKIN_{name}", value)

    assert getattr(load_settings(), name.lower()) == kept


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QDRANT_API_KEY", "s3cret\x07"),
        ("QDRANT_API_KEY", "s3crét"),
        ("QDRANT_URL", "http://me:s3cret@127.0.0.1:6334"),
        ("PSEUDONYM_KEY", "k1:s3cret"),
    ],
)
def test_a_secret_that_cannot_be_used_is_refused_and_not_shown(monkeypatch, name, value):
    monkeypatch.setenv(f"NEARKIN_{name}", value)

    with pytest.raises(Misconfigured, match=f"^NEARKIN_{name}: ") as refusal:
        load_settings()

    assert "s3cr" not in str(refusal.value)


def test_a_file_sets_what_the_environment_does_not(monkeypatch, tmp_path):
    (tmp_path / "nearkin_qdrant_api_key").write_text("s3cret\n")
    monkeypatch.setenv("NEARKIN_SECRETS_DIR", str(tmp_path))

    key = load_settings().qdrant_api_key

    assert key is not None
    assert key.get_secret_value() == "s3cret"


def test_a_folder_of_secrets_that_is_not_there_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("NEARKIN_SECRETS_DIR", str(tmp_path / "nowhere"))

    with pytest.raises(Misconfigured, match=r"^NEARKIN_SECRETS_DIR: there is no folder"):
        load_settings()


SECRETS = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]


def test_settings_do_not_show_their_secrets(monkeypatch, tmp_path):
    monkeypatch.setenv("NEARKIN_SECRETS_DIR", str(tmp_path))
    for name in SECRETS:
        (tmp_path / f"nearkin_{name}").write_text(
            "k1:" + "5ec4e7" * 10 + "beef" if name == "pseudonym_key" else "s3cret"
        )
    monkeypatch.setenv("NEARKIN_REDIS_URL", "redis://me:s3cret@127.0.0.1:6379/0")
    monkeypatch.setenv("NEARKIN_KAFKA_PROTOCOL", "sasl_tls")
    monkeypatch.setenv("NEARKIN_KAFKA_SASL_USERNAME", "me")

    settings = load_settings()

    assert {"kafka_sasl_password", "redis_password", "qdrant_api_key", "lookup_token", "pseudonym_key"} <= set(SECRETS)
    assert all(getattr(settings, name) is not None for name in SECRETS)
    shown = f"{settings!r} {settings} {settings.kafka_security!r} {settings.redis_tls!r}"
    assert "s3cret" not in shown
    assert "5ec4e7" not in shown


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_in_no_refusal_of_another_setting(monkeypatch, name):
    monkeypatch.setenv(f"NEARKIN_{name.upper()}", "s3cret")
    monkeypatch.setenv("NEARKIN_ITEMS_PARTITIONS", "0")

    with pytest.raises(Misconfigured) as refusal:
        load_settings()

    assert "s3cret" not in f"{refusal.value}{refusal.value.__cause__}"


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("KAFKA_KEY", "KAFKA_CERT"),
        ("REDIS_KEY", "REDIS_CERT"),
        ("QDRANT_KEY", "QDRANT_CERT"),
        ("INDEX_KEY", "INDEX_CERT"),
        ("LOOKUP_KEY", "LOOKUP_CERT"),
        ("LOOKUP_CLIENT_CA", "LOOKUP_CERT"),
        ("LOOKUP_CALLER_KEY", "LOOKUP_CALLER_CERT"),
    ],
)
def test_half_of_what_protects_is_refused_and_the_other_half_named(monkeypatch, name, missing):
    monkeypatch.setenv(f"NEARKIN_{name}", "file.pem")

    with pytest.raises(Misconfigured, match=f"^NEARKIN_{missing}: ") as refusal:
        load_settings()
    assert f"NEARKIN_{name}" in refusal.value.problem


def test_an_empty_file_is_none(monkeypatch):
    monkeypatch.setenv("NEARKIN_LOOKUP_CERT", "")

    assert load_settings().lookup_cert is None
