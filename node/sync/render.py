"""Templates (jinja2, in its sandbox) and what they make of keys. Pure.

A template is asked for what it surely needs before it is rendered (:meth:`Template.ranges`); what turns out to be
needed on the way raises :class:`node.sync.keys.Missing`.
"""

import re
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from node.sync import functions, keys
from node.sync.functions import Fault, Lookups
from node.sync.keys import Known, Missing, Range
from node.sync.resource import Resource

#: No file of configuration is larger.
OUTPUT_MAX_BYTES = 64 << 20
#: Some errors have the value in them.
WORDS_MAX = 1000
TOO_MUCH_MEMORY = "it needs more memory than a template may have"
#: A call without parentheses: nothing that jinja can read.
_GO = re.compile(r"\{\{-?\s*(?:range|if|end|with|\.\w+|[A-Za-z]+\s+[\"$.(])")


class RenderError(Exception):
    """``line`` from 1, 0: of the whole; ``key``: which one it is about, or empty. The message has all of it."""

    exit_code = 1

    def __init__(self, template: str, line: int, words: str, key: str = "") -> None:
        if len(words) > WORDS_MAX:
            words = f"{words[:WORDS_MAX]}…"
        super().__init__(f"{template}:{line}: {words}" if line else f"{template}: {words}")
        self.line, self.key = line, key


class _Environment(ImmutableSandboxedEnvironment):
    """What a template can't do: leave the sandbox, or make the process too big by a few letters."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and abs(right) > 1000:
            raise Fault(f"a power of {right} is more than 1000")
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, int) and hasattr(other, "__len__") and one * len(other) > OUTPUT_MAX_BYTES:
                    raise Fault(f"{one} times that is more than any file")
        return super().call_binop(context, operator, left, right)


class Rendered(NamedTuple):
    """``ranges``: what the content depends on."""

    content: bytes
    ranges: frozenset[Range]


class Template:
    """A template's text, read. Raises RenderError."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self._environment = _Environment(
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
            extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"],
        )
        try:
            parsed = self._environment.parse(source, name, name)
            code = self._environment.compile(source, name, name)
            self._calls = frozenset(_calls(parsed))
        except jinja2.TemplateSyntaxError as error:
            words = error.message or "it can't be read"
            lines = source.splitlines()
            if 0 < error.lineno <= len(lines) and _GO.search(lines[error.lineno - 1]):
                words += ' (this looks like Go\'s templates; here it is jinja: {{ getv("/key") }}, {% for … %})'
            raise RenderError(name, error.lineno, words) from error
        except RecursionError as error:
            raise RenderError(name, 0, "it is nested too deeply") from error
        except MemoryError as error:
            raise RenderError(name, 0, TOO_MUCH_MEMORY) from error
        except (SyntaxError, ValueError, OverflowError) as error:
            # jinja takes what Python, into which it makes it, doesn't: blocks in blocks, a name twice, a long number
            words = error.msg if isinstance(error, SyntaxError) else str(error)
            raise RenderError(name, 0, f"Python can't compile it: {words}") from error
        self._template = jinja2.Template.from_code(self._environment, code, self._environment.make_globals(None))

    def ranges(self, resource: Resource) -> frozenset[Range]:
        """What is asked for by names that stand in the text, and what the resource says."""
        found = {functions.below(resource, key) for key in resource.keys}
        found |= {functions.point(resource, key) for key in resource.keys if resource.full(key)}
        for function, argument in self._calls:
            try:
                found.add(functions.range_of(resource, function, argument))
            except Fault:
                continue  # told with its line when it is called
        return frozenset(found)

    def render(self, known: Known, resource: Resource, environ: Mapping[str, str]) -> Rendered:
        """Raises Missing, RenderError."""
        lookups = Lookups(known, resource)
        context = {**functions.texts(environ), **lookups.table(), **dict(resource.variables)}
        pieces, size = [], 0
        try:
            for piece in self._template.generate(context):
                pieces.append(keys.raw(piece))
                size += len(pieces[-1])
                if size > OUTPUT_MAX_BYTES:
                    raise Fault(f"it makes more than {OUTPUT_MAX_BYTES >> 20} MiB")
        except (Missing, RenderError):
            raise
        except Fault as error:
            raise RenderError(self.name, _line(error.__traceback__, self.name), str(error), error.key) from error
        except Exception as error:
            words = str(error) or type(error).__name__
            if isinstance(error, MemoryError):
                words = TOO_MUCH_MEMORY
            elif not isinstance(error, jinja2.TemplateError):
                words = f"{type(error).__name__}: {words}"
            raise RenderError(self.name, _line(error.__traceback__, self.name), words) from error
        return Rendered(b"".join(pieces), frozenset(lookups.asked) | self.ranges(resource))


def _calls(parsed: nodes.Template) -> Iterator[tuple[str, str]]:
    """Functions that look at keys, with what they are asked for where that is a constant."""
    known = functions.OF_KEY | functions.OF_PATTERN | functions.OF_FOLDER
    for call in parsed.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.args and isinstance(call.args[0], nodes.Const):
            function, argument = call.node.name, call.args[0].value
            if function in known and isinstance(argument, str):
                yield function, argument


def _line(traceback: TracebackType | None, name: str) -> int:
    """The last line of the template on the way to the error; jinja puts them into the traceback."""
    line = 0
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == name:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
