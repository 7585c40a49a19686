"""A node as a process on the worker."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from sluice_airflow.links import report_uri
from sluice_airflow.operators.base import SluiceNode, retries
from sluice_airflow.outcome import exit_code, failure, readable, result_of, small, words_of
from sluice_airflow.pipeline import Node, PipelineLike, by_hand

if TYPE_CHECKING:
    from airflow.sdk import Context

# The command line has the share of a process. On a worker in a pod, these variables may have another one.
SHARES = ("SLUICE_PARTITIONS", "SLUICE_TASK_INDEX", "SLUICE_TASK_COUNT", "SLUICE_RESULT", "JOB_COMPLETION_INDEX")

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_worker() -> None:
    """Asks the kernel, in the new process, for SIGTERM when the worker's process dies: nothing else would stop it."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class SluiceLocalOperator(SluiceNode, BaseOperator):
    """Runs a node as a process on the worker.

    Its log lines go to the task's log, its result (without the paths of outputs) to XCom. :mod:`sluice_airflow.outcome` has the
    exit codes.

    :param node: the node's name, such as `read` or `dedup-match`
    :param pipeline: the pipeline that has the node, as in :func:`sluice_airflow.curate.curate`
    :param run: the URI of the run (templated)
    :param parameters: values of the pipeline's parameters, by name; the default replaces None and empty values (templated)
    :param task_index: this task's number among `task_count` (templated)
    :param task_count: the number of tasks that share the node's units (templated)
    :param programs: the folder of the programs; default: PATH (templated)
    :param env: variables for the program, in addition to the worker's (templated)
    :param grace: seconds from SIGTERM to SIGKILL
    :param report_url: the report's URL for a browser, with `{uri}`, `{bucket}` and `{key}`
    """

    template_fields: Sequence[str] = ("programs", "env", *SluiceNode.own_fields)
    template_fields_renderers = {"env": "json", "parameters": "json", "by_hand": "bash"}
    ui_color = "#d9f0e3"

    def __init__(
        self,
        *,
        node: str | Node,
        run: str,
        pipeline: PipelineLike = None,
        parameters: Mapping[str, Any] | None = None,
        task_index: int | None = None,
        task_count: int | None = None,
        programs: str | None = None,
        env: Mapping[str, str] | None = None,
        grace: float = 60,
        report_url: str | None = None,
        **kwargs: Any,
    ) -> None:
        # First, because the number of retries is the pipeline's.
        self.set_node(node, pipeline, run, parameters, task_index, task_count, report_url)
        super().__init__(**{**retries(self.pipeline.retry), **kwargs})
        self.programs = programs
        self.env = dict(env or {})
        self.grace = grace
        self._process: subprocess.Popen[str] | None = None

    @property
    def command_line(self) -> list[str]:
        """The node's command line, the program's name or path first."""
        program, *arguments = super().command_line
        return [os.path.join(self.programs, program) if self.programs else program, *arguments]

    @property
    def endpoint(self) -> str | None:
        """The S3 server, where it is not Amazon's."""
        return self.env.get("AWS_ENDPOINT_URL") or super().endpoint

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Runs the program to its end."""
        command = self.command_line
        self.check_fields(context)
        self.log.info("by hand: %s", by_hand(command))
        environment = {name: value for name, value in os.environ.items() if name not in SHARES} | self.env
        try:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                env=environment,
                text=True,
                errors="replace",
                start_new_session=True,
                preexec_fn=_end_with_worker,
            )
        except OSError as e:
            hint = "hint: install the programs on the worker, add their folder to PATH, or pass it as `programs`"
            raise AirflowFailException(f"cannot start {command[0]}: {e.strerror}; {hint}") from e
        self._process = process
        try:
            stdout, last = self._follow(process)
            code = exit_code(process.wait())
        finally:
            self._end(process)
        result = result_of(stdout)
        pushed = small(result)
        if code != 0:
            if self.do_xcom_push and pushed is not None:
                context["ti"].xcom_push(key="return_value", value=pushed)
            raise failure(self.node.title, code, words_of(result) or last, by_hand(command), self.pipeline.retry)
        if result is not None and result.get("status") == "up-to-date":
            self.log.info("up to date")
        if self.node.stage == "report":
            self.log.info("the report: %s", report_uri(self.run))
        return pushed

    def _follow(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        """Logs what the program logs, until it ends. Returns its stdout, and the last line of its log."""
        stdout: list[str] = []
        out, err = process.stdout, process.stderr
        assert out is not None and err is not None
        reader = threading.Thread(target=_keep, args=(out, stdout), daemon=True)
        reader.start()
        last = ""
        for line in err:
            level, last = readable(line.rstrip("\n"))
            self.log.log(logging.getLevelNamesMapping().get(level, logging.INFO), "%s", last)
        reader.join()
        return "".join(stdout), last

    def on_kill(self) -> None:
        """Sends SIGTERM to the program and its children, and SIGKILL after `grace` seconds.

        It may run inside a signal handler while `execute` waits, so it does not wait itself.
        """
        process = self._process
        if process is None or process.returncode is not None:
            return
        self.log.info("sending SIGTERM to %s (process %d)", self.node.title, process.pid)
        _signal(process, signal.SIGTERM)
        timer = threading.Timer(self.grace, _signal, (process, signal.SIGKILL))
        timer.daemon = True
        timer.start()

    def _end(self, process: subprocess.Popen[str]) -> None:
        """Stops the program, if it is still running when `execute` ends."""
        if process.poll() is None:
            _signal(process, signal.SIGTERM)
            deadline = time.monotonic() + self.grace
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
        if process.poll() is None:
            _signal(process, signal.SIGKILL)
            process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _keep(stream: IO[str], kept: list[str]) -> None:
    kept.append(stream.read())


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    if process.poll() is not None:
        return
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass  # It has ended.
