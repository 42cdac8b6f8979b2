"""A real OIDC provider of third parties, over TLS, that can be rotated, ended and misled."""

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import flask
import jwt
from authlib.deprecate import AuthlibDeprecationWarning
from werkzeug.serving import BaseWSGIServer, make_server

from tests.tls import Authority

with warnings.catch_warnings():
    # Authlib switches its warnings on by itself, over what pytest is told.
    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    import oidc_provider_mock
    from authlib import jose

REDIRECT_URI = "https://app.example.com/callback"
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Provider:
    """`oidc-provider-mock` on 127.0.0.1; its keys are in `storage.jwk`, where it keeps them."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._app = oidc_provider_mock.app()
        self._server: BaseWSGIServer | None = None
        self._thread = threading.Thread()
        self.port = 0
        self.redirect_to: str | None = None
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """Its issuer."""
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve; a second time at the same port as before."""
        tls = self._authority.server_context
        self._server = make_server(
            "127.0.0.1", self.port, self._answer, threaded=True, ssl_context=tls
        )
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        """Answer nobody any more."""
        if self._server is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def rotate(self) -> None:
        """Sign with a new key, and publish only that."""
        self._storage().jwk = jose.RSAKey.generate_key(is_private=True)

    def sign(self, claims: dict[str, Any], typ: str = "at+jwt") -> str:
        """A JWT by the provider's key: its own access tokens are opaque."""
        key = self._storage().jwk
        headers = {"kid": key.thumbprint(), "typ": typ}
        members = key.as_dict(is_private=True)
        return jwt.encode(claims, jwt.PyJWK(members, "RS256").key, "RS256", headers)

    def sign_in(self, subject: str, audience: str) -> str:
        """A real ID token of the provider, by the whole authorization-code exchange."""
        client = self._app.test_client()
        query = {"client_id": audience, "redirect_uri": REDIRECT_URI, "response_type": "code"}
        allowed = client.post(
            "/oauth2/authorize",
            base_url=self.url,
            query_string={**query, "scope": "openid", "nonce": "n", "state": "s"},
            data={"sub": subject},
        )
        (code,) = parse_qs(urlsplit(allowed.headers["location"]).query)["code"]
        answer = client.post(
            "/oauth2/token",
            base_url=self.url,
            auth=(audience, "secret"),
            data={"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT_URI},
        )
        return str(answer.json["id_token"])

    def _storage(self) -> Any:
        with self._app.test_request_context(base_url=self.url):
            self._app.preprocess_request()
            return flask.g.oidc_provider_mock_storage

    def _answer(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        self.asked.append(environ["PATH_INFO"])
        if self.redirect_to is None:
            answer: Iterable[bytes] = self._app(environ, start)
            return answer
        start("302 Found", [("location", self.redirect_to)])
        return []


@contextlib.contextmanager
def provider_running(authority: Authority) -> Iterator[Provider]:
    """A provider for as long as the block lasts."""
    provider = Provider(authority)
    provider.start()
    try:
        yield provider
    finally:
        provider.stop()
