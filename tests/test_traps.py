"""Archives that were made to cost: reading them takes time that grows with their size, and bounded memory."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    compress = zlib.compressobj(1, wbits=31)
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


def zeros(compress: Callable[[bytes], bytes], mebibytes: int) -> bytes:
    """Streams of zeros, each of 16 MiB."""
    return compress(bytes(16 * MIB)) * (mebibytes // 16)


def layer_of_zeros(compress: Callable[[bytes], bytes], mebibytes: int) -> bytes:
    """A layer with one file of zeros."""
    return compress(header("zeros", mebibytes << 20)) + zeros(compress, mebibytes) + compress(END)


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
    # Only some differ, or their digests would make the archive large.
    layers = {f"{number}": header(f"file {number % 100}") + bytes(512) for number in range(count)}
    return hostile.image(
        *(member(name, layer) for name, layer in layers.items()),
        entry={"Layers": list(layers)},
        config={"rootfs": {"diff_ids": [f"sha256:{odd.sha256(layer)}" for layer in layers.values()]}},
    )


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
    "devices": lambda: packed([image(), header("x", kind=b"3") * 50_000, END]),
    "50,000 layers": lambda: packed([many_layers(50_000)]),
    # Compression
    "zeros": lambda: zeros(gzip.compress, 4096),
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


def check_cost(cost: Cost, path: Path) -> str:
    """What became of the archive, which has cost little."""
    seconds, memory, said = cost(path)
    allowed = SECONDS_PER_MIB * max(1, path.stat().st_size / MIB)
    assert seconds < allowed, (said, path.stat().st_size)
    assert memory < MEMORY, (said, path.stat().st_size)
    return said


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_costs_little(cost: Cost, tmp_path: Path, name: str) -> None:
    check_cost(cost, hostile.write(TRAPS[name](), tmp_path / "archive"))


@pytest.mark.long
def test_layers_of_zeros_are_counted_together(cost: Cost, tmp_path: Path) -> None:
    """Each would be more than may be in memory, and only all of them, in whatever format, are more than an image."""
    layers = {name: layer_of_zeros(compress, 768) for name, compress in COMPRESSIONS.items()}
    more = {f"{number}": layers["bzip2"] for number in range(20)}
    made = odd.archive(members=[*layers.items(), *more.items()], listed=["xz"])
    said = check_cost(cost, hostile.write(made, tmp_path / "archive"))
    assert "layer 'xz' of the archive cannot be read" in said
    assert "far more than an image" in said


@pytest.mark.long
def test_zeros_in_an_archive_and_in_its_layer_are_counted_together(cost: Cost, tmp_path: Path) -> None:
    file = gzip.compress(header("x", 1152 << 20)) + zeros(gzip.compress, 1152)
    made = file + gzip.compress(odd.archive(members=[("l", layer_of_zeros(gzip.compress, 1152))]))
    said = check_cost(cost, hostile.write(made, tmp_path / "archive"))
    assert "layer 'l' of the archive cannot be read" in said
    assert "far more than an image" in said


@pytest.mark.long
def test_a_sparse_file_in_a_small_layer_is_read(cost: Cost, tmp_path: Path) -> None:
    # Of its header, 2 GiB of zeros and END; to compute it takes seconds.
    diff_id = "sha256:841113f6d3465b6fc5bd9393579a8d991c2491a75d78772b1846301eb64e2a94"
    conf = odd.config([], rootfs={"diff_ids": [diff_id]})
    made = odd.archive(members=[("l", layer_of_zeros(gzip.compress, 2048))], conf=odd.dump(conf))
    assert cost(hostile.write(gzip.compress(made), tmp_path / "archive"))[2] == "whole 1"
