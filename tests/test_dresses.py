"""One image in any dress is the same image; a damaged one is refused, or the damage did no harm."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from arv_keepdocker.errors import ArchiveError
from arv_keepdocker.images import archive
from arv_keepdocker.images.image import Image, Selection
from arv_keepdocker.images.layers import NoSink
from tests import odd
from tests.odd import Member

Draw = st.DrawFn
NAMES = ["fail/a:1", "b:2", "registry.example.com:5000/c/d:latest", "localhost:5000/e:x.y-z"]


@dataclass(frozen=True)
class Dressed:
    """An image, and an archive of it."""

    config: bytes
    diff_ids: list[str]
    names: tuple[str, ...]
    members: list[Member]
    form: int
    whole: Callable[[bytes], bytes]

    @property
    def data(self) -> bytes:
        return self.whole(odd.tar(self.members, self.form))


def cases(draw: Draw) -> Callable[[str], str]:
    how: list[Callable[[str], str]] = [str, str.lower, str.upper, str.swapcase, str.title]
    return draw(st.sampled_from(how))


def compression(draw: Draw) -> Callable[[bytes], bytes]:
    return draw(st.sampled_from([bytes, bytes, *odd.COMPRESSIONS.values()]))


def spaced(draw: Draw, document: Any) -> bytes:
    space = st.text(" \t\r\n", max_size=3).map(str.encode)
    return draw(space) + odd.dump(document) + draw(space)


def image_layers(draw: Draw) -> list[bytes]:
    files = st.dictionaries(st.sampled_from(["a", "b", "c/d"]), st.binary(max_size=2000), max_size=3)
    different = [
        odd.tar(each.items(), draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])))
        for each in draw(st.lists(files, max_size=4))
    ]
    # Some occur twice.
    return [draw(st.sampled_from(different)) for _ in range(len(different) + 1)] if different else []


def configuration(draw: Draw, layers: Sequence[bytes]) -> bytes:
    times = st.sampled_from([..., None, "2024-01-02T03:04:05Z", "0001-01-01T00:00:00Z"])
    settings = {"Env": ["A=ü"], "Labels": {"a": "1", "A": "2"}, "Cmd": draw(st.sampled_from([None, ["/a"], []]))}
    empty = [{"empty_layer": True}] * draw(st.integers(0, 2))
    made = odd.config(layers, config=settings, created=draw(times), author=draw(st.text(max_size=5)))
    made["history"] = draw(st.sampled_from([None, [], [*made["history"], *empty]]))
    lower = draw(st.booleans())
    return spaced(draw, odd.cased(made, str.lower) if lower else made)


@st.composite
def dressed(draw: Draw) -> Dressed:
    layers = image_layers(draw)
    config = configuration(draw, layers)
    names = tuple(draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3)))
    in_blobs = draw(st.booleans())
    make = _layout if layers and in_blobs else _docker_archive
    members = make(draw, layers, config, names)
    named = {name for name, _ in members}
    for name in draw(st.lists(st.sampled_from(["VERSION", "x/json", "repositories", "README"]), unique=True)):
        if name not in named:
            members.append((name, draw(st.binary(max_size=20))))
    links = [member for member in members if isinstance(member[1], tuple)]
    others = draw(st.permutations([member for member in members if member not in links]))
    form = draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    return Dressed(
        config, ["sha256:" + odd.sha256(layer) for layer in layers], names, [*others, *links], form, compression(draw)
    )


def _docker_archive(draw: Draw, layers: Sequence[bytes], config: bytes, names: Sequence[str]) -> list[Member]:
    """As Docker before 25, podman, kaniko and others write it."""
    prefix = draw(st.sampled_from(["", "./", "/"]))
    path = draw(st.sampled_from(["{}/layer.tar", "{}.tar", "{}.tar.gz", "layers/{}"]))
    members: list[Member] = []
    listed: list[str] = []
    written: dict[bytes, str] = {}
    for number, layer in enumerate(layers):
        name = path.format(draw(st.sampled_from([f"{number}", odd.sha256(layer + b"%d" % number)])))
        first = written.setdefault(layer, name)
        again = draw(st.sampled_from(["same", "file", "symbolic", "absolute", "hard"])) if first != name else "file"
        listed.append(first if again == "same" else prefix + name)
        up = "../" * name.count("/")
        if again == "file":
            members.append((prefix + name, compression(draw)(layer)))
        elif again != "same":
            link = {
                "symbolic": (tarfile.SYMTYPE, up + first),
                "absolute": (tarfile.SYMTYPE, "/" + first),
                "hard": (tarfile.LNKTYPE, prefix + first),
            }
            members.append((prefix + name, link[again]))
    document = prefix + draw(st.sampled_from([odd.sha256(config) + ".json", "config.json"]))
    hub = draw(st.sampled_from(["", "docker.io/", "index.docker.io/"]))
    tags = [hub + name if name.startswith("fail/") else name for name in names]
    entries = [{"Config": document, "RepoTags": tags or None, "Layers": listed or None}]
    if len(names) > 1 and draw(st.booleans()):
        entries = [{**entries[0], "RepoTags": [name]} for name in names]
    members.append((prefix + "manifest.json", spaced(draw, odd.cased(entries, cases(draw)))))
    return [*members, (document, config)]


def _layout(draw: Draw, layers: Sequence[bytes], config: bytes, names: Sequence[str]) -> list[Member]:
    """As BuildKit, skopeo, containerd and others write it; with manifest.json, as Docker since 25."""
    change = cases(draw)
    stored = [compression(draw)(layer) for layer in layers]
    manifest = spaced(
        draw,
        odd.cased(
            {
                "schemaVersion": 2,
                "config": odd.descriptor(config, odd.CONFIG),
                "layers": [odd.descriptor(blob, odd.LAYER) for blob in stored],
            },
            change,
        ),
    )
    blobs = [*stored, config, manifest]
    key = draw(st.sampled_from([odd.REF_NAME, odd.FULL_NAME]))
    named = [odd.descriptor(manifest, odd.MANIFEST, annotations={key: name}) for name in names]
    named = named or [odd.descriptor(manifest, odd.MANIFEST)]
    if draw(st.booleans()):
        artifact = odd.dump({"artifactType": "x", "config": odd.descriptor(b"{}", "x"), "layers": []})
        named.insert(0, odd.descriptor(artifact, odd.MANIFEST))
        blobs.append(artifact)
    for _ in range(draw(st.integers(0, 2))):
        blobs.append(odd.dump({"manifests": named}))
        named = [odd.descriptor(blobs[-1], odd.INDEX)]
    members: list[Member] = [("blobs/sha256/" + odd.sha256(blob), blob) for blob in dict.fromkeys(blobs)]
    members.append(("index.json", spaced(draw, odd.cased({"manifests": named}, change))))
    if draw(st.booleans()):
        paths = ["blobs/sha256/" + odd.sha256(blob) for blob in stored]
        entry = {"Config": "blobs/sha256/" + odd.sha256(config), "RepoTags": list(names), "Layers": paths}
        members.append(("manifest.json", odd.dump([entry])))
    return members


def read(data: bytes) -> Image:
    return archive.read_image(io.BytesIO(data), NoSink(), Selection())


@settings(max_examples=120, deadline=None)
@given(image=dressed())
def test_the_same_image_in_any_dress(image: Dressed) -> None:
    found = read(image.data)
    assert found.config == image.config
    assert [layer.diff_id for layer in found.layers] == image.diff_ids
    assert set(found.names) == set(image.names)


@settings(max_examples=120, deadline=None)
@given(image=dressed(), data=st.data())
def test_damage_is_refused_or_harmless(image: Dressed, data: st.DataObject) -> None:
    """What is read of a damaged archive is the image, or, since not all have a digest, a whole other one."""
    raw = bytearray(image.data)
    at = data.draw(st.integers(0, len(raw) - 1))
    how = data.draw(st.sampled_from(["change", "cut", "insert", "remove"]))
    if how == "change":
        raw[at] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        del raw[at:]
    elif how == "insert":
        raw[at:at] = data.draw(st.binary(min_size=1, max_size=600))
    else:
        del raw[at : at + data.draw(st.integers(1, 600))]
    try:
        found = read(bytes(raw))
    except ArchiveError:
        return
    assert len(found.layers) == len(image.diff_ids)
    if found.config == image.config:
        assert [layer.diff_id for layer in found.layers] == image.diff_ids
