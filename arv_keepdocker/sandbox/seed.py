"""Makes many images at once, such as a cluster has after years of use."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

from . import manifest, timestamps
from .database import Database, Row
from .resources import COLLECTIONS, LINKS

_REGISTRIES = ("", "", "", "quay.io/", "registry.example.com:5000/", "ghcr.io/")
_MAKERS = ("library", "biocontainers", "arvados", "lab", "genomics", "broadinstitute", "curii", "pipeline")
_TOOLS = ("bwa", "samtools", "gatk", "star", "jobs", "fastqc", "picard", "cwltool", "bcftools", "python", "r-base")
_BLOCK = 64 << 20
_SPAN = 5 * 365 * 86400 * 1_000_000
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def seed_images(database: Database, count: int, owner: str, number: int) -> None:
    """Make the collections and links of so many images; the same number always gives the same ones."""
    rng = random.Random(number)
    collections, links = [], []
    begin = timestamps.parse("2021-01-01T00:00:00Z")
    for index in range(count):
        created = begin + _SPAN * index // count + rng.randrange(1_000_000)
        collection, *its_links = _image(rng, owner, created)
        collections.append(collection)
        links += its_links
    database.insert_many(COLLECTIONS, collections)
    database.insert_many(LINKS, links)
    database.execute("ANALYZE")


def _uuid(rng: random.Random, infix: str) -> str:
    return f"zzzzz-{infix}-" + "".join(rng.choices(_ALPHABET, k=15))


def _manifest(rng: random.Random, config: str) -> tuple[str, int]:
    sizes = [_BLOCK] * rng.randrange(4) + [rng.randrange(1 << 20, _BLOCK)]
    blocks = " ".join(f"{rng.randbytes(16).hex()}+{size}" for size in sizes)
    return f". {blocks} 0:{sum(sizes)}:sha256\\072{config}.tar\n", sum(sizes)


def _tags(rng: random.Random) -> Iterator[str]:
    repository = rng.choice(_REGISTRIES) + f"{rng.choice(_MAKERS)}/{rng.choice(_TOOLS)}"
    version = f"{rng.randrange(9)}.{rng.randrange(20)}.{rng.randrange(100)}"
    yield f"{repository}:{version}"
    if rng.random() < 0.2:
        yield f"{repository}:latest"
    if rng.random() < 0.05:
        yield f"{repository}:{version}-{rng.randbytes(3).hex()}"


def _image(rng: random.Random, owner: str, created: int) -> Iterator[Row]:
    """The collection of one image, then its links."""
    config = hashlib.sha256(rng.randbytes(16)).hexdigest()
    text, size = _manifest(rng, config)
    uuid = _uuid(rng, COLLECTIONS.infix)
    tags = list(_tags(rng))
    common = {"owner_uuid": owner, "modified_by_user_uuid": owner, "created_at": created, "modified_at": created}
    yield {
        **COLLECTIONS.defaults,
        **common,
        "uuid": uuid,
        "current_version_uuid": uuid,
        "name": f"Docker image {tags[0].replace('/', ' ')} sha256:{config[:12]} ({uuid[-15:]})",
        "properties": {"docker-image-repo-tag": tags[0]},
        "manifest_text": text,
        "portable_data_hash": manifest.portable_data_hash(text),
        "file_count": 1,
        "file_names": f"./{manifest.single_file(text)}",
        "file_size_total": size,
    }
    built = created - rng.randrange(30 * 86400) * 1_000_000
    properties = {"image_timestamp": timestamps.render(built)}
    names = [("docker_image_hash", f"sha256:{config}"), *(("docker_image_repo+tag", tag) for tag in tags)]
    for delay, (link_class, name) in enumerate(names, 1):
        when = created + delay * 50_000
        yield {
            **common,
            "uuid": _uuid(rng, LINKS.infix),
            "created_at": when,
            "modified_at": when,
            "link_class": link_class,
            "name": name,
            "head_uuid": uuid,
            "properties": properties,
        }
