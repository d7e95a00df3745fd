"""Archives as engines save them, and every way to damage them."""

import gzip
import hashlib
import io
import json
import posixpath
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arv_keepdocker.errors import ArchiveError
from arv_keepdocker.images import archive
from arv_keepdocker.images.image import Image, Selection
from arv_keepdocker.images.layers import NoSink
from arv_keepdocker.images.tar import Readable

FIXTURES = Path(__file__).parent / "fixtures"
FACTS: dict[str, dict[str, Any]] = json.loads((FIXTURES / "fixtures.json").read_text())
WHOLE = sorted(name for name, facts in FACTS.items() if facts.get("complete"))
SMALL = [
    "docker20-tiny-byname.tar",
    "docker29-containerd-tiny-byname.tar",
    "podman4-tiny-byname.tar",
    "universal-solo.tar",
]


def read(stream: Readable) -> Image:
    return archive.read_image(stream, NoSink(), Selection())


def saved(name: str) -> bytes:
    return (FIXTURES / "archives" / name).read_bytes()


@pytest.mark.parametrize("name", WHOLE)
def test_every_engines_archive_reads_right(name: str) -> None:
    facts = FACTS[name]
    stream = io.BytesIO(saved(name))
    found = read(stream)
    assert stream.tell() == facts["size"]
    assert found.id == facts["config_digest"]
    assert found.created == facts["created"]
    assert [layer.diff_id for layer in found.layers] == facts["diff_ids"]
    assert str(found.platform) == facts["platform"]
    assert list(found.names) == (facts["repo_tags"] or [])


def test_an_archive_without_its_layers_is_incomplete() -> None:
    with pytest.raises(ArchiveError, match="incomplete") as refused:
        read(io.BytesIO(saved("docker29-containerd-incomplete.tar")))
    assert refused.value.exit_status == 5


def test_a_layout_without_manifest_json_reads_too() -> None:
    found = read(io.BytesIO(saved("podman4-tiny-oci-archive.tar")))
    twin = read(io.BytesIO(saved("podman4-tiny-byname.tar")))
    assert found.names == twin.names
    assert [layer.diff_id for layer in found.layers] == [layer.diff_id for layer in twin.layers]


@pytest.mark.parametrize(
    "data", [b"", b"x", b"x" * 512, b"\0" * 512, b"\0" * 10240, b"x" * 100_000, gzip.compress(b"x", mtime=0)]
)
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        read(io.BytesIO(data))


def members_of(name: str) -> list[tuple[tarfile.TarInfo, bytes | None]]:
    with tarfile.open(FIXTURES / "archives" / name) as tar:
        members = []
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            members.append((member, file.read() if file is not None else None))
        return members


def tar_of(members: list[tuple[tarfile.TarInfo, bytes | None]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data) if data is not None else None)
    return buffer.getvalue()


def refused(data: bytes) -> str:
    with pytest.raises(ArchiveError) as error:
        read(io.BytesIO(data))
    return str(error.value)


def named_by_the_image(name: str) -> set[str]:
    """The members without which the image is not whole: its configuration, its layers and manifest.json."""
    facts = FACTS[name]
    links = {member.name: member.linkname for member, _ in members_of(name) if member.issym()}
    layers = [
        posixpath.normpath(posixpath.join(posixpath.dirname(layer), links[layer])) if layer in links else layer
        for layer in facts["layer_members"]
    ]
    return {facts["config_member"], *layers, "manifest.json"}


