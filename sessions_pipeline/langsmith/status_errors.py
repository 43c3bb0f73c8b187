"""Turns an answer with an error status into an error that says what to do about it. Pure."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from sessions_pipeline import errors
from sessions_pipeline.langsmith import Parameters
from sessions_pipeline.langsmith.auth import Auth
from sessions_pipeline.langsmith.page import http_date

# The stats of a whole page may take a server, or a gateway in front of it, longer than it allows.
SMALLER_PAGES = "lower SESSIONS_PIPELINE_PAGE_SIZE"
PROXY_ADVICE = "check user name and password in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY"
_SECONDS = re.compile(r"\d+(\.\d+)?")


def status_error(
    status: int, headers: Mapping[str, str], body: bytes, path: str, parameters: Parameters, auth: Auth
) -> errors.ApiError:
    """The error for an answer whose status is not 2xx. Header names are looked up in lower case."""
    is_json, stated = _stated_reasons(body)
    reasons = auth.clean(stated)
    code = f"{status}: {reasons}" if reasons else str(status)
    kind: type[errors.ApiError] = errors.RefusedError
    refused = f"refused the request ({code}); check LANGSMITH_ENDPOINT"
    problem = _redirect(status, headers, auth) if status < 400 else refused  # noqa: PLR2004 - where 4xx begins
    match status:
        case 401 | 403 if not is_json:
            kind, advice = errors.FirewallError, "try again, and check proxies and LANGSMITH_ENDPOINT if this persists"
            problem = f"answered {status} without JSON: something in front of the API did; {advice}"
        case 401:
            problem = f"does not accept the key ({code}); check {auth.variable}"
        case 403:
            problem = (
                f"does not let this key read the workspace ({code}); check LANGSMITH_ENDPOINT (EU, APAC, AWS keys need "
                f"their region's address), LANGSMITH_WORKSPACE_ID (an organisation's key needs it) and {auth.variable}"
            )
        case 400 | 404 | 410 | 422 if "cursor" in dict(parameters):
            # The address and the other parameters were accepted for the page before, so it must be the cursor.
            kind = errors.CursorError
            problem = f"no longer accepts its own cursor ({code}), which has probably expired; run it again"
        case 404 | 410:
            # The address is wrong or the version has ended; only the other version can show which: `choose_version`.
            kind = errors.GoneError if is_json else errors.NotFoundError
            problem = f"does not exist ({code}); check LANGSMITH_ENDPOINT and SESSIONS_PIPELINE_API_VERSION"
        case 400 | 422:
            kind = errors.ParameterError
            problem = f"refuses a parameter ({code}); correct it in SESSIONS_PIPELINE_QUERY or on the command line"
        case 407:
            problem = f"can't be reached: the proxy on the way refused ({code}); {PROXY_ADVICE}"
        case 429:
            kind, advice = errors.RateLimitedError, "try again later or lower SESSIONS_PIPELINE_CONCURRENCY"
            problem = f"limits the rate of requests ({code}); {advice}"
        case _ if status in (408, 425) or status >= 500:  # noqa: PLR2004 - too slow, too early, and where 5xx begins
            kind, problem = errors.ServerError, f"failed ({code}); try again later or {SMALLER_PAGES}"
    return kind(f"{auth.host}{path} {problem}", retry_after=retry_after(headers))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The wait that the server asks for, in seconds, 0 or more; None if there is no readable `Retry-After`."""
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
        # Only the host is shown, because paths and queries of redirects may hold tokens.
        host = urlsplit(headers.get("location", "")).hostname
    except ValueError:
        host = None
    to = f"to {auth.clean(host)}" if host else "within its own host"
    return f"redirects ({status}) {to}; the key is not sent there: set LANGSMITH_ENDPOINT to the API's own address"


def _stated_reasons(body: bytes) -> tuple[bool, str]:
    """Whether an error's body is JSON, and the reasons that it states."""
    try:
        parsed: Any = json.loads(body, parse_int=str)  # int() refuses more than 4,300 digits
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
    message = str(value.get("msg") or value.get("message") or json.dumps(value))
    return f"{'.'.join(names)}: {message}" if names else message
