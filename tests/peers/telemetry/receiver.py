"""What an operator would have listening: an OTLP receiver and a webhook, strict about what they take.

POST /v1/traces, /v1/metrics  OTLP over HTTP in JSON; a field or kind that OpenTelemetry's messages do not have is a 400
POST /hook                    a Standard Webhook, checked with the reference library and the secret in $SECRET
POST /parse                   the text of a /metrics page, read by Prometheus's own parser; answers what it says
POST /sign                    {"secret", "id", "timestamp", "body"}: the signature that the reference library makes
GET  /seen                    everything taken so far, and what was refused and why
POST /fault                   {"otlp": "503"|"hang"|null, "hook": [statuses for the next messages]}
"""

import base64
import json
import os
import sys
import threading
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from standardwebhooks import Webhook

IDS = {"traceId": 16, "spanId": 8, "parentSpanId": 8}
lock = threading.Lock()
released = threading.Event()
seen = {"spans": [], "metrics": [], "hooks": [], "refused": [], "headers": [], "raw": []}
fault = {"otlp": None, "hook": []}


def in_base64(value):
    """OTLP's JSON has identifiers in hex where protobuf's has base64."""
    if isinstance(value, list):
        return [in_base64(item) for item in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for key, item in value.items():
        if key in IDS:
            raw = bytes.fromhex(item)
            if len(raw) != IDS[key] or not any(raw) or item != item.lower():
                raise ValueError(f"{key}: {item!r}")
            out[key] = base64.b64encode(raw).decode()
        else:
            if isinstance(item, int) and not isinstance(item, bool) and key.endswith("UnixNano"):
                raise ValueError(f"{key}: a 64-bit integer is text in OTLP's JSON")
            out[key] = in_base64(item)
    return out


def plain(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in any_value.array_value.values]
    return getattr(any_value, kind)


def attributes(of):
    named = {attribute.key: plain(attribute.value) for attribute in of}
    if len(named) != len(of):
        raise ValueError("an attribute is told twice")
    return named


def traces(body):
    message = json_format.ParseDict(in_base64(json.loads(body)), ExportTraceServiceRequest())
    for resource in message.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield {
                    "resource": attributes(resource.resource.attributes),
                    "trace": span.trace_id.hex(),
                    "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "name": span.name,
                    "kind": span.kind,
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "attributes": attributes(span.attributes),
                    "error": span.status.message if span.status.code == 2 else None,
                }


def metrics(body):
    message = json_format.ParseDict(in_base64(json.loads(body)), ExportMetricsServiceRequest())
    for resource in message.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points:
                    value = point.count if kind == "histogram" else point.as_double
                    if kind == "histogram" and (
                        sum(point.bucket_counts) != point.count
                        or len(point.bucket_counts) != len(point.explicit_bounds) + 1
                        or list(point.explicit_bounds) != sorted(set(point.explicit_bounds))
                    ):
                        raise ValueError(f"{metric.name}: the buckets do not add up")
                    yield {"name": metric.name, "kind": kind, "unit": metric.unit,
                           "attributes": attributes(point.attributes), "value": value}


def parse(text):
    return [
        {"name": family.name, "kind": family.type, "help": family.documentation,
         "samples": [{"name": s.name, "labels": s.labels, "value": s.value} for s in family.samples]}
        for family in text_string_to_metric_families(text)
    ]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        data = json.dumps(body, default=str).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        with lock:
            self.answer(200, seen)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            if self.path in ("/v1/traces", "/v1/metrics"):
                self.otlp(body)
            elif self.path == "/hook":
                self.hook(body)
            elif self.path == "/parse":
                self.answer(200, parse(body))
            elif self.path == "/sign":
                ask = json.loads(body)
                when = datetime.fromtimestamp(ask["timestamp"], tz=timezone.utc)
                self.answer(200, Webhook(ask["secret"]).sign(ask["id"], when, ask["body"]))
            elif self.path == "/fault":
                with lock:
                    fault.update(json.loads(body))
                self.answer(200, {})
            else:
                self.answer(404, {})
        except Exception as error:  # whatever it is, the test is to see it
            with lock:
                seen["refused"].append(f"{self.path}: {type(error).__name__}: {error}")
            self.answer(400, {"error": str(error)})

    def otlp(self, body):
        with lock:
            mode = fault["otlp"]
        if mode == "hang":
            released.wait()
            return
        if mode is not None:
            self.answer(int(mode), {})
            return
        if self.headers["Content-Type"] != "application/json":
            raise ValueError("not JSON")
        found = list((traces if self.path == "/v1/traces" else metrics)(body))
        with lock:
            seen["spans" if self.path == "/v1/traces" else "metrics"].extend(found)
            seen["headers"].append(dict(self.headers.items()))
            seen["raw"].append(body)
        self.answer(200, {})

    def hook(self, body):
        verified = Webhook(os.environ["SECRET"]).verify(body, dict(self.headers.items()))
        with lock:
            status = fault["hook"].pop(0) if fault["hook"] else 204
            seen["hooks"].append({"id": self.headers["webhook-id"], "status": status, "body": verified})
            seen["raw"].append(body)
        if status == 204:
            self.send_response(204)
            self.end_headers()
        else:
            self.answer(status, {})


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({"ready": "receiver", "url": f"http://127.0.0.1:{server.server_address[1]}"}), flush=True)
sys.stdin.read()
