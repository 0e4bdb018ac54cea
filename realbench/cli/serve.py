"""``realbench serve``: the reward over HTTP, for trainers elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realbench.cli import options
from realbench.errors import UsageError
from realbench.text import printable

if TYPE_CHECKING:
    from realbench.reward.config import RewardConfig


def serve(
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file with a [reward] table, as trainings have it."),
    ] = None,
    detector: options.Detector = None,
    weights: options.Weights = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8765,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The token that clients have to show. (default: $REALBENCH_SERVE_TOKEN, if set)",
        ),
    ] = None,
    device: options.Device = "auto",
    precision: options.Precision = "float32",
    max_batch: Annotated[
        int, typer.Option(min=1, help="Images at which a forward pass is full.")
    ] = 64,
    max_wait: Annotated[
        float, typer.Option(min=0, max=10_000, help="Milliseconds to wait for it to fill.")
    ] = 5.0,
    max_images: Annotated[int, typer.Option(min=1, help="Images of a request at most.")] = 256,
    max_pixels: options.MaxPixels = 16_777_216,
    max_megabytes: Annotated[int, typer.Option(min=1, help="MiB of a request at most.")] = 256,
    max_memory: Annotated[
        int, typer.Option(min=1, help="MiB of all requests at once, at most.")
    ] = 2048,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Images a second that one address may send. (default: any number)"
        ),
    ] = None,
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds that requests under way have after SIGTERM.")
    ] = 60.0,
    quiet: options.Quiet = False,
) -> None:
    """Serve the reward over HTTP: images and prompts in, rewards out.

    Requests of several clients share forward passes. SIGTERM (and Ctrl-C) lets what is under way
    finish. See docs/serve.md for the interface, the Python client and trainers.
    """
    from realbench.detection.weight_files import parse_weights
    from realbench.reward.reward import RewardConfig, build_reward
    from realbench.reward.token import find_token
    from realbench.serve.reward_limits import Limits
    from realbench.serve.reward_server import RewardServer, ServerOptions

    mebibyte = 2**20
    limits = Limits(
        max_body=max_megabytes * mebibyte,
        max_images=max_images,
        max_pixels=max_pixels,
        max_request_pixels=max(max_pixels, Limits().max_request_pixels),
        max_memory=max_memory * mebibyte,
        rate=rate,
    )
    options = ServerOptions(
        host=host,
        port=port,
        token=find_token(token_file),
        max_batch=max_batch,
        max_wait=max_wait / 1000,
        drain_seconds=drain,
        limits=limits,
    )
    options.check()  # before detectors are loaded
    table = {
        "kind": "detectors",
        "detectors": detector or [],
        "weights": dict(one.split("=", 1) for one in weights or [] if "=" in one),
        "precision": precision,
    }
    if config is not None and (detector or weights or precision != "float32"):
        given = "--detector" if detector else "--weights" if weights else "--precision"
        raise UsageError(f"give the reward by --config or by {given}, not by both")
    parse_weights(weights or [])  # says what is wrong with one as every command does
    reward = build_reward(
        RewardConfig.model_validate({"components": [table]}) if config is None else _read(config),
        device=device,
    )

    RewardServer(
        reward,
        options,
        say=(lambda _: None) if quiet else typer.echo,
        complain=lambda line: typer.echo(f"error: {line}", err=True),
    ).run()


def _read(file: Path) -> RewardConfig:
    """Return the ``[reward]`` table of a TOML file; the file's other tables are not looked at."""
    from realbench.config.config_files import check_config, read_toml
    from realbench.reward.config import RewardConfig

    name = printable(file)
    table = read_toml(file, "config").get("reward")
    if not isinstance(table, dict):
        raise UsageError(f"{name} has no [reward] table: see docs/serve.md")
    return check_config(RewardConfig, table, name, within=("reward",))
