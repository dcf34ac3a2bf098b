"""The public names, the only list of them: `fade_lens/__init__.py` imports each when it is first used."""

from . import neuronpedia as neuronpedia
from ._util.errors import FadeLensError as FadeLensError
from ._util.errors import InputError as InputError
from ._util.errors import JudgeError as JudgeError
from ._util.errors import MissingExtraError as MissingExtraError
from ._util.errors import StoreError as StoreError
from ._util.errors import WorkerError as WorkerError
from .analysis.by_negative import by_negative as by_negative
from .analysis.compare import compare as compare
from .analysis.complexity import complexity as complexity
from .analysis.latent_map import LatentMap as LatentMap
from .analysis.latent_map import latent_map as latent_map
from .analysis.logit_weights import logit_weights as logit_weights
from .analysis.polysemanticity import polysemanticity as polysemanticity
from .analysis.release import Release as Release
from .analysis.release import release as release
from .analysis.summary import compare_sources as compare_sources
from .analysis.summary import summary as summary
from .baselines.features import baseline as baseline
from .data.corpus import Corpus as Corpus
from .data.descriptions import Description as Description
from .data.descriptions import read_descriptions as read_descriptions
from .data.search import search as search
from .explainers.table import Explanations as Explanations
from .generation.steer import steer as steer
from .judge import Judge as Judge
from .judge import Prompts as Prompts
from .llm.chat import LLM as LLM
from .llm.chat import Answer as Answer
from .llm.request import Request as Request
from .metrics.metric import Metric as Metric
from .runs.causes import causes as causes
from .runs.fade import Fade as Fade
from .runs.fires import fires as fires
from .runs.health import Health as Health
from .runs.health import health as health
from .runs.look import Look as Look
from .runs.look import look as look
from .runs.passes import one_pass as one_pass
from .runs.patchscopes import patchscopes as patchscopes
from .runs.ray import RayWorkers as RayWorkers
from .runs.results import Result as Result
from .runs.results import Results as Results
from .runs.settings import Settings as Settings
from .runs.store import RunStore as RunStore
from .scorers import ClarityEvaluator as ClarityEvaluator
from .scorers import FaithfulnessEvaluator as FaithfulnessEvaluator
from .scorers import RatingEvaluator as RatingEvaluator
from .subject.loading import load as load
from .subject.subject import Subject as Subject

__version__: str
__all__: list[str]
