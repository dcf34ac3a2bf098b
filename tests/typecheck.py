"""The type checker of the test run: beartype, an int being a float where numbers are meant (PEP 484)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
