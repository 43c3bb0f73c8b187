"""The storage of tables: a day is read from, or replaced as, one Parquet file in a local folder or an object store."""