@pytest.mark.parametrize("name", SMALL)
def test_a_missing_member_is_noticed(name: str) -> None:
    members = members_of(name)
    indexed = any(member.name == "index.json" for member, _ in members)
    for missing in named_by_the_image(name):
        rest = [member for member in members if member[0].name != missing]
        assert len(rest) == len(members) - 1
        if missing == "manifest.json" and indexed:
            read(io.BytesIO(tar_of(rest)))  # it is an OCI image layout, too
        else:
            assert refused(tar_of(rest))


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_an_archive_cut_short_anywhere_is_noticed(name: str, share: float) -> None:
    data = saved(name)
    whole = len(data.rstrip(b"\0"))
    end = -(-whole // 512) * 512 + 1024  # what follows the two blocks of zeros that end a tar says nothing
    refused(data[: int(share * end)])


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_changed_byte_in_what_the_image_needs_is_noticed(name: str, data: st.DataObject) -> None:
    needed = named_by_the_image(name)
    members = members_of(name)
    index = data.draw(st.sampled_from([i for i, (member, _) in enumerate(members) if member.name in needed]))
    member, content = members[index]
    assert content
    at = data.draw(st.integers(0, len(content) - 1))
    flipped = content[at] ^ data.draw(st.integers(1, 255))
    members[index] = (member, content[:at] + bytes([flipped]) + content[at + 1 :])
    try:
        found = read(io.BytesIO(tar_of(members)))
    except ArchiveError:
        return
    # Of manifest.json no digest is known; it may only be changed in what does not matter, as in the tags.
    assert member.name == "manifest.json"
    assert found.id == FACTS[name]["config_digest"]


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_changed_byte_in_a_header_is_noticed(name: str, data: st.DataObject) -> None:
    raw = bytearray(saved(name))
    with tarfile.open(FIXTURES / "archives" / name) as tar:
        offsets = [member.offset for member in tar]
    field = [*range(148), *range(156, 500)]  # all but the checksum, which may be written in several ways
    at = data.draw(st.sampled_from(offsets)) + data.draw(st.sampled_from(field))
    raw[at] ^= data.draw(st.integers(1, 255))
    refused(bytes(raw))


LAYOUT = "podman4-tiny-oci-archive.tar"


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_layout_cut_short_anywhere_is_noticed(share: float) -> None:
    data = saved(LAYOUT)
    end = -(-len(data.rstrip(b"\0")) // 512) * 512 + 1024
    with pytest.raises(ArchiveError):
        read(io.BytesIO(data[: int(share * end)]))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_layout_with_a_changed_byte_or_without_a_blob_is_refused(data: st.DataObject) -> None:
    members = members_of(LAYOUT)
    index = data.draw(st.sampled_from([i for i, (member, _) in enumerate(members) if "sha256/" in member.name]))
    member, content = members[index]
    assert content
    if data.draw(st.booleans()):
        del members[index]
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        flipped = bytes([content[at] ^ data.draw(st.integers(1, 255))])
        members[index] = (member, content[:at] + flipped + content[at + 1 :])
    with pytest.raises(ArchiveError):
        read(io.BytesIO(tar_of(members)))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_random_bytes_are_refused(data: bytes) -> None:
    refused(data)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SMALL), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1))
def test_damage_is_never_more_than_a_refusal(name: str, changes: list[tuple[float, int]]) -> None:
    raw = bytearray(saved(name))
    for share, value in changes:
        raw[int(share * len(raw))] = value
    try:
        found = read(io.BytesIO(raw))
    except ArchiveError:
        return
    assert found.id == FACTS[name]["config_digest"]


def made(
    change: Callable[[dict[str, Any]], None] = lambda parts: None,
    more: list[tuple[tarfile.TarInfo, bytes | None]] | None = None,
) -> bytes:
    """A small archive with one layer, made wrong by `change`."""
    layer = tar_of([])
    diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
    config: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    parts: dict[str, Any] = {
        "config": config,
        "layer": layer,
        "manifest": [{"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"]}],
    }
    change(parts)
    files = {
        "config.json": parts["config"] if isinstance(parts["config"], bytes) else json.dumps(parts["config"]).encode(),
        "layer.tar": parts["layer"],
        "manifest.json": parts["manifest"]
        if isinstance(parts["manifest"], bytes)
        else json.dumps(parts["manifest"]).encode(),
    }
    members: list[tuple[tarfile.TarInfo, bytes | None]] = []
    for name, data in files.items():
        member = tarfile.TarInfo(name)
        member.size = len(data)
        members.append((member, data))
    return tar_of(members + (more or []))


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, None]:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member, None


def file(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    return member, data


def test_the_small_archive_is_whole() -> None:
    found = read(io.BytesIO(made()))
    assert found.created is None
    assert [layer.diff_id for layer in found.layers] == ["sha256:" + hashlib.sha256(tar_of([])).hexdigest()]


def test_a_compressed_layer_is_checked_by_what_it_holds() -> None:
    def compress(parts: dict[str, Any]) -> None:
        parts["layer"] = gzip.compress(parts["layer"])

    assert len(read(io.BytesIO(made(compress))).layers) == 1

    def another(parts: dict[str, Any]) -> None:
        parts["layer"] = gzip.compress(parts["layer"] + b"\0")

    assert "damaged" in refused(made(another))

    def short(parts: dict[str, Any]) -> None:
        parts["layer"] = gzip.compress(parts["layer"])[:-4]

    assert "cut short or damaged" in refused(made(short))


def test_links_to_the_layer_are_followed() -> None:
    def twice(parts: dict[str, Any]) -> None:
        parts["manifest"][0]["Layers"] = ["layer.tar", "again/layer.tar"]
        parts["config"]["rootfs"]["diff_ids"] *= 2

    link = special("again/layer.tar", tarfile.SYMTYPE, "../layer.tar")
    first, second = read(io.BytesIO(made(twice, [link]))).layers
    assert first == second
    assert "missing" in refused(made(twice, [special("again/layer.tar", tarfile.SYMTYPE, "../other.tar")]))
    assert "missing" in refused(made(twice, [special("again/layer.tar", tarfile.SYMTYPE, "../again/layer.tar")]))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (special("../up", tarfile.REGTYPE), "outside"),
        (special("a/../../up", tarfile.DIRTYPE), "outside"),
        (special("link", tarfile.SYMTYPE, "/etc/passwd"), "outside"),
        (special("link", tarfile.SYMTYPE, "../up"), "outside"),
        (special("link", tarfile.LNKTYPE, "../up"), "outside"),
        (special("dev", tarfile.CHRTYPE), "neither a file"),
        (special("fifo", tarfile.FIFOTYPE), "neither a file"),
        (file("layer.tar", b"another"), "two different members"),
        (file("blobs/sha256/" + "0" * 64, b"x"), "damaged"),
    ],
)
def test_members_that_no_engine_writes_are_refused(more: tuple[tarfile.TarInfo, bytes | None], reason: str) -> None:
    assert reason in refused(made(more=[more]))


