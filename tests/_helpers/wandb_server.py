"""A minimal wandb server for runs that are started, killed and resumed; it stores what they send."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HISTORY = "wandb-history.jsonl"


@dataclass
class ServedRun:
    """What the server knows about one run."""

    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Logged rows by line number."""
    exit_codes: list[int] = field(default_factory=list)


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that were killed."""


class WandbServer:
    """Responds at `url` while `serving`."""

    def __init__(self) -> None:
        self.runs: dict[str, ServedRun] = {}
        self.artifacts: list[dict[str, Any]] = []
        """What runs say of their artifacts; the files are not kept."""
        self.changed = threading.Condition()
        self._http = _QuietServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    @contextmanager
    def serving(self) -> Iterator["WandbServer"]:
        thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()

    def wait_for_lines(self, count: int, seconds: float) -> bool:
        """Whether a run reaches `count` rows within `seconds`."""
        with self.changed:
            return self.changed.wait_for(
                lambda: any(len(run.history) >= count for run in self.runs.values()), timeout=seconds
            )

    def answer(self, operation: str, values: dict[str, Any]) -> dict[str, Any]:
        """The response data of a GraphQL request."""
        project = {"id": "p", "name": "organs", "entity": {"id": "e", "name": "team"}}
        if operation == "RunResumeStatus":
            run = self.runs.get(values["name"])
            return {"model": {**project, "bucket": None if run is None else _bucket(values["name"], run)}}
        if operation == "UpsertBucket":
            inserted = values["name"] not in self.runs
            run = self.runs.setdefault(values["name"], ServedRun())
            bucket = {**_bucket(values["name"], run), "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in values["files"]]
            return {"createRunFiles": {"runID": values["run"], "uploadHeaders": [], "files": files}}
        if operation == "CreateArtifact":
            self.artifacts.append(values["input"])
            sequence = {"id": "s", "latestArtifact": None}
            return {"createArtifact": {"artifact": {"id": "a", "state": "PENDING", "artifactSequence": sequence}}}
        if operation == "CreateArtifactManifest":
            file = {"id": "f", "name": "m", "displayName": "m", "uploadUrl": f"{self.url}/upload", "uploadHeaders": []}
            return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}
        return {}

    def receive(self, run_id: str, message: dict[str, Any]) -> None:
        """Store what a run streams."""
        with self.changed:
            run = self.runs[run_id]
            sent = message.get("files", {}).get(_HISTORY)
            if sent:
                rows = enumerate(sent["content"], start=sent["offset"])
                run.history |= {number: json.loads(line) for number, line in rows}
            if message.get("complete"):
                run.exit_codes.append(message["exitcode"])
            self.changed.notify_all()


def _bucket(run_id: str, run: ServedRun) -> dict[str, Any]:
    tail = [json.dumps(run.history[max(run.history)])] if run.history else []
    return {
        "id": run_id, "name": run_id, "displayName": run_id, "summaryMetrics": "{}", "config": "{}", "tags": [],
        "notes": "", "logLineCount": 0, "historyLineCount": len(run.history), "historyTail": json.dumps(tail),
        "eventsLineCount": 0, "eventsTail": "[]",
        "wandbConfig": json.dumps({"t": {}}),  # without it wandb considers the run not started
    }  # fmt: skip


def _operation(request: dict[str, Any]) -> str:
    """The name of a request's operation, which only its text has for some."""
    named = re.search(r"\b(?:query|mutation)\s+(\w+)", request["query"])
    return request.get("operationName") or (named[1] if named else "")


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                content = gzip.decompress(content)
            answer: dict[str, Any] = {}
            if self.path == "/graphql":
                request = json.loads(content)
                answer = {"data": server.answer(_operation(request), request.get("variables") or {})}
            elif self.path.endswith("/file_stream"):
                server.receive(self.path.split("/")[-2], json.loads(content))
            self._send(json.dumps(answer).encode())

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._send(b"{}")

        def do_GET(self) -> None:
            self._send(b"{}")

        def log_message(self, *_: object) -> None:
            pass  # keep requests off the terminal

        def _send(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler
