"""What can be wrong around a response. A bad *response* is never an error: it scores 0.

RewardError
├── UnknownTaskError (also KeyError)    no judge is registered for this data source
├── TruthError       (also ValueError)  the ground truth of a row cannot be judged against
├── OptionError      (also ValueError)  an option is not known or has a value that is not
└── HelperError                         the process that compares expressions cannot be started
"""


class RewardError(Exception):
    """Base of everything this package raises."""


class UnknownTaskError(RewardError, KeyError):
    """The data source names no known task."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0])


class TruthError(RewardError, ValueError):
    """The ground truth is the user's to fix; reported with the row at conversion and at start-up."""


class OptionError(RewardError, ValueError):
    """An option is not known or has a value that is not."""


class HelperError(RewardError):
    """The helper process of symbolic.py cannot be started: a broken installation, not a bad answer."""
