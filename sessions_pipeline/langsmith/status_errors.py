"""From an answer that is no page to the error that says what to do about it. Pure."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from sessions_pipeline import errors
from sessions_pipeline.langsmith.auth import Auth
from sessions_pipeline.langsmith.page import http_date
from sessions_pipeline.langsmith.query import Parameters

PROXY_ADVICE = "check user name and password in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY"
_SECONDS = re.compile(r"\d+(\.\d+)?")


def status_error(
    status: int, headers: Mapping[str, str], body: bytes, path: str, parameters: Parameters, auth: Auth
) -> errors.ApiError:
    """The typed error for an answer whose status is not 2xx; `headers` are looked up in lower case."""
    is_json, reasons = _read(body)
    said = auth.clean(reasons)
    code = f"{status}: {said}" if said else str(status)
    kind: type[errors.ApiError] = errors.RefusedError
    refused = f"refused the request ({code}); check LANGSMITH_ENDPOINT"
    says = _redirect(status, headers, auth) if status < 400 else refused  # noqa: PLR2004 - where client errors begin
    match status:
        case 401 | 403 if not is_json:
            kind, advice = errors.FirewallError, "try again, and check proxies and LANGSMITH_ENDPOINT if it stays"
            says = f"answered {status} without JSON: something before the API did; {advice}"
        case 401:
            says = f"does not accept the key ({code}); check {auth.variable}"
        case 403:
            says = (
                f"does not let this key read the workspace ({code}); check LANGSMITH_ENDPOINT (a key of the EU or APAC "
                f"needs that address), LANGSMITH_WORKSPACE_ID (an organisation's needs one) and {auth.variable}"
            )
        case 400 | 404 | 410 | 422 if "cursor" in dict(parameters):
            # The same address and parameters were taken for the page before.
            kind = errors.CursorError
            says = f"does not take its own cursor any more ({code}), which has probably expired; run it again"
        case 404 | 410:
            # Which of the two, only the other version's answer tells: see `api_versions.choose_version`.
            kind = errors.GoneError if is_json else errors.NotFoundError
            says = f"does not exist ({code}); check LANGSMITH_ENDPOINT and SESSIONS_PIPELINE_API_VERSION"
        case 400 | 422:
            kind = errors.ParameterError
            says = f"refuses a parameter ({code}); correct it in SESSIONS_PIPELINE_QUERY or on the command line"
        case 407:
            says = f"can't be reached: the proxy on the way refused ({code}); {PROXY_ADVICE}"
        case 429:
            kind, advice = errors.RateLimitedError, "try again later or lower SESSIONS_PIPELINE_CONCURRENCY"
            says = f"limits the rate of requests ({code}); {advice}"
        case _ if status >= 500:  # noqa: PLR2004 - where HTTP's server errors begin
            kind, says = errors.ServerError, f"failed ({code}); try again later"
    return kind(f"{auth.host}{path} {says}", retry_after=retry_after(headers))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The wait in seconds that the server asked for, 0 or more; None where it did not ask, or not readably."""
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    until = http_date(value)
    if until is None:
        return None
    now = http_date(headers.get("date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _redirect(status: int, headers: Mapping[str, str], auth: Auth) -> str:
    try:
        # The host alone: paths and queries of redirects carry tokens.
        host = urlsplit(headers.get("location", "")).hostname
    except ValueError:
        host = None
    to = f"to {auth.clean(host)}" if host else "within its own host"
    advice = "the key is not sent there: set LANGSMITH_ENDPOINT to the API's own address"
    return f"redirects ({status}) {to}; {advice}"


def _read(body: bytes) -> tuple[bool, str]:
    """Whether a body is JSON, and the reasons it gives in words."""
    try:
        parsed: Any = json.loads(body, parse_int=str)  # Python refuses to read one of 5,000 digits
        if isinstance(parsed, dict):
            parsed = next((parsed[name] for name in ("detail", "error", "message") if parsed.get(name)), "")
        return True, "; ".join(map(_reason, parsed)) if isinstance(parsed, list) else _reason(parsed)
    except (ValueError, RecursionError):
        return False, ""


def _reason(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    location = value.get("loc")
    names = [str(part) for part in location if part != "query"] if isinstance(location, list) else []
    said = str(value.get("msg") or value.get("message") or json.dumps(value))
    return f"{'.'.join(names)}: {said}" if names else said
