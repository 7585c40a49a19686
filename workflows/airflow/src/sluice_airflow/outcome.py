"""How a program ended: its exit code, its result, its last words, and what this means for the task.

| exit code | meaning | the task |
|---|---|---|
| 0 | done, or up to date already | succeeds |
| 75, 137, 143 | storage or network; killed | fails, and is retried |
| any other | a bug, usage, data | fails at once |

A task that is up to date succeeds too. It is not skipped: Airflow would skip the tasks after it, and a setting that changes
only these would have no effect.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from sluice_airflow.pipeline import Retry

MEANINGS: Mapping[int, str] = {
    1: "a bug",
    2: "usage",
    3: "the data cannot be used",
    75: "storage or network",
    137: "killed",
    143: "stopped",
}


def exit_code(returncode: int) -> int:
    """Returns the exit code as a shell or a container has it: 128 plus the signal for a program that a signal ended."""
    return 128 - returncode if returncode < 0 else returncode


def failure(title: str, code: int, words: str, by_hand: str, retry: Retry) -> AirflowException:
    """Returns the exception that ends a task whose program failed."""
    meaning = MEANINGS.get(code, "unexpected")
    lines = [f"{title} ended with {code} ({meaning}): {words or 'no last words'}", f"by hand: {by_hand}"]
    kind = AirflowException if code in retry.exit_codes else AirflowFailException
    return kind("\n".join(lines))


def last_words(message: str | None) -> str:
    """Returns a termination message as text. The programs write the `error` of their result."""
    error = _json(message or "")
    if isinstance(error, dict) and "message" in error:
        return str(error["message"])
    return (message or "").strip()


def result_of(stdout: str) -> dict[str, Any] | None:
    """Returns the JSON result on a program's stdout: the last line, or the whole text; None without a result."""
    lines = stdout.strip().splitlines()
    for text in (lines[-1] if lines else "", stdout):
        found = _json(text)
        if isinstance(found, dict):
            return found
    return None


def words_of(result: Mapping[str, Any] | None) -> str:
    """Returns the last words in a result."""
    error = (result or {}).get("error")
    return last_words(json.dumps(error)) if error else ""


def small(result: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns what XCom stores: the result without the paths of its outputs."""
    if result is None:
        return None
    kept = dict(result)
    if isinstance(kept.get("outputs"), Mapping):
        kept["outputs"] = {name: value for name, value in kept["outputs"].items() if name != "paths"}
    return kept


def readable(line: str) -> tuple[str, str]:
    """Returns the level of a line of a program's log, and its text for people."""
    record = _json(line)
    if not isinstance(record, dict) or "message" not in record:
        return "INFO", line
    # The command line is the first line of the task's log already.
    left_out = {"timestamp", "level", "message", "target", *(["command"] if record["message"] == "starts" else [])}
    rest = " ".join(f"{name}={value}" for name, value in record.items() if name not in left_out)
    return str(record.get("level", "INFO")), " ".join(filter(None, (str(record["message"]), rest)))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
