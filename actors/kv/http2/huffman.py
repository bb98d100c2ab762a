"""HPACK's Huffman code (RFC 7541, appendix B). It is canonical, so the lengths of the codes tell it whole.

The decoder goes byte by byte through a table (node of the tree, byte) → (node, what came out), filled as it is used:
at most 256 x 256 entries.
"""

# The bits of each byte's code plus 64, as text; the last one is the end of the string (30 bits).
_LENGTHS = (
    rb"MW\\\\\\\X^\\^\\\\\\\\^\\\\\\\\\FJJLMFHKJJHKHFFFEEEFFFFFFFGHOFLJMFGGGGGGGGGGGGGGGGGGGGGGHGHMSMNFOEFEFEFFFEGGFFFEFGFEE"
    rb"FGGGGGOKNM\TVTTVVVWVWWWWWXWXXVWXWWWWUVWVWWXVUTVVWWUWVVXUVWWUUVUWVWWTVVVWVVWZZTSVWVYZZZ[[ZXYSUZ[[Z[XUUZZ\[[[TXTUVUUW"
    rb"VVYYXXZWZ[ZZ[[[[[\[[[[[Z^"
)
_END = 256


def _codes() -> list[tuple[int, int]]:
    """(code, bits) by symbol."""
    bits = [byte - 64 for byte in _LENGTHS]
    codes = [(0, 0)] * len(bits)
    code = before = 0
    for symbol in sorted(range(len(bits)), key=lambda one: (bits[one], one)):
        code <<= bits[symbol] - before
        codes[symbol] = (code, bits[symbol])
        code, before = code + 1, bits[symbol]
    return codes


_CODES = _codes()


def _tree() -> tuple[list[list[int]], set[int]]:
    """Nodes as [next at 0, next at 1]: a node's number or ~symbol. And the nodes that a string may end in."""
    nodes: list[list[int]] = [[0, 0]]
    for symbol, (code, bits) in enumerate(_CODES):
        at = 0
        for shift in range(bits - 1, 0, -1):
            bit = code >> shift & 1
            if not nodes[at][bit]:
                nodes.append([0, 0])
                nodes[at][bit] = len(nodes) - 1
            at = nodes[at][bit]
        nodes[at][code & 1] = ~symbol
    ends, at = {0}, 0
    for _ in range(7):  # padding is up to seven 1 bits, the start of the end's code
        at = nodes[at][1]
        ends.add(at)
    return nodes, ends


_NODES, _ENDS = _tree()
_steps: dict[int, tuple[int, bytes]] = {}


def _step(node: int, byte: int) -> tuple[int, bytes]:
    out = bytearray()
    at = node
    for shift in range(7, -1, -1):
        at = _NODES[at][byte >> shift & 1]
        if at < 0:
            if ~at == _END:
                raise ValueError("the end's code inside a Huffman string")
            out.append(~at)
            at = 0
    done = _steps[node << 8 | byte] = (at, bytes(out))
    return done


def decode(coded: bytes) -> bytes:
    """Raises ValueError."""
    node, out = 0, []
    steps = _steps
    for byte in coded:
        node, more = steps.get(node << 8 | byte) or _step(node, byte)
        out.append(more)
    if node not in _ENDS:
        raise ValueError("a Huffman string ends in the middle of a code")
    return b"".join(out)


def encode(text: bytes) -> bytes:
    value = size = 0
    for byte in text:
        code, bits = _CODES[byte]
        value, size = value << bits | code, size + bits
    pad = -size % 8
    return (value << pad | (1 << pad) - 1).to_bytes((size + pad) // 8, "big")
