"""`Judge`: one language model that writes texts for a concept, rates texts against it, and answers free questions.

Questions are asked in the background: every `submit_…` method hands its work to the judge's own thread and returns a
`concurrent.futures.Future` at once. The judge calls back into the code above it in one place only: `submit_rounds`
(see `fade_lens.judge.rounds`).
"""

import asyncio
import math
import os
from collections import defaultdict
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from fade_lens._util.errors import Argument, InputError, JudgeError
from fade_lens._util.reasons import Reason
from fade_lens.judge.asking import CHECKED, Legibility, Questions, as_it_is, check_question
from fade_lens.judge.checks import check_concept, check_name, check_numbers, check_rating, check_texts
from fade_lens.judge.prompts import Prompts
from fade_lens.judge.rating import BatchedRating, Rating, SingleRating
from fade_lens.judge.rounds import Following, in_rounds
from fade_lens.judge.writing import Writing, Written
from fade_lens.llm.budget import Budget, Estimate, Ledger, Number, Usage, price_of
from fade_lens.llm.chat import LLM, Answer, InProcess
from fade_lens.llm.endpoint import OLLAMA_URL, SERVERS, Endpoint, checked_url, endpoint, keyed, parse_spec
from fade_lens.llm.endpoint import azure_endpoint as azure
from fade_lens.llm.loop import LoopThread
from fade_lens.llm.openai import OpenAIClient
from fade_lens.llm.queue import Call, Queue, Retries
from fade_lens.llm.request import Request
from fade_lens.llm.transcripts import MemoryTranscripts, Transcripts

T = TypeVar("T")
Way = Literal["auto", "batched", "single"]

LOCAL_DEFAULTS: dict[str, Any] = {"rating": "single", "concurrency": 4, "timeout": 600.0, "texts_per_set": 4, "price": (0.0, 0.0)}  # fmt: skip
"""For models on the user's own machine: small, and with few requests at a time, so that a long queue would only time out."""
_KEPT_OTHERWISE = ("self", "model", "base_url", "api_key", "name", "max_calls", "max_cost", "price", "_endpoint", "_budget")  # fmt: skip
"""Arguments of `Judge` that a pickle holds in another form, or, as the key, not at all."""


