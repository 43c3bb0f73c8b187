"""What people and programs get from the lake: the report, budgets, notifications, the FOCUS export, and `read`."""

from datetime import date

# The path below the data root.
REPORT_FILE = "reports/cost.html"


def judges_command(day: date) -> str:
    """The command that measures judges. It requires a day, but measures the same experiments whatever the day is."""
    return f"sessions-pipeline materialize --from {day} --to {day} --select judge_cost_by_experiment"
