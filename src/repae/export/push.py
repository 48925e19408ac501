"""An exported folder to a hub."""

from __future__ import annotations

import re
from pathlib import Path

from repae.config import UserError, one_line

LEFT_OUT = ["samples/*", ".*", "**/.*"]
"""What a folder may hold beside the model: images drawn from it, hidden files."""


def push(folder: Path, repository: str, *, endpoint: str | None = None, private: bool = False) -> str:
    """Uploads an exported folder, in one commit, to a repository that is made where it is missing.

    Args:
        folder: what `repae export` wrote, with its model card.
        repository: ``ORGANISATION/NAME``.
        endpoint: address of the hub; that of the environment's ``HF_ENDPOINT``, else the public one.

    Returns:
        The address of the commit.

    Raises:
        UserError: no exported folder, no token, no connection, or refused by the hub.
    """
    if not (folder / "README.md").is_file() or not any(folder.rglob("*.safetensors")):
        raise UserError(
            f"{folder} is no exported folder: it has no model card or no weights; `repae export` writes both"
        )
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError(f"--to is {repository!r}; allowed: ORGANISATION/NAME")
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # What all errors of the hub's own HTTP library descend from, whichever library that is: requests, httpx, httpx2.
    transport: type[Exception] = HfHubHTTPError.__bases__[0]
    if not get_token():
        raise UserError("there is no token for the hub: set HF_TOKEN, or run `hf auth login` once")
    api = HfApi(endpoint=endpoint)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Exported by repae", ignore_patterns=LEFT_OUT
        )
    except OfflineModeIsEnabled:
        raise UserError("the hub is switched off by HF_HUB_OFFLINE; unset it to push") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        remedy = "the token may not write there" if status in (401, 403) else "try again later"
        raise UserError(f"the hub refused {repository} with status {status}: {one_line(error)}; {remedy}") from None
    except (OSError, transport) as error:
        raise UserError(
            f"the hub at {api.endpoint} cannot be reached: {one_line(error)}; the folder is complete, push it when "
            "there is a connection"
        ) from None
    return str(done.commit_url)
