"""Where a table's day lives: reading it, and replacing it as a whole, in a local folder or an object store."""
