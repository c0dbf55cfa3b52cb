"""Batches that shrink when memory runs out."""

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
    """Yield items and results of ``work`` by batch; one that does not fit halves the batch size.

    Args:
        items: in order.
        size: items per batch at first.
        work: returns one result for each item of a batch.
        what: name of the items in messages.

    Raises:
        UserError: not even one item fits into memory.
    """
    start = 0
    while start < len(items):
        batch = items[start : start + size]
        results = None
        try:
            results = work(batch)
        except (torch.OutOfMemoryError, MemoryError):
            pass
        except RuntimeError as error:
            if "not enough memory" not in str(error):  # the message of PyTorch's CPU allocator
                raise
        if results is None:  # outside of the handler, which holds the tensors of the failed batch
            torch.cuda.empty_cache()
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
