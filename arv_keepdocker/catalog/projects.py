"""Projects, users' home projects among them, and whether the user may write to them."""

import re

from ..errors import ArvadosError, UsageError
from .arvados_errors import ArvadosRefusedError
from .client import ArvadosClient, Record

_GROUP = re.compile(r"[0-9a-z]{5}-j7d0g-[0-9a-z]{15}")
_USER = re.compile(r"[0-9a-z]{5}-tpzed-[0-9a-z]{15}")
_REQUEST = re.compile(r"\(req-\w+\)")
_WRITES = ("POST /arvados/v1/collections", "POST /arvados/v1/links")
"""The requests that storing an image needs."""


class Projects:
    """The projects of one run. Answers are remembered, and nothing is asked before it is needed."""

    def __init__(self, client: ArvadosClient) -> None:
        self._client = client
        self._user: Record | None = None
        self._found: dict[str, Record] = {}
        self._writable: set[str] = set()

    @property
    def user(self) -> Record:
        """The user to whom the token belongs."""
        if self._user is None:
            self._user = self._client.current_user()
        return self._user

    def resolve(self, uuid: str | None) -> str:
        """The UUID of the given project, which exists and is readable, or by default of the user's home project.

        Raises UsageError or ArvadosError, also for another user's home project unless the user is an administrator.
        """
        if uuid is None:
            self._check_active()
            return str(self.user["uuid"])
        if _USER.fullmatch(uuid):
            self._check_cluster(uuid)
            if uuid == self.user["uuid"]:
                return uuid
            if not self.user.get("is_admin"):
                raise ArvadosError(
                    f"{uuid} is another user, and only an administrator may store images in other users' homes"
                )
        self._found[uuid] = self.get(uuid)
        return uuid

    def get(self, uuid: str) -> Record:
        """The project with this UUID; for a home project, its user. Raises UsageError or ArvadosError."""
        if not _USER.fullmatch(uuid) and not _GROUP.fullmatch(uuid):
            raise UsageError(f"{uuid!r} is not the UUID of a project")
        self._check_cluster(uuid)
        try:
            owner = self._client.get("users" if _USER.fullmatch(uuid) else "groups", uuid)
        except ArvadosRefusedError as error:
            if error.http_status != 404:
                raise
            if self._is_in_trash(uuid):
                raise ArvadosError(f"project {uuid} is in the trash, or in a project that is") from error
            request = _REQUEST.search(str(error))
            asked = f" {request[0]}" if request is not None else ""
            raise ArvadosError(f"there is no project {uuid}, or you may not read it{asked}") from error
        if _GROUP.fullmatch(uuid) and owner.get("group_class") != "project":
            raise ArvadosError(f"{uuid} is not a project but a {owner.get('group_class') or 'group'}")
        return owner

    def display_name(self, uuid: str) -> str:
        """What to call the project in messages."""
        if _GROUP.fullmatch(uuid):
            return str(self._found.get(uuid, {}).get("name") or uuid)
        return "your home project" if uuid == self.user["uuid"] else f"the home project of {uuid}"

    def why_not_writable(self, uuid: str) -> ArvadosError | None:
        """Why nothing can be stored in the project; None if nothing is known against it.

        Raises ArvadosError if Arvados cannot be asked.
        """
        try:
            self.check_writable(uuid)
        except ArvadosError as error:
            if error.retry_reason is not None:
                raise
            return error
        return None

    def check_writable(self, uuid: str) -> None:
        """Raise ArvadosError if the user or the token may not store anything in the project.

        A project that was found to be writable is not checked again.
        """
        if uuid in self._writable:
            return
        self._check_active()
        self._check_scopes()
        if _GROUP.fullmatch(uuid):
            self._check_project(uuid)
        self._writable.add(uuid)

    def forget(self) -> None:
        """Forget all answers, for permissions may have changed."""
        self._user = None
        self._found.clear()
        self._writable.clear()

    def _check_cluster(self, uuid: str) -> None:
        prefix = self._client.uuid_prefix
        if not uuid.startswith(prefix):
            raise ArvadosError(
                f"{uuid} belongs to the cluster {uuid[:5]}, and ARVADOS_API_HOST names {prefix}",
                "An image is stored in the cluster that ARVADOS_API_HOST names.",
            )

    def _is_in_trash(self, uuid: str) -> bool:
        if not _GROUP.fullmatch(uuid):
            return False
        try:
            self._client.get("groups", uuid, include_trash=True)
        except ArvadosRefusedError:
            return False
        return True

    def _check_active(self) -> None:
        if self.user.get("is_active") is False:
            raise ArvadosError(
                f"your account on this cluster, {self.user['uuid']}, is not active: it may not store anything",
                "Log in to the Workbench, or ask the cluster's administrator.",
            )

    def _check_scopes(self) -> None:
        scopes = self._client.scopes()
        if scopes is None:
            missing = [] if self._client.may_create_collections() else [_WRITES[0]]
        else:
            missing = [request for request in _WRITES if not any(_allows(scope, request) for scope in scopes)]
        if missing:
            raise ArvadosError(
                f"the token may not be used to store an image: its scopes do not have {' and '.join(missing)}",
                "Use a token that is good for everything; the Workbench shows yours under 'Get API token'.",
            )

    def _check_project(self, uuid: str) -> None:
        project = self._found.get(uuid) or self.get(uuid)
        name = f"project {uuid} ({project.get('name')})"
        if project.get("frozen_by_uuid"):
            raise ArvadosError(f"{name} is frozen: nothing can be stored in it")
        # `can_write` is in the server's answer since Arvados 2.6 (sdk/go/arvados/group.go).
        if project.get("can_write") is False:
            raise ArvadosError(f"you may not write to {name}, or it is in a project that is frozen")


def _allows(scope: str, request: str) -> bool:
    """Whether a token's scope allows the request (Arvados: services/api/app/models/api_client_authorization.rb)."""
    return scope in ("all", request) or (scope.endswith("/") and request.startswith(scope))
