"""Files with damaged bytes, lying lengths, and sequences in sequences."""

import struct
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from tests._helpers.dicom_damage.files import Folder, Mutant, read

_LONG_VRS = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}


def damaged_bytes(content: bytes) -> Iterator[tuple[str, bytes]]:
    header = content.find(b"\xe0\x7f\x10\x00")
    for cut in (*range(0, header + 16, 11), *range(header + 16, len(content), 1500)):
        yield f"truncated at {cut}", content[:cut]
    random = np.random.default_rng(17)
    for number in range(250):
        damaged = bytearray(content)
        for at in random.integers(0, header + 20, int(random.integers(1, 9))):
            damaged[at] = int(random.integers(256))
        yield f"random bytes {number}", bytes(damaged)
    for number in range(40):
        at, length = int(random.integers(132, header)), int(random.integers(1, 60))
        yield f"lost bytes {number}", content[:at] + content[at + length :]
        yield f"doubled bytes {number}", content[: at + length] + content[at:]


def damaged_elements(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Each element without its own, with another value representation, and with lying lengths."""
    wrong = ["SQ", "DS", "FD", "PN", "OW", "UN", "AT", "??", "\0\0"]
    for number, (name, start, value, long) in enumerate(_elements(content)):
        yield f"{name} missing", content[:start] + content[value + _length(content, start, long) :]
        for vr in (wrong[number % 9], wrong[(number + 4) % 9]):
            yield f"{name} as {vr!r}", content[: start + 4] + vr.encode() + content[start + 6 :]
        at = start + (8 if long else 6)
        for length in (0, 1, 0xFFFE, 0xFFFFFFFE if long else 0xFFFF, 0xFFFFFFFF if long else 7):
            packed = struct.pack("<I" if long else "<H", length)
            yield f"{name} of length {length:#x}", content[:at] + packed + content[at + len(packed) :]


def _elements(content: bytes) -> Iterator[tuple[str, int, int, bool]]:
    """Name, offset of the tag, offset of the value, and whether its length has four bytes, of a sound explicit file."""
    dataset = read(content)
    for part in (dataset.file_meta, dataset):
        for element in part:
            start = content.find(struct.pack("<HH", element.tag.group, element.tag.elem) + element.VR.encode())
            long = element.VR in _LONG_VRS
            if start >= 0:
                yield element.keyword, start, start + (12 if long else 8), long


def _length(content: bytes, start: int, long: bool) -> int:
    return struct.unpack_from("<I" if long else "<H", content, start + (8 if long else 6))[0]


def nested_sequences(content: bytes, in_series: Callable[[bytes], Folder]) -> Iterator[Mutant]:
    """Sequences in sequences, at places where they are looked into and where they are not."""
    places = {"shared groups": (0x5200, 0x9229), "unknown": (0x5200, 0x0010), "referenced": (0x0008, 0x1140)}
    cut = content.find(b"\xe0\x7f\x10\x00")
    for (name, (group, element)), depth in product(places.items(), (3, 60, 900, 5000, 40000)):
        head = struct.pack("<HH", group, element) + b"SQ\0\0\xff\xff\xff\xff"
        opened = (head + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * depth
        closed = (b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0") * depth
        at = cut if group > 0x20 else content.find(b"\x08\x00\x60\x00CS")
        yield f"{depth} deep in {name}", in_series(content[:at] + opened + closed + content[at:])
        yield f"{depth} deep in {name}, open", in_series(content[:at] + opened + content[at:])
    for items in (1000, 20000):
        head = struct.pack("<HH", 0x5200, 0x9230) + b"SQ\0\0\xff\xff\xff\xff"
        wide = head + b"\xfe\xff\x00\xe0\0\0\0\0" * items + b"\xfe\xff\xdd\xe0\0\0\0\0"
        yield f"{items} frames described", in_series(content[:cut] + wide + content[cut:])
