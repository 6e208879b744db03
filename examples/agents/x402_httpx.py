"""`x402` for httpx without a key: each call that is answered 402 is paid with what Countersign signs for that call."""
import contextvars, hashlib, os
from types import SimpleNamespace
import httpx
from x402.http.clients.httpx import PaymentError, x402AsyncTransport
from x402.http.x402_http_client import x402HTTPClient

class Countersign(x402HTTPClient):
    call = contextvars.ContextVar("call")
    __init__ = lambda self: None
    async def handle_payment_required(self, *_): return None
    async def process_payment_result(self, *_): return SimpleNamespace(recovered=False)
    encode_payment_signature_header = lambda self, signed: {signed["header_name"]: signed["header_value"]}
    def get_payment_required_response(self, get_header, body=None):
        required = get_header("PAYMENT-REQUIRED")
        return {"header": required} if required else {"payment_required": body}
    async def create_payment_payload(self, copy):
        headers = {"Authorization": f"Bearer {os.environ['COUNTERSIGN_TOKEN']}"}
        order, url = {**copy, "resource": self.call.get()}, f"{os.environ['COUNTERSIGN_URL']}/v1/sign"
        async with httpx.AsyncClient(timeout=120) as gateway:
            signed = (await gateway.post(url, json=order, headers=headers)).json()
        if "header_name" not in signed:
            raise PaymentError(f"{signed['code']}: {signed['detail']} (purchase {signed.get('purchase')})")
        return signed

class CountersignTransport(x402AsyncTransport):  # httpx.AsyncClient(transport=CountersignTransport(Countersign()))
    async def handle_async_request(self, request):
        digest = hashlib.sha256(await request.aread()).hexdigest()
        Countersign.call.set({"url": str(request.url), "method": request.method, "body_sha256": digest})
        return await super().handle_async_request(request)
