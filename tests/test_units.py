"""Layers that are fed directly: how they are cut and sent, and the canonical archive that they become."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arv_keepdocker.errors import ArvadosError
from arv_keepdocker.images import canonical
from arv_keepdocker.images.canonical import BLOCK_SIZE, OWN_BLOCKS, Arrangement, arrange, parse, unit_size
from arv_keepdocker.images.image import UNIVERSAL_OF, Image
from arv_keepdocker.images.layers import Layer
from arv_keepdocker.images.platform import USUAL
from arv_keepdocker.keep.block_sender import BlockSender
from arv_keepdocker.keep.journal import Journal
from arv_keepdocker.keep.keep_sink import Composed, KeepSink, LostLayerError
from arv_keepdocker.keep.known_layers import KnownLayers, StoredManifest
from arv_keepdocker.keep.locators import block_key, block_size, blocks_of_one_file, manifest, portable_data_hash
from tests.test_blocks import wait

MIB = 1 << 20
SIGNATURE = "+A" + "0" * 40 + "@ffffffff"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@functools.cache
def _pool() -> bytes:
    return random.Random(0).randbytes(4 * MIB)


def some_bytes(rng: random.Random, size: int) -> bytes:
    """Bytes at random, of which no two blocks are the same: faster than the generator makes them."""
    pieces = (memoryview(_pool())[start : start + MIB] for start in iter(lambda: rng.randrange(3 * MIB), None))
    return b"".join([*itertools.islice(pieces, size // MIB), rng.randbytes(size % MIB)])


class Keep:
    """Takes blocks and gives them back."""

    def __init__(self) -> None:
        self.blocks: dict[str, bytes] = {}
        self.sent: list[str] = []
        self.got: list[str] = []

    def put(self, data: bytes, key: str = "") -> str:
        assert 0 < len(data) <= BLOCK_SIZE
        assert key in ("", f"{hashlib.md5(data).hexdigest()}+{len(data)}")
        key = f"{hashlib.md5(data).hexdigest()}+{len(data)}"
        self.blocks[key] = data
        self.sent.append(key)
        return key + SIGNATURE

    def get(self, locator: str) -> bytes:
        key = block_key(locator)
        self.got.append(key)
        if key not in self.blocks:
            raise ArvadosError("no such block")
        return self.blocks[key]

    def file(self, text: str) -> bytes:
        return b"".join(self.blocks[block_key(locator)] for locator in blocks_of_one_file(text))


def image_of(layers: Sequence[Layer], **members: Any) -> Image:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["A=ä"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created_by": "x"} for _ in layers],
        **members,
    }
    data = json.dumps({key: value for key, value in config.items() if value is not ...}).encode()
    return Image(config=data, layers=tuple(layers), platform=USUAL)


def feed(units: KeepSink, data: bytes, rng: random.Random | None = None) -> Layer:
    writer = units.begin()
    view = memoryview(data)
    while view:
        size = rng.randint(1, 3 * MIB) if rng else 1 << 20
        writer.write(bytes(view[:size]))
        view = view[size:]
    return writer.finish()


@contextmanager
def sink(
    keep: Keep, known: KnownLayers | None = None, journal: Journal | None = None, threads: int = 2, **options: Any
) -> Iterator[KeepSink]:
    with BlockSender(keep.put, known.blocks if known is not None else dict, threads) as sender:
        units = KeepSink(sender, known, journal, **options)
        yield units
        units.close()


def text_of(arrangement: Arrangement, composed: Composed) -> str:
    return manifest(f"{arrangement.image_id}.tar", arrangement.size, composed.locators)


def stored(keep: Keep, datas: Sequence[bytes], universal: bool = False, order: Sequence[int] | None = None) -> str:
    """The manifest of an image with these layers, given to the sink in another order."""
    with sink(keep) as units:
        fed = {number: feed(units, datas[number]) for number in (order if order is not None else range(len(datas)))}
        layers = [fed[number] for number in range(len(datas))]
        arrangement = arrange(image_of(layers), universal)
        return text_of(arrangement, units.compose(arrangement, layers))


def known_of(
    keep: Keep, *texts: str, mine: bool = True, journal: Journal | None = None, asked: list[None] | None = None
) -> KnownLayers:
    def load() -> list[StoredManifest]:
        if asked is not None:
            asked.append(None)
        return [StoredManifest(text, mine) for text in texts]

    return KnownLayers(load, journal, keep.get, 0)


SIZES = st.lists(
    st.one_of(
        st.integers(0, 5000),
        st.integers(-2, 2).map(lambda difference: OWN_BLOCKS - 512 + 512 * difference),
        st.integers(OWN_BLOCKS, OWN_BLOCKS + 3 * MIB),
    ),
    max_size=7,
)


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(0, 2**32), st.booleans())
def test_an_archive_of_any_layers(sizes: list[int], seed: int, universal: bool) -> None:
    rng = random.Random(seed)
    datas = [some_bytes(rng, size) for size in sizes]
    expected = [Layer(sha256(data), len(data)) for data in datas]
    keep = Keep()
    with sink(keep, threads=rng.choice([1, 3])) as units:
        layers = [feed(units, data, rng) for data in rng.sample(datas, len(datas))]
        feed(units, b"another platform's")
        assert sorted(layers, key=lambda layer: layer.diff_id) == sorted(expected, key=lambda layer: layer.diff_id)
        image = image_of(expected)
        arrangement = arrange(image, universal)
        composed = units.compose(arrangement, image.layers)
    text = text_of(arrangement, composed)
    data = keep.file(text)
    assert len(data) == arrangement.size
    check_archive(data, image, arrangement, datas)
    # The last block tells all of it, and the blocks are where it says.
    locators = blocks_of_one_file(text)
    found = parse(keep.blocks[block_key(locators[-1])], list(map(block_size, locators)))
    assert found == arrangement
    # A layer of its own blocks begins one, and there is nothing between two of them.
    large = sum(unit_size(layer) >= OWN_BLOCKS for layer in set(image.layers))
    assert len(locators) <= 2 * large + 2
    assert all(state.new for state in composed.layers)


def check_archive(data: bytes, image: Image, arrangement: Arrangement, datas: Sequence[bytes]) -> None:
    """It is what the specification says, as Python's tarfile reads it."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        contents = {member.name: tar.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    assert len(contents) == len(members)
    layers = list(dict.fromkeys(f"blobs/sha256/{layer.diff_id[7:]}" for layer in image.layers))
    assert list(contents)[: len(layers)] == layers
    assert list(contents)[-3:] == ["oci-layout", "index.json", "manifest.json"]
    assert len(contents) == len(layers) + 5
    assert {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode, one.type) for one in members} == {
        (0, 0, 0, "", "", 0o644, tarfile.REGTYPE)
    }
    (entry,) = json.loads(contents["manifest.json"])
    assert entry == {"Config": f"blobs/sha256/{arrangement.image_id[7:]}", "RepoTags": None, "Layers": entry["Layers"]}
    assert [contents[name] for name in entry["Layers"]] == list(datas)
    (named,) = json.loads(contents["index.json"])["manifests"]
    document = contents["blobs/" + named["digest"].replace(":", "/")]
    assert sha256(document) == named["digest"]
    found = json.loads(document)
    assert contents["blobs/" + found["config"]["digest"].replace(":", "/")] == image.config
    assert [(one["digest"], one["size"]) for one in found["layers"]] == [
        (layer.diff_id, layer.size) for layer in image.layers
    ]
    if arrangement.universal:
        assert arrangement.image_id == named["digest"]
        assert base64.b64decode(found["annotations"][UNIVERSAL_OF]) == image.config
        assert found["history"] == json.loads(image.config)["history"]
        assert found["config"]["Env"] == ["A=ä"]
    else:
        assert arrangement.image_id == image.id
    assert data.endswith(bytes(1024))


