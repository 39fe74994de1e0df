"""The error for input files that are not as expected."""

from .. import Error


class DataError(Error):
    """A file or flag from the user is wrong; the message is one line that names it."""
