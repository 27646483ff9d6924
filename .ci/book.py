#!/usr/bin/env python3
"""Builds the book, and fails for a link in it, or in rustdoc, that leads nowhere.

    .ci/book.py [MDBOOK]     builds target/book, and checks it and target/doc
    .ci/book.py links        checks them as they are

It is also the book's preprocessor, which mdBook calls with `preprocess`: it has links
to files that aren't below docs/ lead to the repository that Cargo.toml names. No link is
asked for on the internet.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "target/book"
RUSTDOC = [ROOT / "target/doc" / crate for crate in ("heartbeat_core", "heartbeat_tokio")]
MANIFEST = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
# Forges lead from there to a folder too.
FILES = MANIFEST["workspace"]["package"]["repository"] + "/blob/main/"
# In its place, or at the end of the page.
LINK = re.compile(r"(?m)(\]\(|^\[[^\]\n]+\]: )(?![a-z]+:|#)([^)\s#]+)")
PAGE = re.compile(r"\bdocs/[a-z/-]+\.md\b")


# ---- the preprocessor -------------------------------------------------------


def preprocess():
    _, book = json.load(sys.stdin)
    for chapter in chapters(book["items"]):
        folder = os.path.dirname(chapter["source_path"])

        def rewrite(link):
            before, target = link.groups()
            path = os.path.normpath(os.path.join("docs", folder, target))
            if not path.startswith("docs/"):
                return before + FILES + path
            # mdBook renames the page, and not the links to it.
            return before + re.sub(r"(^|/)README\.md$", r"\1index.md", target)

        chapter["content"] = LINK.sub(rewrite, chapter["content"])
    json.dump(book, sys.stdout)


def chapters(items):
    for item in items:
        if chapter := isinstance(item, dict) and item.get("Chapter"):
            yield chapter
            yield from chapters(chapter["sub_items"])


# ---- the check --------------------------------------------------------------


class Page(HTMLParser):
    """The links of a page, what can be linked to, and text that is in no link."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.plain = set(), set(), []
        self.within = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.within += tag == "a"
        self.anchors |= {attributes.get("id"), attributes.get("name")}
        self.links |= {attributes.get("href"), attributes.get("src")}

    def handle_endtag(self, tag):
        self.within -= tag == "a"

    def handle_data(self, text):
        if self.within == 0:
            self.plain.append(text)


def check():
    # The page for a server that has no other is read from any folder.
    pages = {path: Page(path) for path in BOOK.rglob("*.html") if path.name != "404.html"}
    chapters = (ROOT / "docs/SUMMARY.md").read_text(encoding="utf-8").count("](")
    if len(pages) < chapters:
        sys.exit(f"{chapters} chapters, and only {len(pages)} pages")
    dead = [
        f"{path.relative_to(ROOT)}: {link}"
        for path, page in pages.items()
        for link in sorted(page.links - {None})
        if not leads_somewhere(pages, path, link)
    ]
    rustdoc = {path: Page(path) for folder in RUSTDOC for path in folder.rglob("*.html")}
    for path, page in rustdoc.items():
        ours = {link for link in page.links - {None} if link.startswith(FILES)}
        unlinked = PAGE.findall(" ".join(page.plain))
        dead += [f"{path.relative_to(ROOT)}: {link}" for link in ours if not in_repository(link)]
        dead += [f"{path.relative_to(ROOT)}: {name} without a link" for name in unlinked]
    links = sum(len(page.links) for page in pages.values())
    print(f"{len(pages)} pages of the book, {links} links; {len(rustdoc)} pages of rustdoc")
    if dead:
        sys.exit("Dead links:\n" + "\n".join(dead))


def leads_somewhere(pages, page, link):
    if link.startswith(FILES):
        return in_repository(link)
    if re.match(r"[a-z]+:|//", link):
        return True
    path, _, anchor = unquote(link).partition("#")
    target = (page.parent / path).resolve() if path else page
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        return False
    return not anchor or target not in pages or anchor in pages[target].anchors


def in_repository(link):
    return (ROOT / link.removeprefix(FILES).partition("#")[0]).exists()


def main():
    match sys.argv[1:]:
        case ["preprocess", "supports", _]:
            pass
        case ["preprocess"]:
            preprocess()
        case ["links"]:
            check()
        case mdbook:
            program = mdbook[0] if mdbook else "mdbook"
            subprocess.run([program, "build", ROOT / "docs"], check=True)
            check()


main()
