"""Options that librdkafka won't take: named, before anybody is asked. Nobody answers at the address of these tests."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.audit import kafka
from streams.audit.app import run
from streams.audit.cli import main
from streams.audit.export import outcomes
from streams.log.kafka.clients import check
from streams.log.kafka.options import Options, parse_address, parse_options
from streams.log.kafka.topic import ensure, reach
from streams.log.open import open_log
from streams.log.port import ForeignLog

NOBODY = "kafka://127.0.0.1:1"
ADDRESS = parse_address(NOBODY)

WRONG = [
    ({"sasl.usernam": "x"}, "sasl.usernam is not known; sasl.username?"),
    ({"ssl.ca.loction": "/ca.pem"}, "ssl.ca.loction is not known; ssl.ca.location?"),
    ({"enable.ssl.certificate.verificaton": "true"}, "; enable.ssl.certificate.verification?"),
    ({"security.protocol": "sasl_plain"}, 'security.protocol can\'t be used: Invalid value "sasl_plain"'),
    ({"socket.timeout.ms": "soon"}, "socket.timeout.ms"),
    ({"linger.ms": "x"}, "linger.ms"),
    ({"compression.type": "lz"}, "compression.type"),
    ({"reconnect.backoff.ms": "60000"}, "reconnect.backoff.max.ms"),
    ({"security.protocol": "SASL_SSL"}, "GSSAPI"),
    ({"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAN"}, "PLAN"),
    ({"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512"}, "sasl.username and sasl.password"),
    ({"security.protocol": "SSL", "ssl.ca.location": "/nowhere/ca.pem"}, "ssl.ca.location"),
]


@pytest.mark.parametrize(
    ("options", "says"), WRONG, ids=lambda value: "-".join(value) if isinstance(value, dict) else ""
)
async def test_the_log_is_not_opened_with_an_option_that_is_wrong(options: dict[str, str], says: str) -> None:
    with pytest.raises(ForeignLog) as caught:
        await open_log(NOBODY, options)
    assert says in str(caught.value)
    assert "[log.kafka] or --log-option" in str(caught.value)


def test_no_secret_stands_in_an_error() -> None:
    options = {"security.protocol": "sasl_ssl", "sasl.mechanism": "PLAN", "sasl.username": "u", "sasl.password": "hush"}
    with pytest.raises(ForeignLog) as caught:
        check(ADDRESS, parse_options(options))
    assert "hush" not in str(caught.value)


MISSPELT = parse_options({"sasl.usernam": "x"})
MAKERS: list[Callable[[], Any]] = [
    lambda: check(ADDRESS, MISSPELT),
    lambda: ensure(ADDRESS, MISSPELT),
    lambda: reach(ADDRESS, MISSPELT),
    lambda: kafka.KafkaOutlet(ADDRESS, MISSPELT),
    lambda: asyncio.run(kafka.KafkaOutlet.open(NOBODY, MISSPELT.client)),
    lambda: kafka.ensure(ADDRESS, MISSPELT),
    lambda: kafka.replicas(ADDRESS, MISSPELT, "corelog"),
    lambda: kafka.last_position(ADDRESS, MISSPELT, "kv"),
    lambda: kafka.between(ADDRESS, MISSPELT, "corelog", 0, 1),
    lambda: kafka.end_of(ADDRESS, MISSPELT, "corelog"),
    lambda: kafka.committed(ADDRESS, MISSPELT, "corelog", "group"),
    lambda: asyncio.run(anext(outcomes(NOBODY, MISSPELT.client))),
    lambda: run(NOBODY, MISSPELT.client),
]


@pytest.mark.parametrize("make", MAKERS, ids=range(len(MAKERS)))
def test_whoever_makes_a_client_names_a_misspelt_option(make: Callable[[], Any]) -> None:
    with pytest.raises(ForeignLog, match=r"sasl\.usernam is not known; sasl\.username\?"):
        make()


def test_the_audit_ends_with_the_code_of_a_wrong_log(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["run", NOBODY, "-O", "sasl.usernam=x", "--file", str(tmp_path / "trail.jsonl")]) == 4
    assert "sasl.username?" in capsys.readouterr().err


@given(
    st.dictionaries(
        st.one_of(
            st.sampled_from(["security.protocol", "sasl.mechanism", "ssl.key.location", "socket.timeout.ms", "debug"]),
            st.builds("{}{}".format, st.sampled_from(["sasl.", "ssl.", "socket.", "retry."]), st.text(max_size=10)),
        ),
        st.text(max_size=12),
        max_size=3,
    )
)
def test_options_are_taken_or_refused_as_the_logs(options: dict[str, str]) -> None:
    try:
        parsed: Options = parse_options(options)
        check(ADDRESS, parsed)
    except ForeignLog as error:
        assert str(error)
