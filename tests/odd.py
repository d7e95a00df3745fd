"""Odd archives, as other tools and people write them: one of each kind, and what is to become of it."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

IMAGE = "fail/image:1"

Member = tuple[str, bytes | tuple[bytes, str]]
"""A file's name and bytes, or a link's name and its type and target."""


def tar(members: Iterable[Member], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, tuple):
                info.type, info.linkname = data
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def zstd(data: bytes) -> bytes:
    """Zstandard (RFC 8878) with nothing compressed, for which no library is needed."""
    parts = [data[start : start + 100_000] for start in range(0, len(data), 100_000)] or [b""]
    blocks = [
        ((len(part) << 3) | (number == len(parts) - 1)).to_bytes(3, "little") + part
        for number, part in enumerate(parts)
    ]
    return b"\x28\xb5\x2f\xfd\xa0" + len(data).to_bytes(4, "little") + b"".join(blocks)


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}

FIRST, SECOND = tar([("a", b"first\n")]), tar([("b", b"second\n")])


@dataclass(frozen=True)
class Odd:
    """An archive, and what is to become of it."""

    data: bytes
    names: tuple[str, ...] = ()
    layers: tuple[bytes, ...] = (FIRST,)
    warning: str | None = None
    refused: str | None = None


Action = Iterable[tuple[str, Odd]]


def config(layers: Sequence[bytes], **other: Any) -> dict[str, Any]:
    """A configuration; what is given as ... is left out."""
    made = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": {"Cmd": ["/a"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + sha256(layer) for layer in layers]},
        "history": [{"created_by": "x"} for _ in layers],
    }
    return {key: value for key, value in {**made, **other}.items() if value is not ...}


def archive(
    tags: Sequence[str] = (IMAGE,),
    conf: dict[str, Any] | bytes | None = None,
    members: Sequence[Member] = (("l/layer.tar", FIRST),),
    listed: Sequence[str] | None = None,
    layers: Sequence[bytes] = (FIRST,),
    manifest: Callable[[dict[str, Any]], bytes] = lambda entry: dump([entry]),
    kind: int = tarfile.USTAR_FORMAT,
) -> bytes:
    """A docker-archive; `layers` are what the configuration says that the members hold."""
    document = conf if isinstance(conf, bytes) else dump(config(layers, **(conf or {})))
    name = sha256(document) + ".json"
    entry = {
        "Config": name,
        "RepoTags": list(tags),
        "Layers": list(listed) if listed is not None else [name for name, _ in members],
    }
    return tar([*members, (name, document), ("manifest.json", manifest(entry))], kind)


def descriptor(data: bytes, kind: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": "sha256:" + sha256(data), "size": len(data), **more}


CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
REF_NAME, FULL_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"


@dataclass(frozen=True)
class Blobs:
    """An image in blobs."""

    manifest: bytes
    blobs: tuple[bytes, ...]
    """All of them."""
    config: bytes
    layers: tuple[bytes, ...]
    """As they are stored."""


def blobs(
    layers: Sequence[bytes] = (FIRST,),
    compress: Callable[[bytes], bytes] = COMPRESSIONS["gzip"],
    conf: dict[str, Any] | None = None,
    order: Sequence[int] | None = None,
    change: Callable[[dict[str, Any]], bytes] = dump,
) -> Blobs:
    document = dump(config(layers, **(conf or {})))
    stored = tuple(map(compress, layers))
    listed = tuple(stored[index] for index in order) if order is not None else stored
    manifest = change(
        {
            "schemaVersion": 2,
            "config": descriptor(document, CONFIG),
            "layers": [descriptor(blob, LAYER + "+gzip") for blob in listed],
        }
    )
    return Blobs(manifest, (*stored, document, manifest), document, listed)


def layout(
    index: Sequence[dict[str, Any]],
    *found: bytes,
    listing: Any = None,
    change: Callable[[dict[str, Any]], bytes] = dump,
) -> bytes:
    """An OCI image layout of these blobs; with `listing`, a manifest.json, too."""
    members: list[Member] = [("blobs/sha256/" + sha256(blob), blob) for blob in dict.fromkeys(found)]
    members.append(("oci-layout", dump({"imageLayoutVersion": "1.0.0"})))
    members.append(("index.json", change({"schemaVersion": 2, "manifests": list(index)})))
    if listing is not None:
        members.append(("manifest.json", dump(listing)))
    return tar(members)


def listing(image: Blobs, *tags: str) -> Any:
    paths = ["blobs/sha256/" + sha256(blob) for blob in image.layers]
    return [{"Config": "blobs/sha256/" + sha256(image.config), "RepoTags": list(tags), "Layers": paths}]


def one(ref: str | None = None, key: str = REF_NAME, **more: Any) -> bytes:
    """A layout of one image, called so."""
    image = blobs(**more)
    named = {"annotations": {key: ref}} if ref is not None else {}
    return layout([descriptor(image.manifest, MANIFEST, **named)], *image.blobs)


def refused_config(words: str, **conf: Any) -> Odd:
    return Odd(archive(conf=conf), refused=words)


def fine_settings(**settings: Any) -> Odd:
    return Odd(archive(conf={"config": settings}), names=(IMAGE,))


def _beside(artifact: bytes, **more: Any) -> bytes:
    """An image, and something else."""
    image = blobs()
    named = {"annotations": {REF_NAME: IMAGE}}
    return layout(
        [descriptor(image.manifest, MANIFEST, **named), descriptor(artifact, MANIFEST, **more)],
        *image.blobs,
        b"{}",
        artifact,
    )


def _artifact(**more: Any) -> bytes:
    empty = descriptor(b"{}", "application/vnd.oci.empty.v1+json")
    return dump({"schemaVersion": 2, "config": empty, "layers": [empty], **more})


def _signature() -> bytes:
    """As cosign writes it: the configuration says that it is an image's."""
    layers = [descriptor(b"{}", "application/vnd.dev.cosign.simplesigning.v1+json")]
    return dump({"schemaVersion": 2, "config": descriptor(b"{}", CONFIG), "layers": layers})


