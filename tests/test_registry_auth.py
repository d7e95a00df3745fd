"""Who asks: Basic authentication, token servers, and what may not learn of it."""

from __future__ import annotations

import base64
import io
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from arv_keepdocker.errors import ImageNotFoundError, KeepdockerError, RegistryError
from arv_keepdocker.sandbox.certificate import tls_context
from arv_keepdocker.sources.registry.auth import Challenge, challenges
from arv_keepdocker.sources.registry.client import RegistryClient
from arv_keepdocker.sources.registry.credentials import Credentials
from arv_keepdocker.sources.registry.registry_source import RegistrySource
from arv_keepdocker.sources.registry.repository_name import RepositoryName
from arv_keepdocker.sources.registry.transport import Transport
from arv_keepdocker.terminal.display import Display
from tests.engines import Registry
from tests.registries import Exchange, Front, Repository, layer_tar
from tests.test_registry import Run, Sink

PASSWORD = "swordfish-7"
HTPASSWD = "me:$2b$04$rzng9yb598xcJ47VZAc11.KXdNsq0l7DM7vdLGig/2Q4NznRQmfdy\n"
SECRETS = (PASSWORD, base64.b64encode(f"me:{PASSWORD}".encode()).decode(), "refresh-me-9", "token-")
ME = Credentials("config.json", "me", PASSWORD)
IDENTITY = Credentials("config.json", "", identity_token="refresh-me-9")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://a/b",service="s",scope="x:y:pull,push"',
            [("bearer", {"realm": "https://a/b", "service": "s", "scope": "x:y:pull,push"})],
        ),
        ("Bearer realm=https://a/token?x=y,service=s", [("bearer", {"realm": "https://a/token?x=y", "service": "s"})]),
        ('Basic realm="a \\"b\\", c"', [("basic", {"realm": 'a "b", c'})]),
        (
            'Basic realm=x, Bearer realm="y" , service = "z"',
            [("basic", {"realm": "x"}), ("bearer", {"realm": "y", "service": "z"})],
        ),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('BEARER Realm="x"', [("bearer", {"realm": "x"})]),
        ("Negotiate abc==, Bearer realm=x", [("negotiate", {"abc": "="}), ("bearer", {"realm": "x"})]),
        ("", []),
        ("realm=x", []),
        ('Bearer realm="unended', [("bearer", {"realm": ""})]),
    ],
)
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    found = challenges(header)
    assert found[: len(expected)] == [Challenge(*each) for each in expected]


def test_a_long_challenge_takes_no_long_time() -> None:
    for text in ('Bearer x="' + "\\" * 60_000, "a=" * 30_000, ", " * 30_000, '"' * 60_000):
        began = time.process_time()
        challenges(text)
        assert time.process_time() - began < 5


@dataclass
class TokenServer:
    """A registry that wants tokens, in front of a plain one, and the server that gives them."""

    registry: str
    users: dict[str, str] = field(default_factory=lambda: {"me": PASSWORD})
    identity: str = "refresh-me-9"
    anonymous: bool = False
    lifetime: object = 300
    key: str = "token"
    challenge: str = 'Bearer realm="{realm}",service="the registry",scope="{scope}"'
    fails: int = 0
    """How many times the token server answers 503."""
    good_for: int = 1 << 30
    """Requests after which a token ends."""

    def __enter__(self) -> TokenServer:
        self._stack = ExitStack()
        self.front = self._stack.enter_context(Front(self.registry, [self.check]))
        self.server = self._stack.enter_context(Front(rules=[self.give]))
        self.tokens: dict[str, tuple[str, int]] = {}
        self.lock = threading.Lock()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def realm(self) -> str:
        return f"http://{self.server.address}/token"

    def check(self, exchange: Exchange) -> bool:
        scope = f"repository:{'/'.join(exchange.path.split('/')[2:-2])}:pull"
        token = (exchange.header("Authorization") or "").removeprefix("Bearer ")
        with self.lock:
            granted, left = self.tokens.get(token, ("", 0))
            self.tokens[token] = (granted, left - 1)
        if granted == scope and left > 0:
            return False
        return exchange.reply(401, {"WWW-Authenticate": self.challenge.format(realm=self.realm, scope=scope)})

    def give(self, exchange: Exchange) -> bool:
        if self.fails:
            self.fails -= 1
            return exchange.reply(503)
        if exchange.method == "POST":
            form = {name: values[0] for name, values in exchange.form.items()}
            allowed = form["refresh_token"] == self.identity and form["grant_type"] == "refresh_token"
            assert form["client_id"]
            scope, service = form["scope"], form["service"]
        else:
            scope, service = exchange.query["scope"][0], exchange.query["service"][0]
            basic = exchange.header("Authorization")
            known = [base64.b64encode(f"{user}:{word}".encode()).decode() for user, word in self.users.items()]
            allowed = (basic or "").removeprefix("Basic ") in known if basic is not None else self.anonymous
        assert service == "the registry"
        if not allowed:
            return exchange.reply(401, {}, b'{"details": "incorrect username or password"}')
        with self.lock:
            token = f"token-{len(self.tokens)}"
            self.tokens[token] = (scope, self.good_for)
        lifetime = "" if self.lifetime is None else f', "expires_in": {self.lifetime}'
        more = f', "refresh_token": "{self.identity}"' if exchange.method == "POST" else ""
        return exchange.reply(200, {}, f'{{"{self.key}": "{token}"{lifetime}{more}}}'.encode())


