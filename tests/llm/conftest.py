"""As for the judge's tests: no key of the developer's, no waiting."""

from tests.judge.conftest import quick_and_keyless  # noqa: F401  a fixture that every test here uses