def _indexes(depth: int) -> bytes:
    """An image in an index in an index."""
    image = blobs()
    found = [*image.blobs]
    named = descriptor(image.manifest, MANIFEST)
    for _ in range(depth):
        found.append(dump({"schemaVersion": 2, "manifests": [named]}))
        named = descriptor(found[-1], INDEX)
    return layout([{**named, "annotations": {FULL_NAME: "docker.io/library/deep:1"}}], *found)


def cased(value: Any, change: Callable[[str], str]) -> Any:
    """The document with other keys, but those of maps."""
    if isinstance(value, list):
        return [cased(item, change) for item in value]
    if not isinstance(value, dict):
        return value
    return {change(key) if "." not in key else key: cased(item, change) for key, item in value.items()}


def _names() -> Action:
    """Names that docker shows in another way, or not at all."""
    yield "repotag without tag", Odd(archive(["fail/notag"]))
    yield "repotag with port and without tag", Odd(archive(["localhost:5000/notag"]))
    yield "repotag with digest", Odd(archive(["fail/digest@sha256:" + "a" * 64]))
    yield "repotag with tag and digest", Odd(archive(["fail/digest:1@sha256:" + "a" * 64]))
    yield "crane's placeholder", Odd(archive(["fail/image:i-was-a-digest"]))
    yield "no repotag and one", Odd(archive(["fail/notag", IMAGE]), (IMAGE,))
    for hub in ("docker.io/library/", "index.docker.io/library/"):
        yield f"{hub} in a repotag", Odd(archive([hub + "full:1"]), ("full:1",))
        yield f"{hub} in ref.name", Odd(one(hub + "full:1"), ("full:1",))
        yield f"{hub} in containerd's name", Odd(one(hub + "full:1", FULL_NAME), ("full:1",))
    yield "docker.io with a user", Odd(archive(["docker.io/fail/full:1"]), ("fail/full:1",))
    three = ("fail/three:a", "fail/three:b", "registry.example.com:5000/fail:c")
    yield "three names", Odd(archive(three), three)
    yield "one name twice", Odd(archive([IMAGE, "docker.io/" + IMAGE]), (IMAGE,))
    yield (
        "two entries",
        Odd(archive(manifest=lambda e: dump([e, {**e, "RepoTags": ["fail/b:2"]}])), (IMAGE, "fail/b:2")),
    )
    yield "tag only", Odd(one("latest"))
    yield "containerd's name of a digest", Odd(one("overlayfs@sha256:" + "a" * 64, FULL_NAME))
    yield "two names in an index", Odd(_twice_in_index(), ("fail/a:1", "fail/b:1"))
    yield "a name that docker rejects", Odd(archive(["Fail/Image"]), refused="rejects")


