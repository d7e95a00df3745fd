"""The errors that a cluster answers with, in the three forms in which they reach the client."""

from __future__ import annotations

from http import HTTPStatus

# Python 3.13 renamed some of these; Go and Rails did not.
_PHRASES = {413: "Request Entity Too Large", 422: "Unprocessable Entity"}


def phrase(status: int) -> str:
    """The status' reason phrase, as Go's and Rails' own tables have it."""
    return _PHRASES.get(status) or HTTPStatus(status).phrase


class ApiError(Exception):
    """A refusal by the controller itself: its reason is the whole message."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason

    def message(self, path: str, request_id: str) -> str:
        return self.reason

    def extra(self) -> dict[str, str]:
        return {}


class RailsError(ApiError):
    """A refusal by the server behind the controller; the message says where the controller got it from."""

    def message(self, path: str, request_id: str) -> str:
        return f"//railsapi.internal{path}: {self.status} {phrase(self.status)}: {self.reason} ({request_id})"


class PassedThrough(ApiError):
    """A refusal by Rails on a route that the controller only forwards."""

    def message(self, path: str, request_id: str) -> str:
        return f"{self.reason} ({request_id})"

    def extra(self) -> dict[str, str]:
        return {"error_token": "1795518446+b7a25b15"}


def argument_error(reason: str) -> RailsError:
    """A refusal of what was asked, as Rails' ArgumentError is shown (measured on Arvados 3.2.1)."""
    return RailsError(422, f"#<ArgumentError: {reason}>")


def not_logged_in() -> RailsError:
    return RailsError(401, "Not logged in")


def path_not_found() -> RailsError:
    return RailsError(404, "Path not found")
