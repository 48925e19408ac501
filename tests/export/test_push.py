"""Upload to a hub: a real client against a small hub on this machine, and what it says when it cannot."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from repae.config import UserError
from repae.export.push import push


class Hub(ThreadingHTTPServer):
    """Takes one commit into memory, as the hub's interface has it for files that are small."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.refuse = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer({} if not self.server.refuse else {"error": "no"}, 403 if self.server.refuse else 200)

    def do_POST(self) -> None:
        hub = self.server
        hub.tokens.add(self.headers.get("Authorization"))
        body = self._body()
        if hub.refuse:
            return self._answer({"error": "not yours"}, 403)
        if self.path == "/api/repos/create":
            hub.created.append(json.loads(body))
            return self._answer({"url": f"{hub.address}/me/digits"})
        if self.path == "/api/validate-yaml":  # the header of the model card
            assert json.loads(body)["content"].startswith("---")
            return self._answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        assert "/commit/" in self.path, self.path
        for line in map(json.loads, body.decode().splitlines()):
            if line["key"] == "file":
                hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self._answer({"commitUrl": f"{hub.address}/me/digits/commit/abc", "commitOid": "abc", "success": True})

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _answer(self, body: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    folder = tmp_path / "digits"
    (folder / "vae").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: other\n---\n# digits\n")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights" * 9)
    (folder / "samples").mkdir()
    (folder / "samples" / "grid.png").write_bytes(b"picture")
    return folder


def test_every_file_arrives_once_and_pictures_stay(hub: Hub, exported: Path) -> None:
    """One repository, one commit, the token in every request, the bytes as they were."""
    assert push(exported, "me/digits", endpoint=hub.address, private=True) == f"{hub.address}/me/digits/commit/abc"
    wanted = ("README.md", "vae/diffusion_pytorch_model.safetensors")
    assert hub.files == {name: (exported / name).read_bytes() for name in wanted}
    (created,) = hub.created
    assert created["name"] == "digits" and created["organization"] == "me" and hub.tokens == {"Bearer hf_test"}
    assert created.get("private") is True or created.get("visibility") == "private"


def test_what_prevents_it_is_said(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Refused, unreachable, without a token, no exported folder, no name: one line each, nothing uploaded."""
    import huggingface_hub

    hub.refuse = True
    with pytest.raises(UserError, match=r"refused me/digits with status 403.*the token may not write there"):
        push(exported, "me/digits", endpoint=hub.address)
    with pytest.raises(UserError, match=r"cannot be reached: .*push it when there is a connection"):
        push(exported, "me/digits", endpoint="http://127.0.0.1:9")
    with pytest.raises(UserError, match="allowed: ORGANISATION/NAME"):
        push(exported, "digits", endpoint=hub.address)
    with pytest.raises(UserError, match="is no exported folder"):
        push(tmp_path, "me/digits", endpoint=hub.address)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="there is no token for the hub: set HF_TOKEN"):
        push(exported, "me/digits", endpoint=hub.address)
    assert not hub.files
