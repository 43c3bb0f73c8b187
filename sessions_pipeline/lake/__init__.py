"""Where a table's day lives, and how it is read and replaced whole."""
