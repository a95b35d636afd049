"""What a worker of Ray Train does for a run: pretrain, stop when asked, report a user's errors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray

from primus_scale.allocator import keep_freed_memory
from primus_scale.cli import USER_ERRORS
from primus_scale.config import Config
from primus_scale.config_file import parse_config
from primus_scale.stopping import Stop

if TYPE_CHECKING:
    from primus_scale.train.trainer import OnValidation

POLL_S = 0.5  # between a worker's requests whether to stop


def pretrain_in_worker(
    settings: Mapping[str, Any], on_validation: OnValidation | None = None
) -> int:
    """Pretrain as one worker of a run; returns the exit code of ``pretrain``.

    settings: ``channel`` (a ``DriverChannel``), ``run`` (its name there), ``config`` and
    ``placement_group``. Workers that are started again after a user's error return 1 at once.
    """
    # Here, since Ray's controller imports this module too, and must start before the workers.
    from primus_scale.train.trainer import pretrain

    keep_freed_memory()
    channel, run = settings["channel"], settings["run"]
    if ray.get(channel.user_error.remote(run)):
        return 1
    log = logging.getLogger("primus_scale")
    log.setLevel(logging.WARNING)  # Ray shows errors only
    log.addHandler(logging.StreamHandler())
    config = worker_config(settings)
    with user_errors_reported(channel, run), stop_when_asked(channel) as stop:
        return pretrain(config, stop, settings["placement_group"], on_validation)


def worker_config(settings: Mapping[str, Any]) -> Config:
    """The configuration of the run."""
    return parse_config(Config, settings["config"], source="the driver")


@contextmanager
def user_errors_reported(channel: Any, run: str) -> Iterator[None]:
    """Report a user's error in the block to the driver, and raise it, which ends other workers."""
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise  # the network may work again when the workers restart
    except USER_ERRORS as error:
        ray.get(channel.report_user_error.remote(run, str(error)))
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # or Ray logs a traceback
        raise


@contextmanager
def stop_when_asked(channel: Any) -> Iterator[Stop]:
    """A ``Stop`` that is set as soon as the driver asks the workers to stop."""
    stop, done = Stop(), threading.Event()

    def watch() -> None:
        while not done.wait(POLL_S):
            if asked := ray.get(channel.stop_asked.remote()):
                stop.set(interrupted=asked == "interrupted")
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        done.set()
        watcher.join()
