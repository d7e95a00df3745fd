"""The registry that an image's name means, and the repository's name there."""

from dataclasses import dataclass

HUB_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io")
"""The hosts that mean Docker Hub in names; requests go to the last one."""


@dataclass(frozen=True)
class RepositoryName:
    """The full name of a repository."""

    host: str
    """The registry's host, with its port if it has one."""
    path: str
    """The repository's name there."""

    @classmethod
    def of(cls, repository: str) -> "RepositoryName":
        """The full name of a repository as people write it: without a host, it is in Docker Hub, as for docker
        (https://github.com/distribution/reference)."""
        host, slash, path = repository.partition("/")
        if not slash or not (host == "localhost" or "." in host or ":" in host or host != host.lower()):
            host, path = HUB_HOSTS[0], repository
        if host in HUB_HOSTS:
            path = path if "/" in path else f"library/{path}"
            return cls(HUB_HOSTS[-1], path)
        return cls(host, path)

    @property
    def is_hub(self) -> bool:
        """Whether the registry is Docker Hub."""
        return self.host in HUB_HOSTS

    def __str__(self) -> str:
        return f"{self.host}/{self.path}"
