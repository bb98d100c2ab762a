"""Records as Kafka messages: the same canonical bytes come back, and nothing else passes for a record."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.log.kafka.messages import HEADER, HOLE, HOLE_HEADER, foreign, is_hole, message_of, parts_of, raw_of
from streams.log.kafka.options import for_consumer, for_kafka_python, for_producer, parse_address, parse_options
from streams.log.kafka.topic import SETTINGS, Topic, faults
from streams.log.port import ForeignLog
from streams.records import Entry, Record, parse

words = st.from_regex(r"[a-z][a-z.@0-9]{0,20}", fullmatch=True)
records = st.builds(
    Record,
    log_id=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    stream=st.sampled_from(["log", "cluster", "kv", "unit", "engine", "update"]),
    writer=words,
    incarnation=st.integers(0, 2**60),
    seq=st.integers(0, 2**60),
    time_ms=st.integers(0, 2**43),
    payload=st.binary(max_size=200),
    mac=st.sampled_from(["", "ab12"]),
)
parts = st.one_of(st.none(), st.binary(max_size=40))
headers = st.lists(st.tuples(st.sampled_from([HEADER, "x", ""]), parts), max_size=3)


@given(records)
def test_a_record_comes_back_as_its_canonical_bytes(record):
    key, value, heads = message_of(record)
    assert raw_of(key, value, heads) == record.canonical()


@given(records, st.sampled_from(["log", "cluster", "kv", "unit", "", "CORELOG"]))
def test_a_key_that_is_not_the_stream_of_the_head_is_foreign(record, other):
    key, value, heads = message_of(record)
    if other.encode() != key:
        assert not raw_of(other.encode(), value, heads).startswith(b"CORELOG ")
    assert not raw_of(None, value, heads).startswith(b"CORELOG ")
    assert not raw_of(key, None, heads).startswith(b"CORELOG ")
    assert not raw_of(key, value, [*heads, *heads]).startswith(b"CORELOG ")
    assert not raw_of(key, value, [("other", heads[0][1])]).startswith(b"CORELOG ")
    assert not raw_of(key, value, [(HEADER, heads[0][1] + b"\n")]).startswith(b"CORELOG ")


@given(parts, parts, headers)
def test_whatever_stands_in_a_message_is_foreign_or_a_head_with_its_key(key, value, heads):
    raw = raw_of(key, value, heads)
    if raw.startswith(b"CORELOG "):
        assert raw.split(b" ", 4)[3] == key
    else:
        assert raw == foreign(key, value, heads)


@given(st.tuples(parts, parts, headers), st.tuples(parts, parts, headers))
def test_different_foreign_messages_give_different_bytes(one, other):
    assert (foreign(*one) == foreign(*other)) == (one == other)


@given(parts, parts, headers)
def test_what_stood_in_a_message_is_found_again_from_its_bytes(key, value, heads):
    assert parts_of(raw_of(key, value, heads)) == (key, value, heads)


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda tail: b"FOREIGN kafka " + tail),
                 st.binary(max_size=80).map(lambda tail: b"CORELOG " + tail)))  # fmt: skip
def test_any_bytes_have_the_message_that_reads_as_them_or_none(raw):
    try:
        found = parts_of(raw)
    except ValueError:
        return
    assert raw_of(*found) == raw


def test_a_hole_is_a_hole_and_nothing_else_is():
    assert is_hole(*HOLE)
    for other in (
        (b"", None, HOLE[2]),
        (None, b"", HOLE[2]),
        (None, None, []),
        (None, None, None),
        (None, None, [(HOLE_HEADER, None)]),
        (None, None, [*HOLE[2], *HOLE[2]]),
        (None, None, [(HEADER, b"1")]),
    ):
        assert not is_hole(*other)
    with pytest.raises(ValueError, match="no message reads"):
        parts_of(foreign(*HOLE))


def test_bytes_that_begin_like_a_record_are_foreign_in_a_value():
    record = Record("ab" * 16, "kv", "kv@m", 1, 1, 5, b"[]")
    raw = raw_of(b"kv", record.canonical(), None)
    with pytest.raises(ValueError, match="not a corelog record"):
        parse(Entry(7, raw))


# --- addresses and options


@given(st.text(max_size=60))
def test_any_address_is_read_or_refused_with_its_words(text):
    try:
        address = parse_address(f"kafka://{text}")
    except ForeignLog as error:
        assert "host:port" in str(error) or "topic" in str(error)
    else:
        assert parse_address(str(address)) == address


def test_an_address_has_brokers_and_a_topic():
    address = parse_address("kafka://a:9092,[::1]:9093,c.example:1/my-log")
    assert address.brokers == ("a:9092", "[::1]:9093", "c.example:1")
    assert address.topic == "my-log"
    assert parse_address("kafka://a:9092").topic == "corelog"


@pytest.mark.parametrize("text", ["kafka://", "kafka://a", "kafka://a:0", "kafka://a:70000", "kafka://a:1,", "x://a:1"])
def test_a_wrong_address_is_refused(text):
    with pytest.raises(ForeignLog, match="host:port"):
        parse_address(text)


def test_security_options_reach_both_clients():
    options = parse_options(
        {
            "security.protocol": "sasl_ssl",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "corelog",
            "sasl.password": "secret",
            "ssl.ca.location": "/ca.pem",
            "ssl.endpoint.identification.algorithm": "none",
            "socket.keepalive.enable": "true",
        }
    )
    address = parse_address("kafka://a:1")
    for config in (for_producer(address, options), for_consumer(address, options)):
        assert config["sasl.mechanism"] == "SCRAM-SHA-512"
        assert config["ssl.ca.location"] == "/ca.pem"
    assert for_kafka_python(options.client) == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "corelog",
        "sasl_plain_password": "secret",
        "ssl_cafile": "/ca.pem",
        "ssl_check_hostname": False,
    }


@pytest.mark.parametrize("key", ["acks", "enable.idempotence", "isolation.level", "auto.offset.reset", "group.id"])
def test_what_the_promises_depend_on_cannot_be_set(key):
    with pytest.raises(ForeignLog, match=key):
        parse_options({key: "0"})


def test_a_misspelt_option_is_refused_with_the_nearest():
    with pytest.raises(ForeignLog, match=r"delivery\.timeout\.ms\?"):
        parse_options({"delivry.timeout.ms": "5000"})
    with pytest.raises(ForeignLog, match="milliseconds"):
        parse_options({"delivery.timeout.ms": "5s"})


# --- what a topic lacks, without brokers (with them: test_topic.py)

ADDRESS = parse_address("kafka://a:9092,b:9092,c:9092/t")
GOOD = {**SETTINGS, "min.insync.replicas": "2"}


def test_a_topic_as_we_make_it_has_no_fault():
    assert faults(Topic((1, 2, 3), 1, (1, 2, 3), 2), GOOD, ADDRESS) == []
    assert faults(Topic((1,), 1, (1,), 1), {**GOOD, "min.insync.replicas": "1"}, ADDRESS) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "604800000"),
        ("retention.bytes", "1000"),
        ("unclean.leader.election.enable", "true"),
        ("max.message.bytes", "1048588"),
        ("min.insync.replicas", "1"),
    ],
)
def test_each_setting_that_loses_records_is_named_with_its_mend(key, value):
    [fault] = faults(Topic((1, 2, 3), 1, (1, 2, 3), 2), {**GOOD, key: value}, ADDRESS)
    assert f"{key} is {value}" in fault
    assert "kafka-configs.sh --bootstrap-server a:9092,b:9092,c:9092 --alter --entity-type topics" in fault
    assert f"--entity-name t --add-config {key}=" in fault


def test_too_few_replicas_are_mended_with_the_ids_of_the_brokers_that_are_there():
    [fault] = faults(Topic((4, 7, 9), 1, (7,), 1), GOOD, ADDRESS)
    assert '"replicas": [7, 4, 9]' in fault
