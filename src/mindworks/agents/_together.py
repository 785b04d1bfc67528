"""Several calls in flight at once, of which none outlives the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

Value = TypeVar("Value")


async def together(calls: Iterable[Awaitable[Value]]) -> list[Value]:
    """Return the values of all `calls` in their order; where one raises, the others are cancelled and waited for."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
