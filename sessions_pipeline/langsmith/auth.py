"""The API's address, credentials, proxy and trusted certificates, all checked before any request is sent."""

import re
import ssl
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from sessions_pipeline.errors import SettingError
from sessions_pipeline.settings import DEMO, Settings, variable

# How much of a server's own text is shown in a message.
SHOWN_CHARACTERS = 200
# Variables that curl and the official client read. The first that is set is used, besides the system's certificates.
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# Without quotes and backslashes: no key has them, and in a server's JSON they would be escaped, so not recognized.
_SAFE = re.compile(r"[!#-&(-\[\]-~]+")
_API_SUFFIX = re.compile(r"/api(/v\d+)?$")


class Auth:
    """The API's base address without `/api` (`base`), and the `headers` that authenticate a request.

    `variable` names the setting that holds the secret.
    """

    def __init__(self, settings: Settings) -> None:
        """Check the endpoint and the credentials in the settings.

        Raises:
            SettingError: a setting is missing or can't be used; the text names it and does not show its value.
        """
        self.base = _base_address(settings.endpoint)
        is_bearer = settings.bearer_token is not None
        self.variable = "LANGSMITH_BEARER_TOKEN" if is_bearer else "LANGSMITH_API_KEY"
        secret = settings.bearer_token if is_bearer else settings.api_key
        if secret is None:
            raise SettingError(self.variable, f"not set; set it, or use `{DEMO}` to see a made-up company's data")
        self._secret = secret.get_secret_value()
        if not _SAFE.fullmatch(self._secret):
            raise SettingError(self.variable, "holds a space, a quote or another wrong character; copy it again")
        if is_bearer and not settings.workspace_ids:
            # The OpenAPI file says of this scheme: "Must also specify x-tenant-id".
            raise SettingError("LANGSMITH_WORKSPACE_ID", "not set, and a bearer token needs one; set the workspace")
        self.headers = {"Authorization": f"Bearer {self._secret}"} if is_bearer else {"X-API-Key": self._secret}

    @property
    def host(self) -> str:
        """The endpoint's host and port."""
        return urlsplit(self.base).netloc

    @property
    def is_loopback(self) -> bool:
        """Whether the endpoint is on this machine, where a proxy could not reach it."""
        name = urlsplit(self.base).hostname or ""
        try:
            return ip_address(name).is_loopback
        except ValueError:
            return name == "localhost"

    def clean(self, text: str) -> str:
        """A server's text as part of a one-line message: no control characters, no secret, at most 200 characters."""
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        # The host of a redirect is in lower case.
        line = re.sub(re.escape(self._secret), "***", line, flags=re.IGNORECASE)
        return line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + "…"


def _base_address(endpoint: str) -> str:
    try:
        parts = urlsplit(endpoint)
        extras = "@" in parts.netloc or parts.query or parts.fragment or parts.port == 0
        usable = parts.scheme in ("http", "https") and parts.hostname and _SAFE.fullmatch(endpoint) and not extras
    except ValueError:
        usable = False
    if not usable:
        example = "https://api.smith.langchain.com, without user name, query or fragment"
        raise SettingError("LANGSMITH_ENDPOINT", f"must be an address such as {example}")
    return f"{parts.scheme}://{parts.netloc}{_API_SUFFIX.sub('', parts.path.rstrip('/'))}".rstrip("/")


def proxy_for(auth: Auth) -> tuple[str, str] | None:
    """The environment variable that sets the endpoint's proxy, and the proxy's address; None: connect directly.

    A loopback endpoint never uses a proxy. Unreadable entries of `NO_PROXY` are ignored.
    """
    parts, proxies = urlsplit(auth.base), getproxies()
    address, excluded = proxies.get(parts.scheme) or proxies.get("all"), proxies.get("no", "").split(",")
    if auth.is_loopback or not address or any(_matches(parts.hostname or "", entry) for entry in excluded):
        return None
    name = f"{parts.scheme}_proxy" if proxies.get(parts.scheme) else "all_proxy"
    found = variable(name, name.upper())
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "http", address
    # Desktop environments write "socks" without a version.
    return (found[0] if found else "HTTPS_PROXY"), f"{'socks5' if scheme == 'socks' else scheme}://{rest}"


def _matches(host: str, entry: str) -> bool:
    host, entry = host.lower(), entry.strip().lower()
    try:
        return ip_address(host) in ip_network(entry.strip("[]").replace("]/", "/"), strict=False)
    except ValueError:
        name = entry.partition("://")[2] or entry
        name = name.rpartition(":")[0] if name.count(":") == 1 else name
        name = name.removeprefix("*").removeprefix(".")
        return entry == "*" or (bool(name) and (host == name or host.endswith(f".{name}")))


def add_certificates(context: ssl.SSLContext) -> ssl.SSLContext:
    """Make the context trust the system's certificates and those named by the environment (`CERTIFICATES`).

    Raises:
        SettingError: the file or folder of certificates can't be read.
    """
    # Python 3.13 began to refuse authorities that lack an extension which RFC 5280 asks for, as many companies' own do.
    # Signature, host and dates are checked all the same.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.load_default_certs()
    found = variable(*CERTIFICATES)
    if found is not None:
        try:
            context.load_verify_locations(**{"capath" if Path(found[1]).is_dir() else "cafile": found[1]})
        except (OSError, ValueError):
            raise SettingError(found[0], "this file of certificates can't be read") from None
    return context
