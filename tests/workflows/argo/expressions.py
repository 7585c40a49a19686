"""Evaluates `{{tags}}` and retry expressions, by Argo's own code where the Go program is built, by a few lines of ours elsewhere;
and Kubernetes' `$(VARIABLES)`."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from pathlib import Path


def expand(word: str, variables: dict[str, str]) -> str:
    """Returns an argument of a container as Kubernetes gives it to the program."""
    return re.sub(r"\$(?:\$|\(([^)]*)\))", lambda m: "$" if m[1] is None else variables.get(m[1], m[0]), word)


class Argo:
    """Argo's own substitution and expressions, in the Go program `lint/`."""

    def __init__(self, program: Path):
        self.process = subprocess.Popen([program, "-eval"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lock = threading.Lock()

    def _ask(self, question: dict) -> dict:
        with self.lock:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise ValueError(f"{answer['error']} in {question['text' if 'text' in question else 'condition']}")
        return answer

    def substitute(self, value, values: dict[str, str]):
        return json.loads(self._ask({"text": json.dumps(value), "values": values})["text"])

    def decide(self, condition: str, values: dict[str, str]) -> bool:
        return self._ask({"condition": condition, "values": values})["true"]

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class _Names:
    """`a.b['c']` over the flat names of a scope."""

    def __init__(self, values: dict[str, str], prefix: str):
        self._values, self._prefix = values, prefix

    def __getitem__(self, name: str):
        full = f"{self._prefix}.{name}"
        if full in self._values:
            return self._values[full]
        if any(known.startswith(full + ".") for known in self._values):
            return _Names(self._values, full)
        raise ValueError(f"{full} is missing")

    def __iter__(self):
        beginning = f"{self._prefix}."
        return iter({name.removeprefix(beginning).split(".")[0] for name in self._values if name.startswith(beginning)})

    __getattr__ = __getitem__


def _jsonpath(text: str, path: str):
    value = json.loads(text)
    for name in path.removeprefix("$.").split("."):
        value = value[name]
    return value


class _Sprig:
    @staticmethod
    def default(fallback: str, value: str) -> str:
        return value or fallback


class Ours:
    """The part of it that the templates use, for machines without Go. The tests compare it with Argo's own."""

    def _evaluate(self, expression: str, values: dict[str, str]):
        known = {name.split(".")[0] for name in values}
        scope = {name: _Names(values, name) for name in known}
        scope |= {"asInt": int, "min": min, "max": max, "jsonpath": _jsonpath, "sprig": _Sprig}
        scope |= {"join": lambda words, between: between.join(words), "keys": list}
        python = expression.replace("||", " or ").replace("&&", " and ")
        python = re.sub(r"([\w.]+) contains ('[^']*')", r"\2 in \1", python)
        return eval(python, {"__builtins__": {}}, scope)  # of expressions in our own files

    def substitute(self, value, values: dict[str, str]):
        if isinstance(value, dict):
            return {key: self.substitute(entry, values) for key, entry in value.items()}
        if isinstance(value, list):
            return [self.substitute(entry, values) for entry in value]
        if not isinstance(value, str):
            return value

        def tag(match: re.Match) -> str:
            text = match[1].strip()
            if text.startswith("="):
                return str(self._evaluate(text[1:], values))
            if text in values:
                return values[text]
            if text.startswith(("tasks.", "steps.")):
                raise ValueError(f"failed to resolve {{{{{text}}}}}")
            return match[0]

        return re.sub(r"\{\{(.+?)\}\}", tag, value)

    def decide(self, condition: str, values: dict[str, str]) -> bool:
        return bool(self._evaluate(condition, values))

    def close(self):
        pass
