"""`make bench`: every benchmark, each as a ratio against raw Temporal or the raw library in the same run."""

from __future__ import annotations

import asyncio

from bench.chat.run import main

if __name__ == "__main__":
    asyncio.run(main())
