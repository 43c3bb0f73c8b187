"""Generates sessions like the API's, the same for the same arguments; written once, served many times.

    python benchmarks/generate.py FOLDER --sessions 100000 --days 90

Writes the records in ascending order of start time, each followed by a comma, so that any page is one slice:
`full.bin` (with stats, about 1.46 kB each), `bare.bin` (without), `*.index` (64-bit offsets of the records) and
`manifest.json` (the number of rows and the exact costs that a client must find).
"""

import argparse
import hashlib
import json
import sys
from array import array
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import UUID

LAST_DAY = date(2025, 12, 31)
DATASETS = 20
SEED = 7
# Costs are counted in billionths of a dollar, which integers hold exactly.
NANO = 10**9
PRICES = ((150, 600), (250, 2_000), (2_500, 10_000), (3_000, 15_000), (75, 300))  # per prompt and completion token
KEYS = ("correctness", "helpfulness", "conciseness", "groundedness", "toxicity", "format_ok")
MODELS = ("gpt-4o-mini", "gpt-4.1", "claude-sonnet-4", "gemini-2.5-pro", "llama-4-maverick")


@dataclass(frozen=True, slots=True)
class Manifest:
    """Describes a folder of records. `total_cost` is that of experiments, in dollars, exact; days are UTC."""

    sessions: int
    days: int
    first_day: str
    last_day: str
    bytes_full: int
    experiments: int
    total_cost: str
    daily_groups: int
    daily_digest: str


def digest(costs: dict[tuple[str, str], str]) -> str:
    """Hash of the cost per day and dataset: equal only if every sum is equal to the last digit."""
    lines = "".join(f"{day} {dataset} {cost}\n" for (day, dataset), cost in sorted(costs.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def dollars(nano: int) -> str:
    """Billionths of a dollar as decimal text in dollars, without trailing zeros."""
    whole, part = divmod(nano, NANO)
    return f"{whole}.{part:09d}".rstrip("0").rstrip(".")


def _uuid(random: Random) -> str:
    return str(UUID(int=random.getrandbits(128), version=4))


def _feedback(random: Random, count: int, runs: int) -> str:
    parts = []
    for key in random.sample(KEYS, count):
        average, spread = random.random(), random.random() / 2
        parts.append(
            f'"{key}":{{"n":{runs},"avg":{average:.6f},"stdev":{spread:.6f},"errors":{random.randrange(3)},"values":{{}}}}'
        )
    return "{" + ",".join(parts) + "}"


def _extra(random: Random, start: str) -> str:
    commit = f"{random.getrandbits(160):040x}"
    return (
        f'{{"metadata":{{"git":{{"commit":"{commit}","branch":"feature/{commit[:7]}","dirty":false,'
        f'"author_name":"Person {random.randrange(50)}"}},'
        f'"revision_id":"{commit[:10]}","dataset_version":"{start}","models":["{random.choice(MODELS)}"],'
        f'"num_repetitions":1,"splits":["base"]}}}}'
    )


def _costs(random: Random, prompt: int, completion: int) -> tuple[int | None, int | None]:
    """Prompt and completion cost in billionths: unknown for 4 %, zero (a model without a price) for 2 %."""
    draw = random.random()
    if draw < 0.04:
        return None, None
    prompt_price, completion_price = (0, 0) if draw < 0.06 else random.choice(PRICES)
    return prompt * prompt_price, completion * completion_price


def workspace(random: Random) -> tuple[str, list[str]]:
    """The ids of the workspace and of its datasets, which are the first that `records` draws."""
    return _uuid(random), [_uuid(random) for _ in range(DATASETS)]


def datasets() -> bytes:
    """The JSON list of the datasets of `records`."""
    tenant, ids = workspace(Random(SEED))
    moment = f"{LAST_DAY}T00:00:00"
    common = {"tenant_id": tenant, "data_type": "kv", "created_at": moment, "modified_at": moment, "example_count": 100}
    rows = [{"id": id_, "name": f"dataset-{number:02}", **common} for number, id_ in enumerate(ids)]
    return json.dumps(rows).encode()


def records(sessions: int, days: int, seed: int) -> Iterator[tuple[str, str, str, str | None, int | None]]:
    """Full JSON, bare JSON, day, reference dataset and total cost in billionths, by ascending unique start time."""
    random = Random(seed)
    first = datetime(LAST_DAY.year, LAST_DAY.month, LAST_DAY.day, tzinfo=UTC) - timedelta(days=days - 1)
    step = days * 86_400_000_000 // sessions
    tenant, ids = workspace(random)
    for number in range(sessions):
        start = first + timedelta(microseconds=number * step + random.randrange(step))
        started = start.isoformat(timespec="microseconds").removesuffix("+00:00")
        ended = (start + timedelta(seconds=random.randrange(10, 3000))).isoformat().removesuffix("+00:00")
        dataset = random.choice(ids) if random.random() < 0.7 else None
        runs = random.randrange(1, 400)
        prompt, completion = random.randrange(100, 5000) * runs, random.randrange(20, 900) * runs
        prompt_cost, completion_cost = _costs(random, prompt, completion)
        total = None if prompt_cost is None or completion_cost is None else prompt_cost + completion_cost
        money = [f'"{dollars(cost)}"' if cost is not None else "null" for cost in (total, prompt_cost, completion_cost)]
        reference = f'"{dataset}"' if dataset else "null"
        number_in_dataset = str(number // DATASETS + 1) if dataset else "null"
        head = (
            f'{{"id":"{_uuid(random)}","tenant_id":"{tenant}","name":"experiment-{number:07d}-{random.getrandbits(32):08x}",'
            f'"start_time":"{started}","end_time":"{ended}","description":"Nightly evaluation of the support agent",'
            f'"default_dataset_id":null,"reference_dataset_id":{reference},"trace_tier":"longlived",'
            f'"extra":{_extra(random, started)},'
        )
        p50, first_token = random.random() * 4, random.random()
        full = (
            f'"run_count":{runs},"latency_p50":{p50:.4f},"latency_p99":{p50 * 3.7:.4f},'
            f'"first_token_p50":{first_token:.4f},"first_token_p99":{first_token * 2.9:.4f},'
            f'"total_tokens":{prompt + completion},"prompt_tokens":{prompt},"completion_tokens":{completion},'
            f'"total_cost":{money[0]},"prompt_cost":{money[1]},"completion_cost":{money[2]},'
            f'"last_run_start_time":"{ended}","last_run_start_time_live":null,'
            f'"feedback_stats":{_feedback(random, 3, runs)},"session_feedback_stats":{_feedback(random, 1, 1)},'
            f'"run_facets":[],"error_rate":{random.random() / 10:.4f},"streaming_rate":0.0,'
            f'"test_run_number":{number_in_dataset},'
            '"experiment_progress":null}'
        )
        yield head + full, head + BARE, started[:10], dataset, total


BARE = (
    ",".join(
        f'"{name}":null'
        for name in (
            *("run_count", "latency_p50", "latency_p99", "first_token_p50", "first_token_p99"),
            *("total_tokens", "prompt_tokens", "completion_tokens", "total_cost", "prompt_cost", "completion_cost"),
            *("last_run_start_time", "last_run_start_time_live", "feedback_stats", "session_feedback_stats"),
            *("run_facets", "error_rate", "streaming_rate", "test_run_number", "experiment_progress"),
        )
    )
    + "}"
)


def write(folder: Path, sessions: int, days: int, seed: int = SEED) -> Manifest:
    """Write the records and their manifest. The manifest is written last, so a folder that has one is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    indexes = {"full": array("Q", [0]), "bare": array("Q", [0])}
    costs: dict[tuple[str, str], int] = defaultdict(int)
    experiments = 0
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / f"{name}.bin").open("wb")) for name in indexes}
        for full, bare, day, dataset, total in records(sessions, days, seed):
            for name, text in (("full", full), ("bare", bare)):
                files[name].write(f"{text},".encode())
                indexes[name].append(indexes[name][-1] + len(text) + 1)
            experiments += dataset is not None
            if dataset and total:
                costs[day, dataset] += total
    for name, index in indexes.items():
        (folder / f"{name}.index").write_bytes(index.tobytes())
    manifest = Manifest(
        sessions=sessions,
        days=days,
        first_day=str(LAST_DAY - timedelta(days=days - 1)),
        last_day=str(LAST_DAY),
        bytes_full=indexes["full"][-1],
        experiments=experiments,
        total_cost=dollars(sum(costs.values())),
        daily_groups=len(costs),
        daily_digest=digest({group: dollars(cost) for group, cost in costs.items()}),
    )
    (folder / "manifest.json").write_text(json.dumps(asdict(manifest), indent=2))
    return manifest


def ensure(root: Path, sessions: int, days: int) -> tuple[Path, Manifest]:
    """The folder with these records and its manifest; writes them if the folder is missing or incomplete."""
    folder = root / f"{sessions}-sessions-{days}-days"
    manifest = folder / "manifest.json"
    if manifest.exists():
        return folder, Manifest(**json.loads(manifest.read_text()))
    return folder, write(folder, sessions, days)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=90)
    given = parser.parse_args()
    json.dump(asdict(write(given.folder, given.sessions, given.days)), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
