"""What is wrong with data, as one line for a person."""


class DataError(Exception):
    """The data, or an artifact read as data, cannot be used (the command ends with exit code 3).

    The message is one line: what is wrong, the offending value, where, what to do.
    """


class StoreUnavailable(Exception):
    """A store of shards did not answer, or a disk failed: trying again may help, so this is no DataError (exit code 1).

    The message is one line, as of DataError.
    """


class UnsupportedRequest(DataError):
    """The settings ask for what a source cannot give (a set that it does not know, say): mend the settings, not the data."""
