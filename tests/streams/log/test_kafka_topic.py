"""Nodes that start together: one makes the topic, and a broker that doesn't know it yet is asked by another."""

from typing import Any

import pytest

from streams.log.kafka import topic
from streams.log.kafka.options import parse_address
from streams.log.port import LogUnavailable

ADDRESS = parse_address("kafka://a:1,b:2,c:3/log")


class Admin:
    """As kafka-python answers: of a topic that the broker doesn't know yet it tells no settings, and no error."""

    def __init__(self, late: int) -> None:
        self.late = late

    def describe_cluster(self) -> dict[str, Any]:
        return {"brokers": [{"broker_id": number} for number in (1, 2, 3)]}

    def describe_topics(self, _names: list[str]) -> list[dict[str, Any]]:
        return [{"error_code": 0, "partitions": [{"replica_nodes": [1, 2, 3]}]}]

    def describe_configs(self, _resources: list[Any], config_filter: str) -> dict[str, Any]:
        assert config_filter == "all"
        self.late -= 1
        if self.late >= 0:
            return {"topic": {"log": {}}}
        settings = {**topic.SETTINGS, "min.insync.replicas": "2"}
        return {"topic": {"log": {key: {"value": value} for key, value in settings.items()}}}


def test_settings_that_a_broker_does_not_know_yet_are_waited_for() -> None:
    admin = Admin(late=2)
    assert topic._ensured(admin, ADDRESS).min_insync == 2
    assert admin.late == -1


def test_settings_that_never_come_are_no_wrong_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic, "ANSWER_TIMEOUT_MS", 200)
    with pytest.raises(LogUnavailable, match="aren't known yet"):
        topic._ensured(Admin(late=1000), ADDRESS)
