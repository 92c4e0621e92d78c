"""The one exception that stands for a mistake the user can mend."""


class UserError(Exception):
    """Bad input. Its message is one line: what is wrong and what to do about it."""
