"""Who asks, and where: the endpoint and the credentials, checked before any request is sent."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from sessions_pipeline.errors import SettingError
from sessions_pipeline.settings import DEFAULT_ENDPOINT, DEMO, Settings

# What a person reads of a server's own words.
SHOWN_CHARACTERS = 200
_HEADER_SAFE = re.compile(r"[!-~]+")
_API_SUFFIX = re.compile(r"/api(/v\d+)?$")
_QUOTES = re.compile(r"""(["'])(.*)\1""", re.DOTALL)


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
        raise SettingError("LANGSMITH_API_KEY", f"not set; set it, or use `{DEMO}` to see the sandbox's data")

    @property
    def host(self) -> str:
        """The endpoint's host and port."""
        return urlsplit(self.base).netloc

    @property
    def is_default(self) -> bool:
        """Whether the endpoint is the one that is asked where no other is set."""
        return self.base == DEFAULT_ENDPOINT

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


def _unquoted(value: str) -> str:
    """A value without the quotes around it: `docker run --env-file` keeps those of the file."""
    quoted = _QUOTES.fullmatch(value)
    return quoted[2] if quoted else value


def _header_value(variable: str, value: str) -> str:
    value = _unquoted(value)
    if not _HEADER_SAFE.fullmatch(value):
        raise SettingError(
            variable, "holds a space, a line break or a letter that a header can't carry; copy the value again"
        )
    return value


def _base(endpoint: str) -> str:
    endpoint = _unquoted(endpoint)
    try:
        parts = urlsplit(endpoint)
        usable = _is_plain(parts) and _HEADER_SAFE.fullmatch(endpoint) is not None and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SettingError(
            "LANGSMITH_ENDPOINT",
            "must be an address such as https://api.smith.langchain.com, with http or https and a host, "
            "without user name, query or fragment",
        )
    return f"{parts.scheme}://{parts.netloc}{_API_SUFFIX.sub('', parts.path.rstrip('/'))}".rstrip("/")


def _is_plain(parts: SplitResult) -> bool:
    extras = "@" in parts.netloc or parts.query or parts.fragment
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not extras
