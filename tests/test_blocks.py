"""Blocks on their way to Keep, and the manifests and journals of these."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from arv_keepdocker.errors import ArvadosError
from arv_keepdocker.keep.block_sender import SLOTS, BlockSender, StoredBlock
from arv_keepdocker.keep.journal import LIMIT, Journal
from arv_keepdocker.keep.locators import is_signed_until, locators, portable_data_hash

MIB = 1 << 20


@pytest.mark.parametrize(
    "hints", ["", "+A" + "0" * 40 + "@" + "7" * 8, "+K@zzzzz", "+K@zzzzz+A" + "0" * 40 + "@" + "7" * 8]
)
def test_the_portable_data_hash_is_of_the_manifest_without_hints(hints: str) -> None:
    bare = f". {'0' * 32}+5 {'1' * 32}+7 0:12:a+Bfile\n"
    text = bare.replace("+5 ", f"+5{hints} ").replace("+7 ", f"+7{hints} ")
    assert portable_data_hash(text) == f"{hashlib.md5(bare.encode()).hexdigest()}+{len(bare)}"


# The journal

SOON = time.time() + 10_000


def locator(number: int, until: float = SOON) -> str:
    return f"{number:032x}+{number}+A{'a' * 40}@{int(until):08x}"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "x.journal")


def test_the_journal_remembers(journal: Journal, tmp_path: Path) -> None:
    assert journal.read(0).locators == []
    old = os.umask(0)
    try:
        for number in range(3):
            journal.add(locator(number))
    finally:
        os.umask(old)
    assert (tmp_path / "x.journal").stat().st_mode & 0o777 == 0o600
    assert journal.read(time.time()).locators == [locator(number) for number in range(3)]
    assert journal.problem is None


def test_the_journal_forgets_what_has_expired_and_the_oldest(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    path.write_text("".join(f"{locator(number, SOON - number % 2 * 10_000)}\n" for number in range(10)))
    assert journal.read(SOON - 60).locators == [locator(number) for number in range(0, 10, 2)]
    assert len(path.read_text().splitlines()) == 5
    path.write_text("".join(f"{locator(number)}\n" for number in range(LIMIT + 7)))
    assert journal.read(0).locators == [locator(number) for number in range(7, LIMIT + 7)]
    assert path.stat().st_size < 3_000_000
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_journal_remembers_layers_blobs_and_images(journal: Journal, tmp_path: Path) -> None:
    first, second, third = (f"sha256:{digit * 64}" for digit in "abc")
    journal.add_layer(first, 12, ["0" * 31 + "1+1", "0" * 31 + "2+2"])
    journal.add_layer(second, 12, ["0" * 31 + "1+1", "0" * 31 + "9+9"])  # a block of which there is no locator
    journal.add(locator(1))
    journal.add(locator(2))
    journal.add_blob(third, first)
    journal.add_image("0" * 31 + "5+5", {first: 12, second: 13})
    journal.add_image("0" * 31 + "6+6", {})
    for _ in range(2):  # nothing is lost when it is written anew
        notes = journal.read(0)
        assert notes.layers == {first: (12, ("0" * 31 + "1+1", "0" * 31 + "2+2"))}
        assert notes.blobs == {third: first}
        assert notes.images == {"0" * 31 + "5+5": {first: 12, second: 13}, "0" * 31 + "6+6": {}}
        assert notes.locators == [locator(1), locator(2)]
        with (tmp_path / "x.journal").open("a") as file:
            file.write(f"layer {first} x y\nblob {first}\nimage x -\nimage {'0' * 31}7+7 {first}\nhello\n")
    assert journal.read(SOON + 60).layers == {}  # its blocks may be gone


def test_the_journal_does_not_grow_without_bound(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    blob = f"sha256:{'0' * 64}"
    path.write_text("".join(f"blob sha256:{number:064x} {blob}\n" for number in range(50_000)))
    found = list(journal.read(0).blobs)
    assert 1000 < len(found) < 10_000
    assert found[-1] == f"sha256:{49_999:064x}"  # the newest are kept
    assert path.stat().st_size < 2 << 20


def test_a_journal_that_was_not_written_to_its_end(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    whole = f"{locator(1)}\n{locator(2)}\n"
    for size in range(len(whole)):
        path.write_text(whole[:size])
        journal.add(locator(3))
        expected = [locator(1)] if size > len(locator(1)) else []
        # The line that has no end but is all there may count or not.
        assert [found for found in journal.read(0).locators if found != locator(2) and found != locator(1)] == [
            locator(3)
        ]
        assert set(expected) <= set(journal.read(0).locators) <= {locator(1), locator(2), locator(3)}
    path.write_bytes(bytes(range(256)) * 10 + b"\n" + locator(1).encode() + b"\n")
    assert journal.read(0).locators == [locator(1)]


def test_two_runs_write_the_journal(tmp_path: Path) -> None:
    journals = [Journal(tmp_path / "x.journal") for _ in range(4)]

    def write(number: int) -> None:
        for count in range(50):
            journals[number].add(locator(number * 1000 + count))
            if count % 10 == 0:
                journals[number].add(locator(1, 1))  # expired, so that reading writes the file anew
                journals[number].read(time.time())

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {locator(number * 1000 + count) for number in range(4) for count in range(50)}
    assert set(journals[0].read(time.time()).locators) == expected


def test_a_journal_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "x.journal").symlink_to(tmp_path / "elsewhere")
    journal = Journal(tmp_path / "x.journal")
    journal.add(locator(1))
    assert journal.problem is not None
    assert journal.read(0).locators == []
    assert (tmp_path / "elsewhere").read_text() == ""


def test_every_token_and_cluster_has_its_journal() -> None:
    names = {Journal.filename(cluster, token) for cluster in ("aaaaa", "bbbbb") for token in ("v2/x/y", "v2/x/z")}
    assert len(names) == 4
    assert all(re.fullmatch(r"[0-9a-f]{32}\.journal", name) for name in names)


def test_which_locators_are_good() -> None:
    assert is_signed_until(locator(1))
    assert is_signed_until(locator(1).replace("+A", "+K@zzzzz+A") + "+Zx")
    for bad in ("", "d41d8cd98f00b204e9800998ecf8427e+0", locator(1)[:-1], locator(1) + " x", locator(1).upper()):
        assert not is_signed_until(bad)
    assert not is_signed_until(locator(1, 100), 101)


# The sender


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_known_is_not_sent() -> None:
    put: list[bytes] = []

    def remember(data: bytes, key: str) -> str:
        put.append(data)
        return signed(data)

    def signed(data: bytes) -> str:
        return f"{hashlib.md5(data).hexdigest()}+{len(data)}+Asigned"

    known = f"{hashlib.md5(b'known').hexdigest()}+5"
    with BlockSender(remember, lambda: {known: "reused"}, threads=2) as sender:
        futures = [sender.send(data) for data in (b"known", b"other", b"longer")]
        found = [future.result() for future in futures]
        assert sender.send(b"other").result() == StoredBlock(signed(b"other"), reused=True)
    assert found == [
        StoredBlock("reused", True),
        StoredBlock(signed(b"other"), False),
        StoredBlock(signed(b"longer"), False),
    ]
    assert sorted(put) == [b"longer", b"other"]
    assert (sender.sent, sender.reused) == (11, 10)


def test_only_so_many_blocks_are_in_memory_and_the_threads_end() -> None:
    before = threading.active_count()
    go = threading.Event()

    def slow(data: bytes, key: str) -> str:
        go.wait()
        return f"{hashlib.md5(data).hexdigest()}+{len(data)}"

    sent: list[int] = []

    def send_all(sender: BlockSender) -> None:
        for number in range(2 * SLOTS):
            sender.take_slot()
            sender.send(bytes(number))
            sent.append(number)

    with BlockSender(slow, dict, threads=2) as sender:
        thread = threading.Thread(target=send_all, args=(sender,))
        thread.start()
        wait(lambda: len(sent) == SLOTS)
        time.sleep(0.1)
        assert len(sent) == SLOTS
        go.set()
        thread.join()
        for _ in range(SLOTS):  # every room is free again
            with sender.slot():
                pass
        assert sender.send(b"last").result().locator.endswith("+4")
    wait(lambda: threading.active_count() <= before)  # of other tests, some may end


@pytest.mark.parametrize("threads", [1, 4])
def test_the_same_block_is_sent_once(threads: int) -> None:
    put: list[bytes] = []

    def slow(data: bytes, key: str) -> str:
        time.sleep(0.01)
        put.append(data)
        return f"{hashlib.md5(data).hexdigest()}+{len(data)}+A"

    blocks = [bytes(1000), b"\1" * 1000, bytes(999), *[bytes(1000)] * 5, b"\1" * 1000, bytes(500) + b"\1" + bytes(499)]
    with BlockSender(slow, dict, threads) as sender:
        stored = [sender.send(block) for block in blocks]
        assert [one.result().locator for one in stored] == [
            f"{hashlib.md5(block).hexdigest()}+{len(block)}+A" for block in blocks
        ]
    assert sorted(put) == sorted(set(blocks))


def test_a_files_name_is_no_locator() -> None:
    block, forged = (f"{digit * 32}+5+A{digit * 40}@ffffffff" for digit in "ab")
    text = f". {block} 0:5:{forged}\n./{forged} {block} 0:5:a\n"
    assert list(locators([text])) == [block, block]


def test_the_first_failure_ends_it() -> None:
    def refuse(data: bytes, key: str) -> str:
        raise ArvadosError("full")

    with BlockSender(refuse, dict, threads=2) as sender:
        with pytest.raises(ArvadosError, match="full"):
            sender.send(b"1").result()
        with pytest.raises(ArvadosError, match="full"):
            sender.take_slot()


def test_what_is_known_cannot_be_found_out() -> None:
    def fail() -> dict[str, str]:
        raise ArvadosError("no answer")

    with BlockSender(lambda data, key: "x", fail, threads=2) as sender, pytest.raises(ArvadosError, match="no answer"):
        sender.send(b"1").result()