def look(
    host: str,
    path: str,
    credentials: Credentials | None = ME,
    retries: int = 2,
    insecure: bool = False,
    certificates: tuple[str, ...] = (),
) -> Run:
    shown = io.StringIO()
    transport = Transport(Display(shown), retries, insecure, certificates, 20, first_wait=0.01)
    client = RegistryClient(RepositoryName(host, path), transport, lambda: credentials)
    return Run(RegistrySource(client, "v1"), Sink(), shown)


@pytest.fixture(scope="module")
def repository(registry: Registry, layers: list[bytes]) -> Repository:
    """Always the same one: all that differs is who may read it."""
    repository = Repository(registry.host, f"auth/r{os.urandom(4).hex()}")
    repository.image(layers, "v1")
    return repository


@pytest.fixture(scope="module")
def layers() -> list[bytes]:
    return [layer_tar(str(number), os.urandom(100_000)) for number in range(4)]


@pytest.fixture
def tokens(registry: Registry) -> Iterator[TokenServer]:
    with TokenServer(registry.host) as tokens:
        yield tokens


def check(run: Run, layers: list[bytes]) -> None:
    run.deliver()
    assert sorted(run.sink.layers.values()) == sorted(layers)
    assert not any(secret in run.said for secret in SECRETS)


# Tokens.


@pytest.mark.parametrize("credentials", [ME, IDENTITY], ids=["password", "identity token"])
@pytest.mark.parametrize("key", ["token", "access_token"])
@pytest.mark.parametrize("lifetime", [None, 300, 1, 0, -5, '"soon"', 1.5])
def test_a_token(
    tokens: TokenServer,
    repository: Repository,
    layers: list[bytes],
    credentials: Credentials,
    key: str,
    lifetime: object,
) -> None:
    tokens.key, tokens.lifetime = key, lifetime
    check(look(tokens.front.address, repository.path, credentials), layers)
    assert len(tokens.server.asked) == 1
    # The registry itself never sees the password.
    assert not any(PASSWORD in str(headers) or "Basic" in str(headers) for _, _, headers in tokens.front.log)


def test_a_token_without_credentials(tokens: TokenServer, repository: Repository, layers: list[bytes]) -> None:
    tokens.anonymous = True
    check(look(tokens.front.address, repository.path, None), layers)


@pytest.mark.parametrize(
    "challenge",
    [
        "Bearer realm={realm},service=the registry,scope={scope}".replace("the registry", '"the registry"'),
        'Basic realm="x", Bearer realm="{realm}", service="the registry", scope="{scope}"',
        'Bearer service="the registry",realm="{realm}"',
        'Bearer realm="{realm}?account=x", service="the registry",scope="{scope}"',
    ],
)
def test_challenges_of_many_kinds(
    tokens: TokenServer, repository: Repository, layers: list[bytes], challenge: str
) -> None:
    tokens.challenge = challenge
    check(look(tokens.front.address, repository.path), layers)


@pytest.mark.parametrize("credentials", [ME, IDENTITY], ids=["password", "identity token"])
def test_tokens_that_end_in_the_middle(
    tokens: TokenServer, repository: Repository, layers: list[bytes], credentials: Credentials
) -> None:
    tokens.good_for = 2
    check(look(tokens.front.address, repository.path, credentials), layers)
    assert len(tokens.server.asked) >= 3


