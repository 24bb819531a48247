"""What became of a job: for people, for programs, and every file that failed, one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bindery.jobs.ledger import Job, Ledger

_EXAMPLES = 5


@dataclass
class ErrorClass:
    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    job: str
    source: str
    collection: str
    state: str
    detail: str | None
    listed: int
    done: int
    skipped: int
    failed: int
    encoded: int  # of the done: those that went through a model; the others are copies of files with the same bytes
    copied: int
    pruned: int
    left_out: int
    pending: int
    errors: dict[str, ErrorClass]

    def __str__(self) -> str:
        return f"{self.listed} listed = {self.done} done + {self.skipped} skipped + {self.failed} failed"

    def text(self) -> str:
        lines = [f"job {self.job}: {self.source} into {self.collection}: {self.state}", str(self)]
        lines.append(
            f"of the done {self.encoded} were encoded and {self.copied} are copies; {self.pruned} removed, {self.left_out} left out"
        )
        for code, found in self.errors.items():
            lines.append(f"{code}: {found.count}, such as {', '.join(found.examples)}")
        return "\n".join(lines) + "\n"


def report_of(ledger: Ledger, job: Job) -> Report:
    counts = ledger.counts(job.id)
    errors: dict[str, ErrorClass] = {}
    for name, _, code, _ in ledger.failures(job.id):
        found = errors.setdefault(code, ErrorClass())
        found.count += 1
        if len(found.examples) < _EXAMPLES:
            found.examples.append(name)
    pending = counts["queued"] + counts["leased"]
    listed = sum(counts.values())
    assert job.state != "done" or listed == counts["done"] + counts["skipped"] + counts["failed"], "units were lost. This is a bug."
    return Report(
        job.id, job.spec.source, job.spec.collection, job.state, job.detail, listed, counts["done"], counts["skipped"],
        counts["failed"], job.encoded, job.copied, job.pruned, job.left_out, pending, errors,
    )  # fmt: skip


def write_report(ledger: Ledger, report: Report) -> Path:
    """Write `report.json`, `report.txt` and `errors.jsonl` into the job's folder, and give that."""
    folder = ledger.folder / report.job
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(json.dumps(asdict(report), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / "report.txt").write_text(report.text(), encoding="utf-8")
    with (folder / "errors.jsonl").open("w", encoding="utf-8") as stream:
        for name, uri, code, detail in ledger.failures(report.job):
            stream.write(json.dumps({"name": name, "uri": uri, "code": code, "detail": detail}, ensure_ascii=False) + "\n")
    return folder
