"""Archives that were made to cost: reading them takes time that grows with their size, and bounded memory."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from tests import hostile, odd
from tests.conftest import Command
from tests.hostile import END, header, member
from tests.warm import Warm

MIB = 1 << 20
SECONDS_PER_MIB = 10
MEMORY = 512 << 10
"""KiB of resident memory that reading an archive may cost in all."""

Cost = Callable[[Path], tuple[float, int, str]]

# Reads an archive as the program does, in a process of its own whose memory and time nothing else has added to.
READ = f"""#!{sys.executable}
import resource, sys
from arv_keepdocker.errors import ArchiveError
from arv_keepdocker.images import archive
from arv_keepdocker.images.image import Selection
from arv_keepdocker.images.layers import NoSink

resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
try:
    with open(sys.argv[1], "rb") as file:
        image = archive.read_image(file, NoSink(), Selection())
    said = f"whole {{len(image.layers)}}"
except ArchiveError as error:
    said = f"refused {{error}}"
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss, said)
"""


@pytest.fixture
def cost(warm: Callable[[Mapping[str, str]], Warm], plain_environment: dict[str, str], tmp_path: Path) -> Cost:
    """Reads the archive; seconds of CPU, KiB of memory, and what became of it."""
    program = tmp_path / "read"
    program.write_text(READ)
    program.chmod(0o755)
    command = Command([str(program)], tmp_path, plain_environment, [], warm(plain_environment))

    def read(path: Path) -> tuple[float, int, str]:
        result = command(str(path), timeout=1200)
        assert result.status == 0, result.stderr
        seconds, memory, said = result.stdout.split(maxsplit=2)
        return float(seconds), int(memory), said.strip()

    return read


def packed(chunks: Iterable[bytes]) -> bytes:
    compress = zlib.compressobj(9, wbits=31)
    return b"".join([*map(compress.compress, chunks), compress.flush()])


def long_name(name: bytes) -> bytes:
    return member("././@LongLink", name + b"\0", b"L")


def image(*more: bytes) -> bytes:
    return hostile.image(*more)[: -len(END)]


def many(count: int, make: Callable[[int], bytes]) -> Iterator[bytes]:
    """A whole image, and many members more."""
    yield image()
    for number in range(count):
        yield make(number)
    yield END


DEEP = b"d/" * 2000


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
}


def zeros(compress: Callable[[bytes], bytes], gibibytes: int) -> bytes:
    """Streams of zeros, each of 64 MiB."""
    return compress(bytes(64 * MIB)) * (16 * gibibytes)


def layer_of_zeros(compress: Callable[[bytes], bytes], gibibytes: int) -> bytes:
    """A layer with one file of zeros."""
    return compress(header("zeros", gibibytes << 30)) + zeros(compress, gibibytes) + compress(END)


def big_dictionary() -> bytes:
    """An xz file whose decoder wants 1.5 GiB."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 4096}]
    small = bytearray(lzma.compress(odd.FIRST, filters=filters))
    # The dictionary's size is the last byte of the first block's filter flags; see the xz file format, 5.3.1.
    assert small[12 + 2 : 12 + 4] == b"\x21\x01"
    small[12 + 4] = 39
    size = (small[12] + 1) * 4
    small[12 + size - 4 : 12 + size] = zlib.crc32(small[12 : 12 + size - 4]).to_bytes(4, "little")
    return bytes(small)


def documents(make: Callable[[int], bytes]) -> bytes:
    """An index that names 15 manifests of nearly 4 MiB."""
    blobs = [make((4 << 20) - 4096 - number) for number in range(15)]
    return odd.layout([odd.descriptor(blob, odd.MANIFEST) for blob in blobs], *blobs)


def manifest_with(more: bytes) -> bytes:
    described = odd.descriptor(b"{}", odd.CONFIG)
    return b'{"layers":[],"config":' + json.dumps(described).encode() + b',"more":' + more + b"}"


def links(number: int) -> bytes:
    return header(f"a{number}", kind=b"2", target=f"a{number + 1}")


def many_layers(count: int) -> bytes:
    layers = [odd.tar([(f"{number}", b"")])[:1024] for number in range(count)]
    members = [(f"{number}", layer) for number, layer in enumerate(layers)]
    return odd.archive(members=members, layers=layers)


def layers_through_links() -> bytes:
    """A manifest.json that names thousands of layers, each through many links."""
    listed = [f"a{number % 50}/{'d/' * 20}{number}" for number in range(50_000)]
    manifest = [{"Config": "config.json", "RepoTags": None, "Layers": listed}]
    config = {"rootfs": {"diff_ids": ["sha256:" + "0" * 64] * 50_000}}
    found = [header(f"a{number}", kind=b"2", target=f"a{number + 1}") for number in range(200)]
    return b"".join([*found, member("config.json", odd.dump(config)), member("manifest.json", odd.dump(manifest)), END])