def test_a_token_server_that_fails_for_a_while(
    tokens: TokenServer, repository: Repository, layers: list[bytes]
) -> None:
    tokens.fails = 2
    run = look(tokens.front.address, repository.path)
    check(run, layers)
    assert f"{tokens.server.address} answered 503 (Service Unavailable); trying again" in run.said
    tokens.fails = 100
    with pytest.raises(RegistryError, match="answered 503"):
        look(tokens.front.address, repository.path).deliver()


@pytest.mark.parametrize(
    "credentials",
    [None, Credentials("config.json", "me", "wrong-password"), Credentials("x", identity_token="wrong-token")],
    ids=["none", "password", "identity token"],
)
def test_a_token_server_that_refuses(
    tokens: TokenServer, repository: Repository, credentials: Credentials | None
) -> None:
    run = look(tokens.front.address, repository.path, credentials)
    with pytest.raises(ImageNotFoundError, match=r"or you may not see it: .*incorrect username or password") as caught:
        run.deliver()
    assert str(caught.value.hint).startswith("If it is private" if credentials is None else "It was asked with the")
    assert "wrong" not in f"{caught.value}{caught.value.hint}{run.said}"


def test_a_token_that_the_registry_does_not_take(tokens: TokenServer, repository: Repository) -> None:
    tokens.good_for = 0
    with pytest.raises(ImageNotFoundError):
        look(tokens.front.address, repository.path).deliver()
    assert len(tokens.server.asked) < 6


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"token": 5}', b'{"token": "a\\r\\nX: y"}', b"{" * 100_000])
def test_a_token_server_that_answers_nonsense(tokens: TokenServer, repository: Repository, body: bytes) -> None:
    tokens.server.rules[:] = [lambda exchange: exchange.reply(200, {}, body)]
    with pytest.raises(RegistryError, match=r"gave no (usable )?token"):
        look(tokens.front.address, repository.path).deliver()


def test_a_token_server_that_answers_without_end(tokens: TokenServer, repository: Repository) -> None:
    tokens.server.rules[:] = [lambda exchange: exchange.reply(200, {}, b" " * (2 << 20))]
    with pytest.raises(RegistryError, match="sent a document of more than 1024 KiB"):
        look(tokens.front.address, repository.path).deliver()


def test_a_registry_token(tokens: TokenServer, repository: Repository, layers: list[bytes]) -> None:
    tokens.tokens["token-given"] = (f"repository:{repository.path}:pull", 1000)
    check(look(tokens.front.address, repository.path, Credentials("x", registry_token="token-given")), layers)
    assert tokens.server.asked == []


@pytest.mark.parametrize(
    "realm", ["http://192.0.2.1/token", "ftp://x/", "/token", "https://[::1", "", "http://a@192.0.2.1"]
)
def test_a_realm_that_is_not_safe(tokens: TokenServer, repository: Repository, realm: str) -> None:
    tokens.challenge = f'Bearer realm="{realm}",service="the registry"'
    with pytest.raises(KeepdockerError):
        look(tokens.front.address, repository.path, retries=0).deliver()


# Others must not see them.


def no_secrets(front: Front) -> None:
    assert front.log
    assert not any("authorization" in map(str.lower, headers) for _, _, headers in front.log)
    assert not any(secret in str(each) for each in front.log for secret in SECRETS)


@pytest.mark.parametrize("kind", ["token", "basic"])
@pytest.mark.parametrize("what", ["blobs", "manifests"])
def test_another_host_does_not_see_who_asks(
    tokens: TokenServer, repository: Repository, layers: list[bytes], kind: str, what: str
) -> None:
    if kind == "basic":
        tokens.front.rules[:] = [basic]
    with Front(repository.host) as store:

        def elsewhere(exchange: Exchange) -> bool:
            if exchange.header("Authorization") is None or what not in exchange.path:
                return False
            return exchange.reply(307, {"Location": f"http://{store.address}{exchange.path}?sig=1"})

        tokens.front.rules.insert(0, elsewhere)
        check(look(tokens.front.address, repository.path), layers)
        no_secrets(store)


def basic(exchange: Exchange) -> bool:
    if exchange.header("Authorization") == ME.basic:
        return False
    return exchange.reply(401, {"WWW-Authenticate": 'Basic realm="x"'})


