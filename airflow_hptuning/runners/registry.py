"""Asking a container registry whether it has an image: the one question of its HTTP API (version 2) that we have.

Nothing but the standard library: the answer only saves a build, so whatever goes wrong means "not known".
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OCI: Final = "application/vnd.oci.image"
_DOCKER: Final = "application/vnd.docker.distribution.manifest"
_MANIFESTS: Final = f"{_OCI}.manifest.v1+json, {_OCI}.index.v1+json, {_DOCKER}.v2+json, {_DOCKER}.list.v2+json"
_HUB: Final = {"docker.io": "registry-1.docker.io"}
_SECONDS: Final = 10.0


@frozen
class Reference:
    """An image by name: ``host/repository:tag``."""

    host: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Return the parts of a full reference; a name without a host is one of Docker Hub.

        Raises:
            ValueError: It is no reference with a tag.
        """
        match = re.fullmatch(r"(?:(?P<host>[^/]*[.:][^/]*|localhost)/)?(?P<repository>[^:@\s]+):(?P<tag>[\w.-]+)", text)
        if match is None:
            raise ValueError(f"not an image with a tag: {text}")
        return cls(match["host"] or "docker.io", match["repository"], match["tag"])

    @property
    def path(self) -> str:
        """Path of the image's manifest in the registry's API."""
        return f"/v2/{self.repository}/manifests/{self.tag}"


def has_image(image: str, *, login: tuple[str, str] | None = None, insecure: bool = False) -> bool | None:
    """Return whether a registry has an image; None if it does not say.

    Args:
        image: Full reference with a tag.
        login: User and password.
        insecure: Whether plain HTTP and unknown certificates will do.
    """
    reference = Reference.parse(image)
    for scheme in ("https", "http") if insecure else ("https",):
        try:
            status = _ask(scheme, reference, login, insecure=insecure)
        except (OSError, ValueError):
            continue
        return {HTTPStatus.OK: True, HTTPStatus.NOT_FOUND: False}.get(status)
    return None


def _ask(scheme: str, reference: Reference, login: tuple[str, str] | None, *, insecure: bool) -> HTTPStatus:
    url = f"{scheme}://{_HUB.get(reference.host, reference.host)}{reference.path}"
    status, headers = _head(url, None, insecure=insecure)
    if status != HTTPStatus.UNAUTHORIZED:
        return status
    # The registry says how it wants to be asked: with the password, or with a token from somewhere else.
    scheme_name, _, parameters = headers.get("www-authenticate", "").partition(" ")
    if scheme_name.lower() == "bearer":
        authorization = f"Bearer {_token(parameters, login, insecure=insecure)}"
    elif login is not None:
        authorization = _basic(login)
    else:
        return status
    return _head(url, authorization, insecure=insecure)[0]


def _token(parameters: str, login: tuple[str, str] | None, *, insecure: bool) -> str:
    wanted = dict(re.findall(r'(\w+)="([^"]*)"', parameters))
    realm = wanted.pop("realm", "")
    if not realm.startswith("https://") and not (insecure and realm.startswith("http://")):
        raise ValueError(f"no place to get a token from: {realm!r}")
    request = urllib.request.Request(f"{realm}?{urllib.parse.urlencode(wanted)}")  # noqa: S310 - checked above
    if login is not None:
        request.add_header("Authorization", _basic(login))
    with _opener(insecure=insecure).open(request, timeout=_SECONDS) as answer:
        found = json.load(answer)
    return str(found.get("token") or found["access_token"])


def _head(url: str, authorization: str | None, *, insecure: bool) -> tuple[HTTPStatus, Mapping[str, str]]:
    request = urllib.request.Request(url, method="HEAD", headers={"Accept": _MANIFESTS})  # noqa: S310 - http(s) only
    if authorization:
        request.add_header("Authorization", authorization)
    try:
        with _opener(insecure=insecure).open(request, timeout=_SECONDS) as answer:
            return HTTPStatus(answer.status), {}
    except urllib.error.HTTPError as error:
        with error:
            return HTTPStatus(error.code), {name.lower(): value for name, value in error.headers.items()}


def _opener(*, insecure: bool) -> urllib.request.OpenerDirector:
    context = ssl._create_unverified_context() if insecure else ssl.create_default_context()  # noqa: S323, SLF001 - asked for
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))


def _basic(login: Sequence[str]) -> str:
    return "Basic " + base64.b64encode(":".join(login).encode()).decode()
