#!/usr/bin/env bash
# Question: a program logs the name of a file that is not UTF-8, with Python's logging and OpenTelemetry's SDK, which
#   sends logs by OTLP. What does the collector get?
# Wrong belief: that line with a replacement or an escape in it, as in text logs, or at worst without that line.
# Seen: nothing, of that line and of every other line in its batch, up to 512 by default. Python has such a name
#   as a text with lone surrogates (`os.fsdecode`, PEP 383), which protobuf refuses to encode. The exporter
#   then drops the whole batch, with one line on the program's own logger. A program has to escape its texts itself
#   (`text.encode("utf-8", "backslashreplace").decode()`).
# Versions: opentelemetry-sdk, opentelemetry-exporter-otlp-proto-http 1.45.2; protobuf 7.36.2; CPython 3.11.
# Source: observed; opentelemetry/exporter/otlp/proto/http/_log_exporter/__init__.py, `export`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check opentelemetry-sdk==1.45.2 \
    opentelemetry-exporter-otlp-proto-http==1.45.2
cat >run.py <<'PYTHON'
"""Three records in one batch, twice: with a plain name of a file, and with one that is not UTF-8."""

import logging
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

os.environ["NO_PROXY"] = "127.0.0.1"

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

logging.basicConfig(stream=sys.stdout, format="the program's log: %(message)s")


class Collector(BaseHTTPRequestHandler):
    got = []

    def do_POST(self):
        content = self.rfile.read(int(self.headers["content-length"]))
        for resource in ExportLogsServiceRequest.FromString(content).resource_logs:
            for scope in resource.scope_logs:
                self.got += [record.body.string_value for record in scope.log_records]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def send(name):
    """Logs three lines; gives those that the collector got."""
    Collector.got = []
    provider = LoggerProvider(shutdown_on_exit=False)
    exporter = OTLPLogExporter(f"http://127.0.0.1:{server.server_address[1]}/v1/logs")
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logger = provider.get_logger("program")
    for body in ("started", f"cannot read {name}", "stopped"):
        logger.emit(LogRecord(body=body, severity_number=SeverityNumber.INFO))
    provider.shutdown()
    return Collector.got


server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
threading.Thread(target=server.serve_forever, daemon=True).start()
plain, odd = send(os.fsdecode(b"caf\xc3\xa9.txt")), send(os.fsdecode(b"caf\xe9.txt"))
print("with a name in UTF-8:  ", plain)
print("with one in Latin-1:   ", odd)
sys.exit(0 if len(plain) == 3 and odd == [] else "this has changed")
PYTHON
venv/bin/python run.py
