"""Every error that a user can see: one line that says what happened and what to do about it.

No message may hold a secret: messages are built from names, status codes and addresses without their query string.
"""

import re
from typing import ClassVar


class SessionsPipelineError(Exception):
    """Base of all errors of this package; its text is one line for a person."""

    exit_status: ClassVar[int] = 1


class UsageError(SessionsPipelineError):
    """What was asked for makes no sense, such as a day in the future."""

    exit_status = 2


class SettingError(UsageError):
    """A setting is missing or wrong; the text names the environment variable."""

    def __init__(self, variable: str, problem: str) -> None:
        self.variable = variable
        super().__init__(f"{variable}: {problem}")


class ApiError(SessionsPipelineError):
    """The API did not give a usable answer.

    `retry_after` is the wait in seconds that the server asked for, where it did.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class NotFoundError(ApiError):
    """404 or 410: the endpoint is not the API, or the version is gone."""


class GoneError(NotFoundError):
    """The same with a JSON body, as the API itself says it: perhaps only this version of it is gone."""


class RefusedError(ApiError):
    """A final answer that is no page, or one that is not accepted here: the text says why, and what to do about it."""


class ParameterError(RefusedError):
    """400 or 422: a parameter is not accepted; what to do about it stands behind the last semicolon."""


class CursorError(RefusedError):
    """A cursor that the API gave and does not take any more, as it has expired: the list is to be begun again."""


class TransientError(ApiError):
    """The same request may succeed later."""


class FirewallError(TransientError):
    """401 or 403 with a body that is not JSON: something in front of the API answered."""


class RateLimitedError(TransientError):
    """429: too many requests; everyone waits."""


class ServerError(TransientError):
    """5xx."""


class UnreachableError(TransientError):
    """No connection, or it broke in the middle of an answer."""


class TimedOutError(TransientError):
    """No answer in time."""


class BadBodyError(TransientError):
    """A 200 whose body is no page of the API: truncated, HTML, or something else."""


class DeadlineExceededError(ApiError):
    """The run's overall deadline has passed; the text says how far it came."""


class PagingError(ApiError):
    """The pages do not add up: unsorted, `offset` ignored, a page that comes again, or a view that will not settle."""


class BudgetExceededError(SessionsPipelineError):
    """More was spent than a budget allows."""

    exit_status = 3


class LakeError(SessionsPipelineError):
    """The data root can't be read or written as it should."""


class LakeMismatchError(LakeError):
    """The data root was filled with another query, or by another version of this package."""


class LakeBusyError(LakeError):
    """Another run writes a day and does not come to an end."""


class LakeConflictError(LakeError):
    """A file is not what it was expected to be: another run was quicker."""


class NotReadError(LakeError):
    """A table was asked for whose source was never read for that day."""


class InstanceError(SessionsPipelineError):
    """Dagster's instance can't be used: its `dagster.yaml`, or its database."""

    def __init__(self, place: str, error: BaseException) -> None:
        # Dagster goes on with all that it would have expected, SQLAlchemy with the statement.
        told = re.split(r"\s(?:Expected:|\[SQL:|\(Background)", " ".join(str(error).split()))[0][:200]
        super().__init__(f"{place}: {told}")


class TooManyRejectedError(SessionsPipelineError):
    """A day's share of rejected records is beyond the fuse; its former tables stay."""


class WorkerLostError(SessionsPipelineError):
    """A process that worked on a day died without a word."""


class SumOverflowError(SessionsPipelineError):
    """A sum does not fit its column; a wrong number is never written."""