FIXED = [b"a" * 100, b"b" * (OWN_BLOCKS - 512), b"c" * 5, b"d" * OWN_BLOCKS, b"", b"a" * 100]


@pytest.mark.parametrize(
    ("universal", "portable", "image_id"),
    [
        (
            False,
            "8d4e2c142a482f9f616bd85a178225f3+324",
            "030a379d0490550ce58db9899282c95b23169d2c15dd35ab545fddcca8ae551f",
        ),
        (
            True,
            "1cd35bc3c0d5d151821caae692c97859+324",
            "8a8fad2a3ef9e5a7c22d705066559f899c910bd03b357bf2bdce800833d3c213",
        ),
    ],
    ids=["plain", "universal"],
)
def test_form_1_never_changes(universal: bool, portable: str, image_id: str) -> None:
    """Whoever changes these digests makes a new form: Arvados would compute everything anew for the same images. Then
    `canonical.FORM` gets another number, and what was stored in this one must still be read (`canonical.parse`)."""
    assert canonical.FORM == 1
    keep = Keep()
    text = stored(keep, FIXED, universal)
    assert (portable_data_hash(text), re.findall(r"sha256\\072(\w+)", text)) == (portable, [image_id])


@pytest.mark.parametrize("universal", [False, True])
def test_the_order_in_which_layers_come_does_not_matter(universal: bool) -> None:
    rng = random.Random(3)
    datas = [some_bytes(rng, size) for size in (5000, 5 * MIB, 0, 700, 3 * MIB, 2 * MIB, 6 * MIB)]
    orders = [rng.sample(range(len(datas)), len(datas)) for _ in range(4)]
    assert len({stored(Keep(), datas, universal, order) for order in orders}) == 1


