"""Fetching from Neuronpedia: retried, limited in size, resumed where it broke off, never sent anywhere else."""

import json
import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

import httpx2
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from fade_lens.neuronpedia.errors import NeuronpediaError, NotThereError

logger = logging.getLogger(__name__)

ANSWER_BYTES = 64 * 2**20
"""The largest answer held in memory: a feature has about 1.2 MB."""
FILE_BYTES = 4 * 2**30
"""The largest file kept."""
CHUNK = 2**16
REDIRECTS = 3
AGAIN = (408, 425, 429, 500, 502, 503, 504)


class Again(Exception):
    """A failure that may pass, and the seconds that the server asked to wait."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


@dataclass
class Web:
    """An anonymous HTTP client: no key, no cookie is ever sent.

    Attributes:
        attempts: how often a request is tried that is refused for now (429, 5xx) or breaks off.
        backoff: seconds before the second attempt, doubled each time, unless the server says how long to wait.
        longest_wait: a server that asks for more seconds is not waited for.
        timeout: seconds without a byte after which a connection counts as broken.
    """

    attempts: int = 5
    backoff: float = 1.0
    longest_wait: float = 120.0
    timeout: float = 60.0
    client: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.client is None:
            self.client = httpx2.Client(
                timeout=self.timeout, follow_redirects=False, headers={"User-Agent": "fade-lens"}
            )

    def json(self, url: str, limit: int = ANSWER_BYTES) -> Any:
        """The JSON value behind an address.

        Raises:
            NeuronpediaError: it cannot be had, is too large, or is no JSON.
        """
        raw = self.get(url, limit)
        try:
            return json.loads(raw)
        except ValueError as error:
            raise NeuronpediaError(f"{shown(url)} answered with something that is not JSON ({raw[:60]!r})") from error

    def get(self, url: str, limit: int = ANSWER_BYTES) -> bytes:
        """The bytes behind an address, at most `limit`."""

        def once() -> bytes:
            with self._open(url, {}) as response:
                kept = bytearray()
                for chunk in response.iter_bytes(CHUNK):
                    kept += chunk
                    if len(kept) > limit:
                        raise NeuronpediaError(
                            f"{shown(url)} is over {limit / 2**20:.3g} MB: it is not what it should be"
                        )
                return bytes(kept)

        return self._retrying(url)(once)

    def download(self, url: str, path: Path, size: int, etag: str = "", limit: int = FILE_BYTES) -> None:
        """Fetch a file of `size` bytes to `path`, going on where an earlier attempt or run broke off.

        Raises:
            NeuronpediaError: it cannot be had, is over `limit`, or has another size than the listing says.
        """
        if size > limit:
            raise NeuronpediaError(f"{shown(url)} has {size:,} bytes; at most {limit:,} are fetched")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{tag(etag, size)}.partial")
        for old in path.parent.glob(f"{path.name}.*.partial"):
            if old != partial:
                old.unlink(missing_ok=True)  # of an older version of the file

        def once() -> None:
            self._append(url, partial, size, etag)

        self._retrying(url)(once)
        partial.replace(path)

    def _append(self, url: str, partial: Path, size: int, etag: str) -> None:
        """Fetch what is missing of a file."""
        have = partial.stat().st_size if partial.exists() else 0
        if have > size:
            partial.unlink()
            have = 0
        if have == size and partial.exists():
            return
        # The bytes as they are kept: a server that unpacks on the way would change the size.
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-"} | ({"If-Range": etag} if etag else {})
        with self._open(url, headers) as response:
            resumed = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            )
            with partial.open("ab" if resumed else "wb") as file:
                written = have if resumed else 0
                for (
                    chunk
                ) in response.iter_raw():  # as they come: a larger piece would be lost when the connection breaks
                    written += len(chunk)
                    if written > size:
                        break
                    file.write(chunk)
        if written != size:
            if written > size:
                partial.unlink()
            raise Again(f"{shown(url)} gave {written:,} bytes where {size:,} are listed")

    @contextmanager
    def _open(self, url: str, headers: Mapping[str, str]) -> Generator[Any]:
        """A response whose status is good, redirects within the host followed."""
        for _ in range(REDIRECTS + 1):
            try:
                with self.client.stream("GET", url, headers=dict(headers)) as response:
                    target = response.headers.get("Location")
                    if response.is_redirect and target:
                        url = self._same_host(url, urljoin(url, target))
                        continue
                    if response.status_code >= 300:
                        self._refuse(url, response)
                    yield response
                    return
            except httpx2.InvalidURL as error:
                raise NeuronpediaError(f"{shown(url)} is no address: {error}") from error
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                raise Again(f"{shown(url)}: {type(error).__name__} {error}".rstrip()) from error
        raise NeuronpediaError(f"{shown(url)} redirects more than {REDIRECTS} times")

    def _same_host(self, url: str, target: str) -> str:
        if urlsplit(target)[:2] != urlsplit(url)[:2]:
            host = "{0.scheme}://{0.netloc}".format(urlsplit(target))
            raise NeuronpediaError(
                f"{shown(url)} has moved to {host}; if that is right, set FADE_LENS_NEURONPEDIA_SITE or _BUCKET to it"
            )
        return target

    def _refuse(self, url: str, response: Any) -> None:
        """Raise what an error status means: `Again` where it may pass."""
        status = response.status_code
        body = error_body(response)
        said = str(body.get("message") or body.get("error") or "").strip()[:200]
        if status == 429:
            limit = ", ".join(f"{body[k]} {words}" for k, words in LIMIT_WORDS.items() if k in body)
            why = f"{shown(url)} was asked too often" + (f" ({limit})" if limit else "")
            raise Again(f"{why}; wait, or use the bulk data", retry_after(response.headers.get("Retry-After")))
        if status in AGAIN:
            raise Again(
                f"{shown(url)} answered {status} {said}".rstrip(), retry_after(response.headers.get("Retry-After"))
            )
        if "newUrl" in body:
            raise NeuronpediaError(
                f"{shown(url)} was removed; its data is now at {str(body['newUrl'])[:200]}: "
                'fade_lens.neuronpedia.descriptions("MODEL/SOURCE") reads it from there'
            )
        if status in (404, 403):  # a refusal says nothing about one feature
            kind = NotThereError if status == 404 else NeuronpediaError
            raise kind(f"{shown(url)} does not exist or is not public ({status}); check the id")
        raise NeuronpediaError(f"{shown(url)} answered {status} {said}".rstrip())

    def _retrying(self, url: str) -> Retrying:
        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            asked = error.after if isinstance(error, Again) else None
            if asked is not None and asked > self.longest_wait:
                raise NeuronpediaError(f"{error}; it asks to wait {asked:.0f} seconds: try again then") from error
            return asked if asked is not None else min(self.backoff * 2 ** (state.attempt_number - 1), 30.0)

        def give_up(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome is not None else None
            raise NeuronpediaError(
                f"{error}; tried {state.attempt_number} times. Check the connection, or give a file or folder instead"
            ) from error

        logger.debug("fetching %s", url)
        return Retrying(
            retry=retry_if_exception_type(Again),
            stop=stop_after_attempt(self.attempts),
            wait=wait,
            retry_error_callback=give_up,
        )


LIMIT_WORDS = {"limitPerWindow": "requests at most", "requestWindow": "a window", "remainingRequests": "left"}


def error_body(response: Any) -> dict[str, Any]:
    """The JSON object that came with an error, empty where there is none."""
    kept = bytearray()
    try:
        for chunk in response.iter_bytes(CHUNK):
            kept += chunk
            if len(kept) > CHUNK:
                return {}
        body = json.loads(bytes(kept))
    except (ValueError, httpx2.HTTPError):
        return {}
    return cast(dict[str, Any], body) if isinstance(body, dict) else {}


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for; None without one that is a number."""
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None


def tag(etag: str, size: int) -> str:
    """A short name of one version of a file."""
    return f"{''.join(c for c in etag if c.isalnum())[:16]}-{size}"


def shown(url: str) -> str:
    """An address for a message, without its query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"[:200]