def _in_each(change: Callable[[Any], bytes]) -> dict[str, bytes]:
    """An archive for each document that there is, that document written so."""
    return {
        "manifest.json": archive(manifest=lambda entry: change([entry])),
        "a configuration": archive(conf=change(config([FIRST]))),
        "a manifest": one(IMAGE, change=change),
        "index.json": _with_index(change),
    }


def _json() -> Action:
    """What Go reads as JSON, and what readers read differently."""
    written: dict[str, Callable[[Any], bytes]] = {
        "lower case": lambda document: dump(cased(document, str.lower)),
        "upper case": lambda document: dump(cased(document, str.upper)),
        "swapped case": lambda document: dump(cased(document, str.swapcase)),
        "spaces": lambda document: b"\n  " + dump(document) + b" ",
        "control characters": lambda document: b"\t\r\n" + dump(document) + b"\n\r\t",
    }
    for how, change in written.items():
        for where, data in _in_each(change).items():
            yield f"{how} in {where}", Odd(data, (IMAGE,))
    no_json: dict[str, Callable[[Any], bytes]] = {
        "byte order mark": lambda document: b"\xef\xbb\xbf" + dump(document),
        "UTF-16": lambda document: json.dumps(document).encode("utf-16-le"),
        "garbage behind": lambda document: dump(document) + b"x",
        "a second document": lambda document: dump(document) * 2,
        "NaN": lambda document: dump(document)[:1] + b"NaN," + dump(document)[1:],
    }
    for how, change in no_json.items():
        for where, data in _in_each(change).items():
            yield f"{how} in {where}", Odd(data, refused="JSON")
    yield "no UTF-8 in a text", Odd(archive(conf=dump(config([FIRST], author="?")).replace(b"?", b"\xff")), (IMAGE,))
    yield "half a surrogate pair", Odd(archive(conf=dump(config([FIRST], author="\ud800\\ud800"))), (IMAGE,))
    yield from _doubled()


def _doubled() -> Action:
    """Keys that are there twice, in the same case or another."""
    keys = {
        "manifest.json": ("Config", "Layers", "RepoTags"),
        "a configuration": ("rootfs", "diff_ids", "config", "created", "architecture", "os", "history", "Cmd"),
        "a manifest": ("config", "layers", "digest"),
        "index.json": ("manifests", "digest"),
    }
    for where, used in keys.items():
        for key in used:
            for again in (key, key.lower(), key.upper(), key.swapcase(), key.replace("s", "\u017f")):
                if again != key or again == used[0]:
                    yield f"{key} and {again} in {where}", Odd(_in_each(_twice(key, again))[where], refused="twice")
    yield "labels in two cases", fine_settings(Labels={"Env": "a", "env": "b", "created": "c", "Created": "d"})
    image = blobs()
    named = descriptor(image.manifest, MANIFEST, annotations={REF_NAME: IMAGE})
    data = layout([named], *image.blobs, change=_twice(REF_NAME, REF_NAME))
    yield "an annotation twice", Odd(data, refused="twice")