TRAPS: dict[str, Callable[[], bytes | Iterator[bytes]]] = {
    # Members
    "members of one deep name": lambda: packed([image(), (long_name(DEEP + b"x") + member("x", b"")) * 20_000, END]),
    "members of one deep directory": lambda: packed(
        many(20_000, lambda number: long_name(DEEP + b"%d" % number) + member("x", b""))
    ),
    "directories": lambda: packed(
        many(20_000, lambda number: long_name(DEEP + b"%d/" % number) + header("x", kind=b"5"))
    ),
    "empty members": lambda: packed([image(), header("x") * 150_000, END]),
    "small members": lambda: packed(many(50_000, lambda number: member(f"{number}", b"{"))),
    "members that may be layers": lambda: packed(many(50_000, lambda number: member(f"{number}", bytes(512)))),
    "links": lambda: packed(many(50_000, links)),
    "absolute links": lambda: packed(
        many(50_000, lambda number: header(f"a{number}", kind=b"2", target=f"/b/{number}"))
    ),
    "layers through links": layers_through_links,
    "records": lambda: packed(many(1, lambda _: member("pax", b"6 a=b\n" * 130_000, b"x") + member("x", b""))),
    "many headers of records": lambda: packed(
        [image(), (member("pax", b"6 a=b\n" * 130_000, b"x") + member("x", b"")) * 300, END]
    ),
    "different records": lambda: packed(
        many(1, lambda _: hostile.pax(*((f"{number}", "x") for number in range(60_000))) + member("x", b""))
    ),
    "devices": lambda: packed([image(), header("x", kind=b"3") * 150_000, END]),
    "50,000 layers": lambda: many_layers(50_000),
    # Compression
    **{
        f"layer of zeros in {name}": partial(lambda c: odd.archive(members=[("l", layer_of_zeros(c, 4))]), compress)
        for name, compress in COMPRESSIONS.items()
    },
    "layers of zeros": lambda: odd.archive(
        members=[
            ("l", odd.FIRST),
            *((f"{number}", layer) for number, layer in enumerate([layer_of_zeros(bz2.compress, 1)] * 20)),
        ]
    ),
    "compressed twice": lambda: gzip.compress(odd.archive(members=[("l", layer_of_zeros(gzip.compress, 4))])),
    "zeros": lambda: zeros(gzip.compress, 4),
    "file of zeros": lambda: gzip.compress(header("x", 8 << 30)) + zeros(gzip.compress, 4),
    "empty streams of gzip": lambda: odd.archive(members=[("l", gzip.compress(b"") * (MIB // 20))]),
    "empty streams of bzip2": lambda: odd.archive(members=[("l", bz2.compress(b"") * (MIB // 14))]),
    "empty streams of xz": lambda: odd.archive(members=[("l", lzma.compress(b"") * (MIB // 32))]),
    "small streams of bzip2": lambda: odd.archive(members=[("l", bz2.compress(b"x") * (MIB // 37))]),
    "small streams of xz": lambda: odd.archive(members=[("l", lzma.compress(b"x", preset=9) * (MIB // 60))]),
    "a dictionary of 1.5 GiB": lambda: odd.archive(members=[("l", big_dictionary())]),
    "an archive with a dictionary of 1.5 GiB": big_dictionary,
    # Documents
    "documents of empty lists": lambda: documents(lambda size: manifest_with(b"[" + b"[]," * (size // 3) + b"1]")),
    "documents of objects": lambda: documents(lambda size: manifest_with(b"[" + b'{"":[0]},' * (size // 9) + b"1]")),
    "documents of numbers": lambda: documents(lambda size: manifest_with(b"[" + b"1," * (size // 2) + b"1]")),
    "documents of keys": lambda: documents(
        lambda size: manifest_with(b"{" + b",".join(b'"%d":1' % key for key in range(280_000)) + b"}")
    ),
    "documents of strings": lambda: documents(lambda size: manifest_with(b'"' + b"\\ud800" * (size // 6) + b'"')),
    "documents of backslashes": lambda: documents(lambda size: manifest_with(b'"' + b"\\\\" * (size // 2) + b'"')),
    "documents of open strings": lambda: documents(lambda size: b"{" + b'\\"' * (size // 2)),
    "documents of quotes": lambda: documents(lambda size: b"{" + b'"' * size),
    "deep documents": lambda: documents(lambda size: b'{"a":' + b"[" * size),
    "documents deep and wide": lambda: documents(
        lambda size: manifest_with(b"[" + (b"[" * 150 + b"]" * 150 + b",") * (size // 301) + b"1]")
    ),
    "big numbers": lambda: documents(lambda size: manifest_with(b"9" * size)),
    "big fractions": lambda: documents(lambda size: manifest_with(b"1." + b"9" * size)),
    "many small documents": lambda: packed(many(15_000, lambda number: member(f"{number}", b"[" + b" " * 4000))),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if "zeros" in name else []) for name in TRAPS]
)
def test_a_trap_costs_little(cost: Cost, tmp_path: Path, name: str) -> None:
    made = TRAPS[name]()
    path = hostile.write(made, tmp_path / "archive")
    seconds, memory, said = cost(path)
    allowed = SECONDS_PER_MIB * max(1, path.stat().st_size / MIB)
    assert seconds < allowed, (said, path.stat().st_size)
    assert memory < MEMORY, (said, path.stat().st_size)


@pytest.mark.long
def test_a_sparse_file_in_a_small_layer_is_read(cost: Cost, tmp_path: Path) -> None:
    digest = hashlib.sha256(header("zeros", 2 << 30))
    for _ in range(2 << 10):
        digest.update(bytes(MIB))
    digest.update(END)
    conf = odd.config([], rootfs={"diff_ids": [f"sha256:{digest.hexdigest()}"]})
    made = odd.archive(members=[("l", layer_of_zeros(gzip.compress, 2))], conf=odd.dump(conf))
    assert cost(hostile.write(gzip.compress(made), tmp_path / "archive"))[2] == "whole 1"
