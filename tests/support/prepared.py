"""Studies that are prepared and not run."""

from pathlib import Path

from unfreeze.config.schema import StudyConfig
from unfreeze.data.catalog import build_catalog
from unfreeze.data.sources import source_of
from unfreeze.study.prepare import PreparedStudy, open_study, prepare


def prepared_study(study: StudyConfig, out: Path) -> PreparedStudy:
    """Return a study as a run in ``out`` would prepare it."""
    source = source_of(study, Path.cwd())
    opened = open_study(study, source, out, lambda event: None)
    catalog = build_catalog(source, study.split.group, None, study.check)
    return prepare(opened, catalog, lambda event: None)
