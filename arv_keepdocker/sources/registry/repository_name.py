"""Which registry an image's name means, and what the image is called there."""

from dataclasses import dataclass

HUB_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io")
"""What Docker Hub is called in names; the last one is where it answers."""


@dataclass(frozen=True)
class RepositoryName:
    """A repository of a registry."""

    host: str
    """The registry's host, with its port where it has one."""
    path: str
    """The repository's name there."""

    @classmethod
    def of(cls, repository: str) -> "RepositoryName":
        """From the repository as people write it: what begins with no host is in Docker Hub, as docker has it
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