class Judge:
    """A language model that rates and writes texts and answers free questions, asked from a thread of its own.

    It works in scripts and in notebooks, and nothing is sent before the first question. An answer that is stored already is never asked for
    again; answers are stored by the model alone for a server of the user's own (on this machine or network), and by model and address
    for any other. A pickled judge holds its configuration alone: unpickled, in another process too, it finds its key in the
    environment and counts calls and cost from nothing, so that limits hold for each copy.

    Args:
        model: the name of a model behind an OpenAI-compatible server, or a model of your own: an `LLM`, any object with
            `async def ask(request)`.
        base_url: the server's address, such as "http://localhost:8000/v1"; None is OpenAI's own, whatever the environment says.
        api_key: the key; None takes `FADE_LENS_API_KEY` (for any server) or `OPENAI_API_KEY` (for OpenAI alone) from the environment or
            `.env`. It is never shown, logged or stored.
        rating: "batched" rates `texts_per_request` texts a request (strong models); "single" rates one text a request by the
            log-probabilities of Yes and No (small models); "auto" is "single" for models served in the process or by Ollama, else "batched".
        texts_per_request: texts that one request rates, 1 to 200.
        texts_per_set: texts that one request writes at most, 1 to 100.
        concurrency: requests in flight at a time, over all features and scorers.
        timeout: seconds after which a request counts as failed.
        max_retries: how often a request is sent again after a failure that may pass.
        temperature: of ratings and writing; None is 0 for ratings and 1 for writing. Reasoning models get none.
        requests_per_minute: at most so many requests are sent in a minute; None is no limit.
        tokens_per_minute: at most so many tokens, prompt and answer, are used in a minute; None is no limit.
        max_calls: answered requests after which a run stops with `BudgetReached`; everything answered is kept.
        max_cost: US dollars at which a run stops with `BudgetReached`.
        price: (prompt, completion) in US dollars a million tokens; None takes the server's list price, if it has one.
        writer: another judge, or its spec (see `parse`), that writes the texts.
        batch: send what can wait through the server's Batch API: half the price, answered within a day. A run that is stopped
            meanwhile is collected by a later run.
        name: stands for the server's address in what is stored: it tells apart two servers with a model of the same name, or makes one
            of two addresses.
        prompts: the words that the judge is asked in (see `Prompts`), and those of a writer or second judge that is given by its spec.

    Raises:
        InputError: an argument that cannot be used, or `max_cost` where the price is unknown.

    Example:
        >>> judge = Judge("gpt-4o-mini", max_cost=2.0)  # doctest: +SKIP
        >>> [rating.value for rating in judge.rate("the word 'cat'", ["A cat sat.", "A dog ran."])]  # doctest: +SKIP
        [2, 0]
    """

    def __init__(
        self,
        model: str | LLM,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        rating: Way = "auto",
        texts_per_request: int = 15,
        texts_per_set: int = 25,
        concurrency: int = 16,
        timeout: Number = 120.0,
        max_retries: int = 6,
        temperature: Number | None = None,
        requests_per_minute: Number | None = None,
        tokens_per_minute: Number | None = None,
        max_calls: int | None = None,
        max_cost: Number | None = None,
        price: tuple[Number, Number] | None = None,
        writer: "Judge | str | None" = None,
        batch: bool = False,
        name: str | None = None,
        prompts: Prompts | None = None,
        _endpoint: Endpoint | None = None,
        _start: Callable[[], tuple[str, str]] | None = None,
        _budget: Budget | None = None,
    ) -> None:
        self._made_with = {name: value for name, value in locals().items() if name not in _KEPT_OTHERWISE}
        if isinstance(model, str) and not model.strip():
            raise InputError(f"model is {model!r}: give a model's name, such as 'gpt-4o-mini'")
        check_rating(rating)
        check_numbers(
            texts_per_request=(texts_per_request, 1, 200),
            texts_per_set=(texts_per_set, 1, 100),
            concurrency=(concurrency, 1, 1000),
            timeout=(timeout, 1e-3, 86_400),
            max_retries=(max_retries, 0, 100),
            temperature=(temperature, 0, 2),
            requests_per_minute=(requests_per_minute, 1e-3, math.inf),
            tokens_per_minute=(tokens_per_minute, 1, math.inf),
        )
        own = None if isinstance(model, str) else InProcess(model, timeout=timeout)
        if (own or _endpoint) is not None and (base_url, api_key) != (None, None):
            raise InputError("base_url and api_key do not apply to this kind of judge: leave them out")
        if own is not None and batch:
            raise InputError(
                Argument("batch"), " is for servers with a Batch API, not for a model of your own: leave it out"
            )
        self.model = own.model if own is not None else str(model).strip()
        self.endpoint = _endpoint or (own.endpoint if own is not None else endpoint(base_url, api_key))
        if name is not None:
            self.endpoint = replace(self.endpoint, known_as=check_name(name))
        self.rating: Way = "batched" if rating == "auto" else rating
        self.texts_per_request, self.texts_per_set = texts_per_request, texts_per_set
        self.temperature, self.batch = temperature, batch
        self.prompts = prompts or Prompts()
        self._cold = 0.0 if temperature is None else float(temperature)
        # Not on Azure, where deployments have names of their own.
        if price is None and own is None and not self.endpoint.own and self.endpoint.key_header == "Authorization":
            price = price_of(self.model, self.endpoint.base_url)
        if max_cost is not None and price is None:
            raise InputError(
                Argument("max_cost"),
                f" needs a price and that of {self.model!r} is unknown: give ",
                Argument("price"),
                " (of prompt and completion, in US dollars a million tokens)",
            )

        self._ledger = Ledger(price)
        self._budget = _budget or Budget(max_calls, max_cost, [])
        self._budget.ledgers.append(self._ledger)
        self._owns_writer = isinstance(writer, str)
        self.writer = self.beside(writer) if isinstance(writer, str) else writer
        self._transcripts: Transcripts = MemoryTranscripts()
        self._answered: set[str] | None = None
        """Keys of what this session was answered."""
        self._legible: defaultdict[str, Legibility] = defaultdict(Legibility)
        pace: dict[str, Any] = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        about: dict[str, Any] = {"ledger": self._ledger, "retries": Retries(max_retries, self._ledger)}
        if own is not None:
            own.endpoint = self.endpoint
        provider = own or OpenAIClient(self.model, self.endpoint, timeout=timeout, start=_start, batch=batch, **about)
        self._queue = Queue(provider, budget=self._budget, concurrency=concurrency, **pace, **about)
        self._thread = LoopThread()

    # ---------------------------------------------------------------- other ways to make one

    @classmethod
    def local(
        cls, gguf_path: str | os.PathLike[str], *, n_ctx: int | None = None, parallel: int | None = None, **options: Any
    ) -> "Judge":
        """A GGUF model served inside the process (extra `local`), started at the first question and shared by all judges of the file.

        Args:
            gguf_path: the file of the model.
            n_ctx: tokens of context, shared by the requests in flight (8,192 unless given).
            parallel: requests answered at a time (two unless given, or one where half the context would be too little).
            options: of `Judge`; the defaults suit a small model on this machine.

        Raises:
            InputError: no such file, or an option that cannot be used.
        """
        path = Path(gguf_path).expanduser()
        if not path.is_file():
            raise InputError(f"gguf_path {str(path)!r} is not a file: give the path of a GGUF model")
        from fade_lens.llm import local

        server = {name: value for name, value in {"n_ctx": n_ctx, "parallel": parallel}.items() if value is not None}
        # The port changes from run to run; the file is what determines answers.
        place = Endpoint("http://127.0.0.1/v1", name=f"gguf:{local.fingerprint(path)}")
        own = {**LOCAL_DEFAULTS, **_without_auto(options)}
        return cls(path.stem, _endpoint=place, _start=partial(local.address, path, **server), **own)

    @classmethod
    def ollama(cls, model: str, *, base_url: str = OLLAMA_URL, api_key: str | None = None, **options: Any) -> "Judge":
        """A model served by Ollama, rated one text a request unless `rating` says otherwise.

        Args:
            model: its name there, such as "llama3.2".
            base_url: where Ollama is; unless given, at its usual port on this machine.
            api_key: where a proxy before it asks for one.
            options: of `Judge`; the defaults suit a small model on this machine.

        Raises:
            InputError: no usable address, or an option that cannot be used.
        """
        place = keyed(checked_url(base_url), api_key, ())
        own = {**LOCAL_DEFAULTS, **_without_auto(options)}
        return cls(model, _endpoint=place, **own)

    @classmethod
    def azure(
        cls,
        deployment: str,
        *,
        azure_endpoint: str,
        api_key: str | None = None,
        api_version: str = "2024-10-21",
        **options: Any,
    ) -> "Judge":
        """A deployment of Azure OpenAI.

        Args:
            deployment: its name.
            azure_endpoint: the resource's address; one that ends in /openai/v1 is the API without versions.
            api_key: the key; None takes `AZURE_OPENAI_API_KEY` from the environment or `.env`.
            api_version: of the API with versions.
            options: of `Judge`.

        Raises:
            InputError: no usable address, or an option that cannot be used.
        """
        place = azure(azure_endpoint, deployment, api_key, api_version)
        return cls(deployment, _endpoint=place, **options)

    @classmethod
    def parse(cls, spec: str, **options: Any) -> "Judge":
        """A judge from a string, as the command line takes it.

        Args:
            spec: "openai:gpt-4o-mini"; "http://host:8000/v1#model"; "gguf:/path/to/model.gguf" (see `local`); "ollama:llama3.2";
                "vllm:MODEL", "lmstudio:MODEL" and "llamacpp:MODEL", servers on this machine at their usual ports; "openrouter:ORG/MODEL",
                whose key is `OPENROUTER_API_KEY`; "azure:DEPLOYMENT" at the address that `AZURE_OPENAI_ENDPOINT` holds.
            options: of `Judge`.

        Raises:
            InputError: any other form (the message lists these), or an option that cannot be used.
        """
        kind, model, base_url = parse_spec(spec)
        if kind == "gguf":
            return cls.local(model, **options)
        if kind == "ollama":
            return cls.ollama(model, **options)
        if kind == "azure":
            address = os.environ.get("AZURE_OPENAI_ENDPOINT", "").strip()
            if not address:
                raise InputError(
                    f"judge {spec!r} needs its address: set AZURE_OPENAI_ENDPOINT, or use Judge.azure(...)"
                )
            return cls.azure(model, azure_endpoint=address, **options)
        if kind in SERVERS and base_url is not None:
            place = keyed(base_url, options.pop("api_key", None), SERVERS[kind][1])
            free: dict[str, Any] = {"price": (0.0, 0.0)} if place.loopback else {}
            return cls(model, _endpoint=place, **(free | options))
        return cls(model, base_url=base_url, **options)

    def beside(self, spec: str) -> "Judge":
        """Another judge by its spec (see `parse`), with this one's prompts, under its limits on calls and cost.

        Raises:
            InputError: a spec that is not understood, or cost is limited and the other judge's price is unknown.
        """
        other = Judge.parse(spec, prompts=self.prompts, _budget=self._budget)
        if self._budget.max_cost is not None and other._ledger.price is None:
            raise InputError(
                Argument("max_cost"),
                f" needs the price of every judge and that of {spec!r} is unknown: pass it as Judge(..., price=...)",
            )
        return other

    # ---------------------------------------------------------------- questions

    def check(self, *, rates: bool = True, writes: bool = True) -> None:
        """Ask a few questions as a run does, to see whether the judge is there and answers in a form that can be read.

        Args:
            rates: whether it is to rate texts.
            writes: whether it, or its writer, is to write texts.

        Raises:
            JudgeError: it cannot be asked, or its answers cannot be read; the sentence says what to do.
        """
        if rates:
            self._check(lambda asked: self._rater(asked, CHECKED[0], attempts=2).check())
        if writes and self.writer is not None:
            self.writer.check(rates=False)
        elif writes:
            self._check(lambda asked: self._writing(asked, CHECKED[0], attempts=2).check())

    def write(self, concept: str, *, n_texts: int = 30, seed: int = 0) -> Written:
        """Texts that express a concept.

        Args:
            concept: a description in words.
            n_texts: how many at most.
            seed: what is asked for depends on it, and with it the answers.

        Returns:
            Unique texts, fewer than `n_texts` where the model repeats itself or fails, and a line for each request that gave nothing.

        Raises:
            InputError: an empty concept, or a number out of range.
            JudgeError: the judge cannot be asked at all, or nothing that it writes can be read.
            BudgetReached: a limit on calls or cost is reached.
        """
        return self._result(self.submit_write(concept, n_texts=n_texts, seed=seed))

    def rate(self, concept: str, texts: Sequence[str], *, seed: int = 0, repeat: int = 0) -> list[Rating]:
        """How far texts express a concept.

        Args:
            concept: a description in words.
            texts: the texts; equal ones are rated once.
            seed: shuffles the texts into requests.
            repeat: numbers repetitions: the same texts with another `repeat` are asked for anew.

        Returns:
            A `Rating` of each text, in their order: 0, 1 or 2, or None with the reason.

        Raises:
            InputError: an empty concept, or texts that are none.
            JudgeError: the judge cannot be asked at all, or none of many answers can be read.
            BudgetReached: a limit on calls or cost is reached.
        """
        return self._result(self.submit_rate(concept, texts, seed=seed, repeat=repeat))

    def submit_write(self, concept: str, *, n_texts: int = 30, seed: int = 0) -> "Future[Written]":
        """`write` in the background: a future of what it returns or raises."""
        check_concept(concept)
        check_numbers(n_texts=(n_texts, 0, 100_000))
        return self.submit(lambda asked: self._write(asked, concept, n_texts, seed))

    def submit_rate(
        self, concept: str, texts: Sequence[str], *, seed: int = 0, repeat: int = 0
    ) -> "Future[list[Rating]]":
        """`rate` in the background: a future of what it returns or raises."""
        check_concept(concept)
        texts = check_texts(texts)
        return self.submit(lambda asked: self._rater(asked, concept, seed, repeat).rate(texts))

    def submit_rounds(self, concept: str, following: Following, *, seed: int = 0) -> "Future[list[Rating]]":
        """`rate` in the background, in rounds: the next texts depend on the ratings so far.

        Args:
            concept: a description in words.
            following: from all ratings so far to the next texts; none ends the rounds. It runs in a worker thread of the judge (see
                `fade_lens.judge.rounds`).
            seed: shuffles the texts into requests.

        Returns:
            A future of the ratings of all texts that `following` gave, in order. It raises what `rate` raises, and what `following` does.
        """
        check_concept(concept)
        return self.submit(lambda asked: in_rounds(self._rater(asked, concept, seed), following))

    def ask(self, request: Request, read: Callable[[Answer], T | None] = as_it_is, *, attempts: int = 3) -> T | Reason:
        """One free question, for whatever is neither writing nor rating; see `submit_ask`."""
        return self._result(self.submit_ask(request, read, attempts=attempts))

    def submit_ask(
        self, request: Request, read: Callable[[Answer], T | None] = as_it_is, *, attempts: int = 3
    ) -> "Future[T | Reason]":
        """One free question in the background: how explainers and scorers ask what is neither writing nor rating.

        It goes the way of all questions: looked up first, kept on disk before it is used, counted, paced, within the limits, and shown by
        `fade-lens judge log` under its kind. Submit all that is to be asked, then wait: the judge works on many at once.

        Args:
            request: the question. Its `kind` ("explain", say) names the work, and its `concept` the feature or description that
                `usage_of` counts it for; messages, parameters, structure and repeat determine the answer.
            read: finds in an `Answer`, its content without the model's thoughts, what was asked for; None where it is not there, and then
                the question is asked again. It runs in the judge's thread: quick, and without waiting for anything. Left out, every
                answer with words counts.
            attempts: requests at most, of which none was read. A server answers at temperature 0 what it answered before.

        Returns:
            A future of what `read` found (without `read`: the `Answer`), or of the `Reason` why there is nothing, by its code: "refused",
            "unreadable", "too_long" or "failed". `JudgeError` where the judge cannot be asked at all or gives nothing readable
            to many questions of this kind, `BudgetReached` where a limit is reached: everything answered so far is kept.

        Raises:
            InputError: an empty concept, no messages, or `attempts` below 1.

        Example:
            >>> question = Request("explain", "latent 9", [{"role": "user", "content": "…"}], {"temperature": 0}, expects=50)
            >>> future = judge.submit_ask(question, lambda answer: answer.content.partition("Concept: ")[2] or None)  # doctest: +SKIP
            >>> found = future.result()  # doctest: +SKIP
            >>> description = None if isinstance(found, Reason) else found  # doctest: +SKIP
        """
        check_question(request, attempts)
        return self.submit(lambda asked: asked.ask(request, read, attempts=attempts))

    def submit(self, work: Callable[[Questions], Coroutine[Any, Any, T]], *, account: str = "") -> "Future[T]":
        """Several questions in the background, where what is asked depends on earlier answers.

        Args:
            work: asynchronous, run in the judge's thread: `await questions.ask(request, read)` is a free question there (see `submit_ask`),
                `await questions.write(concept, n, seed=…)` has texts written. Work that blocks belongs in `asyncio.to_thread`.
            account: what `usage_of` counts all of it under; unless given, under what each question is about.

        Returns:
            A future of what `work` gives or raises.
        """
        # Outside of a session each question stands for itself.
        call = Call(self._transcripts, set() if self._answered is None else self._answered, account)
        return self._begin(work, Questions(self._queue, self.prompts, call, self._legible, self.rating, self._write))

    @contextmanager
    def session(self, transcripts: Transcripts) -> "Generator[Judge]":
        """A `with` block in which every answer is looked up in `transcripts`, and kept there before it is used.

        Args:
            transcripts: where answers are kept, such as a `RunStore`.

        Yields:
            The judge. At the block's end nothing is in flight any more: work that was not waited for is ended.
        """
        judges = [self] if self.writer is None else [self, self.writer]
        before = [(judge._transcripts, judge._answered) for judge in judges]
        for judge in judges:
            judge._transcripts, judge._answered = transcripts, set()
            judge._ledger.begin()
        try:
            yield self
        finally:
            for judge, earlier in zip(judges, before, strict=True):
                judge._transcripts, judge._answered = earlier
                judge._settle(transcripts)

    # ---------------------------------------------------------------- accounts

    @property
    def usage(self) -> Usage:
        """What was asked and what it cost so far, the writer's share included."""
        return self._ledger.usage if self.writer is None else self._ledger.usage + self.writer.usage

    @property
    def busy(self) -> bool:
        """Whether it has work that is not done."""
        return bool(self._queue.calls)

    def usage_of(self, concept: str) -> Usage:
        """What all answers about `concept` in this session cost, those included that an earlier run paid for."""
        own = self._ledger.usage_of(concept)
        return own if self.writer is None else own + self.writer.usage_of(concept)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the answers, for a run's record: JSON-able, without the key."""
        return {
            "model": self.endpoint.known(self.model),
            "endpoint": self.endpoint.identity,
            "rating": self.rating,
            "texts_per_request": self.texts_per_request if self.rating == "batched" else 1,
            "texts_per_set": self.texts_per_set,
            "temperature": self.temperature,
            "prompts": self.prompts.identity,
            "writer": None if self.writer is None else self.writer.identity,
        }

    def estimate(
        self, n_write: int, n_texts_rated: int, mean_text_tokens: Number = 100.0, *, n_concepts: int = 1
    ) -> Estimate:
        """What writing and rating are expected to ask and cost, retries not counted.

        Args:
            n_write: texts that are written for each concept.
            n_texts_rated: texts that are rated for each concept.
            mean_text_tokens: their mean length in tokens.
            n_concepts: how many concepts.

        Returns:
            Calls, tokens and US dollars (None where the price is unknown), the writer's share included.
        """
        from fade_lens.judge import forecast

        rating = forecast.rating(self, n_texts_rated, mean_text_tokens)
        return (rating + forecast.writing(self.writer or self, n_write, mean_text_tokens)) * n_concepts

    def estimate_ask(self, request: Request, n: int = 1) -> Estimate:
        """Calls, tokens and price of `n` free questions (see `submit_ask`) of this one's length, without retries."""
        from fade_lens.judge import forecast

        return forecast.reckoned(self, n, n * request.prompt_tokens, n * request.expects)

    def price_of(self, prompt_tokens: Number, completion_tokens: Number) -> float | None:
        """US dollars for so many tokens; None where the price is unknown."""
        return self._ledger.cost(prompt_tokens, completion_tokens, batched=self.batch)

    @property
    def reasons(self) -> bool:
        """Whether the model thinks before it answers, in tokens that are paid for and not seen."""
        return self._queue.provider.reasoning

    def close(self) -> None:
        """Ends what is in flight and the private thread. A local server lives on for the process's other judges."""
        self._queue.stop(JudgeError("the judge was closed"))
        self._thread.close(self._queue.close)
        if self.writer is not None and self._owns_writer:
            self.writer.close()

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """The judge made anew from its configuration, its key (see `Endpoint`) and its counters left out."""
        provider = self._queue.provider
        model = provider.llm if isinstance(provider, InProcess) else self.model
        limits = {"max_calls": self._budget.max_calls, "max_cost": self._budget.max_cost, "price": self._ledger.price}
        return partial(type(self), model, _endpoint=self.endpoint, **self._made_with, **limits), ()

    def __repr__(self) -> str:
        writer = "" if self.writer is None else f", writer={self.writer!r}"
        return f"Judge({self.model!r}, endpoint={self.endpoint.label!r}, rating={self.rating!r}{writer})"

    # ---------------------------------------------------------------- inside

    def _rater(
        self, asked: Questions, concept: str, seed: int = 0, repeat: int = 0, **limits: Any
    ) -> BatchedRating | SingleRating:
        about: dict[str, Any] = {"asked": asked, "concept": concept, "repeat": repeat, **limits}
        if self.rating == "single":
            return SingleRating(**about)
        return BatchedRating(**about, seed=seed, size=self.texts_per_request, temperature=self._cold)

    def _writing(self, asked: Questions, concept: str, seed: int = 0, **limits: Any) -> Writing:
        temperature = 1.0 if self.temperature is None else float(self.temperature)
        about: dict[str, Any] = {"asked": asked, "concept": concept, "seed": seed, **limits}
        return Writing(**about, set_size=self.texts_per_set, temperature=temperature)

    async def _write(self, asked: Questions, concept: str, n_texts: int, seed: int) -> Written:
        """Texts by the judge itself or by its writer, who has a thread of its own."""
        if (writer := self.writer) is None:
            return await self._writing(asked, concept, seed).write(n_texts)
        work = writer.submit(lambda own: writer._write(own, concept, n_texts, seed), account=asked.call.account)
        return await asyncio.wrap_future(work)

    def _check(self, work: Callable[[Questions], Coroutine[Any, Any, None]]) -> None:
        call = Call(MemoryTranscripts(), check=True)
        self._result(self._begin(work, Questions(self._queue, self.prompts, call, defaultdict(Legibility))))

    def _begin(self, work: Callable[[Questions], Coroutine[Any, Any, T]], asked: Questions) -> "Future[T]":
        self._queue.calls.add(asked.call)
        future = self._thread.submit(work(asked))

        def done(finished: "Future[T]") -> None:
            if finished.cancelled() or finished.exception() is not None:
                asked.call.stop(JudgeError("this work was given up"))
            self._queue.calls.discard(asked.call)

        future.add_done_callback(done)
        return future

    def _result(self, future: "Future[T]") -> T:
        try:
            return future.result()
        except BaseException:  # an interrupt, too, ends the work that was asked for
            future.cancel()
            raise

    def _settle(self, transcripts: Transcripts) -> None:
        for call in list(self._queue.calls):
            if call.transcripts is transcripts:
                call.stop(JudgeError("the session has ended"))
        self._thread.run(lambda: self._queue.drain(10.0))


def _without_auto(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if (name, value) != ("rating", "auto")}