def test_layers_larger_than_a_block_and_what_is_kept_back() -> None:
    keep = Keep()
    rng = random.Random(1)
    data = some_bytes(rng, 2 * BLOCK_SIZE + 5 * MIB)
    with sink(keep) as units:
        writer = units.begin()
        for start in range(0, len(data), MIB):
            writer.write(data[start : start + MIB])
        # All but the first block and what is not a whole one is on its way before the layer's digest is known.
        wait(lambda: bool(keep.sent))
        assert [block_size(key) for key in keep.sent] == [BLOCK_SIZE]
        layer = writer.finish()
        arrangement = arrange(image_of([layer]), universal=False)
        assert arrangement.segments[0].blocks == [BLOCK_SIZE, BLOCK_SIZE, 5 * MIB + 512]
        text = text_of(arrangement, units.compose(arrangement, [layer]))
    assert keep.file(text)[512 : 512 + len(data)] == data


def test_blocks_of_zeros_are_sent_once() -> None:
    keep = Keep()
    with sink(keep) as units:
        writer = units.begin()
        for _ in range(4):
            writer.write(bytes(BLOCK_SIZE))
        layer = writer.finish()
        arrangement = arrange(image_of([layer]), universal=False)
        text = text_of(arrangement, units.compose(arrangement, [layer]))
    assert sum(map(block_size, keep.sent)) < 2 * BLOCK_SIZE + MIB
    assert len(blocks_of_one_file(text)) == 4 + 2


def test_small_layers_beyond_what_is_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    rng = random.Random(5)
    datas = [some_bytes(rng, 3 * MIB + number) for number in range(50)]
    keep = Keep()
    text = stored(keep, datas, order=list(reversed(range(50))))
    layers = [Layer(sha256(data), len(data)) for data in datas]
    check_archive(keep.file(text), image_of(layers), arrange(image_of(layers), universal=False), datas)
    assert [block_size(locator) for locator in blocks_of_one_file(text)][:2] == [BLOCK_SIZE, BLOCK_SIZE]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_more_layers_than_there_is_memory_for_wait_for_each_other() -> None:
    keep = Keep()
    rng = random.Random(6)
    datas = [some_bytes(rng, 70 * MIB) for _ in range(4)]
    layers: dict[int, Layer] = {}
    with sink(keep, writers=2) as units:

        def take(number: int) -> None:
            layers[number] = feed(units, datas[number])

        threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ordered = [layers[number] for number in range(4)]
        arrangement = arrange(image_of(ordered), universal=False)
        text = text_of(arrangement, units.compose(arrangement, ordered))
    assert text == stored(Keep(), datas)


