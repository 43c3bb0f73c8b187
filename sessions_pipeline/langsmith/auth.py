"""Who asks, and where: endpoint, credentials, proxy and trusted certificates, checked before any request is sent."""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from sessions_pipeline.errors import SettingError
from sessions_pipeline.settings import DEMO, Settings, variable

# What a person reads of a server's own words.
SHOWN_CHARACTERS = 200
# As curl and the official client read them; the first that is set counts, beside the system's own certificates.
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_HEADER_SAFE = re.compile(r"[!-~]+")
_API_SUFFIX = re.compile(r"/api(/v\d+)?$")


@dataclass(frozen=True, slots=True)
class Auth:
    """The API's base address without `/api`, and the headers that open it.

    `variable` is the setting that holds the secret. Neither `repr` nor `clean` ever show the secret.
    """

    base: str
    variable: str
    headers: Mapping[str, str] = field(repr=False)
    secret: str = field(repr=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Auth":
        """Check endpoint and credentials.

        Raises:
            SettingError: a setting is missing or can't be used; the text names it and does not show its value.
        """
        base = _base(settings.endpoint)
        if settings.bearer_token is not None:
            token = _header_value("LANGSMITH_BEARER_TOKEN", settings.bearer_token.get_secret_value())
            if not settings.workspace_ids:
                # "Must also specify x-tenant-id", says the OpenAPI file of this scheme.
                raise SettingError("LANGSMITH_WORKSPACE_ID", "not set, and a bearer token needs one; set the workspace")
            return cls(base, "LANGSMITH_BEARER_TOKEN", {"Authorization": f"Bearer {token}"}, token)
        if settings.api_key is not None:
            key = _header_value("LANGSMITH_API_KEY", settings.api_key.get_secret_value())
            return cls(base, "LANGSMITH_API_KEY", {"X-API-Key": key}, key)
        raise SettingError("LANGSMITH_API_KEY", f"not set; set it, or use `{DEMO}` to see a made-up company's data")

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
        """A server's words as part of one line: no control characters, no secret, at most 200 characters."""
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        line = line.replace(self.secret, "***")
        return line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + "…"


def _header_value(variable: str, value: str) -> str:
    if not _HEADER_SAFE.fullmatch(value):
        raise SettingError(variable, "holds a space, or another character that a header can't carry; copy it again")
    return value


def _base(endpoint: str) -> str:
    try:
        parts = urlsplit(endpoint)
        extras = "@" in parts.netloc or parts.query or parts.fragment or parts.port == 0
        usable = (
            parts.scheme in ("http", "https") and parts.hostname and _HEADER_SAFE.fullmatch(endpoint) and not extras
        )
    except ValueError:
        usable = False
    if not usable:
        example = "https://api.smith.langchain.com, without user name, query or fragment"
        raise SettingError("LANGSMITH_ENDPOINT", f"must be an address such as {example}")
    return f"{parts.scheme}://{parts.netloc}{_API_SUFFIX.sub('', parts.path.rstrip('/'))}".rstrip("/")


def proxy_for(auth: Auth) -> tuple[str, str] | None:
    """The name of the setting that holds the endpoint's proxy, and its address; None: ask directly.

    A loopback endpoint is never asked by a proxy. What can't be read in `NO_PROXY` is passed over.
    """
    parts, proxies = urlsplit(auth.base), getproxies()
    address, excluded = proxies.get(parts.scheme) or proxies.get("all"), proxies.get("no", "").split(",")
    if auth.is_loopback or not address or any(_matches(parts.hostname or "", entry) for entry in excluded):
        return None
    kinds = (f"{parts.scheme}_proxy",) if proxies.get(parts.scheme) else ("all_proxy",)
    found = variable(*kinds, *(kind.upper() for kind in kinds))
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "http", address
    # "socks" alone is what desktops write.
    return (found[0] if found else "HTTPS_PROXY"), f"{'socks5' if scheme == 'socks' else scheme}://{rest}"


def _matches(host: str, entry: str) -> bool:
    host, entry = host.lower(), entry.strip().lower()
    if entry in ("", "*"):
        return entry == "*"
    try:
        return ip_address(host) in ip_network(entry.strip("[]").replace("]/", "/"), strict=False)
    except ValueError:
        name = entry.partition("://")[2] or entry
        name = name.rpartition(":")[0] if name.count(":") == 1 else name
        name = name.removeprefix("*").removeprefix(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))


def add_certificates(context: ssl.SSLContext) -> ssl.SSLContext:
    """Let the context trust this system's certificates, and those that the environment names, too.

    Raises:
        SettingError: what the environment names can't be read.
    """
    context.load_default_certs()
    found = variable(*CERTIFICATES)
    if found is not None:
        try:
            is_folder = Path(found[1]).is_dir()
            context.load_verify_locations(**{"capath" if is_folder else "cafile": found[1]})
        except (OSError, ValueError):
            raise SettingError(found[0], "this file of certificates can't be read") from None
    return context