def _compressed() -> Action:
    """What is compressed."""
    for name, compress in COMPRESSIONS.items():
        yield f"whole in {name}", Odd(compress(archive()), (IMAGE,))
        yield f"layer in {name}", Odd(archive(members=[("a.tar.x", compress(FIRST))]), (IMAGE,))
        yield (
            f"layer of two streams in {name}",
            Odd(archive(members=[("a", compress(FIRST[:700]) + compress(FIRST[700:]))]), (IMAGE,)),
        )
        yield f"layers swapped in {name}", _swapped(compress)
        yield f"end missing in {name}", Odd(compress(archive())[:-5], refused="cut short or damaged")
        yield (
            f"layer's end missing in {name}",
            Odd(archive(members=[("a", compress(FIRST)[:-5])]), refused="cut short or damaged"),
        )
        yield f"other layer in {name}", Odd(archive(members=[("a", compress(SECOND))]), refused="damaged")
        yield (
            f"no tar in {name}",
            Odd(archive(members=[("a", compress(b"no tar" * 99))], layers=[b"no tar" * 99]), refused="no tar"),
        )
        yield (
            f"something after a layer in {name}",
            Odd(archive(members=[("a", compress(FIRST) + b"garbage" * 9)]), refused="something else follows"),
        )
        yield (
            f"broken file beside it in {name}",
            Odd(archive(members=[("l", FIRST), ("x", compress(SECOND)[:-9])], listed=["l"]), (IMAGE,)),
        )
    yield (
        "all in one",
        Odd(
            lzma.compress(
                archive(members=[("a", gzip.compress(FIRST)), ("b", bz2.compress(SECOND))], layers=[FIRST, SECOND])
            ),
            (IMAGE,),
            (FIRST, SECOND),
        ),
    )


BAD: dict[str, list[Any]] = {
    **{key: [{"A": "1"}, "A=1", 1, [1], [["A=1"]]] for key in ("Env", "OnBuild")},
    **{key: [{"A": "1"}, 1, [1], True] for key in ("Cmd", "Entrypoint", "Shell")},
    "Labels": [[], ["a=b"], "x", {"a": 1}, {"a": {}}],
    **{key: [[], ["80/tcp"], "x", {"80/tcp": ""}, {"80/tcp": []}] for key in ("ExposedPorts", "Volumes")},
    **{key: [0, [], {}, False] for key in ("User", "WorkingDir", "StopSignal", "Hostname", "Domainname")},
    **{key: ["true", 1, []] for key in ("Tty", "OpenStdin", "ArgsEscaped")},
    "StopTimeout": ["10", 1.5, 1 << 63, True],
    "Healthcheck": [[], "x", {"Test": "x"}, {"Interval": "30s"}, {"Retries": 1.5}, {"Timeout": []}],
}
"""What docker does not take in a configuration's settings."""
BAD_TIMES = [
    *("", "yesterday", "2024-01-02", "2024-01-02 03:04:05", "2024-13-02T03:04:05Z", "2024-02-30T03:04:05Z"),
    *("2024-01-02T03:04:05", "2024-01-02T24:04:05Z", "2024-01-02T03:04:60Z", "2024-01-02t03:04:05z"),
    *(1700000000, True, {}, ["2024-01-02T03:04:05Z"]),
]
GOOD_TIMES = [None, ..., "0001-01-01T00:00:00Z", "2024-01-02T03:04:05.123456789+05:30", "2024-02-29T23:59:59-00:00"]


