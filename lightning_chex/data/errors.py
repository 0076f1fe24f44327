"""The one error of bad data."""


class DataError(ValueError):
    """Something on disk is not as it should be; the message names it, what was found, and the way out."""
