"""Pure: Arrow in, Arrow out. Costs, feedback, experiments, usage, and the report's numbers and pictures."""
