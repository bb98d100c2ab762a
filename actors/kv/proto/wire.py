"""``python -m actors.kv.proto.wire``: the hot messages of the .proto files → ``etcd_wire.py``, codecs without objects
of protobuf's in between. A test sees to it that nobody forgets to, and compares each message with protobuf's own bytes.

A decoder takes what every client writes: known fields, each once, with its own wire type. It gives anything else to
protobuf, which refuses it or says it again in that form; so no rule of its is told twice.
"""

from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from actors.kv.proto import etcd_pb2, kv_pb2

MESSAGES: tuple[Any, ...] = (
    etcd_pb2.ResponseHeader.DESCRIPTOR,
    kv_pb2.KeyValue.DESCRIPTOR,
    kv_pb2.Event.DESCRIPTOR,
    etcd_pb2.RangeRequest.DESCRIPTOR,
    etcd_pb2.RangeResponse.DESCRIPTOR,
    etcd_pb2.RangeStreamResponse.DESCRIPTOR,
    etcd_pb2.PutRequest.DESCRIPTOR,
    etcd_pb2.PutResponse.DESCRIPTOR,
    etcd_pb2.DeleteRangeRequest.DESCRIPTOR,
    etcd_pb2.DeleteRangeResponse.DESCRIPTOR,
    etcd_pb2.Compare.DESCRIPTOR,
    etcd_pb2.RequestOp.DESCRIPTOR,
    etcd_pb2.ResponseOp.DESCRIPTOR,
    etcd_pb2.TxnRequest.DESCRIPTOR,
    etcd_pb2.TxnResponse.DESCRIPTOR,
    etcd_pb2.LeaseKeepAliveRequest.DESCRIPTOR,
    etcd_pb2.LeaseKeepAliveResponse.DESCRIPTOR,
)
#: Messages that can stand in themselves: their decoders count how deep they are.
_DEEP = {"RequestOp", "TxnRequest", "ResponseOp", "TxnResponse"}
_HEAD = '''"""Made by ``python -m actors.kv.proto.wire``: not to be changed by hand.

``decode_x(raw)``: as protobuf reads it, raises its DecodeError. ``encode_x``: fields → bytes as protobuf writes them;
parts are given encoded, None of one that isn't there.
"""

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import kv_pb2
from actors.kv.proto.varints import DEPTH_MAX, PROTOBUFS_DEPTH_MAX, Irregular, canonical, int32, more, signed
from actors.kv.proto.varints import uint64, varint
'''


def snake(name: str) -> str:
    return "".join("_" + one.lower() if one.isupper() else one for one in name).lstrip("_")


def _type(field: FieldDescriptor) -> tuple[str, str]:
    """Annotation and default of an attribute."""
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        assert field.message_type is not None
        name = field.message_type.name
        return (f"list[{name}]", "[]") if field.is_repeated else (f"{name} | None", "None")
    assert not field.is_repeated, field.full_name
    if field.type == FieldDescriptor.TYPE_BYTES:
        return "bytes", 'b""'
    return ("bool", "False") if field.type == FieldDescriptor.TYPE_BOOL else ("int", "0")


def _class(message: Descriptor) -> list[str]:
    names = sorted(field.name for field in message.fields) + ["which"] * bool(message.oneofs)
    lines = ["", "", f"class {message.name}:"]
    if message.oneofs:
        lines += ['    """``which``: the number of the one field of its oneof that is there, or 0."""', ""]
    lines += [f"    __slots__ = ({', '.join(repr(one) for one in names)},)".replace("'", '"'), ""]
    lines.append("    def __init__(self) -> None:")
    for field in message.fields:
        kind, default = _type(field)
        lines.append(f"        self.{field.name}: {kind} = {default}")
    if message.oneofs:
        lines.append("        self.which = 0")
    return lines


def _tag(field: FieldDescriptor) -> bytes:
    bulky = field.type in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_BYTES)
    number = field.number << 3 | (2 if bulky else 0)
    return bytes((number,)) if number < 128 else bytes((number & 127 | 128, number >> 7))


def _literal(raw: bytes) -> str:
    return 'b"' + "".join(f"\\x{byte:02x}" for byte in raw) + '"'


def _decoder(message: Descriptor) -> list[str]:
    deep = message.name in _DEEP
    name = snake(message.name)
    module = "pb" if message.file.package == "etcdserverpb" else "kv_pb2"
    lines = ["", "", f"def decode_{name}(raw: bytes) -> {message.name}:"]
    lines += ["    try:", f"        return _{name}(raw, 0, len(raw){', DEPTH_MAX' if deep else ''})"]
    lines += ["    except (Irregular, IndexError):", f"        raw = canonical({module}.{message.name}, raw)"]
    lines.append(f"        return _{name}(raw, 0, len(raw){', 2 * PROTOBUFS_DEPTH_MAX' if deep else ''})")
    lines += ["", "", f"def _{name}(raw: bytes, at: int, end: int{', depth: int' if deep else ''}) -> {message.name}:"]
    if deep:
        lines += ["    if not depth:", "        raise Irregular"]
    lines += [f"    made = {message.name}()", "    while at < end:", "        tag = raw[at]", "        at += 1"]
    word = "if"
    for field in message.fields:
        tag = _tag(field)
        if len(tag) == 1:
            lines.append(f"        {word} tag == {tag[0]}:")
        else:
            lines.append(f"        {word} tag == {tag[0]} and raw[at] == {tag[1]}:")
            lines.append("            at += 1")
        word = "elif"
        lines += ["            " + line for line in _reads(field)]
    lines += ["        else:", "            raise Irregular", "    if at != end:", "        raise Irregular"]
    return [*lines, "    return made"]


def _reads(field: FieldDescriptor) -> list[str]:
    lines = []
    if field.containing_oneof is not None:
        lines += ["if made.which:", "    raise Irregular", f"made.which = {field.number}"]
    one = f"made.{field.name}"
    if field.type in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_BYTES):
        lines += ["size = raw[at]", "at += 1", "if size > 127:", "    size, at = more(raw, at, size)"]
        lines += ["stop = at + size", "if stop > end:", "    raise Irregular"]
        value = "raw[at:stop]"
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            assert field.message_type is not None
            name = field.message_type.name
            value = f"_{snake(name)}(raw, at, stop{', depth - 1' if name in _DEEP else ''})"
            if not field.is_repeated and field.containing_oneof is None:
                lines += [f"if {one} is not None:", "    raise Irregular"]
        lines += [f"{one}.append({value})" if field.is_repeated else f"{one} = {value}", "at = stop"]
        return lines
    if field.type == FieldDescriptor.TYPE_INT64:
        lines += ["number = raw[at]", "at += 1", "if number > 127:", "    number, at = signed(raw, at, number)"]
        return [*lines, f"{one} = number"]
    lines += ["number = raw[at]", "at += 1", "if number > 127:", "    number, at = more(raw, at, number)"]
    if field.type == FieldDescriptor.TYPE_BOOL:
        return [*lines, f"{one} = uint64(number) != 0"]
    how = "uint64" if field.type == FieldDescriptor.TYPE_UINT64 else "int32"
    return [*lines, f"{one} = number if number < 2147483648 else {how}(number)"]


def _encoder(message: Descriptor) -> list[str]:
    """Fields of a oneof are written when they are given (messages), or when ``which`` names them."""
    arguments = []
    for field in message.fields:
        kind, default = _type(field)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            kind, default = ("list[bytes] | None", "None") if field.is_repeated else ("bytes | None", "None")
        arguments.append(f"{field.name}: {kind} = {default}")
    plain = [one for one in message.fields if one.containing_oneof and one.type != FieldDescriptor.TYPE_MESSAGE]
    if plain:
        arguments.append("which: int = 0")
    lines = ["", "", f"def encode_{snake(message.name)}("]
    lines += [f"    {one}," for one in arguments]
    lines += [") -> bytes:", "    out: list[bytes] = []"]
    for field in message.fields:
        tag = _literal(_tag(field))
        if field.is_repeated:
            lines += [f"    if {field.name} is not None:", f"        for one in {field.name}:"]
            lines += [f"            out.append({tag})", "            out.append(varint(len(one)))"]
            lines.append("            out.append(one)")
            continue
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            lines.append(f"    if {field.name} is not None:")
        else:
            lines.append(f"    if {f'which == {field.number}' if field in plain else field.name}:")
        if field.type in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_BYTES):
            lines += [f"        out.append({tag})", f"        out.append(varint(len({field.name})))"]
            lines.append(f"        out.append({field.name})")
        elif field.type == FieldDescriptor.TYPE_BOOL:
            lines.append(f"        out.append({_literal(_tag(field) + bytes((1,)))})")
        else:
            lines += [f"        out.append({tag})", f"        out.append(varint({field.name}))"]
    return [*lines, '    return b"".join(out)']


def text() -> str:
    lines = [_HEAD.rstrip("\n")]
    for message in MESSAGES:
        lines += _class(message) + _decoder(message) + _encoder(message)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "etcd_wire.py").write_text(text())
