"""What leaves the lake for people and programs: the report, and how figures are written."""
