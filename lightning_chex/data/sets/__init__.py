"""One data set with its data module a file; tables and splits of their own lie beside it."""
