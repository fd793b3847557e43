"""A report as a test reads it."""

import re
from html.parser import HTMLParser

from plotly.offline import get_plotlyjs


class Page(HTMLParser):
    """A page's tags with attributes, its visible text, and its scripts; plotly's is shortened, since it is long."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts, self._inside = "", [], ""
        self.feed(text.replace(get_plotlyjs(), "plotly"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " "
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""
        self.text += " "

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.text += data

    @property
    def words(self) -> str:
        """The visible text with single spaces."""
        return re.sub(r"\s+", " ", self.text)
