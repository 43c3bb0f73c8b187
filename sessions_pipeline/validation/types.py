"""The Arrow types of moments and of money."""

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")
MONEY = pa.decimal128(38, 18)
