"""Template environment of all pages, which escapes every value, and the text of scripts and styles."""

import functools
import math
from importlib import resources

import jinja2

from unfreeze import text as words
from unfreeze.metrics import metric_text


@functools.cache
def environment() -> jinja2.Environment:
    """Return the template environment."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("unfreeze.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_readable,
    )
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    made.filters.update(
        percent=functools.partial(metric_text, "accuracy"),
        number=functools.partial(metric_text, "log_loss"),
        duration=words.seconds_text,
        count=words.count_text,
        whole=lambda value: f"{int(value):,}" if math.isfinite(value) else words.MISSING,
        plural=words.plural,
        size=words.bytes_text,
    )
    return made


def _readable(value: object) -> object:
    """Return text with bytes of file names that are not UTF-8 as \\xNN: pages are valid UTF-8."""
    if not isinstance(value, str) or value.isascii():  # as most values are, such as the 4 MB of plotly
        return value
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return value


def asset(name: str) -> str:
    """Return the text of a file in the folder of the templates."""
    return resources.files("unfreeze.report").joinpath("templates", name).read_text(encoding="utf-8")
