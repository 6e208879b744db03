"""`x402` for requests without a key: each call that is answered 402 is paid with what Countersign signs for that call."""
import hashlib, os, threading
from types import SimpleNamespace
import requests
from x402.http.clients.requests import PaymentError, x402HTTPAdapter
from x402.http.x402_http_client import x402HTTPClientSync

class Countersign(x402HTTPClientSync):
    call = threading.local()
    __init__ = handle_payment_required = lambda self, *_: None
    process_payment_result = lambda self, *_: SimpleNamespace(recovered=False)
    encode_payment_signature_header = lambda self, signed: {signed["header_name"]: signed["header_value"]}
    def get_payment_required_response(self, get_header, body=None):
        required = get_header("PAYMENT-REQUIRED")
        return {"header": required} if required else {"payment_required": body}
    def create_payment_payload(self, copy):
        headers = {"Authorization": f"Bearer {os.environ['COUNTERSIGN_TOKEN']}"}
        order = {**copy, "resource": self.call.resource}
        url = f"{os.environ['COUNTERSIGN_URL']}/v1/sign"
        signed = requests.post(url, json=order, headers=headers, timeout=120).json()
        if "header_name" not in signed:
            raise PaymentError(f"{signed['code']}: {signed['detail']} (purchase {signed.get('purchase')})")
        return signed

class CountersignAdapter(x402HTTPAdapter):  # session.mount("https://", CountersignAdapter(Countersign()))
    def send(self, request, **kwargs):
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        call = {"url": request.url, "method": request.method, "body_sha256": hashlib.sha256(body).hexdigest()}
        Countersign.call.resource = call
        return super().send(request, **kwargs)
