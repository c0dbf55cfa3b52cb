"""Working through a list in batches that shrink when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from utils.errors import UserError

log = logging.getLogger("hashing")

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_batches(
    items: Sequence[Item], size: int, work: Callable[[Sequence[Item]], Sequence[Result]], what: str
) -> Iterator[list[tuple[Item, Result]]]:
    """Yield ``work``'s results batch by batch; a batch that does not fit is halved for good.

    Args:
        items: what to work on, in order.
        size: items per batch to begin with.
        work: one result for each item of a batch.
        what: names the items in messages.

    Raises:
        UserError: not even one item fits into memory.
    """
    start = 0
    while start < len(items):
        batch = items[start : start + size]
        results = _unless_too_large(work, batch)
        if results is None:
            if len(batch) == 1:
                raise UserError(
                    f"Memory does not hold even one of the {what} at a time; give a smaller --size,"
                    " --dtype float16 or bfloat16, or another --device."
                )
            size = max(len(batch) // 2, 1)
            log.info("out of memory: going on with %d %s at a time", size, what)
            continue
        yield list(zip(batch, results, strict=True))
        start += len(batch)


def _unless_too_large(
    work: Callable[[Sequence[Item]], Sequence[Result]], batch: Sequence[Item]
) -> Sequence[Result] | None:
    """Return the results, or None when memory ran out.

    The cache is emptied after the error is gone: while it is handled, its traceback keeps the
    tensors of the failed batch alive.
    """
    try:
        return work(batch)
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except RuntimeError as error:
        if "not enough memory" not in str(error):  # how PyTorch's CPU allocator says it
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