def test_another_host_may_not_ask_who_asks(tokens: TokenServer, repository: Repository) -> None:
    """Nor may it send the question back to the registry with an answer of its own."""
    with Front() as store:
        store.rules.append(
            lambda exchange: exchange.reply(401, {"WWW-Authenticate": f'Bearer realm="http://{store.address}/token"'})
        )

        def elsewhere(exchange: Exchange) -> bool:
            if "/blobs/" not in exchange.path:
                return False
            return exchange.reply(307, {"Location": f"http://{store.address}/x"})

        tokens.front.rules.insert(0, elsewhere)
        with pytest.raises(RegistryError, match="answered 401"):
            look(tokens.front.address, repository.path).deliver()
        no_secrets(store)
        store.rules[:] = [lambda exchange: exchange.reply(307, {"Location": f"http://{tokens.front.address}/back"})]
        with pytest.raises(RegistryError):
            look(tokens.front.address, repository.path).deliver()
        backs = [headers for _, path, headers in tokens.front.log if path == "/back"]
        assert backs
        assert not any("Authorization" in headers for headers in backs)


@pytest.mark.parametrize("credentials", [ME, IDENTITY], ids=["password", "identity token"])
def test_a_token_server_that_sends_us_on(tokens: TokenServer, repository: Repository, credentials: Credentials) -> None:
    with Front() as other:
        other.rules.append(lambda exchange: exchange.reply(200, {}, b'{"token": "token-evil"}'))
        tokens.server.rules[:] = [lambda exchange: exchange.reply(307, {"Location": f"http://{other.address}/x"})]
        with pytest.raises(KeepdockerError):
            look(tokens.front.address, repository.path, credentials).deliver()
        if other.log:
            no_secrets(other)


def test_a_cookie_is_not_kept(tokens: TokenServer, repository: Repository, layers: list[bytes]) -> None:
    def with_cookie(exchange: Exchange) -> bool:
        status, headers, body = exchange.forward()
        return exchange.reply(status, {**headers, "Set-Cookie": "a=b"}, body)

    with Front(repository.host, [with_cookie]) as front:
        check(look(front.address, repository.path), layers)
        assert not any("Cookie" in headers for _, _, headers in front.log)


