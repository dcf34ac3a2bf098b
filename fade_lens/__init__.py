"""fade_lens: does this description of this feature tell the truth?

The public names are imported when they are first used, so that importing the package costs nothing heavy.
"""

import lazy_loader

__version__ = "0.1.0"

# The names, and where each lives, stand in `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
