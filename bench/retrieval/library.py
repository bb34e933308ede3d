"""FAISS called directly, in a process of its own that is idle while the other side is measured.

`python -m bench.retrieval.library VECTORS QUERIES` (files of numpy) reads an order a line and answers a
line, both JSON: `{"batch": 32, "k": 10}` searches all queries in batches and gives the seconds that each
took.
"""

from __future__ import annotations

import json
import sys
import time

import faiss
import numpy as np


def main(vectors: str, queries: str) -> None:
    data, asked = np.load(vectors), np.load(queries)
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(data.shape[1]))
    index.add_with_ids(data, np.arange(len(data), dtype=np.int64))
    print(json.dumps({"ready": len(data)}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        seconds, best = [], []
        for start in range(0, len(asked), order["batch"]):
            began = time.perf_counter()
            _, ids = index.search(asked[start : start + order["batch"]], order["k"])
            seconds.append(time.perf_counter() - began)
            best += ids.tolist()
        answer = {"seconds": seconds, **({"ids": best} if order.get("ids") else {})}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
