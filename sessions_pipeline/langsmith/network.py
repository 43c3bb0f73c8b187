"""The way to the API that this machine's environment prescribes: proxy and trusted certificates."""

import ssl
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from sessions_pipeline.errors import SettingError
from sessions_pipeline.langsmith.auth import Auth
from sessions_pipeline.settings import variable

# As curl and the official client read them; the first that is set counts, beside the system's own certificates.
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def proxy_for(auth: Auth) -> tuple[str, str] | None:
    """The name of the setting that holds the endpoint's proxy, and its address; None: ask directly.

    A loopback endpoint is never asked by a proxy. What can't be read in `NO_PROXY` is passed over.
    """
    parts, proxies = urlsplit(auth.base), getproxies()
    address = proxies.get(parts.scheme) or proxies.get("all")
    if auth.is_loopback or not address or _is_excluded(parts.hostname or "", proxies.get("no", "")):
        return None
    kinds = (f"{parts.scheme}_proxy",) if proxies.get(parts.scheme) else ("all_proxy",)
    found = variable(*kinds, *(kind.upper() for kind in kinds))
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "http", address
    # "socks" alone is what desktops write.
    return (found[0] if found else "HTTPS_PROXY"), f"{'socks5' if scheme == 'socks' else scheme}://{rest}"


def _is_excluded(host: str, entries: str) -> bool:
    return any(_matches(host.lower(), entry.strip().lower()) for entry in entries.split(","))


def _matches(host: str, entry: str) -> bool:
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
