"""What writer and reader of bbolt files share: sizes, flags, layouts, the checksum of a meta page.

All numbers are little-endian. Page: id u64, flags u16, count u16, overflow u32 (pages that follow it), then elements.
Leaf element: flags u32, position u32 (from the element), key length u32, value length u32. Branch element: position
u32, key length u32, page id u64. Keys and values stand behind all elements, in their order. A bucket is a leaf
element with flag 1, whose value is its head: root page u64, sequence u64; root 0: the one leaf page follows inline.
Meta: magic, version, page size, flags (u32 each), head of the root bucket, id of the freelist's page, pages of the
file, transaction, FNV-64a of all that (u64 each).
"""

import struct

BRANCH, LEAF, META, FREELIST = 0x01, 0x02, 0x04, 0x10
#: Flag of a leaf element whose value is a bucket.
BUCKET = 0x01

MAGIC = 0xED0CDAED
VERSION = 2
#: Bytes of a page's head, and of an element in a leaf or a branch.
HEAD = 16
ELEMENT = 16
KEY_BYTES_MAX = 32768

head = struct.Struct("<QHHI")
leaf_element = struct.Struct("<IIII")
branch_element = struct.Struct("<IIQ")
bucket_head = struct.Struct("<QQ")
meta = struct.Struct("<IIII QQ QQQ")
checksum = struct.Struct("<Q")


def fnv64a(content: bytes) -> int:
    """Fowler, Noll and Vo's hash, 64 bits, variant a."""
    total = 0xCBF29CE484222325
    for byte in content:
        total = (total ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return total
