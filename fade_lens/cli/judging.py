"""The options on the judge that commands share, as one value: how it is asked, what may be spent, how it is checked."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fade_lens.cli.groups import THEMES, Group
from fade_lens.cli.options import (
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
    bool,
    typer.Option("--dry-run", help="Print judge calls, tokens and price, then stop.", rich_help_panel=THEMES["out"]),
]


@dataclass(frozen=True, kw_only=True)
class Judging(Group):
    """What a command was told about the judge; each field is an option."""

    theme = "Judge"
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
