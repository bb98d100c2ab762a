"""grpc.reflection: what services there are, and their descriptors. Source: gRPC's reflection protocol."""

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf import descriptor_pb2

from actors.kv.proto import reflection_pb2 as pb
from actors.kv.rpc.service import Call, Method, parsed
from actors.kv.v3 import errors

PATHS = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


class Reflection:
    """Tells of ``known`` and of itself."""

    def __init__(self, known: Iterable[Method]) -> None:
        mine = list(self.methods())
        self._services: dict[str, list[Method]] = {}
        for method in (*known, *mine):
            service = method.path.split("/")[1]
            self._services.setdefault(service, []).append(method)
        self._files = dict(_files(self._services))
        self._by_symbol = {symbol: name for name, file in self._files.items() for symbol in _symbols(file)}

    def methods(self) -> Iterator[Method]:
        for path in PATHS:
            messages = (pb.ServerReflectionRequest, pb.ServerReflectionResponse)
            yield Method(path, *messages, self.serve, asks_many=True, answers_many=True)

    def serve(self, call: Call) -> None:
        def message(raw: bytes) -> None:
            request = parsed(call, pb.ServerReflectionRequest, raw)
            if request is not None:
                call.send(self.answer(request).SerializeToString())

        call.on_message, call.on_end = message, call.finish

    def answer(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        response = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
        kind = request.WhichOneof("message_request")
        if kind == "list_services":
            for service in sorted(self._services):
                response.list_services_response.service.add(name=service)
            return response
        name = ""
        if kind == "file_by_filename":
            name = request.file_by_filename
        elif kind == "file_containing_symbol":
            name = self._by_symbol.get(request.file_containing_symbol, "")
        if name in self._files:
            found = [self._files[one].SerializeToString() for one in self._with_imports(name)]
            response.file_descriptor_response.file_descriptor_proto.extend(found)
            return response
        # no message here can be extended
        asked: Any = getattr(request, kind) if kind else ""
        shown = asked if isinstance(asked, str) else asked.containing_type
        response.error_response.error_code = errors.NOT_FOUND
        response.error_response.error_message = f"nothing is known of {shown!r}"
        return response

    def _with_imports(self, name: str) -> list[str]:
        """The file first, then what it needs."""
        found = [name]
        for one in found:
            found += [other for other in self._files[one].dependency if other not in found]
        return found


def _files(services: dict[str, list[Method]]) -> Iterator[tuple[str, descriptor_pb2.FileDescriptorProto]]:
    """The files of all messages, and one for each service: ours are written without."""
    queue: list[Any] = [one.DESCRIPTOR.file for methods in services.values() for m in methods for one in _kinds(m)]
    seen = set()
    for file in queue:
        if file.name not in seen:
            seen.add(file.name)
            queue += file.dependencies
            made = descriptor_pb2.FileDescriptorProto()
            file.CopyToProto(made)
            del made.service[:]
            yield file.name, made
    for service, methods in services.items():
        package, _, name = service.rpartition(".")
        made = descriptor_pb2.FileDescriptorProto(name=f"{service}.proto", package=package, syntax="proto3")
        made.dependency.extend(sorted({one.DESCRIPTOR.file.name for m in methods for one in _kinds(m)}))
        described = made.service.add(name=name)
        for method in methods:
            asked, told = (f".{one.DESCRIPTOR.full_name}" for one in _kinds(method))
            described.method.add(
                name=method.path.split("/")[2],
                input_type=asked,
                output_type=told,
                client_streaming=method.asks_many,
                server_streaming=method.answers_many,
            )
        yield made.name, made


def _kinds(method: Method) -> tuple[Any, Any]:
    return method.request, method.response


def _symbols(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    package = f"{file.package}." if file.package else ""
    for service in file.service:
        yield package + service.name
        yield from (f"{package}{service.name}.{method.name}" for method in service.method)
    yield from (package + enum.name for enum in file.enum_type)
    queue = [(package, message) for message in file.message_type]
    for before, message in queue:
        yield before + message.name
        yield from (f"{before}{message.name}.{enum.name}" for enum in message.enum_type)
        queue += [(f"{before}{message.name}.", inner) for inner in message.nested_type]
