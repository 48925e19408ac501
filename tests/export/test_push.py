"""Upload to a hub: a real client against a small hub on this machine, and what it says when it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from errors import refused
from fake_hub import Hub, running_hub

from repae.config import UserError
from repae.export.push import push


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with running_hub() as server:
        yield server


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
    with refused(UserError, "me/digits", 403, "token may not write"):
        push(exported, "me/digits", endpoint=hub.address)
    with refused(UserError, "http://127.0.0.1:9", "Connection refused", "push it", "connection"):
        push(exported, "me/digits", endpoint="http://127.0.0.1:9")
    with refused(UserError, "--to is 'digits'", "ORGANISATION/NAME"):
        push(exported, "digits", endpoint=hub.address)
    with refused(UserError, tmp_path, "model card", "weights", "`repae export`"):
        push(tmp_path, "me/digits", endpoint=hub.address)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with refused(UserError, "no token", "HF_TOKEN", "`hf auth login`"):
        push(exported, "me/digits", endpoint=hub.address)
    assert not hub.files
