"""The options on the judge that commands share, as one value: how it is asked, what may be spent, how it is checked."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from fade_lens.cli.options import (
    PANEL,
    Batch,
    Concurrency,
    Gold,
    JudgeName,
    JudgePrompts,
    MaxCalls,
    MaxCost,
    Price,
    Rating,
    Repeats,
    RequestsPerMinute,
    SecondJudge,
    TokensPerMinute,
    Transcripts,
    Writer,
    known_ratings,
    open_judge,
)

if TYPE_CHECKING:
    from fade_lens.judge import Judge

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print judge calls, tokens and price, then stop.", rich_help_panel=PANEL)
]


@dataclass(frozen=True)
class Judging:
    """What a command was told about the judge; each field is an option."""

    rating: Rating = "auto"
    writer: Writer = None
    max_calls: MaxCalls = None
    max_cost: MaxCost = None
    price: Price = None
    concurrency: Concurrency = None
    requests_per_minute: RequestsPerMinute = None
    tokens_per_minute: TokensPerMinute = None
    batch: Batch = False
    judge_name: JudgeName = None
    judge_prompts: JudgePrompts = None
    repeats: Repeats = 0
    second_judge: SecondJudge = None
    gold: Gold = None
    transcripts: Transcripts = None
    dry_run: DryRun = False

    def open(self, spec: str) -> "Judge":
        """The judge of a spec, asked as the options say. Raises `InputError`."""
        about_the_run = {"repeats", "second_judge", "gold", "transcripts", "dry_run", "judge_name", "judge_prompts"}
        how = {name: value for name, value in asdict(self).items() if name not in about_the_run}
        if self.judge_prompts is not None:
            from fade_lens.judge import Prompts

            how["prompts"] = Prompts.load(self.judge_prompts)
        return open_judge(spec, name=self.judge_name, **how)

    def checks(self) -> dict[str, Any]:
        """What `Fade.estimate` and `Fade.evaluate` are told of the checks on the judge; the gold set is read. Raises `InputError`."""
        return {"repeats": self.repeats, "second_judge": self.second_judge, "gold": known_ratings(self.gold)}


JUDGING = Judging()
"""Nothing said."""


def takes_judging(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `judging` is given by the options of `Judging`, which come last but for --quiet."""
    own = dict(inspect.signature(command, eval_str=True).parameters)
    del own["judging"]
    quiet = own.pop("quiet")
    hints = get_type_hints(Judging, include_extras=True)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    shared = [inspect.Parameter(f.name, kind, default=f.default, annotation=hints[f.name]) for f in fields(Judging)]

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        command(judging=Judging(**{f.name: given.pop(f.name) for f in fields(Judging)}), **given)

    parameters = [*own.values(), *shared, quiet]
    wrapped.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped
