"""`baton check`: reads what is stored and says what is not as it must be."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import timedelta
from functools import partial

from shared.checks import Finding, handoff_checks, sales_checks, service_checks
from shared.cli.options import Output, show_json, show_table
from shared.cli.stored import stored
from shared.service import checks_of, service_names
from shared.settings import Settings


def run_check(settings: Settings, *, grace_seconds: float, output: Output) -> int:
    """Print the findings; 1 if there are any."""
    findings = asyncio.run(_findings(settings, timedelta(seconds=grace_seconds)))
    if output is Output.JSON:
        show_json({"findings": [asdict(finding) for finding in findings]})
    elif findings:
        show_table(["invariant", "subject", "finding"], [(one.invariant, one.subject, one.detail) for one in findings])
    else:
        print("nothing found")
    return 1 if findings else 0


async def _findings(settings: Settings, grace: timedelta) -> list[Finding]:
    findings: list[Finding] = []
    async with stored(settings, service_names()) as databases:
        for name, database in databases.items():
            findings += await database.read(partial(service_checks, check=checks_of(name), grace=grace))
        findings += await handoff_checks(databases["scoring"], databases["handoff"], grace=grace)
        findings += await sales_checks(databases["scoring"], databases["handoff"], grace=grace)
    return findings
