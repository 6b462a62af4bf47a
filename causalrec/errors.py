"""One family of errors. Each message names the thing, its value, the bound, and the next step."""


class CausalRecError(Exception):
    """Root of every error that causalrec raises on purpose."""


class LogError(CausalRecError, ValueError):
    """The log cannot be read or analysed as declared."""


class ColumnError(LogError):
    """A column is missing, duplicated, misspelt or declared twice."""


class RepresentationError(CausalRecError, ValueError):
    """Text cannot be turned into numbers as asked."""


class ModelNotFoundError(RepresentationError):
    """The encoder's weights are not where they were looked for."""


class GraphError(CausalRecError, ValueError):
    """The causal graph is malformed or names unknown nodes."""


class IdentificationError(CausalRecError, ValueError):
    """The effect is not identified under the graph and what was observed."""


class EstimationError(CausalRecError, ValueError):
    """An effect cannot be estimated as asked."""


class OverlapError(EstimationError):
    """The arms do not overlap enough for the estimand that was named."""


class HonestyError(CausalRecError, ValueError):
    """Something would be scored on the users that it was fitted on."""


class ArgumentError(CausalRecError, ValueError):
    """An argument has a value that it cannot have."""


class MissingExtraError(CausalRecError, ImportError):
    """An optional dependency is not installed; the message has the line that installs it."""


class DataUnavailableError(CausalRecError, OSError):
    """A data set is neither on this machine nor where it is published."""


class OutputError(CausalRecError, OSError):
    """A result cannot be written where it was asked for."""


class SavedError(CausalRecError, OSError):
    """A saved result is not there, damaged, of another version, not trusted, or was saved without what is asked of it."""


class TrainingError(CausalRecError, RuntimeError):
    """Training cannot go on; the message says where it stopped and what is kept."""


class CausalRecWarning(UserWarning):
    """Something that a careful reader of the result has to know."""
