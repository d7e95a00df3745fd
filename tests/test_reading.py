"""Archives are read as tolerantly as docker reads them, and must have what docker demands."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arv_keepdocker.errors import ArchiveError
from arv_keepdocker.images import archive, canonical, compression
from arv_keepdocker.images.compression import CompressionError
from arv_keepdocker.images.image import Image, Selection
from arv_keepdocker.images.layers import Layer, LayerWriter
from arv_keepdocker.images.tar import scan
from tests import odd
from tests.odd import ODD

FIXTURES = Path(__file__).parent / "fixtures"
FACTS: dict[str, dict[str, Any]] = json.loads((FIXTURES / "fixtures.json").read_text())
WHOLE = sorted(name for name, facts in FACTS.items() if facts.get("complete"))


ANY = Selection()


class Sink:
    """Keeps what it is given, and sees that every layer that is begun is finished or abandoned."""

    def __init__(self, *there: Layer) -> None:
        self.layers: dict[str, bytes] = {}
        self.open = 0
        self.there = {layer.diff_id: layer for layer in there}

    def has(self, diff_id: str) -> Layer | None:
        return self.there.get(diff_id)

    def begin(self) -> LayerWriter:
        self.open += 1
        return _Writer(self)


class _Writer:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._data: list[bytes] = []
        self._ended = False

    def write(self, data: bytes) -> None:
        assert data
        assert not self._ended
        self._data.append(data)

    def finish(self) -> Layer:
        assert not self._ended
        self.abandon()
        data = b"".join(self._data)
        layer = Layer(f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
        self._sink.layers[layer.diff_id] = data
        return layer

    def abandon(self) -> None:
        self._sink.open -= not self._ended
        self._ended = True


def read(data: bytes, wanted: Selection = ANY, sink: Sink | None = None) -> Image:
    sink = Sink() if sink is None else sink
    try:
        return archive.read_image(io.BytesIO(data), sink, wanted)
    finally:
        assert sink.open == 0


def refused(data: bytes, wanted: Selection = ANY) -> ArchiveError:
    with pytest.raises(ArchiveError) as error:
        read(data, wanted)
    assert error.value.exit_status == 5
    assert str(error.value).isprintable()
    return error.value


@pytest.mark.parametrize("name", WHOLE)
def test_every_engines_archive_reads_right(name: str) -> None:
    facts = FACTS[name]
    sink = Sink()
    with (FIXTURES / "archives" / name).open("rb") as file:
        found = archive.read_image(file, sink, Selection())
    assert found.id == facts["config_digest"]
    assert found.created == facts["created"]
    assert [layer.diff_id for layer in found.layers] == facts["diff_ids"]
    for layer in found.layers:
        assert len(sink.layers[layer.diff_id]) == layer.size
    assert str(found.platform) == facts["platform"]
    assert list(found.names) == (facts["repo_tags"] or [])


@pytest.mark.parametrize("name", ODD)
def test_odd_archives(name: str) -> None:
    made = ODD[name]
    if made.refused is not None:
        assert made.refused in str(refused(made.data))
        return
    sink = Sink()
    found = read(made.data, sink=sink)
    assert found.names == made.names
    assert [sink.layers[layer.diff_id] for layer in found.layers] == list(made.layers)
    assert made.warning in " ".join(found.warnings) if made.warning is not None else not found.warnings


def test_a_layer_in_zstd() -> None:
    compressed = odd.zstd(odd.FIRST)
    sink = Sink()
    found = read(odd.archive(members=[("a.tar.gz", compressed)]), sink=sink)
    (layer,) = found.layers
    assert layer.diff_id == f"sha256:{odd.sha256(odd.FIRST)}"
    if compression.can_unpack("zstd"):
        assert layer.compression is None
        assert sink.layers[layer.diff_id] == odd.FIRST
        assert not found.warnings
    else:
        assert layer.compression == "zstd"
        assert sink.layers[layer.stored_digest] == compressed
        assert "zstd" in found.warnings[0]


def test_an_archive_in_zstd() -> None:
    whole = odd.zstd(odd.archive())
    if compression.can_unpack("zstd"):
        assert read(whole).names == ("fail/image:1",)
    else:
        assert "zstd -dc FILE | arv-keepdocker --from-archive -" in (refused(whole).hint or "")


@pytest.fixture(params=["isal.isal_zlib", "zlib"])
def gzip_decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With the extra `fast`, and on a machine that does not have it."""
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    compression._zlib.cache_clear()
    yield request.param
    compression._zlib.cache_clear()


PLAIN = b"".join(hashlib.sha256(bytes([number % 251])).digest() * 9 for number in range(9999)) + bytes(9**7)
LONG = gzip.compress(PLAIN)
DAMAGED_GZIP = {
    "cut": LONG[:-9],
    "cut checksum": LONG[:-5],
    "cut length": LONG[:-1],
    "cut header": LONG[:8],
    "a changed byte": LONG[:5000] + bytes([LONG[5000] ^ 1]) + LONG[5001:],
    "wrong checksum": LONG[:-8] + bytes(4) + LONG[-4:],
    "wrong length": LONG[:-4] + bytes(4),
    "no such method": LONG[:2] + b"\7" + LONG[3:],
    "no such block": LONG[:10] + b"\xff" * 9,
    "something behind": LONG + b"something else",
    "half a stream behind": LONG + LONG[: len(LONG) // 2],
}


def unpacked(data: bytes, piece: int) -> bytes:
    unpacker = compression.Unpacker("gzip")
    found = [part for at in range(0, len(data), piece) for part in unpacker.feed(data[at : at + piece])]
    unpacker.finish()
    assert max(map(len, found)) <= 256 << 10
    return b"".join(found)


@pytest.mark.parametrize("piece", [1009, 1 << 18])
def test_gzip_is_unpacked_by_either_decoder(gzip_decoder: str, piece: int) -> None:
    assert compression._zlib().__name__ == gzip_decoder
    assert unpacked(LONG, piece) == PLAIN
    assert unpacked(LONG * 2 + gzip.compress(b"") * 3, piece) == PLAIN * 2


@pytest.mark.parametrize("piece", [1009, 1 << 18])
@pytest.mark.parametrize("damage", DAMAGED_GZIP)
def test_either_decoder_finds_damaged_gzip(gzip_decoder: str, damage: str, piece: int) -> None:
    with pytest.raises(CompressionError, match="damaged"):
        unpacked(DAMAGED_GZIP[damage], piece)


def test_a_bare_tag_chooses() -> None:
    images = [odd.blobs(conf={"author": tag}) for tag in "ab"]
    named = [
        odd.descriptor(image.manifest, odd.MANIFEST, annotations={odd.REF_NAME: tag})
        for image, tag in zip(images, "ab", strict=True)
    ]
    data = odd.layout(named, *images[0].blobs, *images[1].blobs)
    for image, tag in zip(images, "ab", strict=True):
        found = read(data, Selection(f"fail/thing:{tag}"))
        assert found.config == image.config
        assert (found.names, found.tags) == ((), (tag,))
    assert "2 images: a, b" in str(refused(data))
    assert "2 images: a, b" in str(refused(data, Selection("fail/thing:c")))


def test_what_the_sink_has_is_not_read_again() -> None:
    there = Layer(f"sha256:{odd.sha256(odd.FIRST)}", len(odd.FIRST))
    sink = Sink(there)
    image = odd.blobs([odd.FIRST, odd.SECOND], compress=bytes)
    data = odd.layout([odd.descriptor(image.manifest, odd.MANIFEST)], *image.blobs)
    assert read(data, sink=sink).layers[0] == there
    assert list(sink.layers.values()) == [odd.SECOND]


def test_a_universal_image_that_a_containerd_store_has_saved() -> None:
    """Its manifest.json names the configuration that the universal document was made from."""
    plain = read(odd.archive())
    made = canonical.arrange(plain, universal=True)
    with tarfile.open(fileobj=io.BytesIO(made.end)) as tar:
        files = {member.name: file.read() for member in tar if (file := tar.extractfile(member)) is not None}
    universal = files["blobs/" + made.image_id.replace(":", "/")]
    layer = f"blobs/sha256/{odd.sha256(odd.FIRST)}"
    listing = [{"Config": f"blobs/{plain.id.replace(':', '/')}", "RepoTags": None, "Layers": [layer]}]
    for index, expected in ((universal, made.image_id), (universal + b" ", plain.id)):
        named = [odd.descriptor(index, odd.MANIFEST)]
        found = read(odd.layout(named, odd.FIRST, plain.config, index, listing=listing))
        assert found.id == expected
        assert canonical.arrange(found, universal=False).image_id == expected
        assert read(odd.layout(named, odd.FIRST, plain.config, index)).id == expected


def parts(file: io.BytesIO, sink: Sink, wanted: Selection) -> Image:
    """The image of an archive that can be read anywhere."""
    return archive.select_image(scan(file, sink, pass_over=file.seek), sink, wanted)


class Counting(io.BytesIO):
    """A file that counts the bytes that are read of it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


@pytest.mark.parametrize("name", WHOLE)
def test_only_what_the_sink_lacks_is_read_of_a_file(name: str) -> None:
    data = (FIXTURES / "archives" / name).read_bytes()
    expected = read(data)
    sink = Sink()
    assert parts(io.BytesIO(data), sink, ANY) == expected
    assert set(sink.layers) == {layer.diff_id for layer in expected.layers}
    first, *others = dict.fromkeys(expected.layers)
    sink, file = Sink(*others), Counting(data)
    assert parts(file, sink, ANY) == expected
    assert set(sink.layers) == {first.diff_id}
    sink, other = Sink(first, *others), Counting(data)
    assert parts(other, sink, ANY) == expected
    assert not sink.layers
    assert other.count < file.count
    assert other.count < len(data) / 2


@pytest.mark.parametrize("name", ["docker20-tiny-byname.tar", "docker29-containerd-solo-byname.tar"])
def test_a_damaged_layer_is_noticed_when_it_is_read(name: str) -> None:
    data = bytearray((FIXTURES / "archives" / name).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        largest = max(tar, key=lambda member: member.size)
    data[largest.offset_data + largest.size // 2] ^= 1
    with pytest.raises(ArchiveError, match="damaged"):
        parts(io.BytesIO(data), Sink(), ANY)
    layers = read((FIXTURES / "archives" / name).read_bytes()).layers
    assert parts(io.BytesIO(data), Sink(*layers), ANY).layers == layers
