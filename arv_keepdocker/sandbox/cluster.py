"""The state that all handlers share: database, permissions, signing key, settings, addresses."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .database import Database
from .manifest import Signer
from .permissions import Permissions

DEFAULT_TTL = 336 * 3600
DEFAULT_TRASH_LIFETIME = 336 * 3600


@dataclass
class Settings:
    """What the control interface can change while the cluster runs."""

    # Added to every request, API and Keep.
    latency_ms: float = 0
    # Shared by all requests of one Keep service, in bytes per second; 0 is no limit.
    keep_bandwidth: float = 0
    signature_ttl: int = DEFAULT_TTL
    docker_image_formats: list[str] = field(default_factory=lambda: ["v2"])
    # Whether only an administrator may unfreeze a project.
    unfreeze_requires_admin: bool = True
    # What stands for "/" in names; with "" they cannot have one.
    forward_slash_name_substitution: str = ""
    # The members "strict_tags" and "tags" of a vocabulary.
    vocabulary: dict[str, Any] = field(default_factory=lambda: {"strict_tags": False, "tags": {}})
    # The objects of each federated cluster, by UUID prefix; None for a cluster that is down.
    remote_clusters: dict[str, list[dict[str, Any]] | None] = field(default_factory=dict)
    # Where Workbench is, "" for nowhere.
    workbench2_url: str = ""
    # Keep neither reads nor answers; requests that were under way continue when this ends.
    keep_paused: bool = False
    # Keep is reached through a proxy, which does not say which storage classes it has stored in.
    keep_proxy: bool = False

    def described(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Cluster:
    """One stand-in cluster."""

    directory: Path
    database: Database
    permissions: Permissions
    signer: Signer
    settings: Settings = field(default_factory=Settings)
    api_port: int = 0
    keep_ports: list[int] = field(default_factory=list)

    @classmethod
    def open(cls, directory: Path) -> Cluster:
        """Open the cluster in a directory, or begin a new one there."""
        database = Database(directory / "cluster.sqlite3")
        key = database.fact("blob_signing_key")
        if key is None:
            key = secrets.token_hex(32)
            database.set_fact("blob_signing_key", key)
        return cls(directory, database, Permissions(database), Signer(key.encode(), DEFAULT_TTL))

    @property
    def root_url(self) -> str:
        return f"https://127.0.0.1:{self.api_port}/"

    @property
    def remote_hosts(self) -> dict[str, str]:
        """By UUID prefix the host of each federated cluster."""
        return {prefix: f"{prefix}.invalid" for prefix in self.settings.remote_clusters}

    def change_settings(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Change some settings; TypeError if there is no such setting."""
        self.settings = replace(self.settings, **changes)
        self.signer.ttl = self.settings.signature_ttl
        return self.settings.described()

    def close(self) -> None:
        self.database.close()
