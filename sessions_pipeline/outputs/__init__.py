"""What leaves the lake for people and programs: the report, and how figures are written."""

# Under the data root.
REPORT_FILE = "reports/cost.html"
