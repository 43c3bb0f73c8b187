"""What leaves the lake for people and programs: the report, and how figures are written."""

from datetime import date

# Under the data root.
REPORT_FILE = "reports/cost.html"


def measuring_judges(day: date) -> str:
    """The command that measures judges: of any days the same experiments, but it asks for a day."""
    return f"sessions-pipeline materialize --from {day} --to {day} --select judge_cost_by_experiment"
