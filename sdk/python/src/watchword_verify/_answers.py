"""Answers to requests: refusals with their challenges, and the metadata of a resource."""

from __future__ import annotations

import http
import json
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from ._errors import VerifyError
from ._http import is_loopback
from ._token import is_scope

_METADATA_PATH = "/.well-known/oauth-protected-resource"
_METADATA_MAX_AGE = 300  # seconds; they change only with the configuration
_ERRORS = {
    "token_missing": "",  # without a token there is no error code (RFC 6750 §3.1)
    "invalid_request": "invalid_request",
    "forbidden": "insufficient_scope",
    "reauthentication_required": "insufficient_user_authentication",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a request."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def reason(self) -> str:
        """The words that belong to the status."""
        return http.HTTPStatus(self.status).phrase


@dataclass(frozen=True, slots=True)
class Resource:
    """A protected resource and what is told of it (RFC 9728)."""

    path: str
    """Where clients look for the metadata (RFC 9728 §3.1)."""
    url: str
    """The same as a URL."""
    answer: Answer
    """The metadata."""

    @classmethod
    def of(cls, resource: str, issuer: str, name: str, scopes: Sequence[str]) -> Resource:
        """Raises ValueError if the URL cannot be that of a resource (RFC 9728 §1.2), or a scope is none."""
        parts = _parse_resource(resource)
        for scope in scopes:
            if not is_scope(scope):
                raise ValueError(f"{scope!r} cannot be a scope (RFC 6749 §3.3)")
        members: dict[str, Any] = {"resource": resource, "authorization_servers": [issuer]}
        if scopes:
            members["scopes_supported"] = list(scopes)
        members["bearer_methods_supported"] = ["header"]
        if name:
            members["resource_name"] = name
        path = _METADATA_PATH + ("" if parts.path == "/" else parts.path)
        url = f"{parts.scheme}://{parts.netloc}{path}{'?' + parts.query if parts.query else ''}"
        return cls(path, url, _answer(200, "application/json", f"public, max-age={_METADATA_MAX_AGE}", (), members))


def metadata_path(resource: str) -> str:
    """Return the path at which clients look for the metadata of a resource (RFC 9728 §3.1): the well-known one,
    followed by the path of the resource. Raises ValueError if the URL cannot be that of a resource.
    """
    return Resource.of(resource, "", "", ()).path


def refusal(error: VerifyError, issuer: str, resource: Resource | None) -> Answer:
    """Return the answer to a request that is refused: problem details (RFC 9457), and the challenge of RFC 6750
    §3 or RFC 9470 §3, which says where the metadata are (RFC 9728 §5.1).
    """
    if error.status == 503:
        more = ("Retry-After", "1")
    else:
        more = ("WWW-Authenticate", _challenge(error, issuer, resource))
    problem = {
        "type": "about:blank",
        "title": http.HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }
    return _answer(error.status, "application/problem+json", "no-store", (more,), problem)


def _answer(
    status: int, media_type: str, caching: str, more: tuple[tuple[str, str], ...], members: dict[str, Any]
) -> Answer:
    body = json.dumps(members, separators=(",", ":")).encode() + b"\n"
    headers = (("Content-Type", media_type), ("Content-Length", str(len(body))), ("Cache-Control", caching))
    return Answer(status, headers + more, body)


def _challenge(error: VerifyError, issuer: str, resource: Resource | None) -> str:
    parameters = [("realm", issuer)]
    if code := _ERRORS.get(error.code, "invalid_token"):
        parameters += [("error", code), ("error_description", error.code)]
    scope = error.scope
    if error.again is not None:
        if error.again.max_age > 0:
            parameters.append(("max_age", str(error.again.max_age)))
        # An acr that such a header cannot hold is left out; a scope is of the same characters.
        if values := " ".join(filter(is_scope, error.again.acr_values)):
            parameters.append(("acr_values", values))
        scope = error.again.scope
    if scope:
        parameters.append(("scope", " ".join(scope)))
    if resource is not None:
        parameters.append(("resource_metadata", resource.url))
    return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parameters)


def _parse_resource(resource: str) -> SplitResult:
    """Read the URL of a resource. On the machine itself it may lack TLS, for tests."""
    parts = urlsplit(resource)
    path = unquote(parts.path)
    local = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not parts.hostname or (parts.scheme != "https" and not local):
        fault = "is not an https URL"
    elif parts.username is not None:
        fault = "names a user"
    elif "%" in parts.netloc:
        fault = "has a host with percent-encoding, or with a zone"
    elif "#" in resource:
        fault = "has a fragment"
    elif resource.endswith("?"):
        fault = "has an empty query"
    elif any(not "!" <= c <= "~" or c in '"\\' for c in resource):
        fault = "has characters that have to be percent-encoded"
    elif path not in ("", "/") and ("//" in path or posixpath.normpath(path) != path.removesuffix("/")):
        fault = "has a path with segments that are empty, . or .."
    else:
        return parts
    raise ValueError(f"the resource ({resource!r}) {fault}")
