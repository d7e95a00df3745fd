"""The user that a request's token belongs to, and the requests that the token allows (its scopes)."""

from __future__ import annotations

import json

from . import timestamps
from .call import Call, Caller
from .database import Database
from .errors import RailsError


def authenticate(database: Database, token: str | None) -> Caller | None:
    """The user whose token this is: v2/UUID/SECRET, or the bare secret."""
    if not token:
        return None
    parts = token.split("/")
    secret = parts[2] if parts[0] == "v2" and len(parts) >= 3 else token
    rows = database.rows(
        "SELECT a.uuid, a.expires_at, a.scopes, u.uuid AS user_uuid, u.is_admin, u.is_active"
        " FROM api_client_authorizations a JOIN users u ON u.uuid = a.owner_uuid"
        " WHERE a.api_token = ? AND (a.expires_at IS NULL OR a.expires_at > ?)",
        (secret, timestamps.now()),
    )
    if not rows or (secret is not token and parts[1] != rows[0]["uuid"]):
        return None
    row = rows[0]
    return Caller(
        uuid=row["user_uuid"],
        is_admin=bool(row["is_admin"]),
        is_active=bool(row["is_active"]),
        token=token,
        token_uuid=row["uuid"],
        scopes=tuple(json.loads(row["scopes"] or "[]")),
        token_expires_at=row["expires_at"],
    )


def check_scopes(call: Call) -> None:
    """Refuse a call outside its token's scopes: "all", "METHOD /path", or "METHOD /path/" for all below."""
    wanted = f"{'GET' if call.method == 'HEAD' else call.method} {call.path}"
    for scope in call.caller.scopes:
        if scope in ("all", wanted) or (scope.endswith("/") and wanted.startswith(scope)):
            return
    raise RailsError(403, "Forbidden")
