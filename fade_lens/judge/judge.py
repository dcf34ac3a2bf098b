"""`Judge`: one language model that writes texts for a concept and rates texts against it."""

import math
import os
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

LOCAL_DEFAULTS: dict[str, Any] = {
    "rating": "single",
    "concurrency": 4,
    "timeout": 600.0,
    "texts_per_set": 4,
    "price": (0.0, 0.0),
}
"""For models on the user's own machine: small, and with few requests at a time, so that a long queue would only time out."""


class Judge:
    """A language model, asked from a private thread: works in scripts and in notebooks.

    `model` is the name of a model behind an OpenAI-compatible server, or an `LLM` of your own: any object with `async def ask(request)`.
    `base_url` None is OpenAI's own address, whatever the environment says. The key is `api_key`, or `FADE_LENS_API_KEY`
    (any server) or `OPENAI_API_KEY` (OpenAI alone) from the environment or `.env`; it is never shown, logged or stored.
    `rating` is "batched" (`texts_per_request` texts a request; strong models), "single" (one text a request, scored by
    log-probabilities; small models) or "auto": single for models served in the process or by Ollama, else batched.
    At most `concurrency` requests are in flight, over all features and metrics; `requests_per_minute` and
    `tokens_per_minute` pace them. `max_calls` and `max_cost` (US dollars) stop a run with `BudgetReached`.
    A server of the user's own (on this machine or network) is known by its model alone, any other by model and address: stored answers
    count wherever the same judge runs. `name` stands for the address instead: it tells two apart, or makes one of two addresses.
    `temperature` None is 0 for ratings and 1 for writing; reasoning models get none. `writer` is another judge (or its
    spec, see `parse`) that writes the texts. `price` is (prompt, completion) in dollars a million tokens. `batch` sends what
    can wait through the server's Batch API, at half the price and within a day; a run that is stopped meanwhile collects it later.
    `prompts` are the words it is asked in, those of a writer or second judge given by spec too (see `Prompts`).
    A pickled judge holds its configuration alone: unpickled, in another process too, it finds its key in the environment and counts calls
    and cost from nothing, so that limits hold for each copy.

    Raises `InputError` for arguments that cannot be used. Nothing is sent before the first question.
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
        if price is None and self.endpoint.is_openai:
            price = price_of(self.model)
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
        self._legible_ratings, self._legible_texts = Legibility(), Legibility()
        self._legible_answers: dict[str, Legibility] = {}
        """By the kind of the question."""
        pace: dict[str, Any] = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        about: dict[str, Any] = {"ledger": self._ledger, "retries": Retries(max_retries, self._ledger)}
        if own is not None:
            own.endpoint = self.endpoint
        provider = own or OpenAIClient(self.model, self.endpoint, timeout=timeout, start=_start, batch=batch, **about)
        self._queue = Queue(provider, budget=self._budget, concurrency=concurrency, **pace, **about)
        self._thread = LoopThread()
        self._made_with: dict[str, Any] = {
            "rating": self.rating,
            "texts_per_request": texts_per_request,
            "texts_per_set": texts_per_set,
            "concurrency": concurrency,
            "timeout": timeout,
            "max_retries": max_retries,
            "temperature": temperature,
            "writer": writer,
            "batch": batch,
            "prompts": self.prompts,
            "_start": _start,
            **pace,
        }
        """The arguments that nothing else holds as they were given."""

    # ---------------------------------------------------------------- other ways to make one

    @classmethod
    def local(
        cls, gguf_path: str | os.PathLike[str], *, n_ctx: int | None = None, parallel: int | None = None, **options: Any
    ) -> "Judge":
        """A GGUF model served inside the process (extra `local`), started at the first question and shared by path.

        `n_ctx` and `parallel` go to `fade_lens.llm.local.serve`, `options` to `Judge`. Raises `InputError` where the file is absent.
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
        """A model served by Ollama, by default on this machine; rated one text a request unless `rating` says otherwise."""
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
        """A deployment of Azure OpenAI; the key is `api_key` or `AZURE_OPENAI_API_KEY` from the environment or `.env`.

        An `azure_endpoint` that ends in /openai/v1 is the API without versions, which finds the deployment by its name.
        """
        place = azure(azure_endpoint, deployment, api_key, api_version)
        return cls(deployment, _endpoint=place, **options)

    @classmethod
    def parse(cls, spec: str, **options: Any) -> "Judge":
        """A judge from a string: "openai:gpt-4o-mini", "ollama:llama3.2", "http://host:8000/v1#model", "gguf:/path" and others.

        "azure:DEPLOYMENT" is at the address that AZURE_OPENAI_ENDPOINT holds. "vllm:MODEL", "lmstudio:MODEL" and "llamacpp:MODEL"
        are servers on this machine at their usual ports, "openrouter:ORG/MODEL" takes its key from OPENROUTER_API_KEY.
        Raises `InputError` that lists the forms.
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
        """Another judge by its spec (see `parse`), with this one's prompts and under its limits on calls and cost."""
        other = Judge.parse(spec, prompts=self.prompts, _budget=self._budget)
        if self._budget.max_cost is not None and other._ledger.price is None:
            raise InputError(
                Argument("max_cost"),
                f" needs the price of every judge and that of {spec!r} is unknown: pass it as Judge(..., price=...)",
            )
        return other

    # ---------------------------------------------------------------- questions

    def check(self, *, rates: bool = True, writes: bool = True) -> None:
        """Has the judge rate a text and its writer write one, and reads the answers as a run does. Raises `JudgeError` in one clear sentence.

        `rates` and `writes` say what the judge is to be used for.
        """
        if rates:
            self._check(lambda call: self._rater(call, CHECKED[0], 0, 0, attempts=2, overall=Legibility()).check())
        if writes and self.writer is not None:
            self.writer.check(rates=False)
        elif writes:
            self._check(lambda call: self._writing(call, CHECKED[0], 0, attempts=2, overall=Legibility()).check())

    def write(self, concept: str, *, n_texts: int = 30, seed: int = 0) -> Written:
        """Up to `n_texts` unique texts that express `concept`. Raises `JudgeError` where the judge cannot be asked."""
        return self._result(self.submit_write(concept, n_texts=n_texts, seed=seed))

    def rate(self, concept: str, texts: Sequence[str], *, seed: int = 0, repeat: int = 0) -> list[Rating]:
        """A rating of each of `texts` for `concept`, in their order; `seed` shuffles the batches, `repeat` numbers repetitions."""
        return self._result(self.submit_rate(concept, texts, seed=seed, repeat=repeat))

    def submit_write(self, concept: str, *, n_texts: int = 30, seed: int = 0) -> "Future[Written]":
        """`write` in the background."""
        check_concept(concept)
        check_numbers(n_texts=(n_texts, 0, 100_000))
        if self.writer is not None:
            return self.writer.submit_write(concept, n_texts=n_texts, seed=seed)
        return self._submit(lambda call: self._writing(call, concept, seed).write(n_texts))

    def submit_rate(
        self, concept: str, texts: Sequence[str], *, seed: int = 0, repeat: int = 0
    ) -> "Future[list[Rating]]":
        """`rate` in the background."""
        check_concept(concept)
        texts = check_texts(texts)
        return self._submit(lambda call: self._rater(call, concept, seed, repeat).rate(texts))

    def submit_rounds(self, concept: str, following: Following, *, seed: int = 0) -> "Future[list[Rating]]":
        """`rate` in the background, in rounds: `following` gives the next texts from all ratings so far, none where these are enough."""
        check_concept(concept)
        return self._submit(lambda call: in_rounds(self._rater(call, concept, seed, 0), following))

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
        return self.submit(lambda questions: questions.ask(request, read, attempts=attempts))

    def submit(self, work: Callable[[Questions], Coroutine[Any, Any, T]]) -> "Future[T]":
        """Several free questions in the background, where what is asked depends on earlier answers.

        Args:
            work: asynchronous, run in the judge's thread: `await questions.ask(request, read)` is a free question there (see `submit_ask`).
                Work that blocks belongs in `asyncio.to_thread`.

        Returns:
            A future of what `work` gives or raises.
        """
        about: dict[str, Any] = {"queue": self._queue, "prompts": self.prompts, "legible": self._legible_answers}
        return self._submit(lambda call: work(Questions(call=call, **about)))

    @contextmanager
    def session(self, transcripts: Transcripts) -> "Generator[Judge]":
        """Within it every answer is looked up in `transcripts` and committed there before it is used.

        At its end nothing is in flight any more: work that was not waited for is ended.
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

    def usage_of(self, concept: str) -> Usage:
        """What the answers cost that `concept` rests on in this session, those included that were paid for before it."""
        own = self._ledger.usage_of(concept)
        return own if self.writer is None else own + self.writer.usage_of(concept)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the answers, for a run's settings; JSON-able, without the key."""
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
        """Calls, tokens and price of writing `n_write` and rating `n_texts_rated` texts for each of `n_concepts`, without retries."""
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

    def _rater(self, call: Call, concept: str, seed: int, repeat: int, **limits: Any) -> BatchedRating | SingleRating:
        about: dict[str, Any] = {"queue": self._queue, "prompts": self.prompts, "call": call, "concept": concept}
        about |= {"repeat": repeat, "overall": self._legible_ratings, **limits}
        if self.rating == "single":
            return SingleRating(**about)
        return BatchedRating(**about, seed=seed, size=self.texts_per_request, temperature=self._cold)

    def _writing(self, call: Call, concept: str, seed: int, **limits: Any) -> Writing:
        about: dict[str, Any] = {"queue": self._queue, "prompts": self.prompts, "call": call, "concept": concept}
        about |= {"seed": seed, "overall": self._legible_texts, "set_size": self.texts_per_set, **limits}
        return Writing(**about, temperature=1.0 if self.temperature is None else float(self.temperature))

    def _check(self, ask: Callable[[Call], Coroutine[Any, Any, None]]) -> None:
        self._result(self._submit(ask, Call(MemoryTranscripts(), check=True)))

    def _submit(self, work: Callable[[Call], Coroutine[Any, Any, T]], call: Call | None = None) -> "Future[T]":
        # Outside of a session each question stands for itself.
        call = call or Call(self._transcripts, set() if self._answered is None else self._answered)
        self._queue.calls.add(call)
        future = self._thread.submit(work(call))

        def done(finished: "Future[T]") -> None:
            if finished.cancelled() or finished.exception() is not None:
                call.stop(JudgeError("this work was given up"))
            self._queue.calls.discard(call)

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
