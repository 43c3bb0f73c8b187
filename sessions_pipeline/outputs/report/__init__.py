"""The cost report: tables in, one HTML file out that works offline."""

from sessions_pipeline.outputs.report.data import Kept, ReportData, report_data
from sessions_pipeline.outputs.report.page import build_report

__all__ = ["Kept", "ReportData", "build_report", "report_data"]
