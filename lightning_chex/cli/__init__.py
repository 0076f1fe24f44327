"""The command line: ``python -m lightning_chex``. Importing this package imports no library."""
