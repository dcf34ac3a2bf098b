"""The options on Ray that commands share, as one value."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fade_lens._util.errors import InputError
from fade_lens.cli.groups import Group

if TYPE_CHECKING:
    from fade_lens.runs.ray import RayWorkers


@dataclass(frozen=True, kw_only=True)
class RayOptions(Group):
    """On which machines the model runs; no number depends on it."""

    theme = "Ray"
    ray: Annotated[
        str | None,
        typer.Option(
            help="Run the model on Ray's workers: auto (the cluster of RAY_ADDRESS, else this machine) or HOST:PORT."
        ),
    ] = None
    ray_workers: Annotated[
        int | None, typer.Option(min=1, help="How many; one for each GPU unless given, without GPUs one a node.")
    ] = None
    ray_gpus: Annotated[
        float | None, typer.Option(min=0, help="GPUs of each worker, such as 0.5; 1 where there are any.")
    ] = None
    ray_cpus: Annotated[
        float | None, typer.Option(min=0.01, help="Processors of each worker; an equal share unless given.")
    ] = None

    def settings(self) -> "RayWorkers | None":
        """Those of `Fade.evaluate`, or None.

        Raises:
            InputError: what cannot be used, or nobody listens at the address: told before a model is loaded.
            MissingExtraError: Ray is not installed.
        """
        shares: dict[str, Any] = {"workers": self.ray_workers, "gpus": self.ray_gpus, "cpus": self.ray_cpus}
        if self.ray is None:
            if given := [name for name, value in shares.items() if value is not None]:
                raise InputError(f"--ray-{given[0]} needs --ray: give --ray auto, or a cluster's address")
            return None
        from fade_lens.runs.ray import RayWorkers, required

        found = RayWorkers(address=self.ray, **shares)
        required()
        found.cluster()
        return found
