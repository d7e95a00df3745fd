"""Image names, checked against docker's grammar."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_keepdocker.errors import UsageError
from arv_keepdocker.images.reference import Reference, parse, split_query

HEX64 = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["debian"], "debian:latest"),
        (["debian:12"], "debian:12"),
        (["debian", "12"], "debian:12"),
        (["bio/tool"], "bio/tool:latest"),
        (["docker.io/library/debian:12"], "docker.io/library/debian:12"),
        (["reg.example:5000/a/b"], "reg.example:5000/a/b:latest"),
        (["reg.example:5000/a/b:v1"], "reg.example:5000/a/b:v1"),
        (["reg.example:5000/a/b", "v1"], "reg.example:5000/a/b:v1"),
        (["localhost/x"], "localhost/x:latest"),
        (["localhost:5000/x"], "localhost:5000/x:latest"),
        (["[::1]:5000/x"], "[::1]:5000/x:latest"),
        (["[::1]:5000/x:v1"], "[::1]:5000/x:v1"),
        (["reg.example:443/x:v1"], "reg.example/x:v1"),
        (["[::1]:443/x"], "[::1]/x:latest"),
        (["reg.example:4430/x:v1"], "reg.example:4430/x:v1"),
        (["x:443"], "x:443"),
        (["images:latest"], "images:latest"),
        (["images:v2"], "images:v2"),
        (["e_f/a__b--c.d:T.-_1"], "e_f/a__b--c.d:T.-_1"),
        ([f"bio/tool@sha256:{HEX64}"], f"bio/tool@sha256:{HEX64}"),
        ([f"bio/tool:1.2@sha256:{HEX64}"], f"bio/tool@sha256:{HEX64}"),
        (["bio/tool@sha256", HEX64], f"bio/tool@sha256:{HEX64}"),
        ([f"reg.example:443/x@sha256:{HEX64}"], f"reg.example/x@sha256:{HEX64}"),
    ],
)
def test_names(words: list[str], name: str) -> None:
    reference = parse(*words)
    assert reference.name == name
    assert reference.id_prefix is None
    assert str(reference) == name


@pytest.mark.parametrize(
    ("words", "id_prefix"),
    [
        ([f"sha256:{HEX64}"], f"sha256:{HEX64}"),
        (["sha256:0123abc"], "sha256:0123abc"),
        ([HEX64], f"sha256:{HEX64}"),
        (["sha256", HEX64], f"sha256:{HEX64}"),
    ],
)
def test_ids_have_no_name(words: list[str], id_prefix: str) -> None:
    assert parse(*words) == Reference(id_prefix=id_prefix)
    assert parse(*words).name is None


@pytest.mark.parametrize("word", ["abcdef012345", "cafe", "0"])
def test_a_word_of_digits_may_be_either(word: str) -> None:
    reference = parse(word)
    assert reference.name == f"{word}:latest"
    assert reference.id_prefix == f"sha256:{word}"
    assert str(reference) == word
    assert reference.as_id().name is None


def test_with_a_tag_it_is_a_name() -> None:
    assert parse("cafe", "1").id_prefix is None
    assert parse("cafe:1").id_prefix is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([""], "empty"),
        (["debian", ""], "empty"),
        (["debian:"], "empty"),
        ([":12"], "empty"),
        (["Debian"], "lowercase"),
        (["bio/Tool:1"], "lowercase"),
        (["bio//tool"], "empty part"),
        (["/tool"], "empty part"),
        (["bio/"], "empty part"),
        (["bio/_tool"], "_tool"),
        (["bio/to..ol"], "to..ol"),
        (["--force"], "--force"),
        (["-x"], "-x"),
        (["debian:.12"], "tag"),
        (["debian", "-12"], "tag"),
        (["debian:" + "a" * 129], "tag"),
        (["debian 12"], "' '"),
        (["debian\n"], r"\\n"),
        (["debi\x1b[31man"], r"\\x1b"),
        (["débian"], "é"),
        (["debian", "1\u200b2"], "u200b"),
        (["debian:12", "12"], "two tags.*debian:12.*'12'"),
        (["reg.example:5000/x:1", "2"], "two tags"),
        ([f"debian@sha256:{HEX64}", "12"], "12"),
        (["debian@sha256:0123"], "64 hexadecimal"),
        ([f"debian@sha512:{HEX64}"], "64 hexadecimal"),
        (["debian@"], "64 hexadecimal"),
        ([f"@sha256:{HEX64}"], "empty"),
        (["sha256:"], "not an image id"),
        (["sha256:xyz"], "not an image id"),
        ([f"sha256:{HEX64}0"], "not an image id"),
        (["sha256:0123", "v1"], "v1"),
        (["sha256"], "image id"),
        ([f"{HEX64}:v1"], "image id"),
        (["reg.example:port/x"], "host name and port"),
        (["reg_.example:1/x"], "host name and port"),
        (["a" * 256], "255"),
    ],
)
def test_what_docker_rejects_is_refused_with_the_reason(words: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        parse(*words)
    assert refused.value.exit_status == 2


@given(st.text(max_size=40), st.none() | st.text(max_size=20))
def test_any_text_is_understood_or_refused(image: str, tag: str | None) -> None:
    try:
        reference = parse(image, tag)
    except UsageError:
        return
    assert (reference.name or reference.id_prefix) is not None
    # What is recorded never looks like an id, and is the same when it is read again.
    if reference.name is not None:
        assert not reference.name.startswith("sha256:")
        assert parse(reference.name).name == reference.name


components = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8).filter(
    lambda part: part != "sha256"
)
hosts = st.sampled_from(
    ["", "reg.example/", "reg.example:5000/", "localhost/", "localhost:1/", "[::1]:5000/", "[::1]/"]
)
tags = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=8)


@given(hosts, st.lists(components, min_size=1, max_size=3), tags)
def test_repository_and_tag_in_one_word_or_two(host: str, parts: list[str], tag: str) -> None:
    repository = host + "/".join(parts)
    assert parse(f"{repository}:{tag}") == parse(repository, tag)
    assert parse(repository, tag).name == f"{repository}:{tag}"


@pytest.mark.parametrize(
    ("text", "name", "tag"),
    [
        ("debian", "debian", None),
        ("debian:12", "debian", "12"),
        ("reg.example:5000/x", "reg.example:5000/x", None),
        ("reg.example:443/x:1", "reg.example/x", "1"),
        ("sha256:0123", "sha256:0123", None),
        ("0123", "0123", None),
        ("DEB%", "DEB%", None),
        (f"x@sha256:{HEX64}", "x@sha256", HEX64),
    ],
)
def test_a_query_may_be_anything(text: str, name: str, tag: str | None) -> None:
    assert split_query(text) == (name, tag)
