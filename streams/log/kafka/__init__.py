"""The log on Apache Kafka: one topic, one partition. kafka-python administers, confluent-kafka is the hot path."""

from streams.log.kafka.driver import KafkaLog

__all__ = ["KafkaLog"]
