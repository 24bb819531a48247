"""Drive every endpoint of a running service and say what each did.

    python deploy/smoke.py http://localhost:8000 [--examples examples] [--key-file FILE]

One line a check; exit 1 when any fails, or when /openapi.json lists an operation that no check reached: a new endpoint
without a check is a failure here. Leaves nothing behind. Standard library only.

`--remember NAME` only stores a collection, `--recall NAME` only finds it again and deletes it: before and after a restart.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from checks.client import Client, Failed
from checks.collections import COLLECTION_CHECKS, recall, remember
from checks.embedding import EMBEDDING_CHECKS
from checks.jobs import JOB_CHECKS
from checks.operation import OPERATION_CHECKS
from checks.refusals import REFUSAL_CHECKS
from checks.service import Service

Check = Callable[[Service], str]

CHECKS: tuple[Check, ...] = (*OPERATION_CHECKS, *EMBEDDING_CHECKS, *COLLECTION_CHECKS, *JOB_CHECKS, *REFUSAL_CHECKS)


def every_operation_was_driven(service: Service) -> str:
    """The OpenAPI document holds nothing that no check has reached."""
    openapi = service.client.call("GET", "/openapi.json").json()
    missed = service.client.not_driven(openapi)
    if missed:
        raise Failed(f"no check drives: {', '.join(missed)}")
    return f"{sum(len(methods) for methods in openapi['paths'].values())} operations"


def run(check: Check, service: Service) -> bool:
    started = time.monotonic()
    name = check.__name__.replace("_", " ")
    try:
        told = check(service)
    except Failed as failure:
        print(f"FAIL  {name}: {failure}", flush=True)
        return False
    except (KeyError, IndexError, TypeError, ValueError) as error:
        # The reply had another shape than the check reads.
        print(f"FAIL  {name}: unexpected answer: {type(error).__name__}: {error}", flush=True)
        return False
    print(f"ok    {name}{f' ({told})' if told else ''}  {(time.monotonic() - started) * 1000:.0f} ms", flush=True)
    return True


def _key(path: Path | None) -> str | None:
    return None if path is None else path.read_text(encoding="utf-8").strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="where the service is, e.g. http://localhost:8000")
    parser.add_argument("--examples", type=Path, default=Path(__file__).parents[1] / "examples", help="folder with the sample files")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one call")
    parser.add_argument("--key-file", type=Path, help="file with an API key of the scope admin (on the command line others could read it)")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--remember", metavar="NAME", help="only store a collection of this name")
    only.add_argument("--recall", metavar="NAME", help="only find that collection again, then delete it")
    arguments = parser.parse_args()

    client = Client(arguments.url, arguments.timeout, _key(arguments.key_file))
    try:
        service = Service.ask(client, arguments.examples)
    except Failed as failure:
        print(f"FAIL  {failure}")
        return 1
    try:
        if arguments.remember:
            passed = [run(remember(arguments.remember), service)]
        elif arguments.recall:
            passed = [run(recall(arguments.recall), service)]
        else:
            passed = [run(check, service) for check in (*CHECKS, every_operation_was_driven)]
    finally:
        service.clean_up()
    print(f"{passed.count(True)} passed, {passed.count(False)} failed")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
