"""All errors that a user can see. Each message is one line that says what happened and what to do about it.

No message may contain a secret: messages are built from names, status codes and URLs without their query string.
"""

import re
from typing import ClassVar


class SessionsPipelineError(Exception):
    """Base class of all errors of this package."""

    exit_status: ClassVar[int] = 1


class UsageError(SessionsPipelineError):
    """The user asked for something impossible, such as a day in the future."""

    exit_status = 2


class SettingError(UsageError):
    """A setting is missing or wrong; the text names the environment variable."""

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable}: {problem}")


class ApiError(SessionsPipelineError):
    """The API did not give a usable answer.

    `retry_after`: how many seconds the server asked to wait; None if it did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class NotFoundError(ApiError):
    """404 or 410: the endpoint is not the API, or this version of the API no longer exists."""


class GoneError(NotFoundError):
    """404 or 410 with a JSON body: it comes from the API itself, so perhaps only this version of it is gone."""


class RefusedError(ApiError):
    """The API refused the request, or its answer can't be accepted; trying again would not help."""


class ParameterError(RefusedError):
    """400 or 422: the API does not accept a parameter. The advice follows the message's last semicolon."""


class CursorError(RefusedError):
    """The API no longer accepts a cursor that it gave, because it has expired: list again from the start."""


class TransientError(ApiError):
    """The same request may succeed later."""


class FirewallError(TransientError):
    """401 or 403 with a body that is not JSON: something in front of the API answered."""


class RateLimitedError(TransientError):
    """429: too many requests. All threads wait before the next one."""


class ServerError(TransientError):
    """408, 425 or 5xx: the server failed, gave up waiting, or is not ready yet."""


class UnreachableError(TransientError):
    """No connection could be made, or it broke during an answer."""


class TimedOutError(TransientError):
    """No answer arrived in time."""


class BadBodyError(TransientError):
    """200, but the body is not a page of the API: truncated, HTML, or something else."""


class DeadlineExceededError(ApiError):
    """The run's overall deadline has passed; the text says how far the run got."""


class PagingError(ApiError):
    """The pages are inconsistent: unsorted, repeated, `offset` ignored, or changing faster than they can be read."""


class BudgetExceededError(SessionsPipelineError):
    """A budget's limit is exceeded."""

    exit_status = 3


class LakeError(SessionsPipelineError):
    """The data root can't be read or written."""


class LakeMismatchError(LakeError):
    """The data root was filled with another query, or by another version of this package."""


class LakeBusyError(LakeError):
    """Another run has held a lock for too long."""


class LakeConflictError(LakeError):
    """A file was not replaced, because another run has changed it first."""


class BrokenError(LakeError):
    """A file can't be read; `version` is the file's version."""

    # Without a default it could not come out of a worker process.
    def __init__(self, message: str, version: str = "") -> None:
        super().__init__(message)
        self.version = version


class NotReadError(LakeError):
    """A table does not exist for that day, because the day was never read."""


class InstanceError(SessionsPipelineError):
    """Dagster's instance can't be used: its `dagster.yaml`, or its database."""

    def __init__(self, place: str, error: BaseException) -> None:
        # Dagster begins with a schema, and appends all values it would accept, or a traceback. SQLAlchemy appends the
        # SQL statement.
        cause = re.sub(r".*(Error 1|PostProcessingError): ", "", " ".join(str(error).split()))
        cause = re.split(r"\s(?:Expected:|Stack Trace:|\[SQL:|\(Background)", cause)[0]
        advice = "; free space on its disk, or move a broken folder away: it has only the UI's history"
        # SQLite's messages about its file. Other messages may have a path with the word `disk`.
        is_broken = re.search("disk is full|disk I/O|disk image|not a database", cause)
        # What stands before an @ may be a password: with an @ in it, its rest is taken for the host's name.
        super().__init__(f"{place}: {re.sub(r'[^ ]+@', '***@', cause)[:200]}{advice if is_broken else ''}")


class TooManyRejectedError(SessionsPipelineError):
    """A day has more rejected records than the rejection threshold allows. Its former tables stay as they were."""


class WorkerLostError(SessionsPipelineError):
    """A worker process died without reporting an error."""


class SumOverflowError(SessionsPipelineError):
    """A sum does not fit its column; a wrong number is never written."""