def put(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda parts: parts.update(values)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put(manifest=[]), "no image"),
        (put(manifest={}), "not a list"),
        (put(manifest=[1]), "not a list"),
        (put(manifest=[{}]), "does not name"),
        (put(manifest=[{"Config": 1, "Layers": []}]), "does not name"),
        (put(manifest=[{"Config": "config.json", "Layers": [1]}]), "does not name"),
        (put(manifest=[{"Config": "config.json", "Layers": []}]), "the archive names 0"),
        (put(manifest=[{"Config": "nosuch.json", "Layers": ["layer.tar"]}]), "missing"),
        (put(manifest=b"[" * 100_000), "not JSON"),
        (put(manifest=b"[NaN]"), "not JSON"),
        (put(manifest=b"[" + b" " * (5 << 20)), "at most 4 MiB"),
        (put(manifest=b"hello"), "not a JSON document"),
        (put(config=b"{"), "not JSON"),
        (put(config=b"{\xff}"), "not JSON"),
        (put(config=[]), "not a JSON object"),
        (put(config={}), "no rootfs"),
        (put(config={"rootfs": {}}), "0 layers"),
        (put(config={"rootfs": {"diff_ids": "x"}}), "diff_ids"),
        (put(config={"rootfs": {"diff_ids": ["x"]}}), "diff_ids"),
        (put(config={"rootfs": {"diff_ids": ["sha256:" + "0" * 64]}}), "damaged"),
        (put(layer=b""), "damaged"),
    ],
)
def test_documents_that_do_not_fit_are_refused(change: Callable[[dict[str, Any]], None], reason: str) -> None:
    assert reason in refused(made(change))


@pytest.mark.parametrize("names", [["a:1", "b:1"], [None, None]])
def test_several_images_are_named(names: list[str | None]) -> None:
    configs = [json.dumps({"rootfs": {"diff_ids": []}, "author": author}).encode() for author in "ab"]
    entries = [
        {"Config": config, "Layers": [], "RepoTags": [name] if name else None}
        for config, name in zip("ab", names, strict=True)
    ]
    more: list[tuple[tarfile.TarInfo, bytes | None]] = [file(*pair) for pair in zip("ab", configs, strict=True)]
    reason = refused(made(put(manifest=entries), more))
    assert "2 images" in reason
    assert all(name in reason for name in names if name)


def test_absolute_names_are_in_the_archive() -> None:
    """As docker takes them; nothing is ever unpacked to files."""
    assert len(read(io.BytesIO(made(more=[special("/etc/passwd", tarfile.REGTYPE)]))).layers) == 1


def test_an_image_without_layers() -> None:
    # Go writes an empty list as null.
    written: list[object] = [[], None]
    for layers in written:
        manifest = [{"Config": "config.json", "Layers": layers, "RepoTags": None}]
        found = read(io.BytesIO(made(put(manifest=manifest, config={"rootfs": {"type": "layers", "diff_ids": None}}))))
        assert found.layers == ()


class Endless(io.RawIOBase):
    """Hands out a header that announces far more than there is, then zeros for as long as anyone reads."""

    def __init__(self, data: bytes, zeros: int) -> None:
        self._data = data
        self._zeros = zeros

    def read(self, size: int = -1) -> bytes:
        if self._data:
            chunk, self._data = self._data[:size], self._data[size:]
            return chunk
        count = min(size, self._zeros)
        self._zeros -= count
        return bytes(count)


def test_a_huge_member_is_read_in_bounded_memory() -> None:
    import tracemalloc

    member = tarfile.TarInfo("manifest.json")
    member.size = 1 << 40
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match="cut short"):
            read(Endless(member.tobuf(tarfile.GNU_FORMAT), 256 << 20))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