def test_netrc_is_not_asked(
    repository: Repository, layers: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login wrong password wrong\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Front(repository.host, [basic]) as front:
        check(look(front.address, repository.path), layers)
        sent = {headers.get("Authorization") for _, _, headers in front.log}
        assert sent == {None, ME.basic}


# Basic authentication.


@pytest.fixture(scope="module")
def htpasswd(registry: Registry) -> Iterator[Registry]:
    """Another one, that asks for a password."""
    with Registry(HTPASSWD) as registry:
        yield registry


def test_a_real_registry_with_passwords(htpasswd: Registry, layers: list[bytes]) -> None:
    repository = Repository(htpasswd.host, "bio/tool", ("me", PASSWORD))
    repository.image(layers, "v1")
    check(look(htpasswd.host, "bio/tool"), layers)
    for credentials in None, IDENTITY, Credentials("x", "me", "wrong"), Credentials("x", "you", PASSWORD):
        with pytest.raises(ImageNotFoundError, match="or you may not see it"):
            look(htpasswd.host, "bio/tool", credentials).deliver()


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of its own, with its key, for 127.0.0.1 and localhost."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    tls_context(path)
    return path


@pytest.fixture(scope="module")
def secure(certificate: Path) -> Iterator[Registry]:
    with Registry(HTPASSWD, certificate) as registry:
        yield registry


@pytest.fixture
def secured(secure: Registry, certificate: Path, layers: list[bytes]) -> Registry:
    Repository(secure.host, "bio/tool", ("me", PASSWORD), (str(certificate), str(certificate))).image(layers, "v1")
    return secure


def trusting(directory: Path, host: str, certificate: Path) -> tuple[str, ...]:
    (directory / host).mkdir(parents=True)
    (directory / host / "ca.crt").write_bytes(certificate.read_bytes())
    return (str(directory),)


@pytest.mark.parametrize("with_port", [True, False])
def test_an_authority_of_its_own(
    secured: Registry, certificate: Path, layers: list[bytes], tmp_path: Path, with_port: bool
) -> None:
    host = secured.host if with_port else "127.0.0.1"
    check(look(secured.host, "bio/tool", certificates=trusting(tmp_path, host, certificate)), layers)


def test_an_authority_that_the_environment_names(
    secured: Registry, certificate: Path, layers: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE":
        with monkeypatch.context() as patch:
            patch.setenv(variable, str(certificate))
            check(look(secured.host, "bio/tool"), layers)


def test_a_certificate_that_is_not_trusted(secured: Registry, certificate: Path, tmp_path: Path) -> None:
    for certificates in (), trusting(tmp_path, "127.0.0.2", certificate), ("/nowhere",):
        run = look(secured.host, "bio/tool", certificates=certificates)
        with pytest.raises(
            RegistryError, match=rf"the certificate of {secured.host} is not trusted: self.signed"
        ) as caught:
            run.deliver()
        assert "certs.d" in str(caught.value.hint)
        assert "trying again" not in run.said


def test_no_certificate_is_verified_if_that_is_wanted(secured: Registry, layers: list[bytes]) -> None:
    check(look(secured.host, "bio/tool", insecure=True), layers)


def test_a_certificate_to_show(certificate: Path, layers: list[bytes], tmp_path: Path) -> None:
    with Registry("", certificate, certificate) as registry:
        files = str(certificate), str(certificate)
        Repository(registry.host, "bio/tool", None, files).image(layers, "v1")
        certificates = trusting(tmp_path, registry.host, certificate)
        with pytest.raises(RegistryError):
            look(registry.host, "bio/tool", certificates=certificates, retries=1).deliver()
        for name in "client.cert", "client.key":
            (tmp_path / registry.host / name).write_bytes(certificate.read_bytes())
        check(look(registry.host, "bio/tool", certificates=certificates), layers)


@pytest.mark.parametrize("damage", ["crt", "no key", "key", "encrypted key"])
def test_certificates_that_cannot_be_used(secured: Registry, certificate: Path, tmp_path: Path, damage: str) -> None:
    certificates = trusting(tmp_path, secured.host, certificate)
    directory = tmp_path / secured.host
    if damage == "crt":
        (directory / "other.crt").write_text("x")
    else:
        (directory / "client.cert").write_bytes(certificate.read_bytes())
    if damage == "key":
        (directory / "client.key").write_text("x")
    if damage == "encrypted key":
        encrypt = ["openssl", "pkey", "-in", str(certificate), "-aes128", "-passout", "pass:secret"]
        (directory / "client.key").write_bytes(subprocess.run(encrypt, check=True, capture_output=True).stdout)
    with pytest.raises(RegistryError, match=r"other\.crt|client\.key"):
        look(secured.host, "bio/tool", certificates=certificates).deliver()


def test_credentials_are_not_told_to_plain_http(secured: Registry, certificate: Path, tmp_path: Path) -> None:
    """What answers in plain HTTP where TLS was spoken gets nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Front(tls=context) as secure, Front() as plain:
        realm = f'Bearer realm="http://{plain.address}/token"'
        secure.rules.append(lambda exchange: exchange.reply(401, {"WWW-Authenticate": realm}))
        certificates = trusting(tmp_path, secure.address, certificate)
        with pytest.raises(RegistryError, match="does not use HTTPS"):
            look(secure.address, "bio/tool", certificates=certificates).deliver()
        secure.rules[:] = [lambda exchange: exchange.reply(307, {"Location": f"http://{plain.address}/x"})]
        with pytest.raises(RegistryError, match="not safe to follow"):
            look(secure.address, "bio/tool", certificates=certificates).deliver()
        assert plain.log == []
        assert all("Authorization" not in headers for _, _, headers in secure.log)


# Proxies.


def test_a_proxy_that_the_environment_names(
    repository: Repository, layers: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Front(repository.host) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
        monkeypatch.delenv("no_proxy", raising=False)
        check(look("registry.invalid:5000", repository.path, insecure=True), layers)
        assert proxy.log[0][1].startswith("http://registry.invalid:5000/v2/")
        monkeypatch.setenv("no_proxy", "registry.invalid")
        with pytest.raises(RegistryError, match=r"the host registry\.invalid:5000 was not found"):
            look("registry.invalid:5000", repository.path, insecure=True).deliver()


def test_a_proxy_that_does_not_answer(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    with Front() as proxy:
        address = proxy.address
    for url in f"http://me:{PASSWORD}@{address}", "http://", "socks9://x", f"http://me:{PASSWORD}@[::1":
        monkeypatch.setenv("http_proxy", url)
        run = look("registry.invalid:5000", repository.path, insecure=True, retries=0)
        with pytest.raises(RegistryError) as caught:
            run.deliver()
        assert PASSWORD not in f"{caught.value}{run.said}"
