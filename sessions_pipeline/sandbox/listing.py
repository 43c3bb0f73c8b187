"""Sessions chosen, sorted and cut into a page, as the API does it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from operator import itemgetter
from typing import Any, Literal, Protocol

from sessions_pipeline.sandbox.company import DATASETS, TAGS, Session, dumps, microseconds
from sessions_pipeline.sandbox.parameters import Parameters
from sessions_pipeline.sandbox.stats import as_json, latest_run, of_runs

# Where sessions without a value sort. PostgreSQL: last ascending, first descending; others always put them at one end.
Undated = Literal["postgres", "first", "last"]
# Orders kept at a time: a reader's few, not a fuzzer's thousands.
MOST_ORDERS = 16


class Data(Protocol):
    """What the server lists."""

    def page(self, asked: Parameters, workspace: str) -> tuple[list[str], int]:
        """The JSON texts of one page, and how many sessions there are in all."""
        ...


class CompanyData:
    """A made-up company's sessions. `sessions` may be changed between requests.

    Args:
        sessions: all there are, of every workspace.
        now: the time up to which feedback has arrived.
        undated: where sessions without a value sort.
        offset: written after every time; the API itself sends none, although RFC 3339 wants one.
    """

    def __init__(
        self, sessions: list[Session], now: datetime, undated: Undated = "postgres", *, offset: str = ""
    ) -> None:
        self.sessions = sessions
        self.now = now
        self.undated = undated
        self.offset = offset
        self._texts: dict[str, str] = {}
        self._listed: list[Session] = []
        self._orders: dict[str, list[Session]] = {}

    def page(self, asked: Parameters, workspace: str) -> tuple[list[str], int]:
        """See `Data`."""
        chosen = self._chosen(asked, workspace)
        page = chosen[asked.offset : asked.offset + asked.limit]
        return [self._text(session, asked) for session in page], len(chosen)

    def forget(self, session: Session) -> None:
        """Take a changed session's JSON and place anew."""
        self._texts.pop(session.id, None)
        self._orders.clear()

    def _chosen(self, asked: Parameters, workspace: str) -> list[Session]:
        """All sessions asked for, in order; kept, since a listing asks for the same order page by page."""
        if self._listed != self.sessions or len(self._orders) >= MOST_ORDERS:
            self._listed = list(self.sessions)
            self._orders.clear()
        asked = replace(asked, offset=0, limit=1)
        key = f"{workspace} {asked}"
        if key not in self._orders:
            chosen = [one for one in self.sessions if one.tenant_id == workspace and _matches(one, asked)]
            self._orders[key] = self._sorted(chosen, asked)
        return self._orders[key]

    def _sorted(self, sessions: list[Session], asked: Parameters) -> list[Session]:
        key = _sort_key(asked, self.now)
        keyed = [(key(session), session.order, session) for session in sessions]
        known = sorted((one for one in keyed if one[0] is not None), key=itemgetter(0, 1), reverse=asked.sort_by_desc)
        unknown = sorted((one for one in keyed if one[0] is None), key=itemgetter(1))
        first = asked.sort_by_desc if self.undated == "postgres" else self.undated == "first"
        return [session for *_, session in ([*unknown, *known] if first else [*known, *unknown])]

    def _text(self, session: Session, asked: Parameters) -> str:
        plain = not (asked.stats_start_time or asked.stats_filter or asked.stats_select or asked.facets)
        if asked.include_stats and plain:
            if session.id not in self._texts:
                self._texts[session.id] = self._json(session, include_stats=True)
            return self._texts[session.id]
        return self._json(
            session,
            include_stats=asked.include_stats,
            facets=asked.facets,
            since_us=microseconds(asked.stats_start_time) if asked.stats_start_time else None,
            only_errors=asked.stats_filter[1] == "error" if asked.stats_filter else None,
            select=asked.stats_select,
        )

    def _json(self, session: Session, **chosen: Any) -> str:
        return dumps(as_json(session, now=self.now, offset=self.offset, **chosen))


class FixedData:
    """A given list of JSON texts, in the order in which it is served; `texts` may be changed between requests."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)

    def page(self, asked: Parameters, workspace: str) -> tuple[list[str], int]:  # noqa: ARG002 - one workspace has all
        """See `Data`; other parameters than `offset` and `limit` are not honoured."""
        return self.texts[asked.offset : asked.offset + asked.limit], len(self.texts)


def _matches(session: Session, asked: Parameters) -> bool:
    dataset = DATASETS[session.dataset] if session.dataset else None
    return (
        (asked.reference_free is None or asked.reference_free == (dataset is None))
        and (asked.reference_dataset is None or dataset in asked.reference_dataset)
        and (asked.id is None or session.id in asked.id)
        and (asked.name is None or session.name == asked.name)
        and (asked.name_contains is None or asked.name_contains.lower() in session.name.lower())
        and (asked.dataset_version is None or session.extra["metadata"]["dataset_version"] == asked.dataset_version)
        and (asked.metadata is None or _contains(session.extra["metadata"], asked.metadata))
        and (asked.tag_value_id is None or TAGS[session.team] in asked.tag_value_id)
        and (asked.filter is None or session.name == asked.filter[1])
    )


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(name in whole and _contains(whole[name], part[name]) for name in part)
    return bool(whole == part)


def _sort_key(asked: Parameters, now: datetime) -> Callable[[Session], Any]:
    def statistic(session: Session) -> Any:
        name = "run_count" if asked.sort_by == "runs_count" else asked.sort_by
        return of_runs(session.runs, session)[name]

    def score(session: Session) -> Any:
        if asked.sort_by_feedback_source == "session":
            return None
        return session.feedback(now).get(asked.sort_by_feedback_key or "correctness", {}).get("avg")

    keys: dict[str, Callable[[Session], Any]] = {
        "name": lambda session: session.name,
        "start_time": lambda session: session.start,
        "last_run_start_time": latest_run,
        "feedback": score,
    }
    return keys.get(asked.sort_by, statistic)
