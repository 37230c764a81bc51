"""Runs kosoku's fuzzing client against servers, several at once, in one
interpreter, since starting one takes seconds. The argument is how many at once.

Each line of the input is {"name", "url", "include", "exclude"}. For each there
is a line of output when it is done: {"name", "verdicts": {case: {"behavior",
"behaviorClose", "result"}}, "error"}.
"""

import asyncio
import json
import sys

from kosoku import FailureError, run_fuzzingclient


async def one(job, slots):
    async with slots:
        error, results = "", []
        try:
            results = await run_fuzzingclient(
                job["url"], job["include"] or None, job["exclude"] or None, concurrency=8
            )
        except FailureError as failure:
            results = failure.results
        except Exception as other:
            error = repr(other)
    verdicts = {
        r.case_id: {
            "behavior": r.behavior.value,
            "behaviorClose": r.behavior_close.value,
            "result": r.result + "; " + r.result_close,
        }
        for r in results
    }
    print(json.dumps({"name": job["name"], "verdicts": verdicts, "error": error}), flush=True)


async def main():
    slots = asyncio.Semaphore(int(sys.argv[1]))
    await asyncio.gather(*(one(json.loads(line), slots) for line in sys.stdin))


asyncio.run(main())
