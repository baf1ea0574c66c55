"""What MkDocs cannot do by itself: show the pages that live outside of docs/, and keep their links.

On GitHub every link of every page leads to a file of the repository. In the manual, a link to a file that is a page
leads to the page, and any other, the programs of docs/ among them, to the file on GitHub.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = [*sorted(ROOT.glob("datasets/*.md")), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    for path in OUTSIDE:
        uri = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    home = posixpath.dirname(repository_path(page.file.src_uri))

    def lead(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(home, link[1]))
        uri = target.removeprefix("docs/")
        shown = files.get_file_from_path(uri)
        if shown and shown.inclusion.is_included():
            return posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
        return f"{config['extra']['repository']}/blob/main/{target}"

    return LINK.sub(lead, markdown)


def repository_path(uri: str) -> str:
    """Where a page's source lies in the repository."""
    return uri if (ROOT / uri) in OUTSIDE else f"docs/{uri}"
