"""What goes wrong between here and Neuronpedia."""

from fade_lens._util.errors import FadeLensError


class NeuronpediaError(FadeLensError):
    """Neuronpedia's data cannot be read: unreachable, moved, removed, damaged; the message says which and what to do."""


class NotThereError(NeuronpediaError):
    """Neuronpedia answers, and has no such thing."""
