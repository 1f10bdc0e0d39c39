"""Why a row was not used. Nothing is dropped without one of these."""


class RowRefused(Exception):
    """One row cannot be used.

    Args:
        kind: a few words that many rows have in common; refusals are counted by it.
        reason: what is wrong with this row.
    """

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind
