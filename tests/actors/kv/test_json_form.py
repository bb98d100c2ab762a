"""The gateway's JSON beside protobuf's own mapping; and what can't be read says where."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import generate
from actors.kv.rpc import json_form
from actors.kv.rpc.json_form import BadJson
from tests.differential import steps

messages: Any = st.one_of(steps.put, steps.delete, steps.some_range, steps.txns(), steps.watch, steps.grant)


@given(messages)
def test_there_and_back_and_as_protobuf(message: Any) -> None:
    text = json_form.dumps(message)
    assert json_form.loads(text, type(message)) == message
    assert json_form.loads(json_format.MessageToJson(message).encode(), type(message)) == message
    assert json_format.Parse(text, type(message)()) == message


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    for read in (json_form.loads, json_form.load_all):
        try:
            read(text.encode("utf-8", "replace"), pb.TxnRequest)
        except BadJson as error:
            assert str(error)


def test_messages_one_after_the_other() -> None:
    read = json_form.load_all(b'{"cancel_request":{"watch_id":"3"}} {"progress_request":{}}', pb.WatchRequest)
    assert [one.WhichOneof("request_union") for one in read] == ["cancel_request", "progress_request"]


@pytest.mark.parametrize(
    ("text", "kind", "why"),
    [
        ('{"key":5}', pb.PutRequest, "key: base64 text is expected, not a number"),
        ('{"key":"YQ=a"}', pb.PutRequest, "key: illegal base64 data"),
        ('{"lease":"1.5"}', pb.PutRequest, "lease: an integer of 64 bits"),
        ('{"lease":9223372036854775808}', pb.PutRequest, "lease: an integer of 64 bits"),
        ('{"prev_kv":"true"}', pb.PutRequest, "prev_kv: true or false"),
        ("[]", pb.PutRequest, "PutRequest: an object is expected, not a list"),
        ('{"sort_order":"UP"}', pb.RangeRequest, "sort_order: 'UP' is none of NONE, ASCEND, DESCEND"),
        ('{"success":{}}', pb.TxnRequest, "success: a list is expected"),
        ('{"success":[{"request_put":{"key":1}}]}', pb.TxnRequest, "success[0].request_put.key: base64"),
        ('{"compare":[{"version":1,"value":""}]}', pb.TxnRequest, "compare[0].value: version is given already"),
        ("{", pb.PutRequest, "unexpected end"),
    ],
)
def test_what_cant_be_read_says_where(text: str, kind: Any, why: str) -> None:
    with pytest.raises(BadJson) as error:
        json_form.loads(text.encode(), kind)
    assert why in str(error.value)


def test_the_generated_modules_are_of_these_texts(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    generate.generate(tmp_path)
    made = tmp_path / "actors" / "kv" / "proto"
    for path in generate.FOLDER.glob("*_pb2.py*"):
        assert path.read_text() == (made / path.name).read_text(), (
            f"run python -m actors.kv.proto.generate: {path.name}"
        )
    shutil.rmtree(made)
