"""Making librdkafka's clients from options: what it won't take is the configuration's fault, and said so."""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from streams.log.kafka.options import KNOWN, Address, Options, for_consumer, for_producer
from streams.log.port import ForeignLog, LogUnavailable

T = TypeVar("T")

_PROPERTY = re.compile(r'configuration property:? "([^"]*)"')
#: librdkafka's own names of what is known better by another.
_OTHER_NAMES = {"queue.buffering.max.ms": "linger.ms", "compression.codec": "compression.type"}
_MEND = "mend it in [log.kafka] or --log-option"


def built(make: Callable[[dict[str, Any]], T], config: Mapping[str, Any]) -> T:
    """A client, made by its class. Raises ForeignLog naming the option that is wrong.

    LogUnavailable is raised when it isn't an option but the machine that lacks something (threads, memory).
    """
    try:
        return make(dict(config))
    except KafkaException as error:
        why: KafkaError = error.args[0]
        if why.code() != KafkaError._INVALID_ARG:
            raise LogUnavailable(f"no Kafka client can be made: {why.str()}") from error
        raise ForeignLog(_wrong(why.str())) from error


def check(address: Address, options: Options) -> None:
    """Make each kind of client that the options are for, without speaking to anybody. Raises as :func:`built`."""
    built(Producer, for_producer(address, options)).close()
    built(Consumer, for_consumer(address, options)).close()


def _wrong(said: str) -> str:
    match = _PROPERTY.search(said)
    if match is None:
        # options that don't fit together, or a file: librdkafka names them
        return f"the log's options can't be used: {said.partition(': ')[2] or said}; {_MEND}"
    name = _OTHER_NAMES.get(match[1], match[1])
    if said.startswith("No such"):
        near = difflib.get_close_matches(name, KNOWN, 1)
        return f"log option {name} is not known{f'; {near[0]}?' if near else ''}; {_MEND}"
    return f"log option {name} can't be used: {said.replace(match[1], name)}; {_MEND}"
