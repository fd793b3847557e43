"""Several studies on one page: their answers next to each other, and a table of the recipes they recommend."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from unfreeze.durable import write_text
from unfreeze.results.answer import Answer, answer
from unfreeze.results.answer_text import NOTHING_YET, ON_TEST, Fact, facts
from unfreeze.results.evidence import Evidence, read_evidence
from unfreeze.results.templating import asset, environment
from unfreeze.results.words import METRIC_NAMES, MISSING, estimate_text, metric_text
from unfreeze.store import StudyDir


@dataclass(frozen=True)
class Column:
    """One study of the page: its answer, the same in words, and the row of the table."""

    path: str
    data: str
    answer: Answer
    facts: tuple[Fact, ...]
    metric_name: str
    validation: str
    score: str


def write_side_by_side(studies: Sequence[StudyDir], path: Path) -> Path:
    """Write the page of several studies and return its path; nothing is written into their directories.

    Their numbers stand beside each other without a verdict: studies that share no seed and image cannot be paired.

    Raises:
        UserError: a directory holds no study, a record cannot be read, or the path cannot be written.
    """
    columns = [_column(read_evidence(study)) for study in studies]
    page = environment().get_template("side_by_side.html.j2").render(
        columns=columns,
        metrics=len({column.metric_name for column in columns}),
        data=len({column.data for column in columns}),
        nothing_yet=NOTHING_YET,
        on_test=ON_TEST,
        css=Markup(asset("report.css") + asset("answer.css")),  # noqa: S704 - our own files
    )  # fmt: skip
    write_text(path, page)
    return path


def _column(evidence: Evidence) -> Column:
    made = answer(evidence)
    score = made.score
    return Column(
        path=str(evidence.study.path),
        data=str(evidence.record.get("data", "")),
        answer=made,
        facts=facts(made),
        metric_name=METRIC_NAMES[made.metric],
        validation=metric_text(made.metric, made.standing.value) if made.standing else MISSING,
        score=estimate_text(made.metric, score.value, score.low, score.high) if score else "no test images",
    )
