"""Archives that were made to harm who reads them, block by block, as no library would write them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

GIB = 1 << 30
MUCH = 400 << 20
"""More bytes than reading any archive may cost in memory."""
END = bytes(1024)


def header(
    name: str | bytes, size: int = 0, kind: bytes = b"0", target: str = "", raw_size: bytes | None = None
) -> bytes:
    """One block; `raw_size` is the field's bytes where no tar library would write them."""
    name = name.encode() if isinstance(name, str) else name
    size_field = (
        raw_size
        if raw_size is not None
        else b"%011o\0" % size
        if size < 1 << 33
        else b"\x80" + size.to_bytes(11, "big")
    )
    fields = [
        name[:100].ljust(100, b"\0"),
        b"0000644\0",
        b"0000000\0" * 2,
        size_field.ljust(12, b"\0"),
        b"0" * 11 + b"\0",
    ]
    block = b"".join(fields) + b" " * 8 + kind + target.encode()[:100].ljust(100, b"\0") + b"ustar\x0000"
    block = block.ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def member(name: str | bytes, data: bytes, kind: bytes = b"0") -> bytes:
    return header(name, len(data), kind) + data + bytes(-len(data) % 512)


def pax(*records: tuple[str, str | bytes], kind: bytes = b"x") -> bytes:
    """An extended header with these records, each with the length that it has."""
    data = b""
    for keyword, value in records:
        rest = b" " + keyword.encode() + b"=" + (value.encode() if isinstance(value, str) else value) + b"\n"
        length = len(rest)
        while len(str(length)) + len(rest) != length:
            length = len(str(length)) + len(rest)
        data += str(length).encode() + rest
    return member("pax", data, kind)


LAYER = member("file", b"content") + END


def image(
    *more: bytes,
    layer: bytes = LAYER,
    entry: dict[str, Any] | None = None,
    manifest: bytes | None = None,
    config: dict[str, Any] | None = None,
) -> bytes:
    """A good archive but for what is given."""
    whole = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(LAYER).hexdigest()]},
        **(config or {}),
    }
    listing = [{"Config": "config.json", "RepoTags": ["good/image:v1"], "Layers": ["layer.tar"], **(entry or {})}]
    return b"".join(
        [
            member("config.json", json.dumps(whole).encode()),
            member("layer.tar", layer),
            member("manifest.json", json.dumps(listing).encode() if manifest is None else manifest),
            *more,
            END,
        ]
    )


def layout(index: dict[str, Any], *blobs: bytes) -> bytes:
    """An OCI image layout."""
    files = {f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in blobs}
    files["index.json"] = json.dumps(index).encode()
    return b"".join(member(name, data) for name, data in files.items()) + END


def descriptor(blob: bytes, **more: Any) -> dict[str, Any]:
    return {"digest": "sha256:" + hashlib.sha256(blob).hexdigest(), "size": len(blob), **more}


