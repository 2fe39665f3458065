"""Fill a page's template: one HTML file that makes no request, whatever file names and prompts hold."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import leafiqa
from leafiqa.files import relative_name

_TEMPLATES = Path(__file__).parent / "templates"
# Failed files that a page names.
_FAILED = 200
_MARK = b"<!doctype html>\n<!-- made by leafiqa"
# What a reader must not be steered by: control characters, and those that turn the direction of text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def is_page(head: bytes) -> bool:
    """Tell whether a file begins as a page of ours does, so that it may be replaced."""
    return head.startswith(_MARK)


def shown(text: object) -> str:
    """Return text as a page shows it: bytes that are no UTF-8 and control characters are made visible."""
    clean = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _CONTROL.sub(lambda match: repr(match.group())[1:-1], clean)


def link(path: str, page: str | os.PathLike[str]) -> str:
    """Return the address of a file as seen from a page, relative, so that both may be moved together."""
    name = relative_name(path, os.path.dirname(os.path.abspath(page)))
    address = quote(os.fsencode(name.replace(os.sep, "/")))
    # `a:b.png` would be taken for a scheme; quote() leaves no colon, but a name may begin with two slashes.
    return f"./{address}" if not address.startswith(("/", ".")) else address


def relative(text: str, page: str | os.PathLike[str]) -> str:
    """Return text in which the page's own folder, and the user's home, are not spelled out."""
    folder = os.path.dirname(os.path.abspath(page)) + os.sep
    home = os.path.expanduser("~") + os.sep
    found = text.replace(folder, "")
    return found.replace(home, "~/") if home not in ("/", "//") else found


def failures(failed: Mapping[str, str], page: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a page shows of failed files: how many there are, and the first ones with their reasons."""
    first = list(failed.items())[:_FAILED]
    return {"total": len(failed), "rows": [(relative(path, page), relative(why, page)) for path, why in first]}


def island(value: Any) -> Markup:
    """Return a value as JSON for a script element: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["shown"] = shown
    return made


def render(template: str, *, beside: bool, **content: Any) -> str:
    """Return a page.

    Args:
        template: a file in `templates/`.
        beside: whether pictures lie beside the page; otherwise they may come from the page itself only.
        content: what the template needs; all of it is escaped, JSON islands apart.
    """
    style = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    pictures = "'self'" if beside else "data:"
    # Styles and scripts only as they are here.
    policy = (
        f"default-src 'none'; img-src {pictures}; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template(template)
        .render(
            **content,
            # From files of this package, which the policy's hashes are of.
            style=Markup(style),
            script=Markup(script),
            policy=policy,
            version=leafiqa.__version__,
        )
    )
