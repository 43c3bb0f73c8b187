"""Properties that the schema names and the API no longer sends. Pure.

New properties and values are counted record by record, where they are judged; that something is absent from all of a
day's records shows in a sample of them.
"""

from collections.abc import Sequence

import msgspec

from sessions_pipeline.validation.model import TracerSession

# The API sends every property of every session, so a few records tell.
SAMPLE = 20
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def absent_properties(payloads: Sequence[str]) -> list[str]:
    """Names of the schema's properties that none of the sampled records has; none where there is no record to ask."""
    step = max(1, len(payloads) // SAMPLE)
    seen: set[str] = set()
    for payload in payloads[::step]:
        try:
            seen.update(_OBJECT.decode(payload))
        except (msgspec.DecodeError, ValueError, RecursionError):
            continue
    return [name for name in TracerSession.model_fields if name not in seen] if seen else []