def filled(start: bytes, fill: bytes, size: int) -> Iterator[bytes]:
    """`start`, then `size` bytes of `fill`, in pieces."""
    yield start
    piece = fill * ((1 << 20) // len(fill))
    for _ in range(size // len(piece)):
        yield piece


def gzipped(chunks: Iterable[bytes]) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as file:
        for chunk in chunks:
            file.write(chunk)
    return buffer.getvalue()


def bomb(mebibytes: int) -> bytes:
    """A gzip file of zeros, a stream for each 16 MiB."""
    return gzip.compress(bytes(16 << 20)) * (mebibytes // 16)


def file_and_layer_of_zeros() -> bytes:
    """An archive in gzip that unpacks to more than an image has: a file, which is soon read, and then a layer."""
    start = b"x" * 512  # a file of zeros alone might be an empty layer
    return gzip.compress(header("x", 512 + (1792 << 20)) + start) + bomb(1792) + gzip.compress(image(layer=bomb(1024)))


def _indexes(levels: int, width: int) -> bytes:
    """Indexes that name indexes, each many times."""
    blobs = [json.dumps({"manifests": []}).encode()]
    for _ in range(levels):
        blobs.append(json.dumps({"manifests": [descriptor(blobs[-1])] * width}).encode())
    return layout({"manifests": [descriptor(blobs[-1])] * width}, *blobs)


def _million(entries: str) -> bytes:
    """A manifest.json as long as is read."""
    count = (4 << 20) // (len(entries) + 1) - 1
    return b"[" + ",".join([entries] * count).encode() + b"]"


def _many_layers() -> bytes:
    names = ",".join(['"a"'] * 1_000_000)
    return f'[{{"Config":"config.json","Layers":[{names}]}}]'.encode()


Chunks = bytes | Iterable[bytes]

REFUSED: dict[str, tuple[Callable[[], Chunks], str]] = {
    # Where members are
    "up": (lambda: image(member("a/../../x", b"x")), "outside"),
    "long up": (lambda: image(member("longname", b"../" * 100 + b"x\0", b"L"), member("x", b"x")), "outside"),
    "pax up": (lambda: image(pax(("path", "/../../x")), member("x", b"x")), "outside"),
    "symlink outside": (lambda: image(header("l", kind=b"2", target="../../etc/passwd")), "outside"),
    "hard link outside": (lambda: image(header("l", kind=b"1", target="/etc/passwd")), "outside"),
    "pax link outside": (
        lambda: image(pax(("linkpath", "/etc/passwd")), header("l", kind=b"2", target="x")),
        "outside",
    ),
    "link loop": (
        lambda: image(header("a", kind=b"2", target="b"), header("b", kind=b"1", target="a"), entry={"Layers": ["a"]}),
        "missing",
    ),
    "link to itself": (lambda: image(header("a", kind=b"2", target="a"), entry={"Layers": ["a"]}), "missing"),
    "device": (lambda: image(header("sda", kind=b"4")), "neither"),
    "fifo": (lambda: image(header("pipe", kind=b"6")), "neither"),
    "unknown kind": (lambda: image(header("what", kind=b"\x1b")), "neither"),
    "duplicate": (lambda: image(member("./layer.tar", b"other")), "two different"),
    "file and link": (lambda: image(header("layer.tar", kind=b"2", target="config.json")), "two different"),
    "two links": (
        lambda: image(header("l", kind=b"2", target="config.json"), header("l", kind=b"2", target="layer.tar")),
        "two different",
    ),
    "below a link": (lambda: image(header("l", kind=b"2", target="."), member("l/layer.tar", b"x")), "two different"),
    "below a file": (lambda: image(member("layer.tar/x", b"x")), "two different"),
    # Sizes
    "huge": (lambda: image(header("x", 1 << 62)), "cannot have"),
    "huge by pax": (lambda: image(pax(("size", str(1 << 62))), header("x")), "cannot have"),
    "larger than all": (lambda: image(header("x", 1 << 40)), "cut short"),
    "negative": (lambda: image(header("x", raw_size=b"\xff" * 12)), "negative"),
    "negative octal": (lambda: image(header("x", raw_size=b"-0000000001\0")), "negative"),
    "negative by pax": (lambda: image(pax(("size", "-1")), header("x")), "negative"),
    "size of no digits": (lambda: image(pax(("size", "1e3")), header("x")), "a malformed size"),
    "old sparse": (lambda: image(member("x", b"x", b"S")), "neither"),
    "sparse 0.0": (lambda: image(pax(("GNU.sparse.offset", "0")), member("x", b"x")), "sparse"),
    "sparse 0.1": (lambda: image(pax(("GNU.sparse.map", "0,99999999")), member("x", b"x")), "sparse"),
    "sparse 1.0": (lambda: image(pax(("GNU.sparse.major", "1")), member("x", b"1\n0\n9\n")), "sparse"),
    # Extended headers
    "gigabyte pax": (lambda: filled(header("pax", GIB, b"x"), b"9", MUCH), "extended header of"),
    "gigabyte name": (lambda: filled(header("L", GIB, b"L"), b"a", MUCH), "extended header of"),
    "gigabyte target": (lambda: filled(header("K", GIB, b"K"), b"a", MUCH), "extended header of"),
    "long name": (lambda: image(member("L", b"a" * 10_000, b"L"), member("x", b"x")), "a name of 10000"),
    "digits": (lambda: image(member("pax", b"1" * (1 << 20), b"x"), member("x", b"x")), "other than a record"),
    "record too long": (lambda: image(member("pax", b"999 path=x\n", b"x"), member("x", b"x")), "malformed record"),
    "record too short": (lambda: image(member("pax", b"3 path=x\n", b"x"), member("x", b"x")), "malformed record"),
    "record of one": (lambda: image(member("pax", b"1 path=x\n", b"x"), member("x", b"x")), "malformed record"),
    "name with zero": (lambda: image(pax(("path", "x\0y")), member("x", b"x")), "zero byte"),
    "global name": (lambda: image(pax(("path", "layer.tar"), kind=b"g"), member("x", b"x")), "all its members"),
    "two pax": (lambda: image(pax(("path", "y")) * 2, member("x", b"x")), "contradict"),
    "pax and long": (lambda: image(pax(("path", "y")), member("L", b"z", b"L"), member("x", b"x")), "contradict"),
    "a chain": (lambda: image(member("L", b"z", b"L") * 100_000, member("x", b"x")), "contradict"),
    "nothing but pax": (lambda: image(pax(("path", "y"))), "without its member"),
    "many long names": (
        lambda: image(*(member("L", b"%d/" % i + b"a" * 4000, b"L") + member("x", b"") for i in range(10_000))),
        "MiB of names",
    ),
    # Compression
    "zeros in gzip": (lambda: bomb(4096), "zeros at its end"),
    "layer of zeros": (lambda: image(layer=bomb(4096)), "far more than an image"),
    "layer of empty streams": (lambda: image(layer=gzip.compress(b"") * (4 << 20 >> 4)), "no tar"),
    "half a gzip": (lambda: gzipped([image()])[:-50], "cut short"),
    "garbage in gzip": (lambda: gzip.compress(b"x")[:12] + b"\xff" * 5000, "cut short or damaged"),
    # Documents
    "deep": (lambda: image(manifest=b"[" * (4 << 20)), "levels deep"),
    "deep objects": (lambda: image(manifest=b'{"":' * (1 << 20)), "levels deep"),
    "gigabyte of JSON": (lambda: filled(header("manifest.json", GIB), b"[", MUCH), "cut short"),
    "much JSON": (lambda: image(*(member(f"{i}.json", b"[" + b" " * (3 << 20)) for i in range(30))), "MiB of JSON"),
    "expensive JSON": (lambda: image(manifest=_million('{"":[0]}')), "values"),
    "expensive configuration": (
        lambda: image(member("2", b'{"a":' + _million('{"":[0]}')[:-100_000] + b"0]}"), entry={"Config": "2"}),
        "values",
    ),
    "expensive settings": (
        lambda: image(member("2", b'{"config":' + _million('{"":[0]}')[:-1] + b"]}"), entry={"Config": "2"}),
        "values",
    ),
    "many images": (lambda: image(manifest=_million('{"Config":"config.json","Layers":[]}')), "values"),
    "many layers": (lambda: image(manifest=_many_layers()), "values"),
    "many names": (lambda: image(entry={"RepoTags": ["a:b"] * 500_000}), "values"),
    "indexes of indexes": (lambda: _indexes(3, 900), "names more than"),
    "deep indexes": (lambda: _indexes(9, 1), "deep"),
    "big number": (lambda: image(manifest=b"[" + b"9" * (3 << 20) + b"]"), "not"),
    "long configuration name": (lambda: image(entry={"Config": "x" * (3 << 20)}), "missing"),
    "line break in a name": (lambda: image(entry={"RepoTags": ["a:b\narv-keepdocker: error: c"]}), "rejects"),
    "escapes in a name": (lambda: image(entry={"RepoTags": ["\x1b[31mred:\u202e1"]}), "rejects"),
    "option as a name": (lambda: image(entry={"RepoTags": ["--force"]}), "rejects"),
    "id as a name": (lambda: image(entry={"RepoTags": ["sha256:" + "0" * 64]}), "an invalid name"),
    "long name of an image": (lambda: image(entry={"RepoTags": ["a" * (3 << 20)]}), "an invalid name"),
    "escapes in a member": (lambda: image(member("\x1b]0;title\x07\n\u202e/../../x", b"x")), "outside"),
    "no UTF-8 in a member": (lambda: image(member(b"../\xff\xfe\x9b31m", b"x")), "outside"),
    "a time that is none": (lambda: image(config={"created": "\x1b[31m"}), "created"),
}
"""What each is, and what the refusal says."""

REFUSED_AS_A_STREAM: dict[str, tuple[Callable[[], Chunks], str]] = {
    **{name: REFUSED[name] for name in ("up", "gigabyte pax", "zeros in gzip", "gigabyte of JSON")},
    "file and layer of zeros": (file_and_layer_of_zeros, "far more than an image"),
    "escapes in a member": REFUSED["escapes in a member"],
}
"""The same for a few where memory may be taken in another way if nobody can go back in the archive."""

FINE: dict[str, Callable[[], bytes]] = {
    "plain": image,
    "in gzip": lambda: gzipped([image()]),
    "global comment": lambda: pax(("comment", "x"), kind=b"g") + image(),
    "names by pax": lambda: image(pax(("path", "x/y"), ("hdrcharset", "BINARY")), member("z", b"x")),
    "names by GNU": lambda: image(
        member("K", b"config.json\0", b"K"), member("L", b"l/m" * 50 + b"\0", b"L"), header("l", kind=b"1")
    ),
    "the same twice": lambda: image(member("layer.tar", LAYER)),
    "loops that nobody follows": lambda: image(
        header("a", kind=b"2", target="b"), header("b", kind=b"2", target="a"), header("c", kind=b"1", target="c")
    ),
    "a directory and a link with sizes": lambda: image(header("d/", 99, b"5"), header("l", 99, b"1", "layer.tar")),
    "absolute names": lambda: image(member("/etc/passwd", b"x"), pax(("path", "/etc/shadow")), member("x", b"x")),
    "deep names": lambda: image(*(member("L", b"%d" % i + b"/a" * 2000, b"L") + member("x", b"") for i in range(100))),
}


def write(chunks: Chunks, path: Path) -> Path:
    with path.open("wb") as file:
        for chunk in [chunks] if isinstance(chunks, bytes) else chunks:
            file.write(chunk)
    return path


def names(data: bytes) -> list[str]:
    """What Python's own reader sees, to know that the builder builds tars."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()
