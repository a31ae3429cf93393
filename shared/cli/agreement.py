"""`baton agreement`: check a file offline; sign and publish it through the running server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from shared.agreement import Agreement, AgreementInvalid, parse
from shared.agreement.examples import Tried
from shared.agreement.flaws import Flaw
from shared.agreement.source import locate, read
from shared.cli.client import Client
from shared.cli.options import Output, show_json

EXAMPLES = "baton.examples"
YAML = "application/yaml"

RunExamples = Callable[[Agreement], Sequence[Tried]]  # every example of the agreement, in its order


def check_file(file: Path, output: Output) -> int:
    """Print every flaw with its place, and what came of each example; 1 with flaws, or an example that fails."""
    content = file.read_bytes()
    examples: list[dict[str, Any]] = []
    try:
        agreement = _parsed(content)
    except AgreementInvalid as error:
        flaws = [flaw._asdict() for flaw in error.problems]
    else:
        examples = _examples(agreement, content.decode())
        flaws = [_said(example) for example in examples if not example["holds"]]
    sha256 = hashlib.sha256(content).hexdigest()
    if output is Output.JSON:
        show_json({"file": str(file), "sha256": sha256, "flaws": flaws, "examples": examples})
    else:
        for flaw in (*(_said(example) for example in examples if example["holds"]), *flaws):
            path = f"{flaw['path']}: " if flaw["path"] else ""
            print(f"{file}:{flaw['line']}:{flaw['column']}: {path}{flaw['message']}")
        count = f"{len(flaws)} flaw{'s' if len(flaws) > 1 else ''}"
        print(count if flaws else f"{file}: an agreement, sha256 {sha256}")
    return 1 if flaws else 0


def sign_file(client: Client, file: Path, signer: tuple[str, str], output: Output) -> None:
    """Keep the content as a draft, if it is not, and sign exactly it. `signer`: party, e-mail.

    Raises `AgreementInvalid`: nobody is asked about what is no agreement.
    """
    content = file.read_bytes()
    _parsed(content)
    draft = client.post("/v1/agreements", content, YAML)
    signature = {"party": signer[0], "signed_by": signer[1], "sha256": hashlib.sha256(content).hexdigest()}
    _show(client.post(f"/v1/agreements/{draft['id']}/signatures", signature), output)


def publish_file(client: Client, file: Path, output: Output) -> None:
    """Publish the draft of exactly this content. Raises `AgreementInvalid`."""
    content = file.read_bytes()
    _parsed(content)
    _show(client.post(f"/v1/agreements/{hashlib.sha256(content).hexdigest()}/publication", {}), output)


def _parsed(content: bytes) -> Agreement:
    """Raises `AgreementInvalid`."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise AgreementInvalid([Flaw(1, 1, "", f"not UTF-8 at byte {error.start}")]) from None
    return parse(text)


def _examples(agreement: Agreement, content: str) -> list[dict[str, Any]]:
    """What came of each example inside the agreement, if an engine that runs them is installed."""
    engines: list[RunExamples] = [point.load() for point in entry_points(group=EXAMPLES)]
    return [_placed(tried, content) for engine in engines for tried in engine(agreement)]


def _placed(tried: Tried, content: str) -> dict[str, Any]:
    """An example, and where it stands."""
    root, _ = read(content)
    assert root is not None, "an agreement was read from it"
    line, column, path = locate(root, tried.steps)
    said = {"expected": tried.expected, "came_out": tried.came_out, "holds": tried.holds}
    return {"line": line, "column": column, "path": path, **said}


def _said(example: dict[str, Any]) -> dict[str, Any]:
    """An example as a line of the answer; a flaw, if it does not hold."""
    verdict = "holds" if example["holds"] else "fails"
    message = f"{verdict}: expected {example['expected']}; came out {example['came_out']}"
    return {name: example[name] for name in ("line", "column", "path")} | {"message": message}


def _show(draft: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        show_json(draft)
        return
    parties = [signature["party"] for signature in draft.get("signatures", [])]
    print(f"{draft.get('agreement', '')} {draft['sha256'][:12]}: {draft.get('state', 'published')}")
    print(f"  signed by {', '.join(parties) or 'nobody'}; version {draft.get('version')}")
