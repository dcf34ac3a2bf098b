"""The public names of `fade_lens.neuronpedia`, the only list of them."""

from . import links as links
from .errors import NeuronpediaError as NeuronpediaError
from .flagging import flags as flags
from .ids import Hosts as Hosts
from .ids import SourceId as SourceId
from .loading import descriptions as descriptions
from .loading import feature as feature
from .loading import from_dataframe as from_dataframe
from .loading import from_dataframes as from_dataframes
from .loading import load as load
from .loading import load_and_process_autointerp_dfs as load_and_process_autointerp_dfs
from .mapping import MappingCheck as MappingCheck
from .mapping import check_mapping as check_mapping
from .records import Activation as Activation
from .records import Imported as Imported
from .records import Row as Row
from .records import Score as Score
from .records import Stats as Stats
from .resolving import resolve as resolve

__all__: list[str]