def _configurations() -> Action:
    """What docker demands of a configuration and takes."""
    yield "126 layers", _many(126)
    yield "history too long", refused_config("history", history=[{"created_by": "a"}, {"created_by": "b"}])
    yield "history with empty layers", Odd(archive(conf={"history": [{"empty_layer": True}] * 9 + [{}]}), (IMAGE,))
    yield "history of null", Odd(archive(conf={"history": None}), (IMAGE,))
    yield "history that is no list", refused_config("history", history={})
    yield "history of numbers", refused_config("history", history=[1])
    yield "empty_layer as a string", refused_config("empty_layer", history=[{"empty_layer": "true"}])
    yield "no rootfs", refused_config("rootfs", rootfs=...)
    yield "rootfs of null", refused_config("rootfs", rootfs=None)
    yield "more diff ids than layers", Odd(archive(layers=[FIRST, SECOND]), refused="2 layers")
    yield "diff id of null", refused_config("diff_ids", rootfs={"diff_ids": [None]})
    yield "diff ids as a string", refused_config("diff_ids", rootfs={"diff_ids": "sha256:" + "0" * 64})
    for bad in BAD_TIMES:
        yield f"created {bad!r}", refused_config("created", created=bad)
        yield f"created {bad!r} in the history", refused_config("created", history=[{"created": bad}])
    for good in GOOD_TIMES:
        yield f"created {good!r}", Odd(archive(conf={"created": good}), (IMAGE,))
    for key, values in BAD.items():
        for bad in values:
            yield f"{key} {bad!r}", refused_config(key, config={key: bad})
            yield f"{key.lower()} {bad!r}", refused_config(key, config={key.lower(): bad})
        yield f"{key} of null", fine_settings(**{key: None})
    for key in ("Cmd", "Entrypoint", "Shell"):
        yield f"{key} as a string", Odd(archive(conf={"config": {key: "/a"}}), (IMAGE,), warning=key)
    yield "settings as a list", refused_config("config", config=[])
    yield "architecture as a number", refused_config("architecture", architecture=64)
    good_settings = {"Env": ["A=1", None], "Volumes": {"/a": None, "/b": {}}, "ExposedPorts": {"80/tcp": {"x": 1}}}
    yield "good settings", fine_settings(**good_settings, Healthcheck={"Test": ["NONE"], "Interval": 30_000_000_000})
    yield "unknown settings", fine_settings(Memory=1, CpuShares=[{}])
    no_tar = b"no tar\n" * 99
    yield "layer is no tar", Odd(archive(members=[("l", no_tar)], layers=[no_tar]), refused="no tar")
    yield "layer is JSON", Odd(archive(members=[("l", b"[1]")], layers=[b"[1]"]), refused="no tar")
    yield "layer of zeros", Odd(archive(members=[("l", bytes(1024))], layers=[bytes(1024)]), (IMAGE,), (bytes(1024),))


def _artifacts() -> Action:
    """What is no image, beside one."""
    yield "artifact", Odd(_beside(_artifact(artifactType="application/vnd.example.thing")), (IMAGE,))
    yield "artifact of the index", Odd(_beside(_artifact(), artifactType="application/vnd.example.thing"), (IMAGE,))
    yield "artifact by its configuration", Odd(_beside(_artifact()), (IMAGE,))
    yield "signature", Odd(_beside(_signature()), (IMAGE,))
    attestation = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    yield "attestation", Odd(_beside(_signature(), **attestation), (IMAGE,))
    yield (
        "nothing but an artifact",
        Odd(layout([descriptor(_artifact(), MANIFEST)], _artifact(), b"{}"), refused="artifacts"),
    )
    for depth in (1, 2, 3):
        yield f"{depth} indexes", Odd(_indexes(depth), ("deep:1",))


def _members() -> Action:
    """Names of members, and links."""
    twice = {"layers": [FIRST, FIRST], "listed": ["a/l", "b/l"]}
    both = (FIRST, FIRST)
    for name, link in {
        "symbolic link": (tarfile.SYMTYPE, "../a/l"),
        "absolute symbolic link": (tarfile.SYMTYPE, "/a/l"),
        "hard link": (tarfile.LNKTYPE, "a/l"),
        "hard link with dot": (tarfile.LNKTYPE, "./a/l"),
        "absolute hard link": (tarfile.LNKTYPE, "/a/l"),
    }.items():
        yield name, Odd(archive(members=[("a/l", FIRST), ("b/l", link)], **twice), (IMAGE,), both)  # type: ignore[arg-type]
        chain: list[Member] = [("a/l", FIRST), ("c/l", link), ("b/l", (tarfile.SYMTYPE, "../c/l"))]
        yield f"link to a {name}", Odd(archive(members=chain, **twice), (IMAGE,), both)  # type: ignore[arg-type]
        hard: list[Member] = [("a/l", FIRST), ("c/l", link), ("b/l", (tarfile.LNKTYPE, "c/l"))]
        yield f"hard link to a {name}", Odd(archive(members=hard, **twice), (IMAGE,), both)  # type: ignore[arg-type]
    into: list[Member] = [("a/l", FIRST), ("b", (tarfile.SYMTYPE, "a"))]
    yield "link to a directory", Odd(archive(members=into, **twice), (IMAGE,), both)  # type: ignore[arg-type]
    for name in ("/a/l", "./a/l", "a//l", "x/../a/l", "//a/l"):
        yield f"name {name}", Odd(archive(members=[(name, FIRST)], layers=both, listed=[name, "a/l"]), (IMAGE,), both)
    for name in ("../a", "a/../../b", ".."):
        yield f"name {name}", Odd(archive(members=[("l", FIRST), (name, b"x")], listed=["l"]), refused="outside")
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        long = "d" * 80 + "/" + "l" * (140 if form != tarfile.USTAR_FORMAT else 70)
        yield f"long names, format {form}", Odd(archive(members=[(long, FIRST)], kind=form), (IMAGE,))


def _no_images() -> Action:
    """What is no archive of an image."""
    export: list[Member] = [(".dockerenv", b""), ("bin/sh", b"x"), ("etc/mtab", (tarfile.SYMTYPE, "/proc/mounts"))]
    yield "docker export", Odd(tar(export), refused="file system")
    yield (
        "export without .dockerenv",
        Odd(tar([(f"{name}/x", b"x") for name in ("bin", "etc", "usr")]), refused="file system"),
    )
    document = dump(config([FIRST]))
    entry = {"Config": "config.json", "RepoTags": [], "Layers": ["l"]}
    image = [("l", FIRST), ("config.json", document), ("manifest.json", dump([entry]))]
    members = [("image/" + name, data) for name, data in image]
    yield "directory around an image", Odd(tar(members), refused="directory 'image'")
    yield "no members", Odd(tar([]), refused="neither manifest.json nor index.json")
    yield "empty", Odd(b"", refused="empty")
    for start, what in {
        b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0": "SIF",
        b"hsqs": "squashfs",
        b"PK\x03\x04": "zip",
        b"\x7fELF": "program",
        b"[]": "JSON",
        b"\x93\x04\x80": "something else",
        b"plain text": "text",
    }.items():
        yield f"no tar: {what}", Odd(start.ljust(4096, b" " if what in ("text", "JSON") else b"\x01"), refused=what)
        yield f"small, no tar: {what}", Odd(start, refused=what)


def _twice(key: str, again: str) -> Callable[[Any], bytes]:
    """Writes JSON that has a key once more, after it was there, wherever it is."""
    marker = "again"

    def marked(value: Any) -> Any:
        if isinstance(value, list):
            return [marked(item) for item in value]
        if not isinstance(value, dict):
            return value
        more = {marker: value[key]} if key in value else {}
        return {**{name: marked(item) for name, item in value.items()}, **more}

    return lambda document: dump(marked(document)).replace(dump(marker), dump(again))


def _twice_in_index() -> bytes:
    image = blobs()
    named = [descriptor(image.manifest, MANIFEST, annotations={REF_NAME: f"fail/{name}:1"}) for name in "ab"]
    return layout(named, *image.blobs)


def _with_index(change: Callable[[dict[str, Any]], bytes]) -> bytes:
    image = blobs()
    named = descriptor(image.manifest, MANIFEST, annotations={REF_NAME: IMAGE})
    return layout([named], *image.blobs, change=change)


def _swapped(compress: Callable[[bytes], bytes]) -> Odd:
    image = blobs([FIRST, SECOND], compress, order=[1, 0])
    data = layout([descriptor(image.manifest, MANIFEST)], *image.blobs, listing=listing(image, IMAGE))
    return Odd(data, refused="damaged")


def _many(count: int) -> Odd:
    layers = tuple(tar([(f"f{number}", b"%d" % number)]) for number in range(count))
    members = [(f"{number}/layer.tar", layer) for number, layer in enumerate(layers)]
    return Odd(archive(members=members, layers=layers), (IMAGE,), layers, warning="126 layers")


ODD: dict[str, Odd] = {
    "plain": Odd(archive(), (IMAGE,)),
    **dict(_names()),
    **dict(_json()),
    **dict(_compressed()),
    **dict(_configurations()),
    **dict(_artifacts()),
    **dict(_members()),
    **dict(_no_images()),
}