MANY_LAYERS = """
import os, sys, threading, time
sys.path.insert(0, os.getcwd())
import arvados, arvados.keep  # what a run has in memory, too
from arv_keepdocker.images.canonical import arrange
from arv_keepdocker.keep.block_sender import BlockSender
from arv_keepdocker.keep.keep_sink import KeepSink
from tests.test_units import image_of

piece = os.urandom(1 << 20)

def put(data, key):
    time.sleep(0.02)
    return key

with BlockSender(put, dict, 2) as sender:
    units = KeepSink(sender, None, None)

    def take(number):
        writer = units.begin()
        for count in range(number * 30 % 200):
            writer.write(b"%d %d" % (number, count) + piece)
        layers.append(writer.finish())

    layers = []
    threads = [threading.Thread(target=take, args=(number,)) for number in range(1, 9)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    for number in range(60):
        writer = units.begin()
        writer.write(b"%d" % number + piece * 3)
        layers.append(writer.finish())
    units.compose(arrange(image_of(layers), universal=False), layers)
    units.close()
words = open("/proc/self/status").read().partition("VmHWM:")[2].split()
print(int(words[0]) >> 10)
"""


def test_many_layers_at_a_time_take_less_than_512_mib() -> None:
    result = subprocess.run([sys.executable, "-c", MANY_LAYERS], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 512


def test_a_layer_that_is_given_up_leaves_its_memory_to_others() -> None:
    with sink(Keep(), writers=1) as units:
        for _ in range(20):
            writer = units.begin()
            writer.write(b"x")
            writer.abandon()
            writer.abandon()
        assert feed(units, b"y").size == 1


def test_a_failure_reaches_who_writes() -> None:
    class Full(Keep):
        def put(self, data: bytes, key: str = "") -> str:
            raise ArvadosError("full")

    with sink(Full()) as units, pytest.raises(ArvadosError, match="full"):
        feed(units, some_bytes(random.Random(), 10 * BLOCK_SIZE))


# What Arvados has


def test_a_layer_that_arvados_has_need_not_be_given() -> None:
    keep = Keep()
    rng = random.Random(7)
    datas = [some_bytes(rng, size) for size in (BLOCK_SIZE + MIB, 1000, 2000, 5 * MIB, 3000)]
    text = stored(keep, datas)
    keep.sent.clear()
    layers = [Layer(sha256(data), len(data)) for data in datas]
    known = known_of(keep, text)
    with sink(keep, known) as units:
        assert [units.has(layer.diff_id) for layer in layers] == layers
        assert units.has(sha256(b"no such layer")) is None
        arrangement = arrange(image_of(layers, author="another"), universal=True)
        composed = units.compose(arrangement, layers)
    assert len(keep.got) == 1  # the last block
    assert len(keep.sent) == 1  # another one
    assert blocks_of_one_file(text)[:-1] == list(composed.locators[:-1])
    assert not any(state.new for state in composed.layers)
    check_archive(keep.file(text_of(arrangement, composed)), image_of(layers, author="another"), arrangement, datas)


def test_small_layers_that_are_packed_otherwise_are_read() -> None:
    keep = Keep()
    rng = random.Random(8)
    datas = [some_bytes(rng, size) for size in (1000, 2000, 5 * MIB, 3000)]
    text = stored(keep, datas)
    order = [3, 0, 2, 1]
    layers = [Layer(sha256(datas[number]), len(datas[number])) for number in order]
    with sink(keep, known_of(keep, text)) as units:
        assert [units.has(layer.diff_id) for layer in layers] == layers
        arrangement = arrange(image_of(layers), universal=False)
        composed = units.compose(arrangement, layers)
    check_archive(
        keep.file(text_of(arrangement, composed)), image_of(layers), arrangement, [datas[number] for number in order]
    )
    # Keep has lost what is to be read.
    with sink(keep, known_of(keep, text)) as units:
        assert units.has(layers[1].diff_id) == layers[1]
        for locator in blocks_of_one_file(text)[:-1]:
            keep.blocks.pop(block_key(locator))
        with pytest.raises(LostLayerError):
            units.compose(arrange(image_of(layers[1:2]), universal=False), layers[1:2])


@pytest.mark.parametrize("damage", ["none", "lost", "other"])
def test_what_others_have_stored_is_read_back_and_checked(damage: str) -> None:
    keep = Keep()
    rng = random.Random(9)
    datas = [some_bytes(rng, size) for size in (BLOCK_SIZE + MIB, 1000)]
    text = stored(keep, datas)
    layers = [Layer(sha256(data), len(data)) for data in datas]
    first = blocks_of_one_file(text)[0]
    if damage == "lost":
        keep.blocks.pop(block_key(first))
    elif damage == "other":  # a forged collection
        other = keep.put(bytes(BLOCK_SIZE))
        text = text.replace(first, other)
    with sink(keep, known_of(keep, text, mine=False)) as units:
        assert units.has(layers[0].diff_id) == (layers[0] if damage == "none" else None)
        assert units.has(layers[1].diff_id) == layers[1]
    with sink(keep, known_of(keep, text, mine=False), read_back=False) as units:
        assert units.has(layers[0].diff_id) is None


def test_the_journal_knows_layers_of_a_run_that_died(tmp_path: Path) -> None:
    keep = Keep()
    journal = Journal(tmp_path / "journal")
    rng = random.Random(10)
    data, other = some_bytes(rng, BLOCK_SIZE + MIB), some_bytes(rng, 5 * MIB)

    class Remembering(Keep):
        def put(self, data: bytes, key: str = "") -> str:
            locator = keep.put(data, key)
            journal.add(locator)
            return locator

    with sink(Remembering(), journal=journal) as units:
        layer = feed(units, data)
        unfinished = units.begin()
        unfinished.write(other)
        wait(lambda: layer.diff_id in journal.read(0).layers)
        unfinished.abandon()
    known = known_of(keep, journal=journal)
    with sink(keep, known) as units:
        assert units.has(layer.diff_id) == layer
        assert units.has(sha256(other)) is None
        arrangement = arrange(image_of([layer]), universal=False)
        keep.sent.clear()
        composed = units.compose(arrangement, [layer])
    assert len(keep.sent) == 1
    assert keep.file(text_of(arrangement, composed))[512 : 512 + len(data)] == data


def test_last_blocks_are_read_once_on_a_machine(tmp_path: Path) -> None:
    keep = Keep()
    journal = Journal(tmp_path / "journal")
    texts = [stored(keep, [os.urandom(5 * MIB)]) for _ in range(3)]
    texts.append(f". {keep.put(b'no archive')} 0:10:sha256\\072{'0' * 64}.tar\n")
    for expected in (4, 0):
        keep.got.clear()
        assert known_of(keep, *texts, journal=journal).copies_of(sha256(b"")) == []
        assert len(keep.got) == expected
    assert len(journal.read(0).images) == 4


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_only_what_we_would_have_written_is_recognized(seed: int) -> None:
    rng = random.Random(seed)
    layers = [Layer(sha256(b"%d" % number), rng.randint(0, 2 * OWN_BLOCKS)) for number in range(rng.randint(0, 5))]
    arrangement = arrange(image_of(layers), rng.random() < 0.5)
    sizes = [size for run in arrangement.segments for size in run.blocks] + [len(arrangement.end)]
    assert parse(arrangement.end, sizes) == arrangement
    damaged = bytearray(arrangement.end)
    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    assert parse(bytes(damaged), sizes) is None
    assert parse(arrangement.end[:-1], sizes) is None
    assert parse(arrangement.end, [*sizes, 1]) is None
    assert parse(rng.randbytes(2000), [2000]) is None


# The universal form


def test_a_universal_image_that_an_engine_took_apart_is_what_it_was() -> None:
    layers = [Layer(sha256(b"x"), 1000), Layer(sha256(b"y"), 5 * MIB)]
    for members in ({}, {"history": ...}, {"history": None}, {"config": None}, {"config": ...}):
        image = image_of(layers, **members)
        first = arrange(image, universal=True)
        document = find(first, first.image_id)
        original = base64.b64decode(json.loads(document)["annotations"][UNIVERSAL_OF])
        again = replace(image, config=document, universal_of=original)
        for universal in (False, True):
            assert arrange(again, universal) == first
        assert json.loads(document)["history"] is not None


def find(arrangement: Arrangement, digest: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(arrangement.end)) as tar:
        file = tar.extractfile("blobs/" + digest.replace(":", "/"))
        assert file is not None
        return file.read()


def test_a_document_that_only_says_to_be_universal_is_a_configuration() -> None:
    layers = [Layer(sha256(b"x"), 1000)]
    image = image_of(layers)
    first = arrange(image, universal=True)
    document = json.loads(find(first, first.image_id))
    for change in ({"author": "somebody else"}, {"config": {**document["config"], "Env": ["A=other"]}}):
        forged = json.dumps({**document, **change}).encode()
        again = replace(image, config=forged, universal_of=image.config)
        plain = arrange(again, universal=False)
        assert (plain.image_id, plain.universal) == (sha256(forged), False)
        assert find(arrange(again, universal=True), sha256(forged)) == forged


def test_a_universal_image_of_before_form_1_is_made_from_what_it_was_made_from() -> None:
    layers = [Layer(sha256(b"x"), 1000)]
    image = image_of(layers)
    config: Mapping[str, Any] = json.loads(image.config)
    about = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": image.id, "size": len(image.config)}
    before = {
        **config,
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {**config["config"], **about},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:x", "size": 7}],
    }
    again = replace(image, config=json.dumps(before).encode(), universal_of=image.config)
    assert arrange(again, universal=True) == arrange(image, universal=True)
    assert arrange(again, universal=False).image_id == again.id


@pytest.mark.parametrize(
    "members",
    [
        {"Config": {"Env": ["B=2"]}, "config": ...},
        {"History": [{"created_by": "y"}], "history": ...},
        {"SchemaVersion": 7, "LAYERS": "?", "Annotations": 5, "subject": {}, "ArtifactType": "x", "mediatype": "y"},
        {"config": {"Env": [], "Digest": "sha256:0", "SIZE": -1, "data": "?", "urls": 5, "Platform": 3}},
        {"author": "\ud800 \u212a\u017f"},
    ],
)
def test_what_a_configuration_says_in_another_case_is_not_said_twice(members: dict[str, Any]) -> None:
    image = image_of([], **members)
    arrangement = arrange(image, universal=True)
    document = find(arrangement, arrangement.image_id)
    assert document.isascii()
    for part in (json.loads(document), json.loads(document)["config"]):
        assert len({key.casefold() for key in part}) == len(part)
    found = json.loads(document)
    assert (found["schemaVersion"], found["layers"], found["config"]["size"]) == (2, [], len(image.config))
    settings = members["Config"] if "Config" in members else json.loads(image.config)["config"]
    assert found["config"]["Env"] == settings["Env"]
    if "History" in members:
        assert found["history"] == members["History"]


def test_a_large_configuration_is_not_in_the_universal_document() -> None:
    image = image_of([], author="x" * MIB)
    arrangement = arrange(image, universal=True)
    assert "annotations" not in json.loads(find(arrangement, arrangement.image_id))
    assert find(arrangement, image.id) == image.config


def test_a_layer_of_more_than_8_gib_has_a_header_of_512_bytes() -> None:
    for size in (8 << 30, (8 << 30) - 1, 1 << 43):
        header = canonical.unit_header(Layer("sha256:" + "0" * 64, size))
        assert len(header) == 512
        assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == size


def test_a_layer_that_stays_compressed_is_named_by_its_own_digest() -> None:
    keep = Keep()
    with sink(keep) as units:
        found = feed(units, b"zstd" * 10)
        layer = Layer("sha256:" + "1" * 64, found.size, found.diff_id, "zstd")
        arrangement = arrange(image_of([layer]), universal=True)
        text = text_of(arrangement, units.compose(arrangement, [layer]))
    locators = blocks_of_one_file(text)
    assert parse(keep.blocks[block_key(locators[-1])], list(map(block_size, locators))) == arrangement
    assert json.loads(find(arrangement, arrangement.image_id))["layers"][0]["mediaType"].endswith(".tar+zstd")
    # Nobody has checked its diff id.
    assert known_of(keep, text).copies_of(layer.diff_id) == []
    assert known_of(keep, text).copies_of(layer.digest) == []
