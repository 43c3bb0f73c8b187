"""What an object store's failure means to a person; built from status and code alone, for the rest may hold secrets."""

import re

_KEY_CODES = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
_CLOCK_CODE = "RequestTimeTooSkewed"
_REFUSED = {"401", "403"}
_OVERLOADED = {"429", "503"}
_NOT_IMPLEMENTED = "501"

NO_BUCKET = "there is no such bucket; make it, or correct SESSIONS_PIPELINE_DATA_ROOT"


def reason(text: str) -> str:
    """One line on a failed request, from the text of the library's error."""
    status = _first(r"status code: (\d{3})", text)
    code = _first(r"<Code>(\w{1,60})</Code>", text)
    named = " ".join(part for part in (status, code) if part)
    if "/latest/" in text or "/v2/credentials" in text or "CredentialProvider" in text:
        return "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or use a role"
    if code in _KEY_CODES:
        return f"{named}: the store does not accept the key; check AWS_ACCESS_KEY_ID and companions"
    if code == _CLOCK_CODE:
        return f"{named}: this machine's clock is wrong; set it"
    if "redirect" in text or status.startswith("3"):
        return f"{named or 'redirected'}: the bucket is elsewhere; set AWS_REGION to its region"
    if code == "NoSuchBucket":
        return NO_BUCKET
    if status in _REFUSED:
        return f"{named}: access denied; the key needs to list, read, write and delete below this address"
    if status in _OVERLOADED:
        return f"{named}: the store is overloaded; try again later"
    if status == _NOT_IMPLEMENTED:
        return f"{named}: the store lacks conditional puts (If-None-Match, If-Match); choose one that has them"
    if not status:
        return "no answer, or a broken one; check AWS_ENDPOINT_URL, AWS_REGION and the network"
    return f"{named}: the store failed; check the bucket, the AWS variables and the endpoint"


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found.group(1) if found else ""
