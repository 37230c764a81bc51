"""Runs kosoku's fuzzing server for one client. The arguments are patterns of
cases to leave out.

The first line of output is {"address", "cases"}. The second line is printed
when the client has asked for its report: {"verdicts": {case: {"behavior",
"behaviorClose", "result"}}}.
"""

import asyncio
import fnmatch
import json
import sys

from kosoku import FailureError, run_fuzzingserver
from kosoku.cases import CASES


async def main():
    exclude = sys.argv[1:]
    count = sum(not any(fnmatch.fnmatch(c, p) for p in exclude) for c in CASES)
    async with run_fuzzingserver(None, exclude or None, host="127.0.0.1", port=0) as server:
        print(json.dumps({"address": f"{server.address}:{server.port}", "cases": count}), flush=True)
        try:
            results = await server.get_result()
        except FailureError as failure:
            results = failure.results
    verdicts = {
        r.case_id: {
            "behavior": r.behavior.value,
            "behaviorClose": r.behavior_close.value,
            "result": r.result + "; " + r.result_close,
        }
        for r in results
    }
    print(json.dumps({"verdicts": verdicts}), flush=True)


asyncio.run(main())
